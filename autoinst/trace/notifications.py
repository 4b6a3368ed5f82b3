"""Notifications: named, timed blocks with a payload, as ActiveSupport::Notifications has them.

Inside a transaction each is an event of it, but for the first `perform_job*`, which names the transaction.
"""

from __future__ import annotations

import sys
import time

from autoinst.rules.match import matches
from autoinst.spool import layout
from autoinst.trace import faults
from autoinst.trace.context import current, enter, leave
from autoinst.trace.events import Event, begin_event, end_event
from autoinst.trace.faults import fail_open, nothing
from autoinst.trace.null import NULL
from autoinst.trace.payload import PERFORM_JOB, Pending, apply_payload
from autoinst.trace.transaction import BACKGROUND_JOB, Transaction, open_transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from autoinst.trace.context import Node
    from autoinst.trace.null import NullTransaction

    # name, start and end in ns since the epoch, the transaction's id or None, payload
    Subscriber = Callable[[str, int, int, "str | None", dict[str, Any]], object]

subscribers: list[tuple[str, Subscriber]] = []
WATCHED = sys.version_info >= (3, 15)  # there jobs end in callbacks of sys.monitoring


class instrument:  # noqa: N801  # a context manager reads as a verb
    """Emit notification `name` around a block: `with instrument("query.sql", title="SELECT", body=sql): ...`.

    A `perform_job*` notification's payload has class (as a keyword `class_`), method, queue, queue_time (ms), attempts,
    job_id, args, kwargs; other notifications' `title` and `body` are shown with the event. The payload is also passed
    to subscribers, and entering the block returns it. The block's exceptions pass unchanged.
    """

    __slots__ = ("_node", "_started", "name", "payload")

    def __init__(self, name: str, /, **payload: Any) -> None:
        """Prepare the notification; nothing happens before the block is entered."""
        self.name = name
        self.payload = payload
        self._node: Node | None = None
        self._started = 0

    @fail_open(lambda self: self.payload)
    def __enter__(self) -> dict[str, Any]:
        """Open the event, or name the transaction, and return the payload."""
        name, payload = self.name, self.payload
        transaction = open_transaction()
        if subscribers:
            self._started = time.time_ns()
        if name.startswith(PERFORM_JOB):
            if transaction is None:
                self._node = Pending(name, payload)
                enter(self._node)
                return payload
            if not transaction.named:
                apply_payload(transaction, name, payload)
                transaction.amend()
                return payload
        if transaction is not None:
            title, body = payload.get("title"), payload.get("body")
            if title is not None or body is not None:
                title = title if title is None or type(title) is str else _text(transaction, title)
                body = body if body is None or type(body) is str else _text(transaction, body)
                title, body = transaction.sanitizer.event(name, title, body)
            self._node = begin_event(transaction, current.get() or transaction, name, title, body)
        return payload

    @fail_open(nothing)
    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Close the event and tell the subscribers."""
        node = self._node
        if node is not None:
            self._node = None
            if isinstance(node, Event):
                end_event(node)
            else:
                leave(node)
        if subscribers and self._started:
            transaction = open_transaction()
            publish(self.name, self._started, self.payload, error, None if transaction is None else transaction.id)


def _text(transaction: Transaction, value: Any) -> str:
    return str(transaction.sanitizer.plain(value))


def subscribe(pattern: str, callback: Subscriber) -> Callable[[], None]:
    """Call `callback(name, start_ns, end_ns, transaction_id, payload)` after each notification `pattern` matches.

    `pattern` is a name or a glob (`perform_job.*`, `**`). What the callback raises is dropped: the notification's
    block belongs to the program. Returns a function that ends the subscription.
    """
    entry = (pattern, callback)
    subscribers.append(entry)

    def unsubscribe() -> None:
        if entry in subscribers:
            subscribers.remove(entry)

    return unsubscribe


def publish(
    name: str, started_ns: int, payload: dict[str, Any], error: BaseException | None, transaction_id: str | None
) -> None:
    """Tell the subscribers of `name` that it has finished."""
    ended = time.time_ns()
    if error is not None:
        payload = {**payload, "exception": error}
    for pattern, callback in tuple(subscribers):
        if not matches(pattern, name):
            continue
        try:
            if WATCHED:  # in a monitoring callback no function would be watched, those that a listener calls neither
                sys.call_tracing(callback, (name, started_ns, ended, transaction_id, payload))
            else:
                callback(name, started_ns, ended, transaction_id, payload)
        except Exception as fault:  # the block belongs to the program: a listener must not break it
            faults.note(f"subscriber of {pattern}: {type(fault).__name__}")


class monitor:  # noqa: N801  # a context manager reads as a verb
    """Run a block as a transaction: `with monitor("Reports#nightly", namespace="background_job"): ...`.

    The block's exception is recorded, unless ignored, and passes on. Inside a transaction it is an event of it.
    """

    __slots__ = ("_block", "_transaction", "action", "name", "namespace")

    def __init__(self, action: str, *, namespace: str = BACKGROUND_JOB, name: str = "perform_job.python") -> None:
        """Prepare the block named `action` (`Class#method`)."""
        self.action = action
        self.namespace = namespace
        self.name = name
        self._transaction: Transaction | None = None
        self._block: instrument | None = None

    @fail_open(lambda *_: NULL)
    def __enter__(self) -> Transaction | NullTransaction:
        """Open the transaction, or an event of the one that is open, and return the transaction."""
        running = open_transaction()
        if running is not None:
            self._block = instrument(self.name, title=self.action)
            self._block.__enter__()
            return running
        transaction = Transaction(self.namespace, self.name, None)
        transaction.set_action(self.action)
        transaction.open()
        self._transaction = transaction
        return transaction

    @fail_open(nothing)
    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Complete the transaction with the block's exception, if any."""
        if self._block is not None:
            self._block.__exit__(kind, error, traceback)
        if self._transaction is not None:
            if error is not None:
                self._transaction.add_exception(error)
            self._transaction.finish(layout.UNSET)
