"""What the rules came to in this process: which functions each has, calls seen, and why a value was unavailable."""

from __future__ import annotations

import sys
from _weakref import ref as reference
from itertools import count
from types import ModuleType

from autoinst import config as configuration
from autoinst.hook import carry
from autoinst.hook.ending import ending
from autoinst.hook.mechanism import Choice
from autoinst.rules.match import PROPERTY, inheritor, is_handed, module_patterns, opens, refusal, shadowed
from autoinst.rules.requires import package_folder
from autoinst.rules.requires import unmet as unmet_requirement
from autoinst.trace import faults, recorder
from autoinst.trace.exceptions import module_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _weakref import ReferenceType
    from collections.abc import Callable, Iterable
    from types import CodeType
    from typing import Any

    from autoinst.config import Config
    from autoinst.hook.probe import Probe
    from autoinst.hook.target import Site
    from autoinst.rules.model import Rule, RuleSet
    from autoinst.spool.arena import Arena

MAX_PLACES = 20  # functions named in a rule's status
MAX_ROWS = 128  # rules of a status: more never fit into its region
FEW = 8  # rules of a module up to which a function is compared with each
MAX_DETAIL = 120
MAX_DEAD_SITES = 1_000
NEVER = sys.maxsize
HANDS = "hands"  # the kind of probes of a rule with `wraps`, where something is handed over
probe_classes: dict[str, type[Probe]] = {}  # by kind of rule
STATUS_INTERVAL = 1_000_000_000  # ns between two writes of the rules' statuses by a running worker


class RuleState:
    """One rule's state in this process."""

    __slots__ = ("calls", "found", "mechanism", "places", "problem", "refused", "rule", "skipped", "why")

    def __init__(self, rule: Rule) -> None:
        """Begin with nothing found."""
        self.rule = rule
        self.calls = 0
        self.places: list[str] = []
        self.found = 0
        self.mechanism: str | None = None  # of the function that was found last, and why it is none that hides more
        self.why: str | None = None
        self.problem: str | None = None
        self.refused: str | None = None  # what is there but cannot be watched
        self.skipped: str | None = None

    @property
    def status(self) -> str:
        """`patched`, `skipped` (`requires`), `refused`, `not found` or `not imported`."""
        if self.found:
            return "patched"
        if self.skipped:
            return "skipped"
        if self.refused:
            return "refused"
        if self.problem:
            return "not found"
        return "not imported"

    def add(self, path: str, mechanism: str, why: str | None = None) -> None:
        """Note that function `path` carries this rule's probe by `mechanism`, and `why` by none that hides more."""
        self.found += 1
        self.mechanism, self.why = mechanism, why
        if len(self.places) < MAX_PLACES and path not in self.places:
            self.places.append(path)

    def row(self) -> list[Any]:
        """Return the status as the spool's status region has it: where, status, mechanism, calls, detail."""
        places = ", ".join(self.places[:3])
        if self.refused:
            detail = f"{self.refused}; {places}" if places else self.refused
        else:
            detail = places or self.skipped or self.problem or ""
        if self.found and self.why is not None:
            detail = f"{detail} ({self.mechanism}: {self.why})"
        return [self.rule.where, self.status, self.mechanism, self.calls, detail[:MAX_DETAIL]]


class Candidates(list["tuple[RuleState, list[str]]"]):
    """The rules that mean functions of a module, each with its patterns of qualified names, in order."""

    __slots__ = ("_exact", "_globs")

    def near(self, qualname: str) -> list[tuple[RuleState, list[str]]]:
        """Return those that may mean function `qualname`, so that it costs the same however many there are."""
        if len(self) <= FEW:
            return self
        if not hasattr(self, "_exact"):
            self._globs = [at for at, (_, patterns) in enumerate(self) if any("*" in name for name in patterns)]
            exact: dict[str, list[int]] = {}
            for at, (_, patterns) in enumerate(self):
                for name in patterns:
                    exact.setdefault(name, []).append(at)
            self._exact = exact
        found = self._exact.get(qualname, NOBODY)
        if self._globs:
            found = sorted({*found, *self._globs})
        return [self[at] for at in found]


