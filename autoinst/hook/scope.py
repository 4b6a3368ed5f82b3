"""Rules in force for a while, in a process that was not started under autoinst: for tests, which come one by one.

At the end every function that can be reached has its own code again. The probes in the others are switched off, and
hand their calls on when they are meant again.
"""

from __future__ import annotations

import sys
from _weakref import ref as reference

from autoinst.hook import finder as hook
from autoinst.hook import live
from autoinst.hook.module import patch_loaded
from autoinst.hook.moved import handed_on, off
from autoinst.trace import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _weakref import ReferenceType

    from autoinst.config import Config
    from autoinst.hook.probe import Probe
    from autoinst.hook.target import Site
    from autoinst.rules.model import RuleSet

_left: list[ReferenceType[Site]] = []  # of rules that have ended: in code that cannot be reached, as long as it lives


class Scope:
    """Rules from when this is made until `end`."""

    def __init__(self, config: Config, rules: RuleSet) -> None:
        """Instrument what `rules` mean, loaded already or not, and record as `config` says.

        Raises RuntimeError in a process that has rules in force already.
        """
        if any(isinstance(finder, hook.Finder) for finder in sys.meta_path):
            raise RuntimeError("this process has rules in force already: leave out those given here")
        self._before = recorder.active
        self._finder = hook.install(config, rules)
        self.registry = self._finder.registry
        if rules.wanted("__main__"):
            patch_loaded(self.registry, "__main__", sys.modules["__main__"])
        for site in _living():
            self._take_up(site)

    def _take_up(self, site: Site) -> None:
        """Let the probes left in a function hand on its calls to those that the rules give it now."""
        states = self.registry.choose(site.names, None, {})
        probes = _probes(site)
        if probes and states:
            probes[0].successors = tuple(self.registry.probes_of(site, states))
            probes[0].gate = handed_on

    def end(self) -> None:
        """Take everything back."""
        self._finder.end()
        _left.extend(map(reference, self.registry.sites()))
        for site in _living():
            for probe in _probes(site):
                probe.gate, probe.successors = off, ()
            for function in live.functions_of_site(site):
                function.__code__ = site.code
        self.registry.close()
        recorder.active = self._before
        _living()


def _living() -> list[Site]:
    """Return the sites that are left of rules that have ended, and forget those that are gone."""
    sites = [site for known in _left if (site := known()) is not None]
    _left[:] = map(reference, sites)
    return sites


def _probes(site: Site) -> list[Probe]:
    return [probe for known in site.probes if (probe := known()) is not None]
