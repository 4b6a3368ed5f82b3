"""`autoinst export`: the recorded jobs as JSON Lines or CSV, streamed, newest first."""

from __future__ import annotations

import csv
import sys
import time
from typing import TYPE_CHECKING

from autoinst.cli.filters import asked_for
from autoinst.cli.output import Output
from autoinst.cli.reading import Home
from autoinst.config import from_environ
from autoinst.record import CSV_COLUMNS
from autoinst.wording import csv_cell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from autoinst.record import Record

PROGRESS_SECONDS = 0.2
BAR_WIDTH = 30


def run(options: argparse.Namespace) -> int:
    """Print the jobs that `options` ask for; returns 0. Raises UsageError."""
    wanted = asked_for(options)
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
    writer.writerow(CSV_COLUMNS)
    encoding = sys.stdout.encoding or "utf-8"
    for record in records:
        writer.writerow([csv_cell(value, encoding) for value in record.to_csv()])


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
