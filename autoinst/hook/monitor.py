"""Watches functions by sys.monitoring: no code is changed at all, so the program has nothing to notice.

From 3.15 on, every event it takes is one of the code object alone. Before, unwinding and throwing are events of the
whole process, which main_monitor.py arms only while it must.
"""

from __future__ import annotations

import sys
from _weakref import ref as weak_reference
from types import FunctionType, coroutine

from autoinst.hook.trampoline import CO_ASYNC_GENERATOR, CO_GENERATOR, Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, FrameType
    from typing import Any

    from autoinst.hook.trampoline import AnyProbe

TOOLS = (4, 3)  # the two ids that PEP 669 gives to no kind of tool; who asks for one by number takes 3
ALL_LOCAL = sys.version_info >= (3, 15)
NOT_ENTERED: Any = ("not entered",)


class Watch:
    """One probe on a watched code object, and where the arguments are that it reads."""

    __slots__ = ("code", "inner", "names", "parameters", "plain", "probe")

    def __init__(self, probe: AnyProbe, names: tuple[str, ...], parameters: Parameters, inner: Watch | None) -> None:
        """Hand `probe` the arguments called `names` of a function with `parameters`; the probe of `inner` is next."""
        self.probe = probe
        self.names = names
        self.inner = inner
        self.parameters = parameters
        self.code: Any = None  # of the outermost: a weak reference to the watched code
        self.plain = all(name in parameters.names for name in names)

    def values(self, frame: FrameType) -> tuple[Any, ...]:
        """Return the arguments of the call in `frame`, which has just begun."""
        scope = frame.f_locals
        if len(self.names) == 1 and self.plain:
            return (scope[self.names[0]],)
        if self.plain:
            return tuple([scope[name] for name in self.names])
        return tuple([self.parameters.read(scope, name) for name in self.names])


class Monitor:
    """The watched code objects of one process, under one tool id."""

    outlives_code = True

    def __init__(self, tool: int) -> None:
        """Use monitoring tool id `tool`, which is taken for autoinst."""
        self.tool = tool
        # By id, because code objects compare by structure.
        self.watches: dict[int, Watch] = {}
        self.calls: dict[FrameType, list[Any]] = {}  # of each running call: probe, node, and again
        self.follows_copies = False
        monitoring = module()
        events = monitoring.events
        for event, callback in (
            (events.PY_START, self.on_start),
            (events.PY_RETURN, self.on_return),
            (events.PY_YIELD, self.on_yield),
            (events.PY_RESUME, self.on_resume),
            (events.PY_THROW, self.on_throw),
            (events.PY_UNWIND, self.on_unwind),
        ):
            monitoring.register_callback(tool, event, callback)

    def watch(self, code: CodeType, probes: Sequence[tuple[AnyProbe, tuple[str, ...]]]) -> None:
        """Let `probes`, each with the names of the arguments it reads, see the calls of `code`, the first outermost."""
        key, watches, parameters = id(code), self.watches, Parameters(code)

        def forget(_reference: Any) -> None:
            watches.pop(key, None)

        watch: Watch | None = None
        for probe, names in reversed(probes):
            watch = Watch(probe, names, parameters, watch)
        if watch is None:
            return
        watch.code = weak_reference(code, forget)
        watches[key] = watch
        module().set_local_events(self.tool, code, _events(code))
        if code.co_flags & CO_GENERATOR and not self.follows_copies:
            self.follows_copies = True
            self.watch(coroutine.__code__, [(CopyProbe(self), ("func",))])

    def watch_copy(self, code: CodeType, copy: CodeType) -> None:
        """Watch `copy`, which was made from `code`, by the same probes."""
        if copy is not code:
            self.watch(copy, [(watch.probe, watch.names) for watch in self._watches_of(code)])

    def probes_of(self, code: CodeType) -> list[AnyProbe]:
        """Return the probes that see the calls of `code`."""
        return [watch.probe for watch in self._watches_of(code)]

    def _watches_of(self, code: CodeType) -> list[Watch]:
        found: list[Watch] = []
        watch = self.watches.get(id(code))
        while watch is not None:
            found.append(watch)
            watch = watch.inner
        return found

    def on_start(self, code: CodeType, _offset: int, depth: int = 1) -> None:
        """Enter the probes of a function that starts, `depth` frames up."""
        watch = self.watches.get(id(code))
        if watch is None:
            return
        frame = sys._getframe(depth)
        # An exception that a signal handler raises in here unwinds the frame: then `on_unwind` closes what is open.
        self.calls[frame] = calls = [watch.probe, NOT_ENTERED]
        try:
            calls[1] = watch.probe.enter(watch.values(frame) if watch.names else ())
            while watch.inner is not None:
                watch = watch.inner
                calls += (watch.probe, NOT_ENTERED)
                calls[-1] = watch.probe.enter(watch.values(frame))
        except RecursionError:  # the function's own call is to raise it, if it comes so far
            del calls[-2:]

    def on_return(self, _code: CodeType, _offset: int, result: Any, depth: int = 1) -> None:
        """Leave the probes of a function that returns."""
        frame = sys._getframe(depth)
        calls = self.calls.get(frame)
        if calls is None:
            return
        while calls:  # what a signal handler's exception leaves over is for `on_unwind`
            calls[-2].exit(calls[-1], result)
            del calls[-2:]
        del self.calls[frame]

    def on_unwind(self, _code: CodeType, _offset: int, exception: BaseException, depth: int = 1) -> None:
        """Leave the probes of a frame that an exception leaves, if it has any."""
        calls = self.calls.pop(sys._getframe(depth), None)
        while calls:
            node = calls.pop()
            probe = calls.pop()
            if node is NOT_ENTERED:
                probe.error(False, exception)
            elif node is not None:
                probe.error(node, exception)

    def on_yield(self, _code: CodeType, _offset: int, _value: Any) -> None:
        """Suspend the probes of a generator: its job is current only while its body runs."""
        calls = self.calls.get(sys._getframe(1), ())
        for i in range(len(calls) - 2, -1, -2):
            calls[i].suspend(calls[i + 1])

    def on_resume(self, _code: CodeType, _offset: int) -> None:
        """Resume the probes of a generator."""
        self.resume(sys._getframe(1))

    def on_throw(self, code: CodeType, _offset: int, _exception: BaseException) -> None:
        """Resume the probes of a generator into which an exception is thrown (before 3.15, of any frame)."""
        if code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
            self.resume(sys._getframe(1))

    def resume(self, frame: FrameType) -> None:
        """Resume the probes of the call in `frame`, if there are any."""
        calls = self.calls.get(frame, ())
        for i in range(0, len(calls), 2):
            calls[i].resume(calls[i + 1])


