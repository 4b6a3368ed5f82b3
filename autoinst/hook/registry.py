"""What the rules came to in this process: which functions each has, calls seen, and why a value was unavailable."""

from __future__ import annotations

import os
import sys

from autoinst import config as configuration
from autoinst.hook import carry
from autoinst.rules.match import matches, matches_qualname
from autoinst.rules.requires import unmet as unmet_requirement
from autoinst.trace import faults, recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from autoinst.hook.probe import Probe
    from autoinst.rules.model import Rule, RuleSet

MAX_PLACES = 20  # functions named in a rule's status
MAX_DETAIL = 120
JOB_KINDS = ("job", "event", "enqueue")


class RuleState:
    """One rule's state in this process."""

    __slots__ = ("calls", "found", "mechanism", "places", "problem", "rule", "skipped")

    def __init__(self, rule: Rule) -> None:
        """Begin with nothing found."""
        self.rule = rule
        self.calls = 0
        self.places: list[str] = []
        self.found = 0
        self.mechanism: str | None = None
        self.problem: str | None = None
        self.skipped: str | None = None

    @property
    def status(self) -> str:
        """`patched`, `skipped` (`requires`), `not found` or `not imported`."""
        if self.found:
            return "patched"
        if self.skipped:
            return "skipped"
        if self.problem:
            return "not found"
        return "not imported"

    def add(self, path: str, mechanism: str) -> None:
        """Note that function `path` carries this rule's probe."""
        self.found += 1
        self.mechanism = mechanism
        if len(self.places) < MAX_PLACES and path not in self.places:
            self.places.append(path)

    def row(self) -> list[Any]:
        """Return the status as the spool's status region has it: where, status, mechanism, calls, detail."""
        detail = ", ".join(self.places[:3]) or self.skipped or self.problem or ""
        return [self.rule.where, self.status, self.mechanism, self.calls, detail[:MAX_DETAIL]]


class Registry:
    """The rules in force and their states."""

    def __init__(self, rules: RuleSet) -> None:
        """Take the rules; modules are looked at as they are imported."""
        self.rules = rules
        self.states: dict[int, RuleState] = {}
        self.unavailable: dict[tuple[str, str], list[Any]] = {}
        self.notes: list[str] = []
        self.dirty_after = 0
        self._carries = False

    def state(self, rule: Rule) -> RuleState:
        """Return the state of `rule`."""
        found = self.states.get(rule.index)
        if found is None:
            found = self.states[rule.index] = RuleState(rule)
        return found

    def candidates(self, module: str, folder: str | None) -> list[tuple[RuleState, list[str]]]:
        """Return the rules that mean functions of `module`, each with its patterns of qualified names.

        `folder` is where the module's package lies, for `requires`.
        """
        found: list[tuple[RuleState, list[str]]] = []
        for rule in self.rules.wanted(module):
            patterns = [name for pattern, name, _ in rule.targets if matches(pattern, module)]
            if not patterns:
                continue
            state = self.state(rule)
            unmet = unmet_requirement(rule.requires, folder)
            if unmet is None:
                found.append((state, patterns))
            else:
                state.skipped = unmet
        return found

    def probes_for(
        self,
        candidates: list[tuple[RuleState, list[str]]],
        module: str,
        qualname: str,
        code: CodeType,
        runtime_module: str,
        decorators: dict[str, list[str]] | None = None,
    ) -> list[Probe]:
        """Return the probes function `qualname` shall have; of several rules that open something, the first counts."""
        from autoinst.hook.probe import PROBES
        from autoinst.hook.target import Target

        probes: list[Probe] = []
        opened = False
        for state, patterns in candidates:
            rule = state.rule
            if not any(matches_qualname(pattern, qualname) for pattern in patterns):
                continue
            if any(matches(pattern, f"{module}.{qualname}") for pattern in rule.exclude):
                continue
            if rule.decorated_by is not None and not any(
                matches(rule.decorated_by, name) for name in (decorators or {}).get(qualname, ())
            ):
                continue
            if rule.kind in JOB_KINDS:
                if opened:
                    continue
                opened = True
            if rule.kind == "job" and not self._carries:
                self._carries = True
                carry.install()
            target = Target(module, qualname, code, runtime_module, rule.subclass_of)
            probes.append(PROBES[rule.kind](self, state, target))
        return probes

    def carries(self, module: str) -> bool:
        """Return whether `module` is one that takes the current job into threads, and there are jobs."""
        return self._carries and module in carry.CARRIED

    def note(self, text: str) -> None:
        """Keep a remark for `doctor`."""
        if len(self.notes) < MAX_PLACES and text not in self.notes:
            self.notes.append(text)

    def flush(self) -> None:
        """Write the statuses into the first arena, if there is one."""
        arenas = recorder.get().spool.arenas
        if not arenas:
            return
        rows = [state.row() for state in self.states.values()]
        status: dict[str, Any] = {
            "digest": self.rules.digest,
            "rules": rows,
            "unavailable": [[where, field, *entry] for (where, field), entry in self.unavailable.items()],
            "notes": [*self.notes, *(f"{count} x {what}" for what, count in faults.counts.items())],
        }
        while not arenas[0].write_status(status) and (status["rules"] or status["unavailable"]):
            # Too much for the region: what matters least goes first.
            status["unavailable"] = status["unavailable"][: len(status["unavailable"]) // 2]
            status["rules"] = status["rules"][: len(status["rules"]) * 3 // 4]
            status["notes"] = status["notes"][:5]

    def announce(self) -> None:
        """Make the statuses visible to readers; the first time this opens the process's arena."""
        spool = recorder.get().spool
        if not spool.open() and spool.problem is not None:
            configuration.say(f"nothing is recorded: {spool.problem}; see `autoinst doctor`")
        self.flush()


def package_folder(module: str, file: str | None) -> str | None:
    """Return the folder in which the top package of `module` lies, beside its `*.dist-info`."""
    if file is None:
        top = sys.modules.get(module.partition(".")[0])
        file = getattr(top, "__file__", None)
        module = module.partition(".")[0] + ".x" if file else module
    if not isinstance(file, str):
        return None
    folder = os.path.dirname(file)
    levels = module.count(".")
    if os.path.basename(file).startswith("__init__."):
        levels += 1
    for _ in range(levels):
        folder = os.path.dirname(folder)
    return folder
