"""Live rules: applies what changes in the rules files to the running program, at a job's start, an import or a fork.

There is no thread and no signal: whoever comes by looks, at most once a second, and what is found is applied in the
thread that found it. Each function changes over in one step, so a call is under the old rules or under the new ones.
Loaded with the first look.
"""

from __future__ import annotations

import sys
import time
from _thread import allocate_lock
from types import ModuleType

from autoinst import config as configuration
from autoinst.config import signature
from autoinst.hook import is_own, live
from autoinst.hook.main_program import names_of_main
from autoinst.hook.registry import is_on_its_way
from autoinst.hook.rewrite import wrap
from autoinst.hook.target import Site
from autoinst.rules.cache import load
from autoinst.rules.match import is_handed, matches
from autoinst.rules.requires import package_folder
from autoinst.trace import recorder
from autoinst.trace.exceptions import module_names, traceback_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from autoinst.hook.finder import Finder
    from autoinst.hook.registry import Registry, RuleState
    from autoinst.rules.model import Rule, RuleSet

    Signature = tuple[int, int, int, int] | None

# A file written so lately may be half written; it is read when nothing has changed for so long, or from look to look.
SETTLED_NS = 300_000_000
FORK_WAIT = 1.0  # seconds a fork waits for another thread that applies rules
MORE_LOOKS = 2  # after rules have changed: modules that were on their way in may have missed it
CHANGED = "its rules changed while the program ran"
PLACE = 2  # index of a rule's place in its data; the first is its number


class Edits:
    """The rules files of this process, as they were when they were read."""

    def __init__(self, finder: Finder) -> None:
        """Watch the files that the rules of `finder` are from."""
        self._finder = finder
        self._known: dict[str, Signature] = self._files(finder.rules)
        self._unsettled: dict[str, Signature] | None = None
        self._looks_left = 0
        self._added: list[Rule] = []  # rules for which loaded modules are still looked at
        self._done: set[int] = set()  # ids of modules that were
        self._retired: tuple[list[CodeType], ...] = ([], [])  # 3.14 may still run what another thread takes away
        self._lock = allocate_lock()
        self._locked_for_fork = False

    def look(self) -> bool:
        """Apply what has changed since the last look; return whether anything has."""
        if not self._lock.acquire(False):
            return False
        try:
            changed = self._look()
        finally:
            self._lock.release()
        return changed

    def _files(self, rules: RuleSet) -> dict[str, Signature]:
        files = dict(rules.watched)
        default = self._finder.config.default_rules
        if default is not None:
            files.setdefault(default, None)
        return files

    def _look(self) -> bool:
        found = {path: signature(path) for path in self._known}
        if found == self._known:
            if self._looks_left or self._added:
                self._apply_again()
            return False
        if not self._has_settled(found):
            self._finder.look_soon(SETTLED_NS)
            return False
        config = self._finder.config
        config.look_for_rules()
        rules = load(config)
        lost = [text for path, text in rules.unread.items() if path not in self._finder.rules.unread]
        registry = self._finder.registry_if_any
        if lost:
            self._known = {**{path: signature(path) for path in self._known}, **self._files(rules)}
            if registry is not None:
                registry.stale = lost[0]
                registry.flush()
            return False
        changed = rules.digest != self._finder.rules.digest
        if changed:
            self._apply(rules)
        self._finder.rules.watched, self._finder.rules.unread = rules.watched, rules.unread
        self._known = self._files(rules)
        if registry is not None:
            registry.stale = None
            registry.flush()
        return changed

    def _has_settled(self, found: dict[str, Signature]) -> bool:
        """Return whether the files look as if nobody was just writing them."""
        if found == self._unsettled:
            self._unsettled = None
            return True
        changed = [now for path, now in found.items() if now != self._known[path]]
        age = time.time_ns() - max((max(now[:2]) for now in changed if now is not None), default=0)
        if None not in changed and age > SETTLED_NS:
            self._unsettled = None
            return True
        self._unsettled = found
        return False

    def _apply(self, rules: RuleSet) -> None:
        """Put `rules` into force."""
        finder = self._finder
        before = finder.rules
        finder.adopt(rules)
        configuration.remember(finder.config, rules)
        active = recorder.active
        if active is not None:
            active.adopt(rules.settings, rules.digest)
        self._retired = (self._retired[1], [])
        self._looks_left = MORE_LOOKS + 1
        self._done.clear()
        # What an exception from outside leaves undone is done at the next look.
        waiting = {content(rule) for rule in self._added}
        added = set(take_over(finder.registry_if_any, before, rules))
        self._added = [rule for rule in rules.rules if rule in added or content(rule) in waiting]
        self._apply_again()

    def _apply_again(self) -> None:
        """Change over every function that is not yet under the rules in force."""
        registry = self._finder.registry_if_any
        if registry is not None:
            self._change_sites(registry)
        waits = self._patch_loaded()
        self._looks_left = max(0, self._looks_left - 1)
        if not self._looks_left and not waits:
            self._added = []

    def _change_sites(self, registry: Registry) -> None:
        known: dict[str, Any] = {}
        decorators: dict[str, dict[str, list[str]]] = {}
        reads_decorators = any(rule.decorated_by is not None for rule in registry.rules.rules)
        for site in registry.sites():
            of_file = None
            if reads_decorators:
                of_file = live.decorators_in(site.code.co_filename, decorators)
            states = registry.choose(site.names, of_file, known)
            if states == site.states:
                tell_places(site)
            else:
                self._change_site(registry, site, states)

    def _change_site(self, registry: Registry, site: Site, states: list[RuleState]) -> None:
        """Let the calls of `site` be under the rules of `states`, and renew the functions it has."""
        site.take(registry, states)
        if not states and any(is_handed(name) for _, name in site.names):
            return  # no name leads to it if such a rule comes again
        for function in () if site.in_place else live.functions_of_site(site):
            # It costs less than handing on, and nothing where no rule is left.
            renewed = site.code
            if states:
                again = Site(site.names, site.code, site.runtime_module)
                renewed = wrap(site.code, registry.probes_of(again, states), CHANGED)
                again.functions = site.functions
            self._retired[1].append(function.__code__)
            function.__code__ = renewed

    def _patch_loaded(self) -> bool:
        """Give functions of loaded modules their probes under rules that were added; return whether some must wait."""
        added = set(self._added)
        patterns = {pattern for rule in added for pattern, _, _ in rule.targets}
        names = [name for name in tuple(sys.modules) if any(matches(pattern, name) for pattern in patterns)]
        waits = False
        found = False
        if "__main__" not in names and not patterns.isdisjoint(names_of_main()):
            names.append("__main__")
        for name in names:
            module = sys.modules.get(name)
            if id(module) in self._done or is_own(name) or not issubclass(type(module), ModuleType):
                continue
            if is_on_its_way(name):
                waits = True
                continue
            self._done.add(id(module))
            found = self._patch(name, module, added) or found
        if found:
            self._finder.registry.announce()
        return waits

    def _patch(self, name: str, module: Any, added: set[Rule]) -> bool:
        registry = self._finder.registry
        called = names_of_main() if name == "__main__" else (name,)
        file = module_names(name).get("__file__")
        candidates = [
            (state, patterns)
            for each in called
            for state, patterns in registry.candidates(each, package_folder(each, file))
            if state.rule in added
        ]
        live.patch_missing(registry, candidates, module, called[0], shown=None, alias=(*called, None)[1])
        return bool(candidates)

    def before_fork(self) -> None:
        """Wait for a thread that applies rules: a child must not begin with half of them, nor with a held lock."""
        self._locked_for_fork = self._lock.acquire(timeout=FORK_WAIT)

    def forked(self) -> None:
        """Let other threads apply rules again, in the parent and in the child."""
        if self._locked_for_fork:
            self._locked_for_fork = False
            self._lock.release()


