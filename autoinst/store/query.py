"""Questions to the store: jobs newest first, one job, totals over time, errors."""

from __future__ import annotations

import heapq
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoinst.store.failures import HOUR_NS, ErrorGroup
from autoinst.store.records import JOB_COLUMNS, STATUS_NUMBERS, from_row, pack_job_id
from autoinst.store.rollups import COLUMNS, HOUR_MINUTES, MINUTE_NS, Cell, cell_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from autoinst.record import Record
    from autoinst.store.processes import Processes
    from autoinst.store.records import Names

OK = STATUS_NUMBERS["ok"]
ID_DIGITS = 32
_START = 2  # where JOB_COLUMNS has it


@dataclass(slots=True, frozen=True)
class JobFilter:
    """Which jobs: every given condition must hold. `limit` 0 means all; times in ns since the epoch.

    `since_ns` is included, `until_ns` is not; `id_prefix` are hexadecimal digits; `error` an ErrorGroup's id.
    """

    limit: int = 50
    status: frozenset[str] = frozenset()
    since_ns: int | None = None
    until_ns: int | None = None
    action: str | None = None
    queue: str | None = None
    name: str | None = None
    job_id: str | None = None
    id_prefix: str | None = None
    error: int | None = None
    service: str | None = None

    def matches(self, record: Record) -> bool:
        """Return whether `record` (one in flight, say) is asked for; `limit` and `error` are not looked at."""
        return (
            (not self.status or record.status in self.status)
            and (self.since_ns is None or record.started_ns >= self.since_ns)
            and (self.until_ns is None or record.started_ns < self.until_ns)
            and (self.action is None or record.action == self.action)
            and (self.queue is None or record.queue == self.queue)
            and (self.name is None or record.name == self.name)
            and (self.job_id is None or record.job_id == self.job_id)
            and (self.id_prefix is None or record.id.startswith(self.id_prefix))
            and (self.service is None or record.service == self.service)
        )


