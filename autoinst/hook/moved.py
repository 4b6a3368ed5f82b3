"""What a probe does once the rules have changed: nothing, or what the probes do that have come in its place.

The probe stays in the code of every function that was made with it, wherever that is kept, and a call in progress ends
by it. `Probe.gate` is what changes, in one step: it is asked before anything is opened.
"""

from __future__ import annotations

import sys

from autoinst.trace.context import MOVED, Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from autoinst.hook.probe import Probe


class Moved(Node):
    """A call that other probes have opened: it hands on how the call ends."""

    __slots__ = ("calls", "inner")

    def __init__(self, calls: list[tuple[Probe, Node]]) -> None:
        """Stand for `calls`, of which at most one is in the context."""
        self.calls = calls
        self.transaction = self.parent = self.saved = self.token = None
        self.event = MOVED
        self.inner: Node | None = None
        for _, node in calls:
            if node.token is not None:  # so that a generator's yields, which know this node alone, leave the context
                self.inner, self.token, node.token = node, node.token, None

    def end(self, result: Any, exception: BaseException | None) -> None:
        """Tell the other probes, the innermost first, how the call ended."""
        if self.inner is not None:
            self.inner.token, self.token = self.token, None
        for probe, node in reversed(self.calls):
            if exception is None:
                probe.exit(node, result)
            else:
                probe.error(node, exception)


def move(probes: list[Probe], successors: list[Probe]) -> None:
    """Let `successors` act in the place of `probes`, those of one function, the outermost first."""
    for probe in probes:
        probe.state = type(probe.state)(probe.rule)  # it counts no calls of its own any longer
    for probe in probes[1:]:
        probe.gate = off
    for probe in probes[:1]:
        probe.successors = tuple(successors)
        probe.gate = handed_on if successors else off


def off(_probe: Probe, _values: tuple[Any, ...]) -> None:
    """Let a call pass: no rule means the function any longer."""


def handed_on(probe: Probe, _values: tuple[Any, ...]) -> Moved | None:
    """Let the probes that have come in the place of `probe` open what their rules say."""
    frame = _program_frame()
    calls = []
    for successor in probe.successors:
        scope = frame.f_locals
        read = successor.target.parameters.read
        node = successor.enter(tuple(read(scope, name) for name in successor.fields.names))
        if node is not None:
            calls.append((successor, node))
    if sys.version_info < (3, 13):
        # There it is a copy that would keep the arguments as long as the frame.
        frame.f_locals.clear()
    return Moved(calls) if calls else None


def _program_frame() -> FrameType:
    """Return the innermost frame that is not autoinst's own: the instrumented function's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if not str(frame.f_globals.get("__name__")).startswith("autoinst."):
            return frame
        frame = frame.f_back
    raise LookupError("no frame of the program")
