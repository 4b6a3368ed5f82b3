"""The probes of calls that put jobs on queues: an event inside a job, and the trace that goes with the new job."""

from __future__ import annotations

from autoinst.hook.handover import Handover
from autoinst.hook.probe import EventProbe, Probe, end_other
from autoinst.rules.safe import Unavailable
from autoinst.trace import recorder as recorders
from autoinst.trace.context import Node, current
from autoinst.trace.events import Event, end_event, keeper_of
from autoinst.trace.transaction import open_transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.hook.registry import Registry, RuleState
    from autoinst.hook.target import Site, Target


class Handing(Node):
    """A call in progress that hands the trace on when it ends; never the context's current node, as `inner` may be."""

    __slots__ = ("inner", "values")

    def __init__(self, inner: Node | None, values: tuple[Any, ...]) -> None:
        """Keep what is read at the end, and the event that the call has opened."""
        self.inner = inner
        self.values = values
        self.transaction = self.parent = self.saved = self.token = None
        self.event = -1


class CarryProbe(EventProbe):
    """Hands the trace on, and is no event."""

    __slots__ = ("handover", "late")

    def __init__(self, registry: Registry, state: RuleState, target: Target, site: Site) -> None:
        """Take from the rule what each call needs."""
        super().__init__(registry, state, target, site)
        carry = self.rule.carry
        self.handover = None if carry is None else Handover(*carry)
        self.late = bool(carry) and any(key in ("into", "value") for key, _, _ in self.fields.at_exit)

    enter = Probe.enter  # which asks `begin`, also outside a job

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Hand the trace on now, or when the call ends."""
        return self.handed(None, values)

    def handed(self, inner: Node | None, values: tuple[Any, ...]) -> Node | None:
        """Hand on the trace of the event `inner`, or of what is in progress; return what the call's end is told."""
        if self.handover is None or not recorders.get().carries:
            return inner
        if self.late:
            return Handing(inner, values)
        self.hand_on(values)
        return inner

    def hand_on(self, values: tuple[Any, ...]) -> None:
        """Write the trace into what goes with the job."""
        handover = self.handover
        if handover is None:
            return
        into = self.fields.value("into", values)
        if into is None:
            return
        try:
            if "value" in self.rule.fields:
                handover.copy(into, self.fields.value("value", values))
            else:
                transaction = open_transaction()
                handover.write(into, transaction, None if transaction is None else current.get())
        except Unavailable as reason:
            self.fields.note("carry", str(reason))

    def end(self, node: Node, result: Any, exception: BaseException | None) -> None:
        """Hand the trace on if that was to wait, and close the event."""
        if isinstance(node, Handing):
            try:
                if exception is None:
                    self.hand_on((*node.values, result, exception))
            finally:  # a signal handler's exception must not leave the event open
                if isinstance(node.inner, Event):
                    end_event(node.inner)
            return
        end_other(node, result, exception)

    def suspend(self, node: Node | None) -> None:
        """Leave the context for what the call has opened."""
        super().suspend(node.inner if isinstance(node, Handing) else node)

    def resume(self, node: Node | None) -> None:
        """Come back into it."""
        super().resume(node.inner if isinstance(node, Handing) else node)


class EnqueueProbe(CarryProbe):
    """Opens an event of the transaction in progress, and hands the trace on, also outside one.

    A call that is part of another of the same name (one for many jobs, say) is no event of its own.
    """

    __slots__ = ()

    def begin(self, values: tuple[Any, ...]) -> Node | None:
        """Open the event unless it is part of one, and hand the trace on."""
        node = current.get()
        inside = node is not None and node.event >= 0 and self._is_ours(node)
        return self.handed(None if inside else EventProbe.begin(self, values), values)

    def _is_ours(self, node: Node) -> bool:
        events = keeper_of(node).events
        return events is not None and events[node.event][0] == self.name
