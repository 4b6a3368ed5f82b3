"""Hands a job's trace on: writes `traceparent`, and the time, into what goes with a job that is put on a queue.

It writes into dictionaries and objects only where that runs none of the program's code. A mapping of headers is never
changed itself but exchanged for a copy. What cannot be written is Unavailable, with its reason: the job goes without.
"""

from __future__ import annotations

import time

from autoinst.rules.safe import Unavailable, attribute, is_plain_dict, name_of, set_attribute
from autoinst.trace import traceparent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any

    from autoinst.trace.context import Node
    from autoinst.trace.transaction import Transaction

else:
    from _collections import deque  # importing collections costs 2 ms

SQS, SQS_BATCH = "sqs", "sqs_batch"
MAX_SQS = 10  # attributes that a message of SQS may have
# Bytes that the messages of one call may have in all, as SQS counts them: 256 KiB until August 2025, more since.
MAX_SQS_SIZE = 262_144
SQS_ATTRIBUTE = len("String") + len("00-") + 32 + 1 + 16 + len("-01")  # bytes of ours beside its name
REMEMBERED = 64
ABSENT: Any = object()

_written: deque[str] = deque(maxlen=REMEMBERED)  # so that our own are known where a program uses its headers again


class Handover:
    """How one rule hands the trace on: `key`, `name`, `stamp` and `form` as in the rules file."""

    __slots__ = ("form", "key", "name", "stamp")

    def __init__(self, key: str | None, name: str, stamp: str | None, form: str) -> None:
        """Take what the rule says."""
        self.key = key
        self.name = name
        self.stamp = stamp
        self.form = form

    def write(self, into: Any, transaction: Transaction | None, node: Node | None) -> None:
        """Write the trace of `node` (of `transaction`; None: there is no job) into `into`, or raise Unavailable."""
        if self.form == SQS_BATCH:
            self._write_batch(into, transaction, node)
            return
        headers = self._headers(into)
        given = ABSENT if headers is None else self._read(headers)
        entries: dict[str, Any] = {} if self.stamp is None else {self.stamp: time.time_ns() // 1_000_000}
        is_wrong = given is not ABSENT and traceparent.parse(given) is None
        if not is_wrong:
            entries[self.name] = chosen(None if given is ABSENT else given, transaction, node)
        if entries:
            self._put(into, headers, entries)
        if is_wrong:  # the program may need it, or fail by it
            raise Unavailable(f"the program's own {self.name!r} is no traceparent")

    def _write_batch(self, into: Any, transaction: Transaction | None, node: Node | None) -> None:
        """Exchange the list of messages for copies with the trace; a message that cannot have it stays itself."""
        messages = dict.get(into, self.key) if is_plain_dict(into) else None
        if type(messages) is not list:
            raise Unavailable(f"{self.key!r} is no list of messages")
        if sum(map(sqs_size, messages)) + len(messages) * (len(self.name) + SQS_ATTRIBUTE) > MAX_SQS_SIZE:
            raise Unavailable("the messages have no room for an attribute more")
        one = Handover("MessageAttributes", self.name, None, SQS)
        copies, without = [], None
        for message in messages:
            copied = dict.copy(message)
            try:
                one.write(copied, transaction, node)
            except Unavailable as reason:
                copied, without = message, reason
            copies.append(copied)
        into[self.key] = copies
        if without is not None:
            raise without

    def copy(self, into: Any, value: Any) -> None:
        """Write `value`, a traceparent that an earlier call was handed, or raise Unavailable; nothing if it is None."""
        if value is None:
            return
        if traceparent.parse(value) is None:
            raise Unavailable("no traceparent")
        headers = self._headers(into)
        self._put(into, headers, {self.name: value.decode("latin-1") if type(value) is bytes else value})

    def _headers(self, into: Any) -> Any:
        """Return the mapping, or the object, that has ours; None where it is to be made."""
        if self.key is None:
            return into
        if is_plain_dict(into):
            found = dict.get(into, self.key)
            if found is None and self.form == SQS and self.key in into:
                raise Unavailable(f"{self.key!r} is None, which botocore refuses")
        else:
            try:
                found = attribute(into, self.key)
            except Unavailable:
                found = None
        if found is not None and type(found) is not dict:  # a copy of a subclass would be another class
            raise Unavailable(f"{self.key!r} is a {name_of(found)}, not a dict")
        return found

    def _read(self, headers: Any) -> Any:
        """Return the traceparent that is there, whatever it is, or ABSENT; an attribute that is None is none."""
        if issubclass(type(headers), dict):
            found: Any = dict.get(headers, self.name, ABSENT)
            return dict.get(found, "StringValue") if issubclass(type(found), dict) else found
        try:
            found = attribute(headers, self.name)
        except Unavailable:
            return ABSENT
        return ABSENT if found is None else found

    def _put(self, into: Any, headers: Any, entries: dict[str, Any]) -> None:
        if self.form != "plain":
            entries = {name: str(value) for name, value in entries.items()}
        if self.form == SQS:
            added = sum(len(name) + SQS_ATTRIBUTE for name in entries)
            if is_plain_dict(into) and sqs_size(into) + added > MAX_SQS_SIZE:
                raise Unavailable("the message has no room for an attribute more")
            if headers is not None and len(headers.keys() | entries.keys()) > MAX_SQS:
                raise Unavailable(f"a message has {MAX_SQS} attributes at most")
            entries = {name: {"DataType": "String", "StringValue": value} for name, value in entries.items()}
        if self.key is not None:
            copied = {} if headers is None else dict.copy(headers)
            copied.update(entries)
            entries = {self.key: copied}
        if is_plain_dict(into):
            into.update(entries)
            return
        if issubclass(type(into), dict):
            raise Unavailable(f"setting an item of a {name_of(into)} would run code")
        for name, value in entries.items():
            set_attribute(into, name, value)


def chosen(given: Any, transaction: Transaction | None, node: Node | None) -> str:
    """Return the traceparent a job is to have: one that is `given` stays if it is of another tracer's trace.

    A retry's is of the very trace of the job that puts it on its queue, and is renewed.
    """
    known = traceparent.parse(given)
    if transaction is None or node is None:
        found = traceparent.of_nothing() if known is None else given
    elif known is not None and known[0] != (transaction.trace_id or transaction.id) and given not in _written:
        return given  # type: ignore[no-any-return]  # text or bytes
    else:
        found = traceparent.of_node(transaction, node)
    _written.append(found)
    return found


def sqs_size(message: Any) -> int:
    """Return the size of a message of SQS in bytes: of its body, and of its attributes' names, types and values.

    Raises Unavailable where that cannot be told, so that it is never sent with more than the program may send.
    """
    if type(message) is not dict:
        raise Unavailable(f"a message is a {name_of(message)}, not a dict")
    parts = [message.get("MessageBody")]
    attributes = message.get("MessageAttributes") or {}
    if type(attributes) is not dict:
        raise Unavailable(f"the attributes are a {name_of(attributes)}, not a dict")
    for name, given in attributes.items():
        if type(given) is not dict:
            raise Unavailable(f"an attribute is a {name_of(given)}, not a dict")
        parts += (name, *given.values())
    size = 0
    for part in parts:
        if type(part) is str:
            size += len(part) if part.isascii() else len(part.encode("utf-8", "surrogatepass"))
        elif type(part) is bytes or type(part) is bytearray:
            size += len(part)
        elif part is not None:
            raise Unavailable(f"the size of a {name_of(part)} is not known")
    return size
