"""The finished record of one job, as the reading half sees it and as JSON prints it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

JSON_VERSION = 1
INT64_MAX = 2**63 - 1  # the largest number that the store can hold
# What a cell of CSV can hold; the exception is its class and message, args, kwargs and tags are JSON.
CSV_COLUMNS = (
    *("id", "status", "namespace", "name", "action", "class", "method", "queue", "queue_time", "attempts", "job_id"),
    *("enqueued_at", "started_at", "duration", "exception_class", "exception_message", "args", "kwargs", "tags"),
    *("service", "environment", "revision", "host", "pid", "thread", "rule", "trace_id", "parent_span_id"),
)


@dataclass(slots=True)
class Frame:
    """One line of a backtrace, innermost last."""

    file: str
    line: int
    function: str
    in_app: bool


@dataclass(slots=True)
class ExceptionInfo:
    """An exception and, outermost first, the exceptions that caused it."""

    class_name: str
    message: str
    backtrace: list[Frame] = field(default_factory=list)
    causes: list[ExceptionInfo] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the `exception` object of the JSON contract."""
        return {
            "class": self.class_name,
            "message": self.message,
            "backtrace": [
                {"file": f.file, "line": f.line, "function": f.function, "in_app": f.in_app} for f in self.backtrace
            ],
            "causes": [cause.to_json() for cause in self.causes],
        }


@dataclass(slots=True)
class Event:
    """A notification inside a job; `start_ns` counts from the job's start, `parent` is an index into `events`."""

    name: str
    title: str | None
    body: str | None
    start_ns: int
    duration_ns: int | None
    parent: int | None

    def to_json(self) -> dict[str, Any]:
        """Return one element of the `events` array (times in milliseconds)."""
        return {
            "name": self.name,
            "title": self.title,
            "body": self.body,
            "start": self.start_ns / 1e6,
            "duration": None if self.duration_ns is None else self.duration_ns / 1e6,
            "parent": self.parent,
        }


@dataclass(slots=True)
class Killed:
    """What is known of the death of the process in which a job was running."""

    pid: int
    signal: str | None = None
    last_event: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the `killed` object of the JSON contract."""
        return {"pid": self.pid, "signal": self.signal, "last_event": self.last_event}


@dataclass(slots=True)
class Record:
    """One job: every field of the JSON contract, times as nanoseconds since the epoch or as durations in ns."""

    id: str
    status: str
    started_ns: int
    namespace: str = "background_job"
    name: str = "perform_job.python"
    action: str | None = None
    class_name: str | None = None
    method: str | None = None
    queue: str | None = None
    queue_time_ms: float | None = None
    attempts: int | None = None
    job_id: str | None = None
    enqueued_ns: int | None = None
    duration_ns: int | None = None
    exception: ExceptionInfo | None = None
    events: list[Event] = field(default_factory=list)
    dropped_events: int = 0
    args: Any = None
    kwargs: Any = None
    tags: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    service: str | None = None
    environment: str | None = None
    revision: str | None = None
    host: str | None = None
    pid: int | None = None
    thread: str | None = None
    rule: str | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None
    clock_skew: bool = False
    truncated: bool = False
    adjusted_count: float = 1.0  # how many jobs this one stands for, where a rule keeps a share of them
    killed: Killed | None = None

    def elapsed_ms(self, now_ns: int) -> float | None:
        """Return how long the job took, or has been running at `now_ns`, in ms."""
        if self.status == "running":
            return max(now_ns - self.started_ns, 0) / 1e6
        return None if self.duration_ns is None else self.duration_ns / 1e6

    def problem(self) -> str | None:
        """Return in a few words what went wrong, None if nothing did."""
        if self.killed is not None:
            by = f" by {self.killed.signal}" if self.killed.signal else ""
            during = f" in {self.killed.last_event}" if self.killed.last_event else ""
            return f"process {self.killed.pid} killed{by}{during}"
        if self.exception is None:
            return None
        first_line = self.exception.message.partition("\n")[0]
        return f"{self.exception.class_name}: {first_line}" if first_line else self.exception.class_name

    def event_tree(self) -> list[tuple[Event, int]]:
        """Return the events as a tree is read, each with its depth; a parent that cannot be one counts as none."""
        children: dict[int | None, list[int]] = {}
        for index, event in enumerate(self.events):
            parent = event.parent if event.parent is not None and 0 <= event.parent < index else None
            children.setdefault(parent, []).append(index)
        out: list[tuple[Event, int]] = []
        waiting = [(index, 0) for index in reversed(children.get(None, []))]
        while waiting:
            index, depth = waiting.pop()
            out.append((self.events[index], depth))
            waiting += [(child, depth + 1) for child in reversed(children.get(index, []))]
        return out

    def to_json(self) -> dict[str, Any]:
        """Return the public JSON object of this record, in the contract's order of keys."""
        out: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "namespace": self.namespace,
            "name": self.name,
            "action": self.action,
            "class": self.class_name,
            "method": self.method,
            "queue": self.queue,
            "queue_time": self.queue_time_ms,
            "attempts": self.attempts,
            "job_id": self.job_id,
            "enqueued_at": rfc3339(self.enqueued_ns),
            "started_at": rfc3339(self.started_ns),
            "duration": None if self.duration_ns is None else self.duration_ns / 1e6,
            "exception": None if self.exception is None else self.exception.to_json(),
            "events": [event.to_json() for event in self.events],
            "dropped_events": self.dropped_events,
            "args": self.args,
            "kwargs": self.kwargs,
            "tags": self.tags,
            "params": self.params,
            "env": self.env,
            "service": self.service,
            "environment": self.environment,
            "revision": self.revision,
            "host": self.host,
            "pid": self.pid,
            "thread": self.thread,
            "rule": self.rule,
            "trace_id": self.trace_id or self.id,
            "parent_span_id": self.parent_span_id,
        }
        if self.clock_skew:
            out["clock_skew"] = True
        if self.truncated:
            out["truncated"] = True
        if self.adjusted_count != 1:
            out["adjusted_count"] = self.adjusted_count
        if self.killed is not None:
            out["killed"] = self.killed.to_json()
        return out

    def to_csv(self) -> list[Any]:
        """Return the values of CSV_COLUMNS."""
        values = self.to_json()
        exception = values["exception"] or {}
        values |= {"exception_class": exception.get("class"), "exception_message": exception.get("message")}
        return [values[name] for name in CSV_COLUMNS]


def rfc3339(ns: int | None) -> str | None:
    """Format nanoseconds since the epoch as RFC 3339 UTC with microseconds; None stays None."""
    if ns is None:
        return None
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1000:06d}Z"
