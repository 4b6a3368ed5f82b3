"""What only some jobs have (exception, events, arguments, ...) as one small blob: JSON, deflated with a dictionary."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from autoinst.record import Event, ExceptionInfo, Frame, Killed

if TYPE_CHECKING:
    from autoinst.record import Record

# The first byte of a blob tells how it was made, so that the dictionary can be bettered later.
DEFLATED_1 = 1
DICTIONARY_1 = (
    b"requests.exceptions.HTTPError psycopg.OperationalError redis.exceptions.ConnectionError TimeoutError KeyError "
    b"AttributeError TypeError RuntimeError not found connection refused timed out 'NoneType' object has no attribute "
    b"invalid literal for int() with base 10: SELECT * FROM INSERT INTO VALUES UPDATE SET DELETE FROM WHERE id = ? AND "
    b"LIMIT ORDER BY COMMIT BEGIN GET http://localhost https://api. POST HGETALL LPUSH EXPIRE "
    b'{"digest":"rules":[["rules.yaml:","patched","not imported","source",null],"unavailable":[],"notes":[]}'
    b'{"service":"environment":"production","revision":"host":"argv":["python":"3.12","autoinst":"cwd":"exe":"cgroup":'
    b'"/usr/local/lib/python3.12/site-packages/","/usr/lib/python3.11/asyncio/threading.py","/app/src/jobs.py",'
    b'"tasks.py","__init__.py","__call__",1],["perform",1],["run",1],["execute",0],["wrapper",0],["_run",0],["<module>"'
    b'"queue":"default","retries":0,"user_id":"account_id":"tenant":"true,false,null},{"id":"name":"email":"'
    b'{"args":[],"kwargs":{"tags":{"request_id":"},"params":{"env":{"PATH":"LANG":"en_US.UTF-8","HOSTNAME":"'
    b'"dropped_events":"enqueued_ns":17"trace_id":"parent_span_id":"killed":["events":[["query.sql",null,null,'
    b'["request.http",["query.redis",["cache.get",["render.template",["perform_job.python",'
    b'"exception":["builtins.ValueError","",[["/app/",[]]}'
)

# A window of 8 KiB: the state of the usual 32 takes ten times as long to copy, and shortens no blob of usual size.
_COMPRESS = zlib.compressobj(6, zlib.DEFLATED, -13, 6, zlib.Z_DEFAULT_STRATEGY, DICTIONARY_1)
_EXPAND = zlib.decompressobj(-15, DICTIONARY_1)
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def pack(value: Any) -> bytes:
    """Return plain data as a blob."""
    maker = _COMPRESS.copy()  # priming with the dictionary anew would take five times as long
    return bytes((DEFLATED_1,)) + maker.compress(_dumps(value).encode("utf-8", "backslashreplace")) + maker.flush()


def unpack(blob: bytes) -> Any:
    """Return the data of a blob; raises ValueError if it is none."""
    if blob[:1] != bytes((DEFLATED_1,)):
        raise ValueError(f"details of an unknown kind: {blob[:1]!r}")
    try:
        return json.loads(_EXPAND.copy().decompress(blob[1:]))
    except zlib.error as error:
        raise ValueError(f"details: {error}") from None


def of_record(record: Record) -> bytes | None:
    """Return the blob of what `record` has beyond its columns; None for a plain job."""
    out = plain(record)
    return pack(out) if out else None


def plain(record: Record) -> dict[str, Any]:
    """Return what `record` has beyond its columns as plain data, nothing for a plain job."""
    out: dict[str, Any] = {}
    if record.args is not None:
        out["args"] = record.args
    if record.kwargs is not None:
        out["kwargs"] = record.kwargs
    for key in ("tags", "params", "env", "dropped_events", "enqueued_ns", "trace_id", "parent_span_id"):
        value = getattr(record, key)
        if value:
            out[key] = value
    if record.adjusted_count != 1:
        out["adjusted_count"] = record.adjusted_count
    if record.killed is not None:
        out["killed"] = [record.killed.pid, record.killed.signal, record.killed.last_event]
    if record.events:
        out["events"] = [[e.name, e.title, e.body, e.start_ns, e.duration_ns, e.parent] for e in record.events]
    if record.exception is not None:
        out["exception"] = _exception_data(record.exception)
    return out


def into_record(record: Record, blob: bytes) -> None:
    """Set what `of_record` kept of a record."""
    set_plain(record, unpack(blob))


def set_plain(record: Record, data: dict[str, Any]) -> None:
    """Set what `plain` returned of a record."""
    for key in (
        "args",
        "kwargs",
        "tags",
        "params",
        "env",
        "dropped_events",
        "enqueued_ns",
        "trace_id",
        "parent_span_id",
        "adjusted_count",
    ):
        if key in data:
            setattr(record, key, data[key])
    if "killed" in data:
        record.killed = Killed(*data["killed"])
    record.events = [Event(*row) for row in data.get("events", ())]
    if "exception" in data:
        record.exception = _exception(data["exception"])


def _exception_data(info: ExceptionInfo) -> list[Any]:
    frames = [[frame.file, frame.line, frame.function, int(frame.in_app)] for frame in info.backtrace]
    return [info.class_name, info.message, frames, [_exception_data(cause) for cause in info.causes]]


def _exception(data: list[Any]) -> ExceptionInfo:
    class_name, message, frames, causes = data
    backtrace = [Frame(file, line, function, bool(in_app)) for file, line, function, in_app in frames]
    return ExceptionInfo(class_name, message, backtrace, [_exception(cause) for cause in causes])