class CopyProbe:
    """Stands at `types.coroutine`, which gives a generator function a copy of its code: that is watched too."""

    def __init__(self, monitor: Monitor) -> None:
        """Tell `monitor` of the copies."""
        self.monitor = monitor

    def enter(self, values: tuple[Any, ...]) -> Any:
        """Remember the function and its code."""
        function = values[0]
        return (function, function.__code__) if type(function) is FunctionType else None

    def exit(self, node: Any, _result: Any) -> None:
        """Watch the function's new code, if it has any."""
        if node is not None:
            function, code = node
            self.monitor.watch_copy(code, function.__code__)

    def error(self, node: Any, exception: BaseException) -> None:
        """Do nothing: no copy was made."""

    def suspend(self, node: Any) -> None:
        """Do nothing: it is no generator."""


def _events(code: CodeType) -> int:
    events = module().events
    wanted: int = events.PY_START | events.PY_RETURN
    if ALL_LOCAL:
        wanted |= events.PY_UNWIND
    # A coroutine's await leaves its job current: its task has a context of its own.
    if code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        wanted |= events.PY_YIELD | events.PY_RESUME
        if ALL_LOCAL:
            wanted |= events.PY_THROW
    return wanted


def take_tool() -> int | None:
    """Take a tool id of sys.monitoring and return it; None where others have both."""
    monitoring = module()
    for tool in TOOLS:
        if monitoring.get_tool(tool) is None:
            try:
                monitoring.use_tool_id(tool, "autoinst")
            except ValueError:  # another thread's tool was faster
                continue
            return tool
    return None


_monitor: Monitor | None = None


def get() -> Monitor | None:
    """Return the process's monitor, made now if need be; None where there is no free tool id or no local unwinding."""
    global _monitor
    if _monitor is None and ALL_LOCAL:
        tool = take_tool()
        if tool is not None:
            _monitor = Monitor(tool)
    return _monitor


def module() -> Any:
    """Return sys.monitoring (3.12+)."""
    return sys.monitoring  # type: ignore[attr-defined]  # every caller has made sure
