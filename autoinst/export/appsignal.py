"""Jobs as AppSignal knows them: OTLP whose attributes its agent and its collector read, each its own column.

Names are those of AppSignal's integrations for Python (1.9) and Ruby (5.0), and those its agent 0.37 was seen to take.
Both columns are sent, since each side leaves alone what it does not know.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoinst.export import metrics, spans
from autoinst.export.signals import ERROR, UNSET, Link, Metric, Resource, SpanEvent
from autoinst.store.attempts import RETRIES_LEFT
from autoinst.wording import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.export.signals import Attributes, Span
    from autoinst.record import ExceptionInfo, Record

BACKGROUND, WEB = "background", "web"
NAMESPACES = {"background_job": BACKGROUND, "http_request": WEB}
REPORTS = ("all", "last_attempt", "none")
KILLED = "autoinst.Killed"  # the error a job is reported with whose process was killed
MAX_CAUSES = 10
QUEUE_BOUNDS = tuple(seconds * 1e3 for seconds in metrics.BOUNDS)  # ms
MAX_LINES = 100  # of a cause's backtrace


@dataclass(frozen=True)
class App:
    """Which application it is; None: what each record says."""

    push_api_key: str
    name: str | None = None
    environment: str | None = None
    revision: str | None = None  # of records that tell none
    hostname: str | None = None
    report: str = REPORTS[0]
    arguments: bool = True
    lists: dict[str, list[str]] = field(default_factory=dict)  # ignore_actions and their like, for the collector

    def name_of(self, record: Record) -> str:
        """Return the application's name."""
        return self.name or record.service or "autoinst"

    def environment_of(self, record: Record) -> str:
        """Return the application's environment."""
        return self.environment or record.environment or "development"

    def host_of(self, record: Record) -> str:
        """Return the name of the host."""
        return self.hostname or record.host or "unknown"


def resource_of(app: App, record: Record) -> Attributes:
    """Return the attributes of the process that ran a job."""
    return {
        **spans.resource_of(record),
        "service.name": record.service or app.name_of(record),
        "host.name": app.host_of(record),
        "appsignal.config.name": app.name_of(record),
        "appsignal.config.environment": app.environment_of(record),
        "appsignal.config.push_api_key": app.push_api_key,
        "appsignal.config.revision": record.revision or app.revision or "unknown",
        "appsignal.config.language_integration": "python",
        "appsignal.config.app_path": os.getcwd(),
        "appsignal.service.process_id": record.pid,
        **{f"appsignal.config.{name}": list(items) for name, items in app.lists.items() if items},
    }


def resources_of(app: App, records: Sequence[Record]) -> list[Resource]:
    """Return the spans of records, by process."""
    return [
        Resource(resource_of(app, group[0]), tuple(span for record in group for span in of_record(app, record)))
        for group in spans.by_resource(records).values()
    ]


def of_record(app: App, record: Record) -> list[Span]:
    """Return the spans of a job's events, and then its own: the agent drops a child that comes after its root.

    Each job is a trace of its own: of two roots in one trace the agent keeps one.
    """
    root, *children = spans.of_record(record)
    trace = bytes.fromhex(record.id)
    error = error_of(app, record)
    events = [SpanEvent(root.end_ns, "exception", error)] if error is not None else []
    if record.queue_time_ms is not None:
        queued_ns = root.start_ns - int(max(record.queue_time_ms, 0.0) * 1e6)
        events.insert(0, SpanEvent(max(queued_ns, 0), "appsignal.queue_start", {}))
    links = (Link(root.trace_id, root.parent, {}),) if root.parent is not None else ()
    attributes = {**root.attributes, **attributes_of(app, record)}
    own = root._replace(
        trace_id=trace,
        parent=None,
        attributes={name: value for name, value in attributes.items() if value is not None},
        events=tuple(events),
        links=links,
        status=ERROR if error is not None else UNSET,
        message=root.message if error is not None else "",
    )
    return [*(_of_event(record, index, span, trace) for index, span in enumerate(children)), own]


def _of_event(record: Record, index: int, span: Span, trace: bytes) -> Span:
    event = record.events[index]
    out = {
        "appsignal.name": event.title or event.name,
        "appsignal.category": event.name if "." in event.name else f"{event.name}.other",
        "appsignal.body": None if "db.query.text" in span.attributes else event.body,
    }
    name = f"{event.name} ({event.title})" if event.title else event.name
    return span._replace(trace_id=trace, name=name, attributes={**span.attributes, **out})


