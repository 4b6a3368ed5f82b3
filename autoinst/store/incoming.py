"""A Record from the JSON that `Record.to_json` made, whoever wrote it: checked field by field before a store has it."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX, Event, ExceptionInfo, Frame, Killed, Record
from autoinst.spool.tail import is_id
from autoinst.store.records import MAX_QUEUE_MS, STATUS_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 100  # of lists and objects within each other
MAX_CAUSES = 50
MAX_TEXT = 200  # characters of what was found that a message shows
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND = dt.timedelta(microseconds=1)
_SURROGATE = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)
_TEXTS = {
    "action": "action",
    "class": "class_name",
    "method": "method",
    "queue": "queue",
    "job_id": "job_id",
    "service": "service",
    "environment": "environment",
    "revision": "revision",
    "host": "host",
    "thread": "thread",
    "rule": "rule",
    "parent_span_id": "parent_span_id",
}


class NotAJobError(ValueError):
    """Why a line is no job, in words for a person."""


def parse(line: bytes) -> Record:
    """Return the job of a line of JSON; raises NotAJobError."""
    try:
        # Decoded here, as `json` takes halves of surrogate pairs for UTF-8.
        value = json.loads(line.rstrip().decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        raise NotAJobError(f"lists or objects more than {MAX_DEPTH} deep") from None
    except UnicodeDecodeError as error:
        raise NotAJobError(f"no UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise NotAJobError(f"no JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:  # a number of thousands of digits
        raise NotAJobError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise NotAJobError(f"{_kind(value)}, where the object of a job was expected")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    if _SURROGATE.search(line):
        value = _encodable(value)
    return record(value)


def record(value: dict[str, Any]) -> Record:
    """Return the job that `value` describes; raises NotAJobError. What is not known of a job is not looked at."""
    if "id" not in value or "started_at" not in value:
        raise NotAJobError("without an id and started_at; is it a job that `autoinst export` wrote?")
    ident = value["id"]
    if not isinstance(ident, str) or not is_id(ident):
        raise NotAJobError(f"id: {_shown(ident)} is not 32 hexadecimal digits")
    status = value.get("status")
    if not isinstance(status, str) or status not in STATUS_NUMBERS:
        raise NotAJobError(f"status: {_shown(status)} is none of {', '.join(STATUS_NUMBERS)}")
    started = _field(value, "started_at", _moment)
    if started is None:
        raise NotAJobError("started_at: null, where a time was expected")
    out = Record(ident, status, started)
    for name, attribute in _TEXTS.items():
        setattr(out, attribute, _field(value, name, _text))
    out.namespace = _field(value, "namespace", _text) or out.namespace
    out.name = _field(value, "name", _text) or out.name
    out.queue_time_ms = _field(value, "queue_time", _number)
    if out.queue_time_ms is not None and abs(out.queue_time_ms) > MAX_QUEUE_MS:
        raise NotAJobError(f"queue_time: {_shown(out.queue_time_ms)} is more than 290 years")
    out.attempts = _field(value, "attempts", _integer)
    out.pid = _field(value, "pid", _natural)
    out.enqueued_ns = _field(value, "enqueued_at", _moment)
    out.duration_ns = _field(value, "duration", _span)
    out.exception = _field(value, "exception", _exception)
    out.killed = _field(value, "killed", _killed)
    out.events = _field(value, "events", _events) or []
    out.dropped_events = _field(value, "dropped_events", _natural) or 0
    out.args, out.kwargs = value.get("args"), value.get("kwargs")
    for name in ("tags", "params"):
        setattr(out, name, _field(value, name, _object) or {})
    out.env = _field(value, "env", _environ) or {}
    trace = _field(value, "trace_id", _text)
    out.trace_id = None if trace == ident else trace
    out.clock_skew = value.get("clock_skew") is True
    out.truncated = value.get("truncated") is True
    adjusted = _field(value, "adjusted_count", _number)
    out.adjusted_count = 1.0 if adjusted is None else max(adjusted, 1.0)
    return out


def _field(value: dict[str, Any], name: str, read: Callable[[Any], Any]) -> Any:
    """Return what `read` makes of a field, None where it is null or not there."""
    found = value.get(name)
    if found is None:
        return None
    try:
        return read(found)
    except NotAJobError as error:
        raise NotAJobError(f"{name}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotAJobError(f"{_kind(value)}, where text was expected")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotAJobError(f"{_kind(value)}, where a number was expected")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NotAJobError("the number is too large")
    return number


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotAJobError(f"{_kind(value)}, where a whole number was expected")
    if abs(value) > INT64_MAX:
        raise NotAJobError("the number is too large")
    return value


def _natural(value: Any) -> int:
    number = _integer(value)
    if number < 0:
        raise NotAJobError(f"{number} is less than 0")
    return number


def _span(value: Any) -> int:
    """Return milliseconds as nanoseconds."""
    ns = round(_number(value) * 1e6)
    if not 0 <= ns <= INT64_MAX:
        raise NotAJobError(f"{_shown(value)} ms is no span of time from 0 to 290 years")
    return ns


def _moment(value: Any) -> int:
    """Return an RFC 3339 time as nanoseconds since the epoch."""
    text = _text(value)
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise NotAJobError(f"{_shown(text)} is no RFC 3339 time with a zone")
    ns = (moment - _EPOCH) // _MICROSECOND * 1000
    if not 0 <= ns <= INT64_MAX:
        raise NotAJobError(f"{_shown(text)} is not between 1970 and 2262")
    return ns


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotAJobError(f"{_kind(value)}, where an object was expected")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NotAJobError(f"{_kind(value)}, where a list was expected")
    return value


def _environ(value: Any) -> dict[str, str]:
    return {name: _text(text) for name, text in _object(value).items()}


def _killed(value: Any) -> Killed:
    found = _object(value)
    pid = _field(found, "pid", _natural)
    return Killed(pid or 0, _field(found, "signal", _text), _field(found, "last_event", _text))


def _events(value: Any) -> list[Event]:
    return [_event(_object(one)) for one in _list(value)]


def _event(value: dict[str, Any]) -> Event:
    return Event(
        _field(value, "name", _text) or "",
        _field(value, "title", _text),
        _field(value, "body", _text),
        _field(value, "start", _span) or 0,
        _field(value, "duration", _span),
        _field(value, "parent", _natural),
    )


def _exception(value: Any, left: int = MAX_CAUSES) -> ExceptionInfo:
    found = _object(value)
    frames = _field(found, "backtrace", _frames) or []
    causes = _field(found, "causes", _list) or []
    if len(causes) > left:
        raise NotAJobError(f"more than {MAX_CAUSES} causes within each other")
    return ExceptionInfo(
        _field(found, "class", _text) or "",
        _field(found, "message", _text) or "",
        frames,
        [_exception(cause, left - 1) for cause in causes],
    )


def _frames(value: Any) -> list[Frame]:
    return [_frame(_object(one)) for one in _list(value)]


def _frame(value: dict[str, Any]) -> Frame:
    return Frame(
        _field(value, "file", _text) or "",
        _field(value, "line", _integer) or 0,
        _field(value, "function", _text) or "",
        value.get("in_app") is True,
    )


def _check_depth(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise NotAJobError(f"lists or objects more than {MAX_DEPTH} deep")
        inside = one.values() if isinstance(one, dict) else one
        waiting += [(part, depth + 1) for part in inside if isinstance(part, (dict, list))]


def _encodable(value: Any) -> Any:
    """Return `value` with each half of a surrogate pair as its escape, as the spool's reader has it."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
