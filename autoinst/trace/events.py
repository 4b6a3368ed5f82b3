"""The events of a transaction: named, timed parts of a job, one inside the other."""

from __future__ import annotations

import time

from autoinst.trace.context import Node, leave, set_current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from autoinst.trace.transaction import Transaction

MAX_EVENTS = 300  # events a transaction keeps; the rest are counted
MAX_EVENT_TEXT = 24_000  # characters of titles and bodies a transaction keeps
MAX_BODY = 4_000
MAX_TITLE = 200
DURATION = 4  # its index in an event's entry
ONLY_COUNTED = -2

_clock = time.monotonic_ns


def begin_event(transaction: Transaction, parent: Node, name: str, title: str | None, body: str | None) -> Node:
    """Open an event of `transaction`, which is open and this process's, under `parent` and make it current."""
    node = Node()
    node.transaction = transaction
    node.parent = parent
    node.saved = node.token = None
    node.started = started = _clock()
    events = transaction.events
    if events is None:
        events = transaction.events = []
    if len(events) >= MAX_EVENTS or transaction.event_text > MAX_EVENT_TEXT:
        transaction.dropped_events += 1
        node.event = ONLY_COUNTED
    else:
        node.event = len(events)
        if body is not None:
            body = body[:MAX_BODY]
            transaction.event_text += len(body)
        if title is not None:
            title = title[:MAX_TITLE]
            transaction.event_text += len(title)
        above = parent.event
        events.append([name, title, body, started - transaction.started, -1, above if above >= 0 else -1])
    slot = transaction.slot
    if slot is not None:
        transaction.spool.mark_event(slot, name)
    node.token = set_current(node)
    return node


def end_event(node: Node, body: str | None = None) -> None:
    """Close an event; its duration is kept unless the transaction has been stored meanwhile."""
    ended = _clock()
    leave(node)
    transaction = node.transaction
    if transaction is None or transaction.closed:
        return
    events = transaction.events
    if node.event >= 0 and events is not None:
        entry = events[node.event]
        entry[DURATION] = ended - node.started
        if body is not None:
            entry[2] = body[:MAX_BODY]
    slot = transaction.slot
    spool = transaction.spool
    if slot is not None and spool.here[0]:
        parent = node.parent
        above = -1 if parent is None else parent.event
        spool.mark_event(slot, events[above][0] if above >= 0 and events else "")
