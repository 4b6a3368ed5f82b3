"""`autoinst jobs`: the recorded jobs, newest first, as a table or as JSON, one object a line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autoinst.cli.output import Column, Output, ago, clock, duration, message, parse_since
from autoinst.cli.reading import Home, short_id
from autoinst.config import from_environ
from autoinst.store.query import JobFilter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from autoinst.record import Record

STATUSES = ("ok", "error", "ignored", "killed", "running")
COLUMNS = (
    Column("STARTED"),
    Column("AGO", right=True),
    Column("STATUS"),
    Column("ACTION", flexible=True),
    Column("QUEUE", flexible=True),
    Column("WAITED", right=True),
    Column("TOOK", right=True),
    Column("TRY", right=True),
    Column("ID"),
    Column("ERROR", flexible=True),
)


def run(options: argparse.Namespace) -> int:
    """Print the jobs that `options` ask for; returns 0, or 2 for a `--since` that is none."""
    now = time.time_ns()
    try:
        wanted = asked_for(options, now)
    except ValueError as error:
        message(f"--since: {error}")
        return 2
    config = from_environ()
    with Home(config) as home:
        found = home.jobs(wanted)
        if options.json:
            out = Output()
            for record in found:
                out.data(record.to_json())
            return 0
        records = list(found)
        if records:
            print_table(Output(), records)
            if len(records) == options.limit:
                message(f"the newest {options.limit}; --limit N shows more (0: all)")
        elif wanted == JobFilter(limit=options.limit):
            message(f"no job is recorded in {home.path} yet. Try `autoinst demo`, or see `autoinst doctor`.")
        else:
            message("no job matches; `autoinst jobs` shows all")
    return 0


def asked_for(options: argparse.Namespace, now_ns: int) -> JobFilter:
    """Return the filter that `options` mean; raises ValueError for a `--since` that is none."""
    return JobFilter(
        limit=options.limit,
        status=frozenset(options.status or ()),
        since_ns=None if options.since is None else parse_since(options.since, now_ns),
        action=options.action,
        queue=options.queue,
    )


def print_table(out: Output, records: Iterable[Record]) -> None:
    """Write a table of records."""
    now = time.time_ns()
    rows = [
        (
            clock(record.started_ns, now),
            out.style(ago(record.started_ns, now), "dim"),
            out.status(record.status),
            record.action or record.name,
            record.queue,
            duration(record.queue_time_ms),
            duration(elapsed_ms(record, now)),
            None if record.attempts is None else str(record.attempts),
            out.style(short_id(record.id), "dim"),
            problem(record),
        )
        for record in records
    ]
    out.table(COLUMNS, rows)


def elapsed_ms(record: Record, now_ns: int) -> float | None:
    """Return how long the job took, or has been running, in ms."""
    if record.status == "running":
        return max(now_ns - record.started_ns, 0) / 1e6
    return None if record.duration_ns is None else record.duration_ns / 1e6


def problem(record: Record) -> str | None:
    """Return in a few words what went wrong, None if nothing did."""
    if record.killed is not None:
        by = f" by {record.killed.signal}" if record.killed.signal else ""
        during = f" in {record.killed.last_event}" if record.killed.last_event else ""
        return f"process {record.killed.pid} killed{by}{during}"
    if record.exception is None:
        return None
    first_line = record.exception.message.partition("\n")[0]
    return f"{record.exception.class_name}: {first_line}" if first_line else record.exception.class_name