NOBODY: list[int] = []


class Registry:
    """The rules in force and their states."""

    def __init__(self, rules: RuleSet, config: Config) -> None:
        """Take the rules; modules are looked at as they are imported."""
        self.rules = rules
        self.config = config
        self.choice = Choice(config.mechanism)
        self.states: dict[Rule, RuleState] = {}
        self.unavailable: dict[tuple[str, str], list[Any]] = {}
        self.notes: list[str] = []
        self.stale: str | None = None  # why rules files that have changed since are not in force
        self._asked: set[str] = set()  # modules whose candidates were asked for
        self.dirty_after = 0
        self.look_after = NEVER  # when the rules files are looked at again (ns of the monotonic clock)
        self.look: Callable[[int], bool] = _nothing_to_see
        self._sites: dict[int, ReferenceType[Site]] = {}
        self._watched: dict[int, ReferenceType[Site]] = {}  # those in place, by the id of their code
        self._next_site = count().__next__
        self._sites_limit = MAX_DEAD_SITES
        self._carries = False
        self._is_over = False

    def state(self, rule: Rule) -> RuleState:
        """Return the state of `rule`."""
        found = self.states.get(rule)
        if found is None:
            found = self.states.setdefault(rule, RuleState(rule))
        return found

    def prepare(self) -> bool:
        """Import what events of the functions found will need, if anything; return whether it is there now."""
        names = [rule.name for rule, state in tuple(self.states.items()) if state.found and rule.name]
        return recorder.get().sanitizer.prepare(names)

    def candidates(self, module: str, folder: str | None) -> Candidates:
        """Return the rules that mean functions of `module`, each with its patterns of qualified names.

        `folder` is where the module's package lies, for `requires`.
        """
        self._asked.add(module)
        found = Candidates()
        for rule in self.rules.wanted(module):
            patterns = module_patterns(rule, module)
            if not patterns:
                continue
            state = self.state(rule)
            unmet = unmet_requirement(rule.requires, folder)
            if unmet is None:
                found.append((state, patterns))
            else:
                state.skipped = unmet
        return found

    def candidates_of(self, names: Iterable[str], folder: str | None = None) -> Candidates:
        """Return those of a module that rules may call by each of `names`."""
        return Candidates(found for name in names for found in self.candidates(name, folder))

    def probes_for(
        self,
        candidates: Candidates,
        module: str,
        qualname: str,
        code: CodeType,
        runtime_module: str,
        decorators: dict[str, list[str]] | None = None,
        also: tuple[tuple[str, str], ...] = (),
    ) -> list[Probe]:
        """Return the probes function `qualname` shall have; of several rules that open something, the first counts.

        `also` are further names by which rules may mean it.
        """
        meant: list[RuleState] = []
        for state, patterns in candidates.near(qualname):
            why = refusal(state.rule, patterns, module, qualname, decorators)
            if why is None:
                meant.append(state)
            elif why == PROPERTY and qualname in patterns:
                state.refused = f"{module}:{qualname} is a property, not a method"
        if not meant:
            return []
        from autoinst.hook.target import Site

        names = ((module, qualname), *also)
        return self.probes_of(Site(names, code, runtime_module), acting(meant, names))

    def choose(
        self,
        names: tuple[tuple[str, str], ...],
        decorators: dict[str, list[str]] | None,
        known: dict[str, Candidates],
    ) -> list[RuleState]:
        """Return the states of the rules that act on the loaded function of these (module, qualified name) pairs.

        `known` keeps the candidates of modules from one question to the next.
        """
        meant: list[RuleState] = []
        for module, qualname in names:
            candidates = known.get(module)
            if candidates is None:
                file = module_names(module).get("__file__")
                candidates = known[module] = self.candidates(module, package_folder(module, file))
            meant += [
                state
                for state, patterns in candidates.near(qualname)
                if refusal(state.rule, patterns, module, qualname, decorators) is None
            ]
        return acting(meant, names)

    def probes_of(self, site: Site, states: list[RuleState]) -> list[Probe]:
        """Return new probes for `site`, one for each of `states`; `wrap` puts them into code."""
        from autoinst.hook.target import Target

        probes: list[Probe] = []
        is_given = any(is_handed(name) for _, name in site.names)
        earlier: list[Target] = []  # of rules that open something, which they do on some calls only if others follow
        for state in states:
            rule = state.rule
            if rule.kind == "job" and not self._carries:
                self._carries = True
                carry.install(self.choice)
            does_open = opens(rule, site.names)
            hands = rule.wraps is not None
            base = None if rule.subclass_of is None or (hands and is_given) else (rule.subclass_of,)
            target = Target(site.module, site.qualname, site.code, site.runtime_module, base)
            heir = inheritor(rule, site.names) if target.reads_self else None
            if heir is not None:
                target.base = (*(target.base or ()), heir)
            if does_open and earlier:
                target.base, target.earlier = target.base or (), tuple(earlier)
            if does_open:
                earlier.append(target)
            kind = HANDS if hands and not is_given else rule.kind
            probes.append((probe_classes.get(kind) or _probe_class(kind))(self, state, target, site))
        site.states = states
        return probes

    def keep(self, code: CodeType, probes: list[Probe], *, in_place: bool = False) -> None:
        """Remember, as long as they live, that `probes` of one site are around `code`, or that it is watched as it is.

        Whatever gives a function its probes says so here: else they stay as they are when the rules change.
        """
        site = probes[0].site
        site.code = code
        site.in_place = in_place
        site.probes = tuple(reference(probe) for probe in probes)
        if in_place:
            self._watched[id(code)] = reference(site)
        if len(self._sites) >= self._sites_limit:
            for key, known in list(self._watched.items()):
                if known() is None:
                    self._watched.pop(key, None)
            self._sites_limit = MAX_DEAD_SITES + 2 * len(self.sites())
        self._sites[self._next_site()] = reference(site)

    def watches(self, code: CodeType) -> bool:
        """Return whether `code` is watched as it is: nothing may be put around it then."""
        known = self._watched.get(id(code))
        site = None if known is None else known()
        return site is not None and site.code is code

    def sites(self) -> list[Site]:
        """Return the sites whose code lives, in the order they were made, and forget the others."""
        found: list[Site] = []
        for key in list(self._sites):  # other threads may add to it, and so may finalizers
            site = self._sites[key]()
            if site is None:
                self._sites.pop(key, None)
            else:
                found.append(site)
        return found

    def carries(self, module: str) -> bool:
        """Return whether `module` is one that takes the current job into threads, and there are jobs."""
        return self._carries and module in carry.CARRIED

    def note(self, text: str) -> None:
        """Keep a remark for `doctor`."""
        if len(self.notes) < MAX_PLACES and text not in self.notes:
            self.notes.append(text)

    def renew(self, now: int) -> None:
        """Write the statuses, as a job has ended that began `now` (monotonic ns), and see to it that the last are."""
        if self._is_over:
            return
        if ending.registry is not self or not ending.is_awaited:
            ending.wait_for(self)
        self.dirty_after = now + STATUS_INTERVAL
        self.flush()

    def close(self) -> None:
        """Have nothing more done for these rules, and let go of all that a call still in progress has no need of."""
        from autoinst.rules.model import NONE

        self._is_over = True
        if ending.registry is self:
            ending.registry = None
        self.look_after, self.look = NEVER, _nothing_to_see
        self.rules = NONE
        self.states, self._sites, self._watched, self._asked = {}, {}, {}, set()

    def forget_calls(self) -> None:
        """Begin to count anew, in a child whose parent tells of what was counted so far."""
        self.dirty_after = 0
        self.unavailable.clear()
        for state in tuple(self.states.values()):
            state.calls = 0

    def flush_last(self) -> None:
        """Write the statuses at the end of the process."""
        try:
            spool = None if recorder.active is None else recorder.active.spool
            if spool is not None and spool.arenas and spool.here[0]:  # else it is a fork in which no job has run
                self._write(spool.arenas[0])
        except Exception as error:
            if not faults.absorbed(error, "statuses"):
                raise

    def tell_soon(self) -> None:
        """Have the statuses written at the end of this job: the process may be killed, or have no other for hours."""
        self.dirty_after = 0

    def flush(self) -> None:
        """Write the statuses into the first arena, if there is one."""
        arenas = recorder.get().spool.arenas
        if not arenas:
            return
        self._patch_late()
        self._write(arenas[0])

    def _write(self, arena: Arena) -> None:
        states = list(self.states.values())
        status: dict[str, Any] = {
            "digest": self.rules.digest,
            "stale": self.stale,
            "rules": [],
            "unavailable": [[where, field, *entry] for (where, field), entry in self.unavailable.items()],
            "notes": [*self.notes, *(f"{count} x {what}" for what, count in faults.counts.items())],
        }
        if len(states) <= MAX_ROWS:
            status["rules"] = [state.row() for state in states]
            if arena.write_status(status):
                return
        # Too much for the region: what matters least goes first.
        states.sort(key=lambda state: (not state.calls, not state.found))
        rows = [state.row() for state in states[:MAX_ROWS]]
        while True:
            status["rules"], status["left_out"] = rows, len(states) - len(rows)
            if arena.write_status(status) or not (rows or status["unavailable"]):
                return
            status["unavailable"] = status["unavailable"][: len(status["unavailable"]) // 2]
            rows = rows[: len(rows) * 3 // 4]
            status["notes"] = status["notes"][:5]

    def _patch_late(self) -> None:
        """Patch modules that rules name and that no import told of: made by exec(), or from a file's path."""
        loaded = sys.modules.keys()
        tops = {name.partition(".")[0] for name in tuple(loaded) if type(name) is str} & self.rules.tops.keys()
        for name in {name for top in tops for name in self.rules.spelled_out(top).keys() & loaded} - self._asked:
            module: Any = sys.modules.get(name)
            if name != "__main__" and issubclass(type(module), ModuleType) and not is_on_its_way(name):
                from autoinst.hook.module import patch_loaded

                patch_loaded(self, name, module)

    def announce(self) -> None:
        """Make the statuses visible to readers; the first time this opens the process's arena."""
        spool = recorder.get().spool
        if not spool.open() and spool.problem is not None:
            configuration.say(f"nothing is recorded: {spool.problem}; see `autoinst doctor`")
        self.flush()
        if self._carries and spool.arenas:
            recorder.get().expect_jobs()


def _probe_class(kind: str) -> type[Probe]:
    """Return the class of probes for rules of `kind`, loaded with the first of them."""
    found: type[Probe]
    if kind in ("job", "event"):
        from autoinst.hook import probe

        found = probe.JobProbe if kind == "job" else probe.EventProbe
    elif kind in ("enrich", "exception"):
        from autoinst.hook import enrich

        found = enrich.EnrichProbe
    elif kind == HANDS:
        from autoinst.hook import handing

        found = handing.HandingProbe
    else:
        from autoinst.hook import enqueue

        found = {"enqueue": enqueue.EnqueueProbe, "carry": enqueue.CarryProbe}[kind]
    probe_classes[kind] = found
    return found


def acting(states: list[RuleState], names: tuple[tuple[str, str], ...]) -> list[RuleState]:
    """Return those of `states`, each once and in the order of their rules, that no earlier rule keeps from acting.

    `names` are those of the function they are for, its own first.
    """
    if not states[1:]:
        return states
    by_index = {state.rule.index: state for state in states}
    ordered = [by_index[index] for index in sorted(by_index)]
    late = shadowed((state.rule for state in ordered), names)
    return [state for state in ordered if state.rule.index not in late]


def is_on_its_way(name: str) -> bool:
    """Return whether the module of that name is still being imported, or is a lazy one that nobody has used yet."""
    return is_lazy(sys.modules.get(name)) or bool(getattr(module_names(name).get("__spec__"), "_initializing", False))


def is_lazy(module: object) -> bool:
    """Return whether a module is one of importlib's that reading any attribute of loads."""
    return type(module).__name__ == "_LazyModule"


def _nothing_to_see(_now: int) -> bool:
    return False