def attributes_of(app: App, record: Record) -> Attributes:
    """Return the attributes that only AppSignal reads."""
    action = record.action or record.name
    parameters = _parameters(record) if app.arguments else None
    out: Attributes = {
        "appsignal.root_name": action,
        "appsignal.action_name": action,
        "appsignal.name": record.name,
        "appsignal.category": record.name if "." in record.name else f"{record.name}.other",
        "appsignal.namespace": NAMESPACES.get(record.namespace, record.namespace),
        "appsignal.request.parameters": parameters,
        "appsignal.function.parameters": parameters,
        "appsignal.custom_data": to_json(_custom_data(record)),
        "appsignal.tag.queue": record.queue,
        "appsignal.tag.attempts": record.attempts,
        "appsignal.tag.job_id": record.job_id,
    }
    out.update((f"appsignal.tag.{key}", spans.scalar(value)) for key, value in record.tags.items())
    if not app.arguments:
        out |= {"autoinst.args": None, "autoinst.kwargs": None}
    return out


def _parameters(record: Record) -> str | None:
    found: dict[str, Any] = dict(record.params)
    if record.args is not None:
        found["args"] = record.args
    if record.kwargs is not None:
        found["kwargs"] = record.kwargs
    if not found:
        return None
    text = to_json(found)
    return text if len(text) <= spans.MAX_JSON else to_json({"truncated": text[: spans.MAX_JSON // 2]})


def _custom_data(record: Record) -> dict[str, Any]:
    found = {
        "transaction_id": record.id,
        "status": record.status,
        "queue_time": record.queue_time_ms,
        "rule": record.rule,
        "thread": record.thread,
        "dropped_events": record.dropped_events or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def error_of(app: App, record: Record) -> Attributes | None:
    """Return the attributes of the exception to report of a job, None where there is none, or it is not wanted."""
    if record.status not in spans.FAILED or not _is_reported(app, record):
        return None
    if record.status == "killed":
        out: Attributes = {"exception.type": KILLED, "exception.message": record.problem() or "killed"}
        return {**out, "exception.stacktrace": "", "appsignal.alert_this_error": True}
    info = record.exception
    if info is None:
        return None
    return {
        "exception.type": info.class_name,
        "exception.message": info.message,
        "exception.stacktrace": spans.traceback(info),
        "appsignal.alert_this_error": True,
        "appsignal.error_causes": json.dumps([_cause(cause) for cause in info.causes[:MAX_CAUSES]]),
    }


def _cause(info: ExceptionInfo) -> dict[str, Any]:
    lines = [f'File "{frame.file}", line {frame.line}, in {frame.function}' for frame in info.backtrace[-MAX_LINES:]]
    return {"name": info.class_name, "message": info.message, "lines": lines}


def _is_reported(app: App, record: Record) -> bool:
    if app.report == "none":
        return False
    left = record.tags.get(RETRIES_LEFT)
    # A job that will be run again tells so by how many retries are left; a killed one is not run again by itself.
    again = record.status == "error" and type(left) is int and left > 0
    return app.report == "all" or not again


def test_attributes() -> Attributes:
    """Return what keeps the span of a test out of AppSignal's pages."""
    return {"autoinst.test": True, "appsignal.ignore_trace": True, "appsignal.ignore_subtrace": True}


def queue_times(app: App, records: Sequence[Record]) -> tuple[Metric, ...]:
    """Return the metric from which AppSignal draws queue times by namespace (ms)."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in records:
        if record.queue_time_ms is not None:
            key = NAMESPACES.get(record.namespace, record.namespace), app.host_of(record)
            groups.setdefault(key, []).append((max(record.queue_time_ms, 0.0), record.adjusted_count))
    points = tuple(
        metrics.point({"namespace": namespace, "hostname": host}, values, QUEUE_BOUNDS)
        for (namespace, host), values in groups.items()
    )
    text = "How long jobs waited in their queue."
    return (Metric("transaction_queue_duration", "ms", text, QUEUE_BOUNDS, points),) if points else ()
