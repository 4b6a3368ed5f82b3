"""A job's record as spans: one for the job, one for each event inside it.

Names of attributes are those of OpenTelemetry's semantic conventions 1.3x (messaging, database, HTTP, code, exceptions,
resource); what these have no name for begins with `autoinst.`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from autoinst import __version__
from autoinst.export.signals import (
    CLIENT,
    CONSUMER,
    ERROR,
    INTERNAL,
    PRODUCER,
    UNSET,
    Link,
    Span,
    SpanEvent,
)
from autoinst.spool.layout import event_span_id
from autoinst.spool.tail import is_id
from autoinst.wording import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autoinst.export.signals import Attributes
    from autoinst.record import Event, ExceptionInfo, Record

FAILED = ("error", "killed")
NO_SYSTEM = "python"  # what a rule's own name ends in where it names no library
MAX_JSON = 16_384  # characters of the arguments as JSON
DATABASES = {
    "clickhouse": "clickhouse",
    "mariadb": "mariadb",
    "memcached": "memcached",
    "mongo": "mongodb",
    "mongodb": "mongodb",
    "mysql": "mysql",
    "pg": "postgresql",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "psycopg": "postgresql",
    "redis": "redis",
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
}
_HTTP = re.compile(r"(?:([A-Z]{3,10}) )?(https?://\S+)")
_WORD = re.compile(r"[A-Za-z]{2,20}")


def resource_of(record: Record) -> Attributes:
    """Return the attributes of the process that ran a job."""
    return {
        "service.name": record.service or "unknown_service:python",
        "service.version": record.revision,
        "deployment.environment.name": record.environment,
        "host.name": record.host,
        "process.pid": record.pid,
        "telemetry.sdk.name": "autoinst",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }


def by_resource(records: Iterable[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Return records grouped by process."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        key = (record.service, record.revision, record.environment, record.host, record.pid)
        found.setdefault(key, []).append(record)
    return found


def trace_id(record: Record) -> bytes:
    """Return the trace a job belongs to: another job's, or its own, whose id is the record's."""
    return bytes.fromhex(record.trace_id if record.trace_id and is_id(record.trace_id) else record.id)


def span_id(record: Record) -> bytes:
    """Return the id of a job's span, which the jobs begun inside it have as their parent's."""
    return bytes.fromhex(record.id[16:])


def parent_of(record: Record) -> bytes | None:
    """Return the id of the span a job was begun or put on its queue by."""
    try:
        found = bytes.fromhex(record.parent_span_id or "")
    except ValueError:
        return None
    return found if len(found) == 8 and any(found) else None  # noqa: PLR2004 - bytes of a span's id


def of_record(record: Record) -> list[Span]:
    """Return the span of a job and those of its events."""
    trace, own, parent = trace_id(record), span_id(record), parent_of(record)
    end_ns = record.started_ns + (record.duration_ns or 0)
    events: tuple[SpanEvent, ...] = ()
    if record.exception is not None:
        events = (SpanEvent(end_ns, "exception", exception_attributes(record.exception)),)
    root = Span(
        trace,
        own,
        parent,
        record.action or record.name,
        CONSUMER,
        record.started_ns,
        end_ns,
        attributes_of(record),
        events,
        (Link(trace, parent, {}),) if parent is not None else (),
        ERROR if record.status in FAILED else UNSET,
        (record.problem() or "") if record.status in FAILED else "",
        record.dropped_events,
    )
    return [root, *(_of_event(record, root, index) for index in range(len(record.events)))]


def _of_event(record: Record, root: Span, index: int) -> Span:
    event = record.events[index]
    start_ns = root.start_ns + event.start_ns
    end_ns = max(root.end_ns, start_ns) if event.duration_ns is None else start_ns + event.duration_ns
    above = event.parent if event.parent is not None and 0 <= event.parent < index else None
    parent = root.span_id if above is None else event_span_id(root.span_id, above)
    kind, attributes = event_attributes(event)
    return Span(
        root.trace_id, event_span_id(root.span_id, index), parent, event_name(event), kind, start_ns, end_ns, attributes
    )


def event_name(event: Event) -> str:
    """Return what the span of an event is called."""
    return f"{event.name} {event.title}" if event.title and len(event.title) <= 80 else event.name  # noqa: PLR2004


def attributes_of(record: Record) -> Attributes:
    """Return the attributes of a job's span."""
    system = library(record)
    out: Attributes = {
        "messaging.system": system,
        "messaging.operation.name": "perform" if system else None,
        "messaging.operation.type": "process" if system else None,
        "messaging.destination.name": record.queue,
        "messaging.message.id": record.job_id,
        "code.function.name": _function(record),
        "thread.name": record.thread,
        "error.type": _error_type(record),
        "autoinst.status": record.status,
        "autoinst.namespace": record.namespace,
        "autoinst.name": record.name,
        "autoinst.queue_time": record.queue_time_ms,
        "autoinst.attempts": record.attempts,
        "autoinst.rule": record.rule,
        "autoinst.args": _json(record.args),
        "autoinst.kwargs": _json(record.kwargs),
        "autoinst.killed.signal": record.killed.signal if record.killed else None,
        "autoinst.killed.last_event": record.killed.last_event if record.killed else None,
        "autoinst.clock_skew": record.clock_skew or None,
        "autoinst.truncated": record.truncated or None,
        "autoinst.adjusted_count": record.adjusted_count if record.adjusted_count != 1 else None,
    }
    out.update((f"autoinst.tag.{key}", scalar(value)) for key, value in record.tags.items())
    return {key: value for key, value in out.items() if value is not None}


