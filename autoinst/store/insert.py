"""Puts records into the store once, whatever is offered again; rollups and error counts stay exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.store import check_ins
from autoinst.store.attempts import Attempts
from autoinst.store.events import EventTotals
from autoinst.store.failures import Failures
from autoinst.store.records import JOB_COLUMNS, KILLED, RUNNING, STATUS_NUMBERS, to_row
from autoinst.store.rollups import Rollups

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from autoinst.record import Record
    from autoinst.store.records import Names, Row

    ProcessTexts = tuple[Any, ...]  # pid, host, service, environment, revision

# What a record may replace: an end that was seen replaces one that was inferred, never the other way.
_RANK = {status: (0 if status == RUNNING else 1 if status == KILLED else 2) for status in STATUS_NUMBERS.values()}
_INSERT = f"INSERT OR IGNORE INTO job({JOB_COLUMNS}) VALUES({','.join('?' * len(JOB_COLUMNS.split(',')))})"
_STATUS, _START, _DURATION, _QUEUE_TIME, _ACTION, _QUEUE, _ERROR = 1, 2, 3, 4, 5, 7, 12


class Inserted(NamedTuple):
    """How many records were new, how many replaced what was known before, and how many were known already."""

    new: int
    replaced: int
    known: int


def total(parts: Iterable[Inserted]) -> Inserted:
    """Return the sum of `parts`."""
    numbers = [0, 0, 0]
    for part in parts:
        numbers = [a + b for a, b in zip(numbers, part, strict=True)]
    return Inserted(*numbers)


def by_process(records: Iterable[Record]) -> dict[ProcessTexts, list[Record]]:
    """Return records by what they say of their process."""
    out: dict[ProcessTexts, list[Record]] = {}
    for record in records:
        out.setdefault(texts_of(record), []).append(record)
    return out


def texts_of(record: Record) -> ProcessTexts:
    """Return what a record says of its process."""
    return record.pid, record.host, record.service, record.environment, record.revision


def without_ties(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield `records` in parts, in none of which one of another process began in the same moment as the one before it.

    Jobs of one moment are listed by their order in the store, which inserting them process by process would change.
    """
    part: list[Record] = []
    for record in records:
        if part and part[-1].started_ns == record.started_ns and texts_of(part[-1]) != texts_of(record):
            yield part
            part = []
        part.append(record)
    yield part


class Inserter:
    """Inserts within the transaction in progress; `flush` before its end."""

    def __init__(self, con: sqlite3.Connection, names: Names) -> None:
        """Use `con` and share its `names`."""
        self._con = con
        self._names = names
        self.rollups = Rollups(con)
        self.failures = Failures(con)
        self.attempts = Attempts(con)
        self.events = EventTotals(con)
        self._errors: list[tuple[int, int, bytes, str]] = []
        self.revision = 0  # of the process whose records are being inserted

    def forget(self) -> None:
        """Drop what is not stored yet, after a rollback."""
        self.rollups.forget()
        self.failures.forget()
        self.attempts.forget()
        self.events.forget()
        self._errors.clear()

    def flush(self) -> None:
        """Store the totals that the inserted records add up to."""
        self.rollups.flush()
        self.failures.count(self._errors)
        self.attempts.flush()
        self.events.flush()
        self._errors.clear()

    def of_process(self, process: int) -> None:
        """Count what comes as jobs of that process's revision."""
        found = self._con.execute("SELECT revision FROM process WHERE id = ?", (process,)).fetchone()
        self.revision = int(found[0]) if found else 0

    def insert(self, records: Sequence[Record], process: int, *, imported: bool = False) -> Inserted:
        """Insert `records` of the process with that row number (0: unknown)."""
        self.of_process(process)
        best: dict[str, Record] = {}
        for record in records:
            other = best.get(record.id)
            if other is None or _RANK[STATUS_NUMBERS[record.status]] > _RANK[STATUS_NUMBERS[other.status]]:
                best[record.id] = record
        rows: list[Row] = []
        extras: list[tuple[Record, str | None]] = []
        for record in best.values():
            error = None
            message = None
            if record.exception is not None and record.status == "error":
                message = record.exception.message
                action = self._names.site(record)[1]
                error = self.failures.number(record.exception, action, record.started_ns, bytes.fromhex(record.id))
            if record.tags:
                self.attempts.note(record)
                check_ins.note(self._con, record)
            rows.append(to_row(record, self._names, process, error, imported=imported))
            extras.append((record, message))
        found = self._con.execute("SELECT seq FROM sqlite_sequence WHERE name = 'job'").fetchone()
        before = found[0] if found else 0
        new = self._con.executemany(_INSERT, rows).rowcount
        duplicates = len(records) - len(rows)
        if new == len(rows):
            for row, extra in zip(rows, extras, strict=True):
                self._count(row, *extra)
            return Inserted(new, 0, duplicates)
        added = {row[0] for row in self._con.execute("SELECT id FROM job WHERE n > ?", (before,))}
        replaced = 0
        for row, extra in zip(rows, extras, strict=True):
            if row[0] in added:
                self._count(row, *extra)
            elif self._replace(row):
                self._count(row, *extra)
                replaced += 1
        return Inserted(new, replaced, len(rows) - new - replaced + duplicates)

    def _replace(self, row: Row) -> bool:
        n, status, start, action, queue, error = self._con.execute(
            "SELECT n, status, start, action, queue, error FROM job WHERE id = ?", (row[0],)
        ).fetchone()
        if _RANK[row[_STATUS]] <= _RANK[status]:
            return False
        self.remove(n, status, start, action, queue, error)
        self._con.execute(_INSERT, row)
        return True

    def remove(self, n: int, status: int, start: int, action: int, queue: int, error: int | None) -> None:
        """Take back the job in row `n`, which has ended otherwise."""
        self._con.execute("DELETE FROM job WHERE n = ?", (n,))
        if status == KILLED:
            self.rollups.take_back_killed(start, action, queue, self.revision)
        if error is not None:
            self.failures.uncount(error, start)

    def _count(self, row: Row, record: Record, message: str | None) -> None:
        status = row[_STATUS]
        if status != RUNNING:
            times = row[_START], row[_DURATION], row[_QUEUE_TIME]
            self.rollups.add(status, *times, row[_ACTION], row[_QUEUE], self.revision)
        if record.events and status != RUNNING:
            self.events.add(record, row[_ACTION])
        if row[_ERROR] is not None:
            self._errors.append((row[_ERROR], row[_START], row[0], message or ""))
