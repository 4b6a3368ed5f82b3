"""Jobs as rows of ClickHouse's table `job`, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX, Record
from autoinst.spool.layout import STATUS_NAMES
from autoinst.store import details
from autoinst.store.failures import fingerprint
from autoinst.store.records import queue_ns, trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    "start, id_high, id_low, status, duration, queue_time, action, class, method, namespace, name, rule, queue,"
    " attempts, service, environment, revision, host, pid, thread, clock_skew, truncated, job_id, details"
)
RANK_BITS = 56  # of a version, below what an end says of itself: one that was seen replaces one that was inferred
RANKS = {name: 1 if name == "killed" else 2 for name in STATUS_NAMES} | {"running": 0}
GONE = 3
HALF = 16  # hexadecimal digits
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def of_record(record: Record, n: int, home: int) -> dict[str, Any]:
    """Return the row of a job that is number `n` of its home's local store."""
    data = details.plain(record)
    failed = record.exception if record.status == "error" else None
    trace = trace_of(record)
    return {
        "start": record.started_ns,
        "id_high": int(record.id[:HALF], 16),
        "id_low": int(record.id[HALF:], 16),
        "version": RANKS[record.status] << RANK_BITS | n,
        "home": home,
        "status": record.status,
        "duration": None if record.duration_ns is None else min(record.duration_ns, INT64_MAX),
        "queue_time": queue_ns(record),
        "action": record.action or "",
        "class": record.class_name or "",
        "method": record.method or "",
        "namespace": record.namespace,
        "name": record.name,
        "rule": record.rule or "",
        "queue": record.queue or "",
        "attempts": record.attempts,
        "service": record.service or "",
        "environment": record.environment or "",
        "revision": record.revision or "",
        "host": record.host or "",
        "pid": record.pid or 0,
        "thread": record.thread or "",
        "clock_skew": int(record.clock_skew),
        "truncated": int(record.truncated),
        "error": 0 if failed is None else int.from_bytes(fingerprint(failed), "big"),
        "error_class": "" if failed is None else failed.class_name,
        "job_id": record.job_id or "",
        "trace": "" if trace is None else trace.hex(),
        "details": _dumps(data).encode("utf-8", "backslashreplace").decode() if data else "",
    }


def gone(id_high: int, id_low: int, start_ns: int, home: int) -> dict[str, Any]:
    """Return the row that takes a job out of the lists: it was said to be killed, and no record of it is kept."""
    key = {"start": start_ns, "id_high": id_high, "id_low": id_low, "home": home}
    return key | {"version": GONE << RANK_BITS, "gone": 1, "status": "ok"}


def to_record(row: Mapping[str, Any]) -> Record:
    """Return the record of a row with all COLUMNS."""
    record = Record(record_id(row), row["status"], row["start"])
    record.duration_ns = row["duration"]
    record.queue_time_ms = None if row["queue_time"] is None else row["queue_time"] / 1e6
    record.action = row["action"] or None
    record.class_name = row["class"] or None
    record.method = row["method"] or None
    record.namespace = row["namespace"]
    record.name = row["name"]
    record.rule = row["rule"] or None
    record.queue = row["queue"] or None
    record.attempts = row["attempts"]
    record.service = row["service"] or None
    record.environment = row["environment"] or None
    record.revision = row["revision"] or None
    record.host = row["host"] or None
    record.pid = row["pid"] or None
    record.thread = row["thread"] or None
    record.clock_skew = bool(row["clock_skew"])
    record.truncated = bool(row["truncated"])
    record.job_id = row["job_id"] or None
    if row["details"]:
        details.set_plain(record, json.loads(row["details"]))
    return record


def record_id(row: Mapping[str, Any]) -> str:
    """Return the id of a row."""
    return f"{row['id_high']:0{HALF}x}{row['id_low']:0{HALF}x}"
