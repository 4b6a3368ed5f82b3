"""Records that exporters send in tests."""

from __future__ import annotations

import time

from autoinst.record import Event, ExceptionInfo, Frame, Killed, Record
from autoinst.spool.layout import record_id

UID = b"arena-01"
START_NS = time.time_ns() - 60 * 10**9  # so that nothing is beyond a limit
CAUSE = ExceptionInfo("socket.timeout", "timed out", [Frame("/app/net.py", 3, "call", True)])
FAILURE = ExceptionInfo("shop.MailError", "no items", [Frame("/app/jobs.py", 17, "perform", True)], [CAUSE])


def job(number: int, status: str = "ok", **fields) -> Record:
    """Return record `number` of a small shop."""
    record = Record(
        id=record_id(UID, number),
        status=status,
        started_ns=START_NS + number * 1_000_000,
        name="perform_job.rq",
        action="shop.Mailer#perform",
        class_name="shop.Mailer",
        method="perform",
        queue="mail",
        queue_time_ms=12.5,
        attempts=1,
        duration_ns=25_000_000,
        service="shop",
        environment="production",
        revision="abc123",
        host="box",
        pid=42,
        thread="MainThread",
        rule="rq.yaml:8",
    )
    if status == "error":
        record.exception = FAILURE
    if status == "killed":
        record.killed = Killed(42, "SIGKILL", "query.sqlite")
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def rich(number: int = 1) -> Record:
    """Return a record that has everything."""
    events = [
        Event("query.sqlite", "SELECT", "SELECT * FROM orders WHERE id = ?", 1_000_000, 2_000_000, None),
        Event("request.urllib3", None, "GET https://api.example/orders?page=1", 4_000_000, 9_000_000, None),
        Event("render.pdf", "invoice", None, 5_000_000, None, 1),
    ]
    return job(
        number,
        "error",
        events=events,
        dropped_events=4,
        args=[13, {"a": None}],
        kwargs={"fast": True},
        tags={"tenant": "acme", "size": 3, "ratio": 0.5, "big": 2**70, "list": [1, 2], "odd": "\ud800"},
        job_id="6e0c",
        trace_id="5b8efff798038103d269b633813fc60c",
        parent_span_id="eee19b7ec3c1b174",
        adjusted_count=20.0,
    )