def library(record: Record) -> str | None:
    """Return the library whose job it is, None where it is just a function and there is no queue."""
    found = record.name.partition(".")[2]
    if found and found != NO_SYSTEM:
        return found
    return NO_SYSTEM if record.queue is not None else None


def _function(record: Record) -> str | None:
    if record.class_name is None or record.method is None:
        return record.class_name or record.method
    return f"{record.class_name}.{record.method}"


def _error_type(record: Record) -> str | None:
    if record.status not in FAILED:
        return None
    return record.exception.class_name if record.exception else record.status


def event_attributes(event: Event) -> tuple[int, Attributes]:
    """Return kind and attributes of an event's span."""
    out: Attributes = {"autoinst.name": event.name, "autoinst.title": event.title, "autoinst.body": event.body}
    action, _, group = event.name.partition(".")
    system = DATABASES.get(group)
    if system or action == "query" or group == "sql":
        operation = event.title if event.title and _WORD.fullmatch(event.title) else None
        out |= {"db.system.name": system or "other_sql", "db.operation.name": operation}
        out["db.query.text"] = event.body or event.title
        del out["autoinst.body"]
        return CLIENT, out
    if action == "enqueue":
        out |= {"messaging.system": group or None, "messaging.operation.type": "send"}
        return PRODUCER, out
    found = _HTTP.search(event.title or "") or _HTTP.search(event.body or "")
    if action == "request" and found:
        method = found[1] or (event.title if event.title and event.title.isupper() else None)
        out |= {"http.request.method": method, "url.full": found[2]}
        return CLIENT, out
    return CLIENT if action == "request" else INTERNAL, out


def exception_attributes(info: ExceptionInfo) -> Attributes:
    """Return the attributes of an exception event."""
    return {
        "exception.type": info.class_name,
        "exception.message": info.message,
        "exception.stacktrace": stacktrace(info),
    }


def stacktrace(info: ExceptionInfo) -> str:
    """Return an exception and its causes as Python prints them."""
    parts = [traceback(cause) for cause in reversed(info.causes)]
    return "\nThe above exception was the cause of the following one:\n\n".join([*parts, traceback(info)])


def traceback(info: ExceptionInfo) -> str:
    """Return one exception, without its causes, as Python prints it."""
    lines = [f'  File "{frame.file}", line {frame.line}, in {frame.function}\n' for frame in info.backtrace]
    head = "Traceback (most recent call last):\n" if lines else ""
    return f"{head}{''.join(lines)}{info.class_name}: {info.message}\n"


def scalar(value: Any) -> Any:
    """Return a value as an attribute can have it: what is no text, number or truth value is JSON."""
    return value if isinstance(value, (str, int, float)) else _json(value)


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value)[:MAX_JSON]
