"""Minute and hour totals per action and queue: exact counts, and histograms of durations and queue times.

A job is counted in the minute it started in, as `--since` and the lists have it. Killed jobs are counted but not
timed, so taking one back when its real end turns up leaves every other number right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoinst.store import histogram

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

MINUTE_NS = 60_000_000_000
HOUR_MINUTES = 60
INT64_MAX = 2**63 - 1
COLUMNS = (
    "at, action, queue, ok, error, ignored, killed, counted, counted_errors, sum, max, durations, queue_sum,"
    " queue_times, left_out"
)
_STATUS = {1: "ok", 2: "error", 3: "ignored", 4: "killed"}


@dataclass(slots=True)
class Cell:
    """Totals of some jobs; `counted` are those of which nothing but number, errors and summed duration is known.

    `left_out` says of how many of `ok` and `ignored` no record is kept (`keep` in the rules); all else has them too.
    """

    ok: int = 0
    error: int = 0
    ignored: int = 0
    killed: int = 0
    counted: int = 0
    counted_errors: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    durations: histogram.Histogram = field(default_factory=dict)
    queue_sum_ns: int = 0
    queue_times: histogram.Histogram = field(default_factory=dict)
    left_out: int = 0

    @property
    def jobs(self) -> int:
        """All jobs, however they ended."""
        return self.ok + self.error + self.ignored + self.killed + self.counted

    @property
    def errors(self) -> int:
        """All jobs that ended in an error, the merely counted ones included."""
        return self.error + self.counted_errors

    @property
    def mean_ns(self) -> float | None:
        """The mean duration of the jobs that ended."""
        ended = self.jobs - self.killed
        return self.sum_ns / ended if ended else None

    def percentile_ns(self, share: float) -> float | None:
        """Return a percentile of the durations (`share` 0..1), within 5 %."""
        return histogram.percentile(self.durations, share)

    def queue_percentile_ns(self, share: float) -> float | None:
        """Return a percentile of the queue times (`share` 0..1), within 5 %."""
        return histogram.percentile(self.queue_times, share)

    def add(self, other: Cell) -> None:
        """Add the totals of `other`."""
        self.ok += other.ok
        self.error += other.error
        self.ignored += other.ignored
        self.killed += other.killed
        self.counted += other.counted
        self.counted_errors += other.counted_errors
        self.sum_ns = min(self.sum_ns + other.sum_ns, INT64_MAX)
        self.max_ns = max(self.max_ns, other.max_ns)
        histogram.add(self.durations, other.durations)
        self.queue_sum_ns = min(self.queue_sum_ns + other.queue_sum_ns, INT64_MAX)
        histogram.add(self.queue_times, other.queue_times)
        self.left_out += other.left_out


Key = tuple[int, int, int]  # minute or hour since the epoch, action, queue (numbers of the table `name`)


class Rollups:
    """Collects what a transaction adds, and stores it in `flush`."""

    def __init__(self, con: sqlite3.Connection) -> None:
        """Use `con`."""
        self._con = con
        self._pending: dict[Key, Cell] = {}

    def forget(self) -> None:
        """Drop what is not stored yet, after a rollback."""
        self._pending.clear()

    def add(
        self,
        status: int,
        start_ns: int,
        duration_ns: int | None,
        queue_ns: int | None,
        action: int,
        queue: int,
        *,
        left_out: bool = False,
    ) -> None:
        """Count a job that ended with `status` (layout's numbers)."""
        cell = self._cell(start_ns, action, queue)
        cell.left_out += left_out
        if status == 1:
            cell.ok += 1
        else:
            name = _STATUS[status]
            setattr(cell, name, getattr(cell, name) + 1)
            if name == "killed":
                return
        if duration_ns is not None:
            cell.sum_ns += duration_ns
            cell.max_ns = max(cell.max_ns, duration_ns)
            number = histogram.bucket(duration_ns)
            cell.durations[number] = cell.durations.get(number, 0) + 1
        if queue_ns is not None:
            cell.queue_sum_ns += queue_ns
            number = histogram.bucket(queue_ns)
            cell.queue_times[number] = cell.queue_times.get(number, 0) + 1

    def take_back_killed(self, start_ns: int, action: int, queue: int) -> None:
        """Uncount a job that was counted as killed."""
        self._cell(start_ns, action, queue).killed -= 1

    def add_counted(self, at_ns: int, action: int, count: int, errors: int, sum_ns: int) -> None:
        """Add jobs that were only counted, noticed at `at_ns`."""
        cell = self._cell(at_ns, action, 0)
        cell.counted += count
        cell.counted_errors += errors
        cell.sum_ns += sum_ns

    def _cell(self, at_ns: int, action: int, queue: int) -> Cell:
        key = (at_ns // MINUTE_NS, action, queue)
        cell = self._pending.get(key)
        if cell is None:
            cell = self._pending[key] = Cell()
        return cell

    def flush(self) -> None:
        """Add what was collected to the tables, within the transaction in progress."""
        minutes, self._pending = self._pending, {}
        hours: dict[Key, Cell] = {}
        for (minute, action, queue), cell in minutes.items():
            hours.setdefault((minute // HOUR_MINUTES, action, queue), Cell()).add(cell)
        for table, cells in (("minute", minutes), ("hour", hours)):
            rows = []
            for key, cell in cells.items():
                found = self._con.execute(
                    f"SELECT {COLUMNS} FROM {table} WHERE at = ? AND action = ? AND queue = ?",  # noqa: S608
                    key,
                ).fetchone()
                if found is not None:
                    cell.add(cell_of(found))
                rows.append((*key, *_values(cell)))
            self._con.executemany(
                f"INSERT OR REPLACE INTO {table}({COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                rows,
            )


def _values(cell: Cell) -> tuple[int | bytes, ...]:
    return (
        cell.ok,
        cell.error,
        cell.ignored,
        max(cell.killed, 0),  # below 0 where retention has dropped the row it was counted in
        cell.counted,
        cell.counted_errors,
        min(cell.sum_ns, INT64_MAX),
        cell.max_ns,
        histogram.pack(cell.durations),
        min(cell.queue_sum_ns, INT64_MAX),
        histogram.pack(cell.queue_times),
        cell.left_out,
    )


def cell_of(row: tuple[int, ...]) -> Cell:
    """Return the totals of one row of COLUMNS."""
    ok, error, ignored, killed, counted, counted_errors, total, largest, durations, queue_sum, queue_times, left_out = (
        row[3:]
    )
    return Cell(
        ok,
        error,
        ignored,
        killed,
        counted,
        counted_errors,
        total,
        largest,
        histogram.unpack(durations),  # type: ignore[arg-type]
        queue_sum,
        histogram.unpack(queue_times),  # type: ignore[arg-type]
        left_out,
    )


def merge(cells: Iterable[Cell]) -> Cell:
    """Return the totals of all `cells`."""
    total = Cell()
    for cell in cells:
        total.add(cell)
    return total
