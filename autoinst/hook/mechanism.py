"""How a function gets its probes: watched by sys.monitoring, its body inside `with`, or in a trampoline.

The best that is possible is chosen function by function, and why it was none better is kept in the rule's state:

- monitoring (3.15+): no code is changed;
- inline: the function's own body is compiled inside `with`, where its source gives the very code that is loaded;
- trampoline: a code object around the function's; works for every function on every version.

AUTOINST_MECHANISM names the one to use wherever it is possible.
"""

from __future__ import annotations

import sys

from autoinst.hook.calls import CALLS
from autoinst.hook.rewrite import functions, rewrite, wrap
from autoinst.hook.trampoline import probe_of, trampoline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType
    from typing import Any

    from autoinst.hook.monitor import Monitor
    from autoinst.hook.probe import Probe
    from autoinst.hook.registry import Registry
    from autoinst.hook.rewrite import Chooser
    from autoinst.hook.trampoline import AnyProbe

MONITORING, INLINE, TRAMPOLINE = "monitoring", "inline", "trampoline"
NAMES = (MONITORING, INLINE, TRAMPOLINE)
MONITORING_SINCE = (3, 15)  # before, unwinding is an event of the whole process


class Choice:
    """The mechanism that comes first in this process, and why it is none that hides more."""

    __slots__ = ("monitor", "name", "why")

    def __init__(self, setting: str | None) -> None:
        """Choose what `setting` (AUTOINST_MECHANISM) says where that is possible, else what is best on this Python."""
        self.monitor: Monitor | None = None
        self.why: str | None = None
        best = MONITORING if sys.version_info >= MONITORING_SINCE else INLINE
        wanted = setting.strip().lower() if setting else best
        self.name = wanted if wanted in NAMES else best
        if wanted not in NAMES:
            self.why = f"AUTOINST_MECHANISM={wanted[:20]} is none of {', '.join(NAMES)}"
        elif self.name == TRAMPOLINE:
            self.why = "AUTOINST_MECHANISM"
        if self.name == MONITORING:
            self._take_monitor()

    def _take_monitor(self) -> None:
        if sys.version_info < MONITORING_SINCE:
            self.name, self.why = TRAMPOLINE, "monitoring needs Python 3.15"
            return
        from autoinst.hook import monitor

        self.monitor = monitor.get()
        if self.monitor is None:
            self.name, self.why = TRAMPOLINE, "both free tool ids of sys.monitoring are taken"

    def attach(self, code: CodeType, probe: AnyProbe, names: tuple[str, ...]) -> CodeType:
        """Return `code` with one of autoinst's own probes, the same object where it is watched as it is.

        Raises ValueError or KeyError where the function is not as expected.
        """
        if self.monitor is None:
            return trampoline(code, probe, names)
        self.monitor.watch(code, [(probe, names)])
        return code

    def has_probe(self, code: CodeType) -> bool:
        """Return whether `code` has a probe, by whichever mechanism."""
        return self.probe_of(code) is not None

    def probe_of(self, code: CodeType) -> AnyProbe | None:
        """Return the (outermost) probe that `code` has by whichever mechanism, None where it has none."""
        found = probe_of(code)
        if found is None and self.monitor is not None:
            found = next(iter(self.monitor.probes_of(code)), None)
        return found


def instrument(
    code: CodeType, choose: Chooser, registry: Registry, loader: Any = None, patterns: Sequence[str] = ()
) -> CodeType:
    """Return module `code` with probes for each nested function for which `choose` gives some.

    The same object comes back where nothing needs to be changed. `loader`, if there is one, may have the source.
    `patterns` are the qualified names of calls inside functions that rules mean.
    """
    choice = registry.choice
    calls = _calls(code, choose, patterns) if patterns else []
    if calls and choice.name != INLINE:
        from autoinst.hook.inlining import inlined

        code, calls = inlined(code, {}, loader, registry, calls), []
    chosen: dict[int, tuple[CodeType, list[Probe]]] = {}
    for qualname, inner in functions(code):
        probes = [] if choice.has_probe(inner) else choose(qualname, inner)
        if probes:
            chosen[id(inner)] = (inner, probes)
    if not chosen and not calls:
        return code
    if choice.monitor is not None:
        for inner, probes in chosen.values():
            watch(choice.monitor, inner, probes)
        return code
    if choice.name == INLINE:
        from autoinst.hook.inlining import inlined

        return inlined(code, {key: probes for key, (_, probes) in chosen.items()}, loader, registry, calls)
    return rewrite(code, {key: probes for key, (_, probes) in chosen.items()}, lambda _inner: choice.why)


def _calls(code: CodeType, choose: Chooser, patterns: Sequence[str]) -> list[tuple[str, CodeType, list[Probe]]]:
    found = []
    for qualname, inner in functions(code):
        for pattern in patterns:
            if pattern.partition(CALLS)[0] == qualname:
                probes = choose(pattern, inner)
                if probes:
                    found.append((pattern, inner, probes))
    return found


def instrument_one(code: CodeType, probes: list[Probe], registry: Registry) -> CodeType:
    """Return the code for a function that exists already and has `code`, the same object where it is watched."""
    choice = registry.choice
    if choice.monitor is not None:
        watch(choice.monitor, code, probes)
        return code
    return wrap(code, probes, "the function was there already" if choice.name == INLINE else choice.why)


def watch(monitor: Monitor, code: CodeType, probes: list[Probe]) -> None:
    """Let `monitor` tell `probes` of the calls of `code`."""
    monitor.watch(code, [(probe, probe.fields.names) for probe in probes])
    # A copy, where the code may go before the process does: the probes hold it, and the monitor holds them.
    probes[0].registry.keep(code.replace() if monitor.outlives_code else code, probes, in_place=True)
    for probe in probes:
        probe.state.add(probe.target.path, MONITORING)
