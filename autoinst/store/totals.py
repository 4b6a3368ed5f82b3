"""Questions to the totals: by action, by queue, over time, by revision, by statement. They read no job."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.record import INT64_MAX
from autoinst.store import histogram
from autoinst.store.events import Statement
from autoinst.store.rollups import HOUR_MINUTES, LEVELS, MINUTE_NS, VALUES, Cell, cell_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from autoinst.store.records import Names

HOUR_NS = HOUR_MINUTES * MINUTE_NS
REMEMBERED = 4_096  # histograms of some kilobytes
REMEMBERED_SUMS = 512  # of an action's hours in a window, say
JOBS = "ok + error + ignored + killed + counted"
FAILED = "error + counted_errors + killed"


class Deploy(NamedTuple):
    """When a revision's first process started (ns since the epoch)."""

    revision: str
    service: str | None
    first_ns: int


class Step(NamedTuple):
    """How many jobs there were in a step of time, and how many of them failed or were killed."""

    at_ns: int
    jobs: int
    failed: int


def spans(since_ns: int, until_ns: int) -> Iterator[tuple[str, int, int]]:
    """Yield (table, first, end) of the coarsest spans that are together that time, to the minute."""
    yield from _spans(list(LEVELS.items())[::-1], since_ns // MINUTE_NS, -(-until_ns // MINUTE_NS))


def _spans(levels: list[tuple[str, int]], first: int, last: int) -> Iterator[tuple[str, int, int]]:
    (table, size), *finer = levels
    start, end = -(-first // size), last // size
    if start >= end:
        if finer and first < last:
            yield from _spans(finer, first, last)
        return
    if finer:
        yield from _spans(finer, first, start * size)
    yield table, start, end
    if finer:
        yield from _spans(finer, end * size, last)


def grouped(
    con: sqlite3.Connection, names: Names, since_ns: int, until_ns: int, key: str, *, action: str | None = None
) -> dict[str | None, Cell]:
    """Return totals by `key` (action or queue) of the jobs started in the time asked for, to the minute."""
    more, values = _of_action(names, action)
    out: dict[str | None, Cell] = {}
    for table, start, end in spans(since_ns, until_ns):
        rows: dict[int, list[Any]] = {}
        for row in con.execute(
            f"SELECT {key}, {VALUES} FROM {table} WHERE at >= ? AND at < ?{more} ORDER BY at",  # noqa: S608
            [start, end, *values],
        ):
            rows.setdefault(row[0], []).append(row[1:])
        for number, found in rows.items():
            out.setdefault(names.text(number), Cell()).add(sum_of(found))
    return out


def sum_of(rows: list[Any]) -> Cell:
    """Return the sum of rows of VALUES."""
    ok, error, ignored, killed, counted, counted_errors, spent, longest, *rest = zip(*rows, strict=True)
    durations, waited, queue_times, left_out = rest
    return Cell(
        sum(ok),
        sum(error),
        sum(ignored),
        sum(killed),
        sum(counted),
        sum(counted_errors),
        min(sum(spent), INT64_MAX),
        max(longest),
        dict(_remembered_sum(durations)),
        min(sum(waited), INT64_MAX),
        dict(_remembered_sum(queue_times)),
        sum(left_out),
    )


def level(step_ns: int) -> str:
    """Return the coarsest table whose spans make up steps of `step_ns`."""
    return next(table for table in ("hour", "ten", "minute") if table == "minute" or not _rest(step_ns, table))


def _rest(step_ns: int, table: str) -> int:
    return step_ns % (LEVELS[table] * MINUTE_NS)


def series(
    con: sqlite3.Connection, names: Names, since_ns: int, until_ns: int, *, step_ns: int, action: str | None = None
) -> dict[int, Cell]:
    """Return totals per step of `step_ns` (a multiple of a minute), by start of the step."""
    table = level(step_ns)
    unit = LEVELS[table] * MINUTE_NS
    first, end = since_ns // unit, -(-until_ns // unit)
    if action is None:
        sql = f"SELECT at, {VALUES} FROM overall WHERE at >= ? AND at < ? AND minutes = ?"  # noqa: S608
        rows = con.execute(sql, (first, end, LEVELS[table]))
    else:
        sql = f"SELECT at, {VALUES} FROM {table} WHERE at >= ? AND at < ? AND action = ?"  # noqa: S608
        rows = con.execute(sql, (first, end, names.find(action) or -1))
    out: dict[int, Cell] = {}
    for row in rows:
        at = row[0] * unit
        out.setdefault(at - at % step_ns, Cell()).add(cell_of(row[1:], unpacked))
    return dict(sorted(out.items()))


def action_steps(
    con: sqlite3.Connection, names: Names, since_ns: int, until_ns: int, *, step_ns: int
) -> dict[str | None, list[Step]]:
    """Return numbers of jobs per action and step, for small charts; steps without jobs are left out."""
    table = level(step_ns)
    unit = LEVELS[table] * MINUTE_NS
    size = step_ns // unit
    out: dict[str | None, list[Step]] = {}
    for action, at, jobs, failed in con.execute(
        f"SELECT action, at / ?, sum({JOBS}), sum({FAILED}) FROM {table}"  # noqa: S608
        " WHERE at >= ? AND at < ? GROUP BY 1, 2",
        (size, since_ns // unit, -(-until_ns // unit)),
    ):
        out.setdefault(names.text(action), []).append(Step(at * step_ns, jobs, failed))
    return out


def deploys(con: sqlite3.Connection, names: Names, since_ns: int, limit: int) -> list[Deploy]:
    """Return the revisions first seen since then, the newest first."""
    rows = con.execute(
        "SELECT revision, service, first FROM deploy WHERE first >= ? ORDER BY first DESC LIMIT ?", (since_ns, limit)
    )
    return [Deploy(names.text(row[0]) or "", names.text(row[1]), row[2]) for row in rows]


def release(
    con: sqlite3.Connection, names: Names, revision: str, since_ns: int, until_ns: int, *, action: str | None = None
) -> dict[str | None, Cell]:
    """Return totals per action of the jobs of a revision, to the hour."""
    more, values = _of_action(names, action)
    out: dict[str | None, Cell] = {}
    for row in con.execute(
        f"SELECT action, {VALUES} FROM release_hour WHERE at >= ? AND at < ? AND revision = ?{more}",  # noqa: S608
        [since_ns // HOUR_NS, -(-until_ns // HOUR_NS), names.find(revision) or -1, *values],
    ):
        out.setdefault(names.text(row[0]), Cell()).add(cell_of(row[1:], unpacked))
    return out


def statements(
    con: sqlite3.Connection, names: Names, since_ns: int, until_ns: int, *, action: str | None, limit: int
) -> list[Statement]:
    """Return what the events inside jobs cost, to the hour, the most time first."""
    more, values = _of_action(names, action)
    rows = con.execute(
        "SELECT s.id, s.name, s.text, sum(e.jobs), sum(e.count), total(e.sum), total(e.self), max(e.max),"  # noqa: S608
        " sum(e.repeats), e.worst, count(DISTINCT e.action) FROM event_hour e JOIN statement s ON s.id = e.statement"
        f" WHERE e.at >= ? AND e.at < ?{more} GROUP BY s.id ORDER BY 6 DESC LIMIT ?",
        [since_ns // HOUR_NS, -(-until_ns // HOUR_NS), *values, limit],
    )
    return [
        Statement(
            row[0], row[1], row[2], row[3], row[4], int(row[5]), int(row[6]), row[7], row[8], row[9].hex(), row[10]
        )
        for row in rows
    ]


def unpacked(data: bytes) -> histogram.Histogram:
    """Return a histogram to add to; that of an hour which has passed is the same when a live page asks again."""
    return dict(_remembered(data))


_remembered = lru_cache(REMEMBERED)(histogram.unpack)


@lru_cache(REMEMBERED_SUMS)
def _remembered_sum(packed: tuple[bytes, ...]) -> histogram.Histogram:
    """Return the sum of histograms: those of hours that have passed are the same when a live page asks again."""
    out: histogram.Histogram = {}
    for data in packed:
        histogram.add(out, _remembered(data))
    return out


def _of_action(names: Names, action: str | None) -> tuple[str, list[Any]]:
    return ("", []) if action is None else (" AND action = ?", [names.find(action) or -1])
