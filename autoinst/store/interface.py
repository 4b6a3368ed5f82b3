"""What commands and pages ask of a store, wherever it is: SQLite's Store and ClickHouse's Server both answer it.

What agents write is not here: each stores into its own machine's SQLite, which is also what a store past one machine is
filled from (export/clickhouse.py, export/changes.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from autoinst.record import Record
    from autoinst.store.events import Statement
    from autoinst.store.failures import ErrorGroup
    from autoinst.store.query import JobFilter, Page
    from autoinst.store.reader import Problem
    from autoinst.store.rollups import Cell
    from autoinst.store.totals import Deploy, Step


class Readable(Protocol):
    """An open store; all methods raise StoreError. `path` is where it is, for a person."""

    @property
    def path(self) -> str:
        """Where it is."""

    def close(self) -> None:
        """Close it."""

    def limited(self, seconds: float) -> AbstractContextManager[None]:
        """Let what is asked inside take so long; then SlowStoreError is raised."""

    def jobs(self, wanted: JobFilter) -> Iterator[Record]:
        """Yield stored jobs, newest first."""

    def page(self, wanted: JobFilter, seconds: float) -> Page:
        """Return `wanted.limit` jobs and where to go on; what was found within `seconds`."""

    def job(self, record_id: str) -> Record | None:
        """Return the job with that id of 32 hexadecimal digits."""

    def ids_like(self, first: str, last: str = "", *, limit: int) -> list[str]:
        """Return up to `limit` ids that begin with the hexadecimal digits `first` and end with `last`."""

    def recent_ids(self, last: str, *, newest: int, limit: int) -> list[str]:
        """Return up to `limit` ids that end with the digits `last`, of the `newest` jobs at least."""

    def trace(self, trace_id: str, limit: int) -> list[Record]:
        """Return the jobs of a trace (32 hexadecimal digits), the first one first."""

    def last(self) -> int:
        """Return a number that changes when jobs come, 0 where there has been none."""

    def first(self) -> int | None:
        """Return the start of the hour of the first job that is still counted, ns since the epoch."""

    def count(self) -> int:
        """Return how many jobs are stored (not counting those that were only counted)."""

    def totals(self, since_ns: int, until_ns: int) -> dict[str | None, Cell]:
        """Return totals per action of the jobs started in that time, to the minute."""

    def queue_totals(self, since_ns: int, until_ns: int, action: str | None = None) -> dict[str | None, Cell]:
        """Return totals per queue of the jobs (of an action) started in that time, to the minute."""

    def series(self, since_ns: int, until_ns: int, *, step_ns: int, action: str | None = None) -> dict[int, Cell]:
        """Return totals per step of whole minutes, by start of the step; steps without jobs are left out."""

    def action_steps(self, since_ns: int, until_ns: int, *, step_ns: int) -> dict[str | None, list[Step]]:
        """Return numbers of jobs per action and step of whole minutes."""

    def deploys(self, since_ns: int = 0, limit: int = 50) -> list[Deploy]:
        """Return the revisions first seen since then, the newest first."""

    def release(self, revision: str, since_ns: int, until_ns: int, action: str | None = None) -> dict[str | None, Cell]:
        """Return totals per action (or of one) of a revision's jobs, to the hour."""

    def statements(
        self, since_ns: int, until_ns: int, *, action: str | None = None, limit: int = 200
    ) -> list[Statement]:
        """Return what the events inside jobs cost, to the hour, the most time first."""

    def errors(self, *, since_ns: int | None = None, limit: int = 50, state: str | None = None) -> list[ErrorGroup]:
        """Return errors by fingerprint (in one of failures.STATES), the latest first."""

    def error(self, fingerprint: str) -> ErrorGroup | None:
        """Return the error with that fingerprint of 16 hexadecimal digits."""

    def error_states(self, since_ns: int) -> dict[str, int]:
        """Return how many errors seen since then are in each of failures.STATES."""

    def error_hours(self, group: int, since_ns: int) -> dict[int, int]:
        """Return how often an error group occurred, by start of the hour."""

    def all_error_hours(self, since_ns: int) -> dict[int, dict[int, int]]:
        """Return by id of the error group how often it occurred, by start of the hour."""

    def values(self, key: str) -> list[str]:
        """Return the names there are of an `action`, `queue`, `service`, `host`, `revision` or `environment`."""

    def processes(self, *, living: bool | None = None, limit: int = 200) -> list[Any]:
        """Return processes, the last seen first; `living` chooses those that have (not) ended."""

    def problems(self) -> list[Problem]:
        """Return what went wrong in the reading half, the latest first."""


class Writable(Readable, Protocol):
    """A store in which a person's word on an error can be kept."""

    def set_error_state(self, group: ErrorGroup, state: str) -> None:
        """Put an error group into one of failures.STATES; raises ValueError for another."""