def take_over(registry: Registry | None, before: RuleSet, rules: RuleSet) -> list[Rule]:
    """Make `registry` one of `rules`, with the states of rules that were there before; return the other rules."""
    known: dict[str, list[Rule]] = {}
    for rule in before.rules:
        known.setdefault(content(rule), []).append(rule)
    added: list[Rule] = []
    kept: dict[Rule, RuleState] = {}
    for rule in rules.rules:
        same = known.get(content(rule))
        if not same:
            added.append(rule)
            continue
        state = None if registry is None else registry.states.get(same.pop(0))
        if state is not None:
            kept[rule] = state
    if registry is not None:
        registry.states = {**registry.states, **kept}  # other threads may still ask for the old ones
        registry.rules = rules
        registry.states = kept
        registry.unavailable.clear()
        for rule, state in kept.items():
            state.rule = rule
    return added


def content(rule: Rule) -> str:
    """Return what a rule says, whatever its number and its place in the file."""
    data = rule.to_data()
    return repr((*data[1:PLACE], *data[PLACE + 1 :]))


def tell_places(site: Site) -> None:
    """Let the probes of `site`, whose rules are the same, know where in the files these are now."""
    for known in site.probes:
        probe = known()
        for acting in () if probe is None else probe.successors or (probe,):
            acting.move_to(acting.state.rule)


def is_loading_fault(error: Exception) -> bool:
    """Return whether `error` is one of reading rules: raised in autoinst, the standard library or PyYAML.

    A time limit's exception, which a signal handler of the program raises wherever it interrupts, is none.
    """
    if isinstance(error, (TimeoutError, Warning)):
        return False
    traceback = traceback_of(error)
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    top = module.partition(".")[0]
    return top in ("autoinst", "yaml") or top in sys.stdlib_module_names
