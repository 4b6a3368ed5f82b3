"""`autoinst export`: the recorded jobs as JSON Lines or CSV, streamed, newest first."""

from __future__ import annotations

import csv
import sys
import time
from typing import TYPE_CHECKING, Any

from autoinst.cli.jobs import asked_for
from autoinst.cli.output import Output, message, to_json
from autoinst.cli.reading import Home
from autoinst.config import from_environ

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from autoinst.record import Record

# What a cell of CSV can hold; the exception is its class and message, args, kwargs and tags are JSON.
COLUMNS = (
    *("id", "status", "namespace", "name", "action", "class", "method", "queue", "queue_time", "attempts", "job_id"),
    *("enqueued_at", "started_at", "duration", "exception_class", "exception_message", "args", "kwargs", "tags"),
    *("service", "environment", "revision", "host", "pid", "thread", "rule", "trace_id", "parent_span_id"),
)
PROGRESS_SECONDS = 0.2
BAR_WIDTH = 30


def run(options: argparse.Namespace) -> int:
    """Print the jobs that `options` ask for; returns 0, or 2 for a `--since` that is none."""
    try:
        wanted = asked_for(options, time.time_ns())
    except ValueError as error:
        message(f"--since: {error}")
        return 2
    with Home(from_environ()) as home:
        total = home.store.count() if home.store is not None else 0
        found = progress(home.jobs(wanted), min(wanted.limit or total, total))
        if options.format == "csv":
            write_csv(found)
        else:
            out = Output()
            for record in found:
                out.data(record.to_json())
    return 0


def write_csv(records: Iterable[Record]) -> None:
    """Write records as CSV (RFC 4180, but for the line ends) with a line of headings."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        values = record.to_json()
        exception = values["exception"] or {}
        values |= {"exception_class": exception.get("class"), "exception_message": exception.get("message")}
        writer.writerow([cell(values[name]) for name in COLUMNS])


def cell(value: Any) -> Any:
    """Return a value as a cell of CSV: nothing for null, JSON for what is no text or number."""
    if value is None or isinstance(value, (int, float)):
        return value
    # Text that no encoding has, from a program's bytes, must not end the export.
    text = value if isinstance(value, str) else to_json(value)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def progress(records: Iterator[Record], total: int) -> Iterator[Record]:
    """Yield `records` and show on a terminal how many of at most `total` have been."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from records
        return
    shown = time.monotonic()
    number = 0
    for number, record in enumerate(records, 1):
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            filled = min(BAR_WIDTH * number // max(total, 1), BAR_WIDTH)
            sys.stderr.write(f"\r[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {number} jobs ")
            sys.stderr.flush()
        yield record
    sys.stderr.write(f"\r\033[K{number} jobs\n")
