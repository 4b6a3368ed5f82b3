"""W3C trace context (https://www.w3.org/TR/trace-context/) of a job: what goes with the jobs that it puts on queues."""

from __future__ import annotations

import os

from autoinst.spool.layout import event_span_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.trace.context import Node
    from autoinst.trace.transaction import Transaction

HEX = "0123456789abcdef"
LENGTHS = (2, 32, 16, 2)  # digits of version, trace id, parent's span id, flags
MAX_TEXT = 512


def parse(value: Any) -> tuple[str, str] | None:
    """Return trace id and span id (32 and 16 hex digits) of a `traceparent`, text or bytes; None if it is none."""
    if type(value) is bytes:
        value = value[:MAX_TEXT].decode("latin-1")
    if type(value) is not str or len(value) > MAX_TEXT:
        return None
    parts = value.strip().split("-")
    if len(parts) < len(LENGTHS) or any(len(p) != n or p.strip(HEX) for p, n in zip(parts, LENGTHS)):  # noqa: B905 - what follows is for later versions
        return None
    version, trace, span = parts[:3]
    if (
        version == "ff"
        or (version == "00" and len(parts) > len(LENGTHS))
        or not trace.strip("0")
        or not span.strip("0")
    ):
        return None
    return trace, span


def of_node(transaction: Transaction, node: Node) -> str:
    """Return the `traceparent` that says: begun by `node`, the transaction itself or an event of it."""
    identity = transaction.id
    span = identity[16:]
    if node.event >= 0:
        span = event_span_id(bytes.fromhex(span), node.event).hex()
    return f"00-{transaction.trace_id or identity}-{span}-01"


def of_nothing() -> str:
    """Return the `traceparent` of a new trace: a job's that is put on its queue outside any job."""
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
