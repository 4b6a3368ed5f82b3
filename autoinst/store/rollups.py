"""Totals per action and queue by 1, 10 and 60 minutes: exact counts, and histograms of durations and queue times.

`overall` has the same for all of them together, so that a chart reads few rows, `release_hour` per revision, and
`total` of all time, for counters that must never fall.

A job is counted in the minute it started in, as `--since` and the lists have it. Killed jobs are counted but not
timed, so taking one back when its real end turns up leaves every other number right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX
from autoinst.store import histogram

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

MINUTE_NS = 60_000_000_000
HOUR_MINUTES = 60
LEVELS = {"minute": 1, "ten": 10, "hour": 60}  # table -> minutes of one span
VALUES = "ok, error, ignored, killed, counted, counted_errors, sum, max, durations, queue_sum, queue_times, left_out"
COLUMNS = f"at, action, queue, {VALUES}"
KEYS = 3  # columns of COLUMNS before VALUES
_STATUS = {1: "ok", 2: "error", 3: "ignored", 4: "killed"}


@dataclass(slots=True)
class Cell:
    """Totals of some jobs; `counted` are those of which nothing but number, errors and durations is known.

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


Key = tuple[int, ...]


class Rollups:
    """Collects what a transaction adds, and stores it in `flush`."""

    def __init__(self, con: sqlite3.Connection) -> None:
        """Use `con`."""
        self._con = con
        self._pending: dict[Key, Cell] = {}  # by minute, action, queue and revision

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
        revision: int = 0,
        *,
        left_out: bool = False,
    ) -> None:
        """Count a job that ended with `status` (layout's numbers); `action` and the rest are numbers of `name`."""
        cell = _cell(self._pending, (start_ns // MINUTE_NS, action, queue, revision))
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

    def take_back_killed(self, start_ns: int, action: int, queue: int, revision: int = 0) -> None:
        """Uncount a job that was counted as killed."""
        _cell(self._pending, (start_ns // MINUTE_NS, action, queue, revision)).killed -= 1

    def add_counted(
        self,
        at_ns: int,
        action: int,
        count: int,
        errors: int,
        sum_ns: int,
        max_ns: int,
        durations: histogram.Histogram,
    ) -> None:
        """Add jobs that were only counted, noticed at `at_ns`; the longest of all such took `max_ns`."""
        cell = _cell(self._pending, (at_ns // MINUTE_NS, action, 0, 0))
        cell.counted += count
        cell.counted_errors += errors
        cell.sum_ns += sum_ns
        cell.max_ns = max(cell.max_ns, max_ns)
        histogram.add(cell.durations, durations)

    def flush(self) -> None:
        """Add what was collected to the tables, within the transaction in progress."""
        pending, self._pending = self._pending, {}
        minutes: dict[Key, Cell] = {}
        releases: dict[Key, Cell] = {}
        for (minute, action, queue, revision), cell in pending.items():
            _cell(minutes, (minute, action, queue)).add(cell)
            if revision:
                _cell(releases, (minute // HOUR_MINUTES, revision, action)).add(cell)
        by_level = spread(minutes)
        for table, cells in by_level.items():
            self.store(table, "at, action, queue", cells)
        together: dict[Key, Cell] = {}
        for table, size in LEVELS.items():
            for (at, _, _), cell in by_level[table].items():
                _cell(together, (size, at)).add(cell)
        self.store("overall", "minutes, at", together)
        self.store("release_hour", "at, revision, action", releases)
        total: dict[Key, Cell] = {}
        for (_, action, queue), cell in minutes.items():
            _cell(total, (action, queue)).add(cell)
        self.store("total", "action, queue", total)

    def store(self, table: str, keys: str, cells: dict[Key, Cell]) -> None:
        """Add `cells` to the rows of `table` that have the same `keys`."""
        where = " AND ".join(f"{key} = ?" for key in keys.split(", "))
        marks = ",".join("?" * len(f"{keys}, {VALUES}".split(", ")))
        rows = []
        for key, cell in cells.items():
            found = self._con.execute(f"SELECT {VALUES} FROM {table} WHERE {where}", key).fetchone()  # noqa: S608
            total = cell
            if found is not None:
                total = cell_of(found)
                total.add(cell)
            rows.append((*key, *_values(total)))
        self._con.executemany(f"INSERT OR REPLACE INTO {table}({keys}, {VALUES}) VALUES({marks})", rows)


def spread(minutes: dict[Key, Cell]) -> dict[str, dict[Key, Cell]]:
    """Return cells by (minute, action, queue) as the cells of each of LEVELS."""
    out: dict[str, dict[Key, Cell]] = {table: {} for table in LEVELS}
    out["minute"] = minutes
    for table, finer in (("ten", "minute"), ("hour", "ten")):
        factor = LEVELS[table] // LEVELS[finer]
        for (at, action, queue), cell in out[finer].items():
            _cell(out[table], (at // factor, action, queue)).add(cell)
    return out


def fill(con: sqlite3.Connection) -> None:
    """Make `ten` and `overall` from the tables that version 1 had, within the transaction in progress."""
    rollups = Rollups(con)
    ten: dict[Key, Cell] = {}
    together: dict[Key, Cell] = {}
    for table in ("minute", "hour"):
        for row in con.execute(f"SELECT {COLUMNS} FROM {table}"):  # noqa: S608
            cell = cell_of(row[KEYS:])
            _cell(together, (LEVELS[table], row[0])).add(cell)
            if table == "minute":
                _cell(together, (LEVELS["ten"], row[0] // LEVELS["ten"])).add(cell)
                _cell(ten, (row[0] // LEVELS["ten"], row[1], row[2])).add(cell)
    rollups.store("ten", "at, action, queue", ten)
    rollups.store("overall", "minutes, at", together)


def fill_total(con: sqlite3.Connection) -> None:
    """Make `total` from the hours there are, within the transaction in progress."""
    total: dict[Key, Cell] = {}
    for row in con.execute(f"SELECT {COLUMNS} FROM hour"):  # noqa: S608
        _cell(total, (row[1], row[2])).add(cell_of(row[KEYS:]))
    Rollups(con).store("total", "action, queue", total)


def _cell(cells: dict[Key, Cell], key: Key) -> Cell:
    cell = cells.get(key)
    if cell is None:
        cell = cells[key] = Cell()
    return cell


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


def cell_of(values: Sequence[Any], unpack: Callable[[bytes], histogram.Histogram] = histogram.unpack) -> Cell:
    """Return the totals of the columns VALUES, their histograms read by `unpack`."""
    ok, error, ignored, killed, counted, counted_errors, total, largest, *rest = values
    durations, queue_sum, queue_times, left_out = rest
    return Cell(
        ok,
        error,
        ignored,
        killed,
        counted,
        counted_errors,
        total,
        largest,
        unpack(durations),
        queue_sum,
        unpack(queue_times),
        left_out,
    )


def merge(cells: Iterable[Cell]) -> Cell:
    """Return the totals of all `cells`."""
    total = Cell()
    for cell in cells:
        total.add(cell)
    return total
