"""Watches functions by sys.monitoring: no code is changed at all. For `__main__` of `-c` and standard input (3.12+).

Starting, returning, yielding and resuming are events of the code object alone; unwinding is one of the whole process
before 3.15, so it is armed when the first watched function is called.
"""

from __future__ import annotations

import sys

from autoinst.hook import live
from autoinst.hook.moved import value_in
from autoinst.hook.rewrite import functions, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from autoinst.hook.probe import Probe
    from autoinst.hook.registry import Registry, RuleState
    from autoinst.trace.context import Node

TOOLS = (3, 4)  # the two ids that PEP 669 gives to no kind of tool
LOCAL_UNWIND = sys.version_info >= (3, 15)


def watch_main(registry: Registry, candidates: list[tuple[RuleState, list[str]]]) -> None:
    """Wait for the module code of `__main__` to start and watch the functions in it that `candidates` mean."""
    monitoring = _monitoring()
    for tool in TOOLS:
        if monitoring.get_tool(tool) is None:
            monitoring.use_tool_id(tool, "autoinst")
            break
    else:
        registry.note("__main__: not reachable this way, both free monitoring tools are taken")
        return
    watcher = Watcher(registry, tool)

    def on_start(code: CodeType, _offset: int) -> None:
        if code.co_name == "<module>" and sys._getframe(1).f_globals is sys.modules["__main__"].__dict__:
            monitoring.set_events(tool, 0)
            watcher.begin(code, candidates)

    monitoring.register_callback(tool, monitoring.events.PY_START, on_start)
    monitoring.set_events(tool, monitoring.events.PY_START)


class Watcher:
    """The watched code objects of one process."""

    def __init__(self, registry: Registry, tool: int) -> None:
        """Use monitoring tool id `tool`."""
        self.registry = registry
        self.tool = tool
        self.probes: dict[int, list[Probe]] = {}  # by id: code objects compare by structure
        self.codes: list[CodeType] = []  # keeps the ids valid
        self.calls: dict[FrameType, list[tuple[Probe, Node | None]]] = {}
        self.trampolines: dict[int, CodeType] = {}
        self.tried: set[int] = set()
        self.swapped: set[int] = set()
        self.unwinding = False

    def begin(self, module: CodeType, candidates: list[tuple[RuleState, list[str]]]) -> None:
        """Watch the functions of `module` that rules mean."""
        monitoring, tool = _monitoring(), self.tool
        events = monitoring.events
        for event, callback in (
            (events.PY_START, self.on_start),
            (events.PY_RETURN, self.on_return),
            (events.PY_YIELD, self.on_yield),
            (events.PY_RESUME, self.on_resume),
            (events.PY_THROW, self.on_resume_by_throw),
            (events.PY_UNWIND, self.on_unwind),
        ):
            monitoring.register_callback(tool, event, callback)
        local = events.PY_START | events.PY_RETURN | events.PY_YIELD | events.PY_RESUME
        if LOCAL_UNWIND:
            local |= events.PY_THROW | events.PY_UNWIND
        for qualname, code in functions(module):
            probes = self.registry.probes_for(candidates, "__main__", qualname, code, "__main__")
            if probes:
                self.trampolines[id(code)] = wrap(code, probes)
                for probe in probes:
                    probe.state.mechanism = "sys.monitoring"
                self.registry.keep(code, probes, in_place=True)
                self.codes.append(code)
                self.probes[id(code)] = probes
                monitoring.set_local_events(tool, code, local)
        self.registry.announce()

    def on_start(self, code: CodeType, _offset: int) -> None:
        """Enter the probes of a function that starts."""
        key = id(code)
        probes = self.probes.get(key)
        if probes is None or key in self.swapped:
            return
        if not LOCAL_UNWIND and not self.unwinding:
            self.unwinding = True
            events = _monitoring().events
            _monitoring().set_events(self.tool, events.PY_UNWIND | events.PY_THROW)
        frame = sys._getframe(1)
        scope = frame.f_locals
        self._swap(code)
        self.calls[frame] = [
            (probe, probe.enter(tuple(value_in(scope, probe, name) for name in probe.fields.names))) for probe in probes
        ]

    def on_return(self, _code: CodeType, _offset: int, result: Any) -> None:
        """Leave the probes of a function that returns."""
        calls = self.calls.pop(sys._getframe(1), None)
        if calls is not None:
            for probe, node in reversed(calls):
                probe.exit(node, result)
            self._settle()

    def on_unwind(self, _code: CodeType, _offset: int, exception: BaseException) -> None:
        """Leave the probes of a frame that an exception leaves, if it has any."""
        if not self.calls:
            return
        calls = self.calls.pop(sys._getframe(1), None)
        if calls is not None:
            for probe, node in reversed(calls):
                probe.error(node, exception)
            self._settle()

    def on_yield(self, _code: CodeType, _offset: int, _value: Any) -> None:
        """Suspend the probes of a generator or coroutine."""
        for probe, node in reversed(self.calls.get(sys._getframe(1), ())):
            probe.suspend(node)

    def on_resume(self, _code: CodeType, _offset: int) -> None:
        """Resume the probes of a generator or coroutine."""
        for probe, node in self.calls.get(sys._getframe(1), ()):
            probe.resume(node)

    def on_resume_by_throw(self, _code: CodeType, _offset: int, _exception: BaseException) -> None:
        """Resume the probes of a generator or coroutine into which an exception is thrown."""
        for probe, node in self.calls.get(sys._getframe(1), ()):
            probe.resume(node)

    def _swap(self, code: CodeType) -> None:
        """Give a function that is reachable by its name a trampoline, so that later calls need no monitoring."""
        key = id(code)
        if LOCAL_UNWIND or key in self.tried:
            return
        self.tried.add(key)
        function = live.resolve(sys.modules["__main__"], self.probes[key][0].target.qualname)
        if getattr(function, "__code__", None) is code:
            self.swapped.add(key)
            function.__code__ = self.trampolines[key]

    def _settle(self) -> None:
        """Stop watching for unwinding once every watched function has its trampoline and none is running."""
        if self.calls or LOCAL_UNWIND or len(self.swapped) < len(self.codes):
            return
        monitoring = _monitoring()
        monitoring.set_events(self.tool, 0)
        for code in self.codes:
            monitoring.set_local_events(self.tool, code, 0)
        self.unwinding = False


def _monitoring() -> Any:
    return sys.monitoring  # type: ignore[attr-defined]  # 3.12+, as every caller has made sure
