"""The variable part of a slot: decoded with bounds of our own before marshal sees it, then cleaned into a Record.

`marshal.loads` trusts the sizes it reads (five bytes make it allocate gigabytes) and accepts code objects, so a tail
is first walked here. Only what marshal version 2 writes for None, bool, int, float, str, bytes, tuple, list and dict
passes; checked against Python/marshal.c of 3.10 to 3.13: no references, no short strings, no sets, no 64-bit `I`.
"""

from __future__ import annotations

import marshal
import math
from typing import TYPE_CHECKING, Any

from autoinst.record import Event, ExceptionInfo, Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoinst.record import Record

MAX_DEPTH = 32
ID_DIGITS = 32
MAX_INT_BITS = 1024  # larger integers are shown in hexadecimal: decimal text of them takes quadratic time
MAX_CAUSE_DEPTH = 10
INT64 = range(-(2**63), 2**63)

_SINGLE = frozenset(b"NTF")
_INT, _FLOAT, _LONG, _NULL, _DICT = b"ig" + b"l0{"
_TEXT = frozenset(b"us")
_SEQUENCE = frozenset(b"([")
# What is expected next inside a dict; other containers count down the objects they still want.
_WANT_KEY, _WANT_VALUE = -1, -2


def decode(data: bytes) -> Any:
    """Return the value marshalled in `data`; raises ValueError for anything but plain data within bounds.

    Memory is bounded by a small multiple of len(data), whatever the bytes say.
    """
    _walk(data)
    try:
        return marshal.loads(data)
    except (EOFError, TypeError) as error:  # an unhashable key, for one
        raise ValueError(f"tail: {error}") from None


def _walk(data: bytes) -> None:  # noqa: C901, PLR0912 - one loop: a call for each kind would double its time
    end = len(data)
    at = 0
    wanted = 1
    outer: list[int] = []
    while True:
        if at >= end:
            raise ValueError("tail: cut short")
        code = data[at]
        at += 1
        if code in _TEXT:
            at += 4 + int.from_bytes(data[at : at + 4], "little")
        elif code == _INT:
            at += 4
        elif code in _SEQUENCE:
            size = int.from_bytes(data[at : at + 4], "little")
            at += 4
            if size > end - at:
                raise ValueError("tail: more elements than bytes")
            if size:
                if len(outer) >= MAX_DEPTH:
                    raise ValueError("tail: nested too deeply")
                outer.append(wanted)
                wanted = size
                continue
        elif code == _DICT:
            if len(outer) >= MAX_DEPTH:
                raise ValueError("tail: nested too deeply")
            outer.append(wanted)
            wanted = _WANT_KEY
            continue
        elif code == _NULL and wanted == _WANT_KEY:
            wanted = outer.pop()
        elif code == _FLOAT:
            at += 8
        elif code == _LONG:
            at += 4 + 2 * abs(int.from_bytes(data[at : at + 4], "little", signed=True))
        elif code not in _SINGLE:
            raise ValueError(f"tail: type code {code} is not plain data")
        if at > end:
            raise ValueError("tail: cut short")
        # One object is complete; it may be the last its containers wanted.
        while wanted == 1:
            if not outer:
                if at != end:
                    raise ValueError("tail: bytes left over")
                return
            wanted = outer.pop()
        if wanted > 1:
            wanted -= 1
        else:
            wanted = _WANT_VALUE if wanted == _WANT_KEY else _WANT_KEY


def clean_text(text: str) -> str:
    """Return `text` with lone surrogates spelled out, so that UTF-8 can hold it; raises TypeError for bytes."""
    if type(text) is not str:  # whose owner may write what it likes
        raise TypeError("no text")
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def clean(value: Any) -> Any:
    """Return plain data as JSON can hold it: bytes as text, tuples as lists, keys as text, no NaN."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if kind is int:
        return value if value.bit_length() <= MAX_INT_BITS else hex(value)
    if kind is tuple or kind is list:
        return [clean(item) for item in value]
    if kind is dict:
        return {key_text(key): clean(item) for key, item in value.items()}
    if kind is bytes:
        return value.decode("utf-8", "backslashreplace")
    return value  # None, True, False: the walk lets nothing else pass


def key_text(key: Any) -> str:
    """Return a dict's key as text."""
    found = clean(key)
    return found if isinstance(found, str) else str(found)


