"""What can be asked of a ClickHouse database: all that pages and commands ask of a store; see store/interface.py."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from autoinst.spool.tail import is_id
from autoinst.store import query as questions
from autoinst.store.clickhouse import incidents, query, schema, totals
from autoinst.store.clickhouse.client import Client
from autoinst.store.processes import Process
from autoinst.store.reader import MANY_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from autoinst.record import Record
    from autoinst.store.clickhouse.address import Address
    from autoinst.store.events import Statement
    from autoinst.store.failures import ErrorGroup
    from autoinst.store.query import JobFilter, Page
    from autoinst.store.reader import Problem
    from autoinst.store.rollups import Cell
    from autoinst.store.totals import Deploy, Step

EXACT = 20_000_000  # rows up to which those sent twice are looked for before they are counted


class Server:
    """An open database on a server; all methods raise StoreError; for one thread at a time."""

    def __init__(self, address: Address) -> None:
        """Ask the server whether it has tables of this version; raises StoreError, OutdatedStoreError."""
        self.path = address.place
        self.client = Client(address)
        self.client.version()
        schema.check(self.client)

    def __enter__(self) -> Server:  # noqa: PYI034 - Self is not in typing before 3.11
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close connections."""
        self.close()

    def close(self) -> None:
        """Close connections."""
        self.client.close()

    def limited(self, seconds: float) -> AbstractContextManager[None]:
        """Let what is asked inside take so long; then SlowStoreError is raised."""
        return self.client.limited(seconds)

    # -- jobs --------------------------------------------------------------------------------------------------

    def jobs(self, wanted: JobFilter) -> Iterator[Record]:
        """Yield stored jobs, newest first."""
        return query.jobs(self.client, wanted)

    def page(self, wanted: JobFilter, seconds: float) -> Page:
        """Return `wanted.limit` jobs and where to go on; what was found within `seconds`."""
        return query.page(self.client, wanted, seconds)

    def job(self, record_id: str) -> Record | None:
        """Return the job with that id of 32 hexadecimal digits."""
        if not is_id(record_id):
            return None
        return next(self.jobs(questions.JobFilter(limit=1, id_prefix=record_id)), None)

    def ids_like(self, first: str, last: str = "", *, limit: int) -> list[str]:
        """Return up to `limit` ids that begin with the hexadecimal digits `first` and end with `last`, the newest."""
        return query.ids_like(self.client, first, last, limit)

    def recent_ids(self, last: str, *, newest: int, limit: int) -> list[str]:
        """Return up to `limit` ids that end with the digits `last`; of all jobs here, not only of the `newest`."""
        del newest
        return query.ids_like(self.client, "", last, limit)

    def trace(self, trace_id: str, limit: int) -> list[Record]:
        """Return the jobs of a trace (32 hexadecimal digits), the first one first."""
        return query.trace(self.client, trace_id, limit) if is_id(trace_id) else []

    def last(self) -> int:
        """Return a number that changes when jobs come, 0 where there has been none."""
        return int(self.client.one("SELECT count() AS number FROM job"))

    def first(self) -> int | None:
        """Return the start of the hour of the first job that is still counted, ns since the epoch."""
        row = self.client.rows("SELECT count() AS number, min(at) AS first FROM overall WHERE minutes = 60")[0]
        return row["first"] * totals.NS if row["number"] else None

    def count(self) -> int:
        """Return how many jobs are stored; beyond EXACT those sent twice and not merged yet count twice."""
        number = self.last()
        if number <= EXACT:
            number = int(self.client.one("SELECT count() AS number FROM job FINAL WHERE gone = 0"))
        return number

    # -- totals ------------------------------------------------------------------------------------------------

    def totals(self, since_ns: int, until_ns: int) -> dict[str | None, Cell]:
        """Return totals per action of the jobs started in that time, to the minute."""
        return totals.grouped(self.client, since_ns, until_ns, "action")

    def queue_totals(self, since_ns: int, until_ns: int, action: str | None = None) -> dict[str | None, Cell]:
        """Return totals per queue of the jobs (of an action) started in that time, to the minute."""
        return totals.grouped(self.client, since_ns, until_ns, "queue", action)

    def series(self, since_ns: int, until_ns: int, *, step_ns: int, action: str | None = None) -> dict[int, Cell]:
        """Return totals per step of whole minutes, by start of the step; steps without jobs are left out."""
        return totals.series(self.client, since_ns, until_ns, step_ns, action)

    def action_steps(self, since_ns: int, until_ns: int, *, step_ns: int) -> dict[str | None, list[Step]]:
        """Return numbers of jobs per action and step of whole minutes."""
        return totals.action_steps(self.client, since_ns, until_ns, step_ns)

    def deploys(self, since_ns: int = 0, limit: int = 50) -> list[Deploy]:
        """Return the revisions first seen since then, the newest first."""
        return totals.deploys(self.client, since_ns, limit)

    def release(self, revision: str, since_ns: int, until_ns: int, action: str | None = None) -> dict[str | None, Cell]:
        """Return totals per action (or of one) of a revision's jobs, to the hour."""
        return totals.release(self.client, revision, since_ns, until_ns, action)

    def statements(
        self, since_ns: int, until_ns: int, *, action: str | None = None, limit: int = 200
    ) -> list[Statement]:
        """Return what the events inside jobs cost, to the hour, the most time first."""
        return totals.statements(self.client, since_ns, until_ns, action, limit)

    # -- errors ------------------------------------------------------------------------------------------------

    def errors(self, *, since_ns: int | None = None, limit: int = 50, state: str | None = None) -> list[ErrorGroup]:
        """Return errors by fingerprint (in one of failures.STATES), the latest first."""
        return incidents.errors(self.client, since_ns=since_ns, limit=limit, state=state)

    def error(self, fingerprint: str) -> ErrorGroup | None:
        """Return the error with that fingerprint of 16 hexadecimal digits."""
        return incidents.error(self.client, fingerprint)

    def error_states(self, since_ns: int) -> dict[str, int]:
        """Return how many errors seen since then are in each of failures.STATES."""
        return incidents.states(self.client, since_ns)

    def error_hours(self, group: int, since_ns: int) -> dict[int, int]:
        """Return how often an error group occurred, by start of the hour."""
        return incidents.error_hours(self.client, since_ns, group).get(group, {})

    def all_error_hours(self, since_ns: int) -> dict[int, dict[int, int]]:
        """Return by id of the error group how often it occurred, by start of the hour."""
        return incidents.error_hours(self.client, since_ns)

    def set_error_state(self, group: ErrorGroup, state: str) -> None:
        """Put an error group into one of failures.STATES; raises ValueError for another."""
        incidents.set_state(self.client, group, state, time.time_ns())

    # -- the rest ----------------------------------------------------------------------------------------------

    def values(self, key: str) -> list[str]:
        """Return the names there are of an `action`, `queue`, `service`, `host`, `revision` or `environment`."""
        return query.values(self.client, key, MANY_NAMES)

    def processes(self, *, living: bool | None = None, limit: int = 200) -> list[Any]:
        """Return processes of all hosts, the last seen first; `living` chooses those that have (not) ended."""
        wanted = "" if living is None else f" WHERE ended {'=' if living else '>'} 0"
        rows = self.client.rows(
            f"SELECT * FROM process FINAL{wanted} ORDER BY last_seen DESC LIMIT {limit if limit > 0 else incidents.ALL}"
        )
        return [_process(number, row) for number, row in enumerate(rows, 1)]

    def problems(self) -> list[Problem]:
        """Return nothing: what went wrong on a machine is known there, see `doctor` on it."""
        return []

    def homes(self) -> list[dict[str, Any]]:
        """Return the local stores that send to this one: host, path, version, last time and what waited then."""
        return self.client.rows("SELECT * FROM home FINAL ORDER BY at DESC")


def _process(number: int, row: dict[str, Any]) -> Process:
    return Process(
        number,
        row["uid"],
        row["pid"],
        row["host"] or None,
        row["service"] or None,
        row["environment"] or None,
        row["revision"] or None,
        json.loads(row["description"]) if row["description"] else {},
        row["started"],
        row["first_seen"],
        row["last_seen"],
        row["ended"] or None,
        row["how"] or None,
        json.loads(row["status"]) if row["status"] else None,
    )
