"""Watches the functions of `__main__` of `-c` and of standard input, whose code no importer hands over (3.12+)."""

from __future__ import annotations

import sys

from autoinst.hook import live, monitor
from autoinst.hook.mechanism import watch
from autoinst.hook.monitor import ALL_LOCAL, Monitor
from autoinst.hook.rewrite import functions, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from autoinst.hook.registry import Candidates, Registry


def watch_main(registry: Registry, candidates: Candidates) -> None:
    """Wait for the module code of `__main__` to start and watch the functions in it that `candidates` mean."""
    found: Monitor | None
    if ALL_LOCAL:
        found = monitor.get()
    else:
        tool = monitor.take_tool()
        found = None if tool is None else MainMonitor(tool)
    if found is None:
        registry.note("__main__: not reachable this way, both free monitoring tools are taken")
        return
    main = found
    monitoring = monitor.module()
    event = monitoring.events.PY_START

    def on_start(code: CodeType, offset: int) -> None:
        if code.co_name == "<module>" and sys._getframe(1).f_globals is sys.modules["__main__"].__dict__:
            monitoring.set_events(main.tool, 0)
            monitoring.register_callback(main.tool, event, main.on_start)
            _begin(registry, main, code, candidates)
        else:
            main.on_start(code, offset, 2)

    monitoring.register_callback(main.tool, event, on_start)
    monitoring.set_events(main.tool, event)


def _begin(registry: Registry, main: Monitor, module: CodeType, candidates: Candidates) -> None:
    for qualname, code in functions(module):
        probes = registry.probes_for(candidates, "__main__", qualname, code, "__main__")
        if not probes:
            continue
        if isinstance(main, MainMonitor):
            main.swaps[id(code)] = (wrap(code, probes), qualname)
            for probe in probes:
                probe.state.found -= 1  # said again below
        watch(main, code, probes)
    registry.announce()


class MainMonitor(Monitor):
    """Before 3.15: arms unwinding when the first watched function is called, and gives functions trampolines instead.

    A function that is reachable by its name gets its trampoline at its first call, so that later calls need no
    monitoring, and the process no event at every frame that an exception leaves.
    """

    outlives_code = False

    def __init__(self, tool: int) -> None:
        """Begin with unwinding unarmed."""
        super().__init__(tool)
        self.follows_copies = True  # none are: a function with a copy of its code could not be given its trampoline
        self.swaps: dict[int, tuple[CodeType, str]] = {}
        self.tried: set[int] = set()
        self.swapped: set[int] = set()
        self.unwinding = False

    def on_start(self, code: CodeType, offset: int, depth: int = 1) -> None:
        """Enter the probes of a function that starts, and swap it."""
        key = id(code)
        if key not in self.watches or key in self.swapped:
            return
        if not self.unwinding:
            self.unwinding = True
            events = monitor.module().events
            monitor.module().set_events(self.tool, events.PY_UNWIND | events.PY_THROW)
        self._swap(code)
        super().on_start(code, offset, depth + 1)

    def on_return(self, code: CodeType, offset: int, result: Any, depth: int = 1) -> None:
        """Leave the probes of a function that returns."""
        super().on_return(code, offset, result, depth + 1)
        self._settle()

    def on_unwind(self, code: CodeType, offset: int, exception: BaseException, depth: int = 1) -> None:
        """Leave the probes of a frame that an exception leaves, if it has any."""
        if self.calls:
            super().on_unwind(code, offset, exception, depth + 1)
            self._settle()

    def _swap(self, code: CodeType) -> None:
        key = id(code)
        if key in self.tried:
            return
        self.tried.add(key)
        trampoline, qualname = self.swaps[key]
        function = live.resolve(sys.modules["__main__"], qualname)
        if getattr(function, "__code__", None) is code:
            self.swapped.add(key)
            function.__code__ = trampoline

    def _settle(self) -> None:
        """Stop watching for unwinding once every watched function has its trampoline and none is running."""
        if self.calls or len(self.swapped) < len(self.swaps):
            return
        monitoring = monitor.module()
        monitoring.set_events(self.tool, 0)
        for watched in self.watches.values():
            code = watched.code()
            if code is not None:
                monitoring.set_local_events(self.tool, code, 0)
        self.unwinding = False
