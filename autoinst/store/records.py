"""A Record as a row of the table `job`, and back."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from autoinst.record import INT64_MAX, Record
from autoinst.spool.layout import STATUS_NAMES
from autoinst.spool.tail import is_id
from autoinst.store import details

if TYPE_CHECKING:
    import sqlite3

STATUS_NUMBERS = {name: number for number, name in enumerate(STATUS_NAMES)}
RUNNING, KILLED = STATUS_NUMBERS["running"], STATUS_NUMBERS["killed"]
FLAG_CLOCK_SKEW, FLAG_TRUNCATED = 1, 2
FLAG_IMPORTED = 4  # recorded elsewhere: nobody is told of it again

JOB_COLUMNS = (
    "id, status, start, duration, queue_time, action, site, queue, attempts, process, thread, flags, error, job_id,"
    " details, trace"
)
Row = tuple[Any, ...]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Names:
    """The tables `name` and `site`: texts that repeat, as numbers. Remembers what it has seen."""

    def __init__(self, con: sqlite3.Connection) -> None:
        """Use `con`."""
        self._con = con
        self._numbers: dict[str | None, int] = {None: 0}
        self._texts: dict[int, str | None] = {0: None}
        self._sites: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._site_rows: dict[int, tuple[Any, ...]] = {}

    def forget(self) -> None:
        """Drop what is remembered, after a rollback."""
        self._numbers = {None: 0}
        self._texts = {0: None}
        self._sites.clear()
        self._site_rows.clear()

    def number(self, text: str | None) -> int:
        """Return the number of `text`, adding it if it is new; 0 for None."""
        found = self._numbers.get(text)
        if found is None:
            found = self.find(text)
            if not found:
                found = self._con.execute("INSERT INTO name(text) VALUES(?)", (text,)).lastrowid or 0
            self._numbers[text] = found
        return found

    def find(self, text: str | None) -> int:
        """Return the number of `text`, 0 if it has none."""
        row = self._con.execute("SELECT id FROM name WHERE text = ?", (text,)).fetchone()
        return int(row[0]) if row else 0

    def text(self, number: int) -> str | None:
        """Return the text of a number, None for 0 or an unknown one."""
        if number not in self._texts:
            row = self._con.execute("SELECT text FROM name WHERE id = ?", (number,)).fetchone()
            self._texts[number] = row[0] if row else None
        return self._texts[number]

    def site(self, record: Record) -> tuple[int, int]:
        """Return the numbers of the record's site (action, class, method, namespace, name, rule) and action."""
        key = (record.action, record.class_name, record.method, record.namespace, record.name, record.rule)
        found = self._sites.get(key)
        if found is None:
            numbers = [self.number(text) for text in key]
            row = self._con.execute(
                "SELECT id FROM site WHERE action = ? AND class = ? AND method = ? AND namespace = ? AND name = ?"
                " AND rule = ?",
                numbers,
            ).fetchone()
            if row is None:
                number = self._con.execute(
                    "INSERT INTO site(action, class, method, namespace, name, rule) VALUES(?,?,?,?,?,?)", numbers
                ).lastrowid
            else:
                number = row[0]
            found = self._sites[key] = int(number or 0), numbers[0]
        return found

    def site_texts(self, number: int) -> tuple[Any, ...]:
        """Return action, class, method, namespace, name and rule of a site."""
        found = self._site_rows.get(number)
        if found is None:
            row = self._con.execute(
                "SELECT action, class, method, namespace, name, rule FROM site WHERE id = ?", (number,)
            ).fetchone()
            found = tuple(self.text(item) for item in row or (0,) * 6)
            self._site_rows[number] = found
        return found


def to_row(record: Record, names: Names, process: int, error: int | None, *, imported: bool = False) -> Row:
    """Return the values of JOB_COLUMNS; `process` and `error` are rows of those tables (0 and None: none)."""
    site, action = names.site(record)
    return (
        bytes.fromhex(record.id),
        STATUS_NUMBERS[record.status],
        record.started_ns,
        None if record.duration_ns is None else min(record.duration_ns, INT64_MAX),
        queue_ns(record),
        action,
        site,
        names.number(record.queue),
        record.attempts,
        process,
        names.number(record.thread),
        FLAG_CLOCK_SKEW * record.clock_skew + FLAG_TRUNCATED * record.truncated + FLAG_IMPORTED * imported,
        error,
        pack_job_id(record.job_id),
        details.of_record(record),
        trace_of(record),
    )


def trace_of(record: Record) -> bytes | None:
    """Return the trace a record belongs to as it is stored, None where it is its own."""
    if record.trace_id is None or record.trace_id == record.id or not is_id(record.trace_id):
        return None
    return bytes.fromhex(record.trace_id)


MAX_QUEUE_MS = 9.2e12  # nearly 300 years, which 63 bits of nanoseconds hold


def queue_ns(record: Record) -> int | None:
    """Return the queue time in whole nanoseconds, as the store keeps it."""
    if record.queue_time_ms is None:
        return None
    return round(max(min(record.queue_time_ms, MAX_QUEUE_MS), -MAX_QUEUE_MS) * 1e6)


def from_row(row: Row, names: Names, process: tuple[Any, ...]) -> Record:
    """Return the record of JOB_COLUMNS and of its process's pid, host, service, environment, revision (texts)."""
    (ident, status, start, duration, queue_time, _, site, queue, attempts, _, thread, flags, _, job_id, blob, _) = row
    record = Record(ident.hex(), STATUS_NAMES[status], start)
    action, record.class_name, record.method, namespace, name, record.rule = names.site_texts(site)
    record.action = action
    record.namespace = namespace or ""
    record.name = name or ""
    record.duration_ns = duration
    record.queue_time_ms = None if queue_time is None else queue_time / 1e6
    record.queue = names.text(queue)
    record.attempts = attempts
    record.thread = names.text(thread)
    record.clock_skew = bool(flags & FLAG_CLOCK_SKEW)
    record.truncated = bool(flags & FLAG_TRUNCATED)
    record.job_id = unpack_job_id(job_id)
    record.pid, record.host, record.service, record.environment, record.revision = process
    if blob is not None:
        details.into_record(record, blob)
    return record


def pack_job_id(job_id: str | None) -> str | bytes | None:
    """Return a job's own id as it is stored: a UUID as its 16 bytes, less than half as long."""
    if job_id is not None and _UUID.fullmatch(job_id):
        return uuid.UUID(job_id).bytes
    return job_id


def unpack_job_id(stored: str | bytes | None) -> str | None:
    """Return the text of a stored job id."""
    return str(uuid.UUID(bytes=stored)) if isinstance(stored, bytes) else stored
