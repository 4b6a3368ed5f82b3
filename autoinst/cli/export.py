"""`autoinst export`: the recorded jobs as JSON Lines or CSV, streamed, newest first."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

from autoinst.cli.filters import asked_for
from autoinst.cli.output import Output
from autoinst.cli.progress import bar
from autoinst.cli.reading import Home
from autoinst.config import from_environ
from autoinst.record import CSV_COLUMNS
from autoinst.wording import csv_cell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from autoinst.record import Record


def run(options: argparse.Namespace) -> int:
    """Print the jobs that `options` ask for; returns 0. Raises UsageError."""
    wanted = asked_for(options)
    with Home(from_environ()) as home:
        total = home.store.count() if home.store is not None else 0
        found = bar(home.jobs(wanted), min(wanted.limit or total, total), "jobs")
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
