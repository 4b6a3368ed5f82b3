"""Totals of all time by action and queue, which nothing takes away from: what counters are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autoinst.store.records import KILLED
from autoinst.store.rollups import VALUES, cell_of

if TYPE_CHECKING:
    import sqlite3

    from autoinst.store.records import Names
    from autoinst.store.rollups import Cell

RECENT = 50


class Total(NamedTuple):
    """The jobs of an action in a queue; `numbers` are those of the two names, in the order they were first seen."""

    numbers: tuple[int, int]
    action: str | None
    queue: str | None
    cell: Cell


class Latest(NamedTuple):
    """The job of an action that began last and has ended: its id and its trace's as digits, times in ns."""

    id: str
    trace: str
    started_ns: int
    duration_ns: int


def all_time(con: sqlite3.Connection, names: Names) -> list[Total]:
    """Return the totals, those of the names first that were seen first."""
    found = [
        Total((row[0], row[1]), names.text(row[0]), names.text(row[1]), cell_of(row[2:]))
        for row in con.execute(f"SELECT action, queue, {VALUES} FROM total")  # noqa: S608
    ]
    return sorted(found, key=lambda total: (max(total.numbers), total.numbers))


def latest(con: sqlite3.Connection, action: int) -> dict[int, Latest]:
    """Return by number of the queue the job of an action (by number) that began last; its last RECENT are looked at."""
    rows = con.execute(
        "SELECT queue, id, coalesce(trace, id), start, duration FROM job WHERE action = ? AND duration IS NOT NULL"
        " AND status <> ? ORDER BY start DESC LIMIT ?",
        (action, KILLED, RECENT),
    )
    found: dict[int, Latest] = {}
    for queue, own, trace, start, duration in rows:
        found.setdefault(queue, Latest(own.hex(), trace.hex(), start, duration))
    return found