def jobs(con: sqlite3.Connection, names: Names, processes: Processes, wanted: JobFilter) -> Iterator[Record]:
    """Yield the stored jobs that `wanted` asks for, newest start first."""
    where: list[str] = []
    values: list[Any] = []
    for condition, text in (
        ("action = ?", wanted.action),
        ("queue = ?", wanted.queue),
        ("site IN (SELECT id FROM site WHERE name = ?)", wanted.name),
        ("process IN (SELECT id FROM process WHERE service = ?)", wanted.service),
    ):
        if text is not None:
            number = names.find(text)
            if not number:
                return
            where.append(condition)
            values.append(number)
    for condition, value in (
        ("start >= ?", wanted.since_ns),
        ("start < ?", wanted.until_ns),
        ("job_id = ?", pack_job_id(wanted.job_id)),
        ("error = ?", wanted.error),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    if wanted.id_prefix is not None:
        where.append("id BETWEEN ? AND ?")
        values.extend(_id_range(wanted.id_prefix))
    limit = wanted.limit if wanted.limit > 0 else -1
    # The planner knows nothing of how few jobs an id means: the plus keeps it from walking all by start.
    order = "+start" if wanted.id_prefix is not None or wanted.job_id is not None else "start"
    rows: Iterator[Any]
    if wanted.status:
        # One ordered walk a status, each on its index, merged.
        walks = []
        for status in sorted(wanted.status):
            number = STATUS_NUMBERS.get(status, -1)
            more = ["status = ?"] if number == OK else ["status = ?", "status <> 1"]
            walks.append(_select(con, [*where, *more], [*values, number], order, limit))
        rows = heapq.merge(*walks, key=lambda row: (row[_START], row[-1]), reverse=True)
        if limit > 0:
            rows = itertools.islice(rows, limit)
    else:
        rows = _select(con, where, values, order, limit)
    for row in rows:
        yield from_row(row[:-1], names, processes.texts(row[9]))


def _select(con: sqlite3.Connection, where: list[str], values: list[Any], order: str, limit: int) -> Iterator[Any]:
    condition = " AND ".join(where) or "1"
    return con.execute(
        f"SELECT {JOB_COLUMNS}, n FROM job WHERE {condition} ORDER BY {order} DESC, n DESC LIMIT ?",  # noqa: S608
        [*values, limit],
    )


def _id_range(prefix: str) -> tuple[bytes, bytes]:
    digits = prefix.lower()
    if len(digits) > ID_DIGITS or digits.strip("0123456789abcdef"):
        return b"\xff" * 17, b""
    return bytes.fromhex(digits.ljust(ID_DIGITS, "0")), bytes.fromhex(digits.ljust(ID_DIGITS, "f"))


def jobs_after(
    con: sqlite3.Connection, names: Names, processes: Processes, n: int, limit: int
) -> list[tuple[int, Record]]:
    """Return up to `limit` jobs stored after cursor `n`, oldest first, each with its own cursor value."""
    rows = con.execute(f"SELECT {JOB_COLUMNS}, n FROM job WHERE n > ? ORDER BY n LIMIT ?", (n, limit))  # noqa: S608
    return [(row[-1], from_row(row[:-1], names, processes.texts(row[9]))) for row in rows]


def cells(
    con: sqlite3.Connection, names: Names, since_ns: int, until_ns: int, *, action: str | None = None
) -> Iterator[tuple[int, str | None, str | None, Cell]]:
    """Yield (start of the span, action, queue, totals) of the jobs started in the time asked for, to the minute.

    Whole hours come as one span, what is left at both ends as minutes.
    """
    first, last = since_ns // MINUTE_NS, -(-until_ns // MINUTE_NS)
    first_hour, last_hour = -(-first // HOUR_MINUTES), last // HOUR_MINUTES
    spans: Iterable[tuple[str, int, int, int]]
    if first_hour < last_hour:
        spans = (
            ("minute", first, first_hour * HOUR_MINUTES, MINUTE_NS),
            ("hour", first_hour, last_hour, HOUR_NS),
            ("minute", last_hour * HOUR_MINUTES, last, MINUTE_NS),
        )
    else:
        spans = (("minute", first, last, MINUTE_NS),)
    more, values = ("", []) if action is None else (" AND action = ?", [names.find(action) or -1])
    for table, start, end, unit in spans:
        for row in con.execute(
            f"SELECT {COLUMNS} FROM {table} WHERE at >= ? AND at < ?{more} ORDER BY at",  # noqa: S608
            [start, end, *values],
        ):
            yield row[0] * unit, names.text(row[1]), names.text(row[2]), cell_of(row)


def series(
    con: sqlite3.Connection, names: Names, since_ns: int, until_ns: int, *, step_ns: int, action: str | None = None
) -> dict[int, Cell]:
    """Return totals per step of `step_ns` (a multiple of a minute, below an hour exact to it), by start of the step."""
    table, unit = ("hour", HOUR_NS) if step_ns % HOUR_NS == 0 else ("minute", MINUTE_NS)
    more, values = ("", []) if action is None else (" AND action = ?", [names.find(action) or -1])
    out: dict[int, Cell] = {}
    for row in con.execute(
        f"SELECT {COLUMNS} FROM {table} WHERE at >= ? AND at < ?{more}",  # noqa: S608
        [since_ns // unit, -(-until_ns // unit), *values],
    ):
        at = row[0] * unit
        out.setdefault(at - at % step_ns, Cell()).add(cell_of(row))
    return dict(sorted(out.items()))


def errors(con: sqlite3.Connection, names: Names, *, since_ns: int | None, limit: int) -> list[ErrorGroup]:
    """Return error groups, the latest first."""
    rows = con.execute(
        "SELECT id, fingerprint, class, message, action, frames, count, first, last, last_job FROM error"
        " WHERE count > 0 AND last >= ? ORDER BY last DESC LIMIT ?",
        (since_ns or 0, limit if limit > 0 else -1),
    )
    return [
        ErrorGroup(
            row[0],
            row[1].hex(),
            row[2],
            row[3],
            names.text(row[4]),
            json.loads(row[5]),
            row[6],
            row[7],
            row[8],
            row[9].hex(),
        )
        for row in rows
    ]


def error_hours(con: sqlite3.Connection, group: int, since_ns: int) -> dict[int, int]:
    """Return how often an error group occurred, by start of the hour."""
    rows = con.execute(
        "SELECT at, count FROM error_hour WHERE at >= ? AND error = ? AND count > 0 ORDER BY at",
        (since_ns // HOUR_NS, group),
    )
    return {at * HOUR_NS: count for at, count in rows}
