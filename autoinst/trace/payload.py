"""The payload of a `perform_job*` notification: what it says of the job, and the transaction it names."""

from __future__ import annotations

from autoinst.trace.context import Node, current, describe
from autoinst.trace.sanitize import is_finite, plain_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from autoinst.trace.sanitize import Sanitizer
    from autoinst.trace.transaction import Transaction

PERFORM_JOB = "perform_job"
MAX_ATTEMPTS = 0xFFFF
MAX_LABEL = 400
MAX_JOB_ID = 200
PAYLOAD_KEYS = frozenset(
    {"class", "class_", "method", "queue", "queue_time", "attempts", "job_id", "args", "kwargs", "enqueued_at"}
)


class Pending(Node):
    """A `perform_job*` notification that began outside a transaction: one created inside takes its payload."""

    __slots__ = ("name", "payload")

    closed = True  # as a transaction it takes no events

    def __init__(self, name: str, payload: dict[str, Any]) -> None:
        """Remember the notification."""
        self.event = -2
        self.transaction = None
        self.parent = self.saved = self.token = None
        self.name = name
        self.payload = payload

    def whole(self) -> Any:
        """Return itself: `closed` and `foreign` are all that is asked of it."""
        return self

    def foreign(self) -> bool:
        """Return False: it belongs to no process in particular."""
        return False


def apply_payload(transaction: Transaction, name: str, payload: Mapping[str, Any]) -> None:
    """Name `transaction` by the payload of a `perform_job*` notification; what has the wrong type is left out."""
    sanitizer = transaction.sanitizer
    plain = sanitizer.plain
    transaction.named = True
    transaction.name = name
    class_name = payload.get("class", payload.get("class_"))
    if class_name is not None:
        transaction.class_name = _label(class_name, sanitizer)
    if payload.get("method") is not None:
        transaction.method = _label(payload["method"], sanitizer)
    if payload.get("queue") is not None:
        transaction.queue = _label(payload["queue"], sanitizer)
    queue_time = plain_number(payload.get("queue_time"))
    if queue_time is not None and is_finite(queue_time):
        transaction.set_queue_time(float(queue_time))
    attempts = plain_number(payload.get("attempts"))
    if type(attempts) is int and 0 <= attempts <= MAX_ATTEMPTS:
        transaction.attempts = attempts
        if not attempts:  # 0 stands for unknown in a slot
            transaction.set_detail("attempts", 0)
    if payload.get("job_id") is not None:
        transaction.set_detail("job_id", str(plain(payload["job_id"]))[:MAX_JOB_ID])
    for key in ("args", "kwargs"):
        if payload.get(key) is not None:
            transaction.set_detail(key, plain(payload[key]))
    spell_out_method(transaction)
    extra = {key: value for key, value in payload.items() if key not in PAYLOAD_KEYS}
    if extra:
        transaction.merge_tags(sanitizer.mapping(extra))


def spell_out_method(transaction: Transaction) -> None:
    """Keep class and method apart where the action's last `#` would not part them, as in `Class##<an.Object>`."""
    method = transaction.method
    if method is not None and "#" in method:
        transaction.set_detail("class", transaction.class_name)
        transaction.set_detail("method", method)


def _label(value: Any, sanitizer: Sanitizer) -> str:
    if issubclass(type(value), type):
        return describe(value)
    return str(sanitizer.plain(value))[:MAX_LABEL]


def adopt_pending(transaction: Transaction) -> None:
    """Let a transaction created inside a `perform_job*` block be named by that block."""
    node = current.get()
    if isinstance(node, Pending):
        apply_payload(transaction, node.name, node.payload)
