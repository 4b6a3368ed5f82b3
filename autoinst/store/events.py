"""Totals of the events inside jobs, by the hour, action and statement: which queries are slow, which are repeated.

A statement is an event's name and its text (body, else title) without what varies: numbers, ids, quoted values.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from autoinst.record import INT64_MAX
from autoinst.store.failures import HOUR_NS, normal_message

if TYPE_CHECKING:
    import sqlite3

    from autoinst.record import Event, Record

MAX_STATEMENTS = 5_000  # beyond these a name's other texts are counted together
REMEMBERED = 10_000
REPEATS = 5  # occurrences of a statement in one job from which on it looks like one query for each row (N+1)

Text = tuple[str, "str | None", "str | None"]


class Statement(NamedTuple):
    """What a statement cost in a time; durations in ns, `self_ns` without what ran inside it.

    `repeats` is in how many jobs it looked like N+1, `worst` the record id of the job with its longest run,
    `actions` how many actions ran it.
    """

    id: int
    name: str
    text: str
    jobs: int
    times: int
    sum_ns: int
    self_ns: int
    max_ns: int
    repeats: int
    worst: str
    actions: int

    @property
    def mean_ns(self) -> float:
        """The mean duration."""
        return self.sum_ns / self.times if self.times else 0.0


class EventTotals:
    """The tables `statement` and `event_hour`: collects what a transaction adds, and stores it in `flush`."""

    def __init__(self, con: sqlite3.Connection) -> None:
        """Use `con`."""
        self._con = con
        self._numbers: dict[Text, int] = {}
        self._pending: dict[tuple[int, int, int], _Total] = {}

    def forget(self) -> None:
        """Drop what is not stored yet, after a rollback."""
        self._numbers.clear()
        self._pending.clear()

    def add(self, record: Record, action: int) -> None:
        """Count the events of a job that ended."""
        hour = record.started_ns // HOUR_NS
        job = bytes.fromhex(record.id)
        times: dict[int, int] = {}
        for event, own in zip(record.events, self_times(record.events), strict=True):
            number = self._number(event)
            times[number] = times.get(number, 0) + 1
            key = (hour, action, number)
            total = self._pending.get(key)
            if total is None:
                total = self._pending[key] = _Total()
            total.add(event.duration_ns or 0, own, job)
        for number, count in times.items():
            total = self._pending[hour, action, number]
            total.jobs += 1
            total.repeats += count >= REPEATS

    def _number(self, event: Event) -> int:
        key = (event.name, event.title, event.body)
        found = self._numbers.get(key)
        if found is None:
            if len(self._numbers) > REMEMBERED:
                self._numbers.clear()
            found = self._numbers[key] = self._enter(event.name, statement_text(event))
        return found

    def _enter(self, name: str, text: str) -> int:
        for candidate in (text, "(other)"):
            key = hashlib.blake2b(f"{name}\0{candidate}".encode("utf-8", "backslashreplace"), digest_size=12).digest()
            found = self._con.execute("SELECT id FROM statement WHERE hash = ?", (key,)).fetchone()
            if found is not None:
                return int(found[0])
            many = self._con.execute("SELECT count(*) FROM statement").fetchone()[0] >= MAX_STATEMENTS
            if many and candidate is text:
                continue
            return int(
                self._con.execute(
                    "INSERT INTO statement(hash, name, text) VALUES(?,?,?)", (key, name, candidate)
                ).lastrowid
                or 0
            )
        return 0

    def flush(self) -> None:
        """Add what was collected to the tables, within the transaction in progress."""
        pending, self._pending = self._pending, {}
        self._con.executemany(
            "INSERT INTO event_hour(at, action, statement, jobs, count, sum, self, max, repeats, worst)"
            " VALUES(?,?,?,?,?,?,?,?,?,?) ON CONFLICT(at, action, statement) DO UPDATE SET"
            " jobs = jobs + excluded.jobs, count = count + excluded.count,"
            f" sum = min(sum, {INT64_MAX} - excluded.sum) + excluded.sum,"
            f" self = min(self, {INT64_MAX} - excluded.self) + excluded.self,"
            " worst = CASE WHEN excluded.max > max THEN excluded.worst ELSE worst END,"
            " max = max(max, excluded.max), repeats = repeats + excluded.repeats",
            [(*key, *total.values()) for key, total in pending.items()],
        )


class _Total:
    __slots__ = ("count", "jobs", "max", "repeats", "self", "sum", "worst")

    def __init__(self) -> None:
        self.jobs = self.count = self.sum = self.self = self.repeats = 0
        self.max = -1
        self.worst = b""

    def add(self, duration: int, own: int, job: bytes) -> None:
        self.count += 1
        self.sum += duration
        self.self += own
        if duration > self.max:
            self.max, self.worst = duration, job

    def values(self) -> tuple[int | bytes, ...]:
        total, own = min(self.sum, INT64_MAX), min(self.self, INT64_MAX)
        return self.jobs, self.count, total, own, min(self.max, INT64_MAX), self.repeats, self.worst


def self_times(events: list[Event]) -> list[int]:
    """Return each event's duration in ns without that of the events right inside it."""
    own = [max(event.duration_ns or 0, 0) for event in events]
    for index, event in enumerate(events):
        if event.parent is not None and 0 <= event.parent < index and event.duration_ns is not None:
            own[event.parent] -= max(event.duration_ns, 0)
    return [max(time, 0) for time in own]


def statement_text(event: Event) -> str:
    """Return the text by which events are counted together."""
    return " ".join(normal_message(event.body or event.title or "").split())


def repeated(events: list[Event]) -> dict[tuple[str, str], int]:
    """Return name, text and number of the statements that look like one query for each row."""
    counts: dict[tuple[str, str], int] = {}
    for event in events:
        key = (event.name, statement_text(event))
        counts[key] = counts.get(key, 0) + 1
    return {key: count for key, count in counts.items() if count >= REPEATS and (key[1] or count > 2 * REPEATS)}
