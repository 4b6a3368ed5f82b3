"""The variable part of a record: what a transaction knows beyond the fixed fields of its slot, as marshalled data."""

from __future__ import annotations

import marshal

from autoinst.trace.exceptions import capture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.trace.run import Run
    from autoinst.trace.transaction import Transaction


def tail_of(transaction: Transaction, *, final: bool) -> bytes:
    """Return the tail of `transaction`, empty if there is nothing in it; events and exception only when `final`."""
    content: dict[str, Any] = {}
    details = transaction.details
    if details is not None:
        content.update(details)
        content.pop("more", None)
    if transaction.tags:
        content["tags"] = transaction.tags
    if transaction.enqueued_ns:
        content["enqueued_at"] = transaction.enqueued_ns
    if transaction.trace_id is not None:
        content["trace_id"] = transaction.trace_id
    if transaction.parent_span_id is not None:
        content["parent_span_id"] = transaction.parent_span_id
    if final:
        if transaction.events:
            content["events"] = transaction.events
        if transaction.dropped_events:
            content["dropped"] = transaction.dropped_events
        if transaction.exception is not None:
            message = transaction.sanitizer.message
            captured = capture(transaction.exception, message)
            for other in (details or {}).get("more") or ():
                captured[3].append((*capture(other, message)[:3], []))
            content["exc"] = captured
    return marshal.dumps(content, 2) if content else b""


def tail_of_events(run: Run) -> bytes:
    """Return the tail of a run that has events and nothing else."""
    if run.dropped_events:
        return marshal.dumps({"events": run.events, "dropped": run.dropped_events}, 2)
    return marshal.dumps({"events": run.events}, 2)
