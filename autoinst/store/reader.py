"""What can be asked of the embedded store; `sqlite.Store` adds what can be written."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from autoinst.errors import StoreError
from autoinst.record import INT64_MAX
from autoinst.spool.tail import is_id
from autoinst.store import alltime, check_ins, feeds, incidents, lookup, notices, query, totals, unsent
from autoinst.store.processes import Processes
from autoinst.store.records import Names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.record import Record
    from autoinst.store.alltime import Latest, Total
    from autoinst.store.check_ins import Seen
    from autoinst.store.events import Statement
    from autoinst.store.failures import ErrorGroup
    from autoinst.store.feeds import Feed, Parked
    from autoinst.store.notices import Notice, Trouble
    from autoinst.store.query import JobFilter, Page
    from autoinst.store.rollups import Cell
    from autoinst.store.totals import Deploy, Step
    from autoinst.store.unsent import Sender

STEPS_A_LOOK = 2_000  # of SQLite's virtual machine between two looks at the clock
MANY_NAMES = 1_000
_CORRUPT_CODES = frozenset({11, 26})  # SQLITE_CORRUPT, SQLITE_NOTADB
_CORRUPT_WORDS = ("malformed", "not a database", "unsupported file format")


class CorruptStoreError(StoreError):
    """The database file is damaged; `set_aside` and open anew."""


class OutdatedStoreError(StoreError):
    """The database is of an earlier version and was opened only to be read."""


class ForbiddenStoreError(StoreError):
    """Whoever asks may not do that."""


class SlowStoreError(StoreError):
    """A question took longer than it was given."""


class Problem(NamedTuple):
    """Something that went wrong in the reading half, for `doctor`; times in ns since the epoch."""

    kind: str
    detail: str
    times: int
    first_ns: int
    last_ns: int


class Reader:
    """An open database; all methods raise StoreError."""

    def __init__(self, con: sqlite3.Connection, path: str) -> None:
        """Read from `con`, the database `path`."""
        self.path = path
        self._con = con
        self._names = Names(con)
        self._processes = Processes(con, self._names)

    def close(self) -> None:
        """Close the database."""
        with self._errors():
            self._con.close()

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return told_as_store_errors(self.path)

    @contextlib.contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Let what is asked inside take so long; then SlowStoreError is raised."""
        deadline = time.monotonic() + seconds
        self._con.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_A_LOOK)
        try:
            yield
        finally:
            self._con.set_progress_handler(None, 0)

    # -- jobs --------------------------------------------------------------------------------------------------

    def jobs(self, wanted: JobFilter) -> Iterator[Record]:
        """Yield stored jobs, newest first."""
        with self._errors():
            yield from query.jobs(self._con, self._names, self._processes, wanted)

    def page(self, wanted: JobFilter, seconds: float) -> Page:
        """Return `wanted.limit` jobs and where to go on; what was found within `seconds`."""
        with self._errors():
            return query.page(self._con, self._names, self._processes, wanted, seconds)

    def job(self, record_id: str) -> Record | None:
        """Return the job with that id of 32 hexadecimal digits."""
        if not is_id(record_id):
            return None
        return next(self.jobs(query.JobFilter(limit=1, id_prefix=record_id)), None)

    def ids_like(self, first: str, last: str = "", *, limit: int) -> list[str]:
        """Return up to `limit` ids that begin with the hexadecimal digits `first` and end with `last`."""
        with self._errors():
            return lookup.ids_like(self._con, first, last, limit)

    def recent_ids(self, last: str, *, newest: int, limit: int) -> list[str]:
        """Return up to `limit` ids that end with the digits `last`, of the `newest` jobs stored last."""
        with self._errors():
            return lookup.recent_ids(self._con, last, newest, limit)

    def trace(self, trace_id: str, limit: int) -> list[Record]:
        """Return the jobs of a trace (32 hexadecimal digits), the first one first."""
        if not is_id(trace_id):
            return []
        with self._errors():
            return query.trace(self._con, self._names, self._processes, trace_id, limit)

    def jobs_after(
        self, n: int, limit: int = 1000, *, upto: int = INT64_MAX, imported: bool = True
    ) -> list[tuple[int, Record]]:
        """Return jobs stored after cursor `n` up to `upto` in the order of storing, each with its cursor.

        `limit` -1: all of them; `imported`: also those that were recorded elsewhere.
        """
        with self._errors():
            return query.jobs_after(self._con, self._names, self._processes, n, limit, upto, imported=imported)

    def cursor_after(self, n: int, limit: int) -> int:
        """Return the cursor of the last of up to `limit` jobs stored after cursor `n`; `n` where there are none."""
        with self._errors():
            return query.cursor_after(self._con, n, limit)

    def feed(self, name: str) -> Feed | None:
        """Return how far a feed of an exporter has come, None where it has never been there."""
        with self._errors():
            return feeds.feed(self._con, name)

    def feeds(self) -> list[Feed]:
        """Return all feeds of exporters."""
        with self._errors():
            return feeds.feeds(self._con)

    def parked(self, limit: int = 50) -> list[Parked]:
        """Return the jobs that receivers refuse, the latest first."""
        with self._errors():
            return feeds.parked(self._con, limit)

    def notices_after(self, n: int, limit: int, *, upto: int = INT64_MAX) -> list[Notice]:
        """Return up to `limit` notices (-1: all) after cursor `n` up to `upto`."""
        with self._errors():
            return notices.after(self._con, n, limit, upto)

    def last_notice(self) -> int:
        """Return the cursor of the last notice, 0 where there has been none."""
        with self._errors():
            return notices.last(self._con)

    def latest_notice(self, kind: str, subject: str) -> Notice | None:
        """Return what was told of a subject last."""
        with self._errors():
            return notices.latest(self._con, kind, subject)

    def troubles(self, n: int, upto: int, queue_ns: int | None, limit: int) -> list[Trouble]:
        """Return jobs after cursor `n` up to `upto` that failed, were killed, or waited longer than `queue_ns`."""
        with self._errors():
            return notices.troubles(self._con, self._names, n, upto, queue_ns, limit)

    def told_of(self, fingerprint: bytes) -> dict[int, int]:
        """Return by revision (a number of `name`) when the job began by which an error was known under it."""
        with self._errors():
            return notices.told(self._con, fingerprint)

    def count_after(self, n: int, upto: int) -> int:
        """Return how many jobs there are after cursor `n` up to `upto`."""
        with self._errors():
            return int(self._con.execute("SELECT count(*) FROM job WHERE n > ? AND n <= ?", (n, upto)).fetchone()[0])

    def sender(self) -> Sender | None:
        """Return as whom this store sends to one past this machine, None where it has never done so."""
        with self._errors():
            return unsent.sender(self._con)

    def changed(self) -> int:
        """Return how many totals, errors and processes have changed since they were sent."""
        with self._errors():
            return unsent.number(self._con)

    def last(self) -> int:
        """Return the cursor of the job stored last, 0 where there has been none."""
        with self._errors():
            found = self._con.execute("SELECT seq FROM sqlite_sequence WHERE name = 'job'").fetchone()
            return int(found[0]) if found else 0

    def first(self) -> int | None:
        """Return the start of the hour of the first job that is still counted, ns since the epoch."""
        with self._errors():
            found = self._con.execute("SELECT min(at) FROM hour").fetchone()[0]
            return None if found is None else int(found) * totals.HOUR_NS

    def count(self) -> int:
        """Return how many jobs are stored (not counting those that were only counted)."""
        with self._errors():
            return int(self._con.execute("SELECT count(*) FROM job").fetchone()[0])

    # -- totals ------------------------------------------------------------------------------------------------

    def totals(self, since_ns: int, until_ns: int) -> dict[str | None, Cell]:
        """Return totals per action of the jobs started in that time, to the minute."""
        with self._errors():
            return totals.grouped(self._con, self._names, since_ns, until_ns, "action")

    def queue_totals(self, since_ns: int, until_ns: int, action: str | None = None) -> dict[str | None, Cell]:
        """Return totals per queue of the jobs (of an action) started in that time, to the minute."""
        with self._errors():
            return totals.grouped(self._con, self._names, since_ns, until_ns, "queue", action=action)

    def series(self, since_ns: int, until_ns: int, *, step_ns: int, action: str | None = None) -> dict[int, Cell]:
        """Return totals per step of whole minutes, by start of the step; steps without jobs are left out."""
        with self._errors():
            return totals.series(self._con, self._names, since_ns, until_ns, step_ns=step_ns, action=action)

    def action_steps(self, since_ns: int, until_ns: int, *, step_ns: int) -> dict[str | None, list[Step]]:
        """Return numbers of jobs per action and step of whole minutes."""
        with self._errors():
            return totals.action_steps(self._con, self._names, since_ns, until_ns, step_ns=step_ns)

    def deploys(self, since_ns: int = 0, limit: int = 50) -> list[Deploy]:
        """Return the revisions first seen since then, the newest first."""
        with self._errors():
            return totals.deploys(self._con, self._names, since_ns, limit)

    def release(self, revision: str, since_ns: int, until_ns: int, action: str | None = None) -> dict[str | None, Cell]:
        """Return totals per action (or of one) of a revision's jobs, to the hour."""
        with self._errors():
            return totals.release(self._con, self._names, revision, since_ns, until_ns, action=action)

    def statements(
        self, since_ns: int, until_ns: int, *, action: str | None = None, limit: int = 200
    ) -> list[Statement]:
        """Return what the events inside jobs cost, to the hour, the most time first."""
        with self._errors():
            return totals.statements(self._con, self._names, since_ns, until_ns, action=action, limit=limit)

    def all_time(self) -> list[Total]:
        """Return totals of all time by action and queue."""
        with self._errors():
            return alltime.all_time(self._con, self._names)

    def latest_of(self, action: int) -> dict[int, Latest]:
        """Return by number of the queue the job of an action (by number) that began last."""
        with self._errors():
            return alltime.latest(self._con, action)

    # -- errors ------------------------------------------------------------------------------------------------

    def errors(self, *, since_ns: int | None = None, limit: int = 50, state: str | None = None) -> list[ErrorGroup]:
        """Return errors by fingerprint (in one of failures.STATES), the latest first."""
        with self._errors():
            return incidents.errors(self._con, self._names, since_ns=since_ns, limit=limit, state=state)

    def error(self, fingerprint: str) -> ErrorGroup | None:
        """Return the error with that fingerprint of 16 hexadecimal digits."""
        with self._errors():
            return incidents.error(self._con, self._names, fingerprint)

    def error_states(self, since_ns: int) -> dict[str, int]:
        """Return how many errors seen since then are in each of failures.STATES."""
        with self._errors():
            return incidents.states(self._con, since_ns)

    def error_hours(self, group: int, since_ns: int) -> dict[int, int]:
        """Return how often an error group occurred, by start of the hour."""
        with self._errors():
            return incidents.error_hours(self._con, since_ns, group).get(group, {})

    def all_error_hours(self, since_ns: int) -> dict[int, dict[int, int]]:
        """Return by id of the error group how often it occurred, by start of the hour."""
        with self._errors():
            return incidents.error_hours(self._con, since_ns)

    # -- the rest ----------------------------------------------------------------------------------------------

    def values(self, key: str) -> list[str]:
        """Return the names there are of an `action`, `queue`, `service`, `host`, `revision` or `environment`."""
        with self._errors():
            return query.values(self._con, self._names, key, MANY_NAMES)

    def last_seen(self, process_uid: bytes) -> int | None:
        """Return when a process was last known alive, ns since the epoch."""
        with self._errors():
            return self._processes.last_seen(process_uid)

    def check_ins(self) -> dict[str, Seen]:
        """Return by identifier when the jobs of check-ins ran last."""
        with self._errors():
            return check_ins.seen(self._con)

    def suspects(self) -> dict[bytes, tuple[int, int]]:
        """Return what `set_suspects` kept."""
        with self._errors():
            return {row[0]: (row[1], row[2]) for row in self._con.execute("SELECT arena, checksum, since FROM suspect")}

    def processes(self, *, living: bool | None = None, limit: int = 200) -> list[Any]:
        """Return processes, the last seen first; `living` chooses those that have (not) ended."""
        with self._errors():
            return self._processes.list(living=living, limit=limit)

    def problems(self) -> list[Problem]:
        """Return what went wrong, the latest first."""
        with self._errors():
            rows = self._con.execute("SELECT kind, detail, count, first, last FROM problem ORDER BY last DESC")
            return [Problem(*row) for row in rows]


@contextlib.contextmanager
def told_as_store_errors(path: str) -> Iterator[None]:
    """Raise what SQLite says of the database `path` as StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        if is_corrupt(error):
            raise CorruptStoreError(f"{path}: {error}") from error
        if "interrupted" in str(error):
            raise SlowStoreError(f"{path}: the question took too long") from error
        raise StoreError(f"{path}: {error}") from error


def is_corrupt(error: sqlite3.Error) -> bool:
    """Return whether `error` says that the file is damaged or no database."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _CORRUPT_CODES
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _CORRUPT_WORDS)
