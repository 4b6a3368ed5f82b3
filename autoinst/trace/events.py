"""The events of a job: named, timed parts of it, one inside the other, kept by its run or its transaction."""

from __future__ import annotations

import time

from autoinst.spool import layout
from autoinst.spool.slots import OFFSET_BITS
from autoinst.trace.context import Node, leave, set_current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from autoinst.spool.slots import Slot
    from autoinst.spool.writer import Spool
    from autoinst.trace.transaction import Transaction

    class Keeper(Protocol):
        """A run, or the transaction that it has become: what keeps events."""

        closed: bool
        dropped_events: int
        event_text: int
        events: list[list[Any]] | None
        slot: Slot | None
        spool: Spool
        started: int
        transaction: Transaction | None

        def whole(self) -> Transaction:
            """Return the transaction that it is, or becomes."""


MAX_EVENTS = 300  # events a job keeps; the rest are counted
MAX_EVENT_TEXT = 24_000  # characters of titles and bodies a job keeps
MAX_BODY = 4_000
MAX_TITLE = 200
DURATION = 4  # its index in an event's entry
ONLY_COUNTED = -2
NO_EVENT = bytes(2)
EVENT, EVENT_END = layout.EVENT_OFFSET, layout.EVENT_OFFSET + len(NO_EVENT)

_clock = time.monotonic_ns
_making: dict[int, list[list[Any]]] = {}


class Event(Node):
    """An event in progress of what `keeper` was when it began; inside a `leaf` rules open no others."""

    __slots__ = ("entry", "keeper", "leaf")

    entry: list[Any] | None  # what is kept of it; None: it is only counted
    keeper: Keeper
    leaf: bool

    def whole(self) -> Transaction:
        """Return the transaction it belongs to, made now if nothing has asked for it before."""
        return self.keeper.whole()


def keeper_of(node: Any) -> Keeper:
    """Return what keeps the events of the job that `node` is or belongs to; what is closed takes none."""
    keeper = node.keeper if type(node) is Event else node
    found: Keeper = keeper.transaction or keeper
    return found


def begin_event(
    keeper: Keeper, parent: Node, name: str, title: str | None, body: str | None, *, leaf: bool = False
) -> Event:
    """Open an event kept by `keeper`, which is open and this process's, under `parent` and make it current."""
    node = Event()
    node.keeper = keeper
    node.leaf = leaf
    node.parent = parent
    node.saved = node.token = node.transaction = None
    node.started = started = _clock()
    events = keeper.events
    if events is None:
        events = _first(keeper)
    number = len(events)
    if number >= MAX_EVENTS or keeper.event_text > MAX_EVENT_TEXT:
        keeper.dropped_events += 1
        node.event = ONLY_COUNTED
        node.entry = None
    else:
        if body is not None:
            body = body[:MAX_BODY]
            keeper.event_text += len(body)
        if title is not None:
            title = title[:MAX_TITLE]
            keeper.event_text += len(title)
        above = parent.event
        node.entry = entry = [name, title, body, started - keeper.started, -1, above if above >= 0 else -1]
        events.append(entry)
        while events[number] is not entry:  # another thread of this job was faster
            number += 1
        node.event = number
    slot = keeper.slot
    if slot is not None:
        spool = keeper.spool
        mark = spool.arenas[slot[0] >> OFFSET_BITS].marks.get(name)
        if mark is None:
            spool.mark_event(slot, name)
        else:  # as that does, which costs each event a call
            at = slot[2]
            slot[1][at + EVENT : at + EVENT_END] = mark
    node.token = set_current(node)
    return node


def _first(keeper: Keeper) -> list[list[Any]]:
    """Return the list of events of a job that has none yet, the same one to threads that ask at once."""
    made = _making.setdefault(id(keeper), [])
    events = keeper.events
    if events is None:
        keeper.event_text = keeper.dropped_events = 0
        keeper.events = events = made
    _making.pop(id(keeper), None)
    return events


def end_event(node: Event, body: str | None = None) -> None:
    """Close an event; its duration is kept unless the job has been stored meanwhile."""
    ended = _clock()
    leave(node)
    keeper = node.keeper
    if keeper.transaction is not None:
        keeper = keeper.transaction
    if keeper.closed:
        return
    entry = node.entry
    if entry is not None:
        entry[DURATION] = ended - node.started
        if body is not None:
            entry[2] = body[:MAX_BODY]
    slot = keeper.slot
    if slot is not None and keeper.spool.here[0]:
        parent = node.parent
        if type(parent) is Event and parent.entry is not None:
            keeper.spool.mark_event(slot, parent.entry[0])
        else:
            at = slot[2]
            slot[1][at + EVENT : at + EVENT_END] = NO_EVENT
