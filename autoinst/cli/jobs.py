"""`autoinst jobs`: the recorded jobs, newest first, as a table or as JSON, one object a line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autoinst.cli.check_ins import tell_missed
from autoinst.cli.filters import asked_for
from autoinst.cli.output import Column, Output, message
from autoinst.cli.reading import Home, short_id
from autoinst.config import from_environ
from autoinst.store.query import JobFilter
from autoinst.wording import ago, clock, duration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from autoinst.record import Record

STATUSES = ("ok", "error", "ignored", "killed", "running")
COLUMNS = (
    Column("STARTED"),
    Column("AGO", right=True, spare=True),
    Column("STATUS"),
    Column("ACTION", flexible=True),
    Column("QUEUE", flexible=True, spare=True),
    Column("WAITED", right=True, spare=True),
    Column("TOOK", right=True),
    Column("TRY", right=True, spare=True),
    Column("ID"),
    Column("ERROR", flexible=True),
)


def run(options: argparse.Namespace) -> int:
    """Print the jobs that `options` ask for; returns 0. Raises UsageError."""
    wanted = asked_for(options)
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
        tell_missed(config, home.local, home.flying)
    return 0


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
            duration(record.elapsed_ms(now)),
            None if record.attempts is None else str(record.attempts),
            out.style(short_id(record.id), "dim"),
            record.problem(),
        )
        for record in records
    ]
    out.table(COLUMNS, rows)
