"""Questions about jobs: newest first, a page of them within a time, one job, a trace."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.store import details
from autoinst.store.conditions import Conditions
from autoinst.store.records import FLAG_IMPORTED, JOB_COLUMNS, STATUS_NUMBERS, from_row, unpack_job_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.record import Record
    from autoinst.store.processes import Processes
    from autoinst.store.records import Names
    from autoinst.store.search import Search

OK = STATUS_NUMBERS["ok"]
ID_DIGITS = 32
STEPS_A_LOOK = 2_000  # of SQLite's virtual machine between two looks at the clock
FIRST_WINDOW_NS = 600 * 10**9
WINDOW_GROWTH = 3
MERGED = 20  # walks that are merged at most
_START, _PROCESS, _JOB_ID, _DETAILS = 2, 9, 13, 14  # where JOB_COLUMNS has them


@dataclass(slots=True, frozen=True)
class JobFilter:
    """Which jobs: every given condition must hold. `limit` 0 means all; times in ns since the epoch.

    `since_ns` is included, `until_ns` is not; `*` in `action` stands for any text; `id_prefix` are hexadecimal digits;
    `error` an ErrorGroup's id; `before` are the start and cursor of a job that comes after those wanted.
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
    search: Search | None = None
    before: tuple[int, int] | None = None

    def matches(self, record: Record) -> bool:
        """Return whether `record` (one in flight, say) is asked for; not by `limit`, `before` and `error`."""
        return (
            (not self.status or record.status in self.status)
            and (self.since_ns is None or record.started_ns >= self.since_ns)
            and (self.until_ns is None or record.started_ns < self.until_ns)
            and (self.action is None or fnmatchcase(record.action or "", glob(self.action)))
            and (self.queue is None or record.queue == self.queue)
            and (self.name is None or record.name == self.name)
            and (self.job_id is None or record.job_id == self.job_id)
            and (self.id_prefix is None or record.id.startswith(self.id_prefix))
            and (self.service is None or record.service == self.service)
            and (self.search is None or self.search.matches(record))
        )


class Page(NamedTuple):
    """Some jobs, newest first; `before` is what JobFilter takes to go on, None where there is no more.

    `complete` is false where time was up: then the jobs since `before` have been looked at.
    """

    records: list[Record]
    before: tuple[int, int] | None
    complete: bool