def fill(record: Record, content: Any) -> None:
    """Set what the decoded tail `content` says of `record`; parts of another shape than agreed are left out."""
    if type(content) is not dict:
        return
    get = content.get
    _spelled_out(record, get)
    events = get("events")
    if events is not None:
        record.events = _events(events)
    if get("exc") is not None:
        record.exception = _exception(content["exc"], MAX_CAUSE_DEPTH)
    for key, attribute in _TEXTS:
        value = get(key)
        if type(value) is str:
            setattr(record, attribute, clean_text(value))
    for key in ("tags", "params", "env"):
        value = get(key)
        if type(value) is dict:
            setattr(record, key, clean(value))
    record.args = clean(get("args"))
    record.kwargs = clean(get("kwargs"))
    enqueued = get("enqueued_at")
    if type(enqueued) is int and enqueued in INT64:
        record.enqueued_ns = enqueued
    count = get("adjusted_count")
    if type(count) is float and 1 <= count < math.inf:
        record.adjusted_count = count
    dropped = get("dropped")
    if type(dropped) is int and 0 <= dropped in INT64:
        record.dropped_events = dropped
    own = get("id")
    if type(own) is str and is_id(own):
        record.id = own


def _spelled_out(record: Record, get: Callable[[str], Any]) -> None:
    """Take the names that found no room in the arena's intern table."""
    action = get("action")
    if type(action) is str:
        record.action = clean_text(action)
        class_name, mark, method = record.action.rpartition("#")
        record.class_name, record.method = (class_name, method) if mark else (None, None)
    for attribute in ("queue", "name", "namespace", "rule"):
        value = get(attribute)
        if type(value) is str:
            setattr(record, attribute, clean_text(value))


_TEXTS = (
    ("class", "class_name"),
    ("method", "method"),
    ("job_id", "job_id"),
    ("trace_id", "trace_id"),
    ("parent_span_id", "parent_span_id"),
)


def is_id(text: str) -> bool:
    """Return whether `text` is a record id: 32 lower-case hexadecimal digits."""
    return len(text) == ID_DIGITS and not text.strip("0123456789abcdef")


def _events(rows: Any) -> list[Event]:
    events: list[Event] = []
    if type(rows) is not list and type(rows) is not tuple:
        return events
    for row in rows:
        try:
            name, title, body, start, duration, parent = row
            event = Event(
                clean_text(name),
                None if title is None else clean_text(title),
                None if body is None else clean_text(body),
                _int64(start),
                None if duration < 0 else _int64(duration),
                None if parent < 0 else _int64(parent),
            )
        except (TypeError, ValueError, AttributeError):
            # Keeps the numbers by which later events name their parents.
            event = Event("?", None, None, 0, None, None)
        events.append(event)
    count = len(events)
    for event in events:
        if event.parent is not None and event.parent >= count:
            event.parent = None
    return events


def _int64(value: Any) -> int:
    if type(value) is not int or value not in INT64:
        raise ValueError("not a 64-bit integer")
    return value


def _exception(data: Any, depth: int) -> ExceptionInfo | None:
    try:
        class_name, message, rows, causes = data
        info = ExceptionInfo(clean_text(class_name), clean_text(message))
        for file, line, function, in_app in rows:
            info.backtrace.append(Frame(clean_text(file), _int64(line), clean_text(function), bool(in_app)))
        for cause in causes if depth else ():
            found = _exception(cause, depth - 1)
            if found is not None:
                info.causes.append(found)
    except (TypeError, ValueError, AttributeError):
        return None
    return info