def glob(pattern: str) -> str:
    """Return a pattern in which only `*` is special as one of fnmatch."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def jobs(con: sqlite3.Connection, names: Names, processes: Processes, wanted: JobFilter) -> Iterator[Record]:
    """Yield the stored jobs that `wanted` asks for, newest start first."""
    rows = _fitting(_rows(con, names, wanted), wanted.search)
    if wanted.limit > 0:
        rows = itertools.islice(rows, wanted.limit)
    for row in rows:
        yield from_row(row[:-1], names, processes.texts(row[_PROCESS]))


def page(con: sqlite3.Connection, names: Names, processes: Processes, wanted: JobFilter, seconds: float) -> Page:
    """Return `wanted.limit` jobs, looking for no more than `seconds`: window after window back in time."""
    deadline = time.monotonic() + seconds
    found: list[Any] = []
    con.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_A_LOOK)
    place = wanted.before
    try:
        for window in _windows(con, wanted):
            for row in _rows(con, names, window):
                at = (row[_START], row[-1])
                if _fits(row, wanted.search):
                    if len(found) == wanted.limit:
                        return _page(found, names, processes, place, complete=True)
                    found.append(row)
                place = at
                if time.monotonic() > deadline:
                    return _page(found, names, processes, place, complete=False)
            if window.since_ns is not None:
                place = (window.since_ns, 0)
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        con.set_progress_handler(None, 0)
        return _page(found, names, processes, place, complete=False)
    finally:
        con.set_progress_handler(None, 0)
    return _page(found, names, processes, None, complete=True)


def _page(
    rows: list[Any], names: Names, processes: Processes, before: tuple[int, int] | None, *, complete: bool
) -> Page:
    return Page([from_row(row[:-1], names, processes.texts(row[_PROCESS])) for row in rows], before, complete)


def _windows(con: sqlite3.Connection, wanted: JobFilter) -> Iterator[JobFilter]:
    """Yield `wanted` for stretches of time that grow, so that it is known how far a long search has come."""
    search = wanted.search
    if search is None or not (search.terms or search.details):
        yield wanted
        return
    found = con.execute("SELECT min(start), max(start) FROM job").fetchone()
    if found[0] is None:
        return
    first, last = found
    bounds = [wanted.until_ns, search.until_ns, last + 1, wanted.before[0] + 1 if wanted.before else None]
    until = min(bound for bound in bounds if bound is not None)
    since = max(first, wanted.since_ns or first, search.since_ns or first)
    size = FIRST_WINDOW_NS
    while until > since:
        start = max(since, until - size)
        yield replace(wanted, since_ns=start, until_ns=until)
        until, size = start, size * WINDOW_GROWTH


def _fitting(rows: Iterator[Any], search: Search | None) -> Iterator[Any]:
    return rows if search is None or not search.details else (row for row in rows if _fits(row, search))


def _fits(row: Any, search: Search | None) -> bool:
    if search is None or not search.details:
        return True
    blob = row[_DETAILS]
    data = details.unpack(blob) if blob is not None else {}
    job_id = unpack_job_id(row[_JOB_ID])
    return all(term.fits_details(data, job_id) for term in search.details)


def _rows(con: sqlite3.Connection, names: Names, wanted: JobFilter) -> Iterator[Any]:
    """Yield rows of JOB_COLUMNS and n: one ordered walk along an index, or some of them merged."""
    conditions = Conditions(con, names)
    if not conditions.add_filter(wanted):
        return iter(())
    limit = wanted.limit if wanted.limit > 0 and not (wanted.search and wanted.search.details) else -1
    few = conditions.few
    walks = conditions.walks()
    if few or len(walks) > MERGED:
        walks = [conditions.all()]
    # The planner knows nothing of how few jobs an id means: the plus keeps it from walking all by start.
    order = "+start" if few else "start"
    rows = [_select(con, where, values, order, limit + 1 if limit > 0 else -1) for where, values in walks]
    if len(rows) == 1:
        return rows[0]
    return heapq.merge(*rows, key=lambda row: (row[_START], row[-1]), reverse=True)


def _select(con: sqlite3.Connection, where: list[str], values: list[Any], order: str, limit: int) -> Iterator[Any]:
    condition = " AND ".join(where) or "1"
    return con.execute(
        f"SELECT {JOB_COLUMNS}, n FROM job WHERE {condition} ORDER BY {order} DESC, n DESC LIMIT ?",  # noqa: S608
        [*values, limit],
    )


def jobs_after(
    con: sqlite3.Connection, names: Names, processes: Processes, n: int, limit: int, upto: int, *, imported: bool
) -> list[tuple[int, Record]]:
    """Return up to `limit` jobs stored after cursor `n` up to cursor `upto`, oldest first, each with its own cursor."""
    rows = con.execute(
        f"SELECT {JOB_COLUMNS}, n FROM job WHERE n > ? AND n <= ? AND flags & ? = 0 ORDER BY n LIMIT ?",  # noqa: S608
        (n, upto, 0 if imported else FLAG_IMPORTED, limit),
    )
    return [(row[-1], from_row(row[:-1], names, processes.texts(row[_PROCESS]))) for row in rows]


def cursor_after(con: sqlite3.Connection, n: int, limit: int) -> int:
    """Return the cursor of the last of up to `limit` jobs stored after cursor `n`; `n` where there are none."""
    row = con.execute("SELECT max(n) FROM (SELECT n FROM job WHERE n > ? ORDER BY n LIMIT ?)", (n, limit)).fetchone()
    return n if row[0] is None else int(row[0])


def trace(con: sqlite3.Connection, names: Names, processes: Processes, trace_id: str, limit: int) -> list[Record]:
    """Return the jobs of a trace, the first one first: its root and those that name it."""
    key = bytes.fromhex(trace_id)
    rows = con.execute(
        f"SELECT {JOB_COLUMNS} FROM job WHERE id = ? UNION ALL"  # noqa: S608
        f" SELECT {JOB_COLUMNS} FROM job WHERE trace = ? AND trace IS NOT NULL ORDER BY start LIMIT ?",
        (key, key, limit),
    )
    return [from_row(row, names, processes.texts(row[_PROCESS])) for row in rows]


def values(con: sqlite3.Connection, names: Names, key: str, limit: int) -> list[str]:
    """Return the names in use for a key of the search language, none for one that has no list."""
    tables = {"action": "site", "queue": "hour", "name": "site", "service": "process", "host": "process"}
    tables |= {"environment": "process", "revision": "deploy"}
    if key not in tables:
        return []
    rows = con.execute(f"SELECT DISTINCT {key} FROM {tables[key]} LIMIT ?", (limit,))  # noqa: S608 - from the table above
    return sorted(text for row in rows if (text := names.text(row[0])))
