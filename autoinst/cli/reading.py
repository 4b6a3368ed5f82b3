"""What there is to read in a home: jobs in flight, drained now, and jobs stored before."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import pwd
import stat
import time
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from autoinst.agent.drain import catch_up
from autoinst.agent.inflight import running
from autoinst.agent.lead import POLL_SECONDS
from autoinst.cli.output import message
from autoinst.errors import HomeError, StoreError
from autoinst.store.clickhouse.address import chosen
from autoinst.store.query import ID_DIGITS, JobFilter
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.config import Config
    from autoinst.record import Record
    from autoinst.store.interface import Readable, Writable

OPEN_SECONDS = 1.0  # how long another user's store is tried to be opened
ENOUGH = 10  # jobs shown where digits may mean several
RECENT = 20_000  # jobs searched for an id's last digits
HEXADECIMAL = frozenset("0123456789abcdef")
MAX_TRACE = 200
HALF = 6  # digits from each end of an id in its short form
LEAST = 8  # last digits that are enough to look for


def short_id(record_id: str) -> str:
    """Return twelve digits that name a job: the first tell its process, the last the job within it."""
    return record_id[:HALF] + record_id[-HALF:]


def owner_of(home: str) -> int | None:
    """Return the id of the user whose home it is, None where there is none."""
    try:
        found = os.stat(home)
    except OSError:
        return None
    return found.st_uid if stat.S_ISDIR(found.st_mode) else None


def user_name(number: int) -> str:
    """Return a user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def open_foreign(config: Config, owner: int) -> Store | None:
    """Open the store of another user's home, in which nothing is drained or written; None where there is none yet.

    Raises HomeError where this user may not even read it, StoreError.
    """
    home = f"{config.home} belongs to user {user_name(owner)}"
    if not os.access(config.home, os.R_OK | os.X_OK):
        raise HomeError(f"{home}, and you may not read it; AUTOINST_GROUP would let a group do so")
    message(f"showing what is stored already: {home}, and nothing new is read by others")
    deadline = time.monotonic() + OPEN_SECONDS
    while os.path.exists(config.store):
        try:
            return Store(config.store, readonly=True)
        except StoreError:  # its owner may just be closing it
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
    return None


class Home:
    """A home brought up to date: what has ended is in the store, `flying` are the jobs in flight. A context manager.

    Another user's is shown as it is.

    `store` is None where nothing has ever been recorded; `local` is this machine's, from which `store` differs where
    AUTOINST_STORE names one past it.
    """

    def __init__(self, config: Config, *, local: bool = False) -> None:
        """Drain the home, unless it does not exist or may only be read; raises HomeError, StoreError."""
        self.path = config.home
        self.local: Store | None = None
        self.store: Readable | None = None
        # First what runs, then what has ended: so a job that ends meanwhile is found twice, never lost.
        self.flying: list[Record] = running(config.home)
        owner = owner_of(config.home)
        if owner is not None and owner != os.geteuid():
            self.local = open_foreign(config, owner)
        elif owner is not None:
            try:
                if not catch_up(config.home):
                    message("showing what is stored already: the agent has not answered; `autoinst doctor` says more")
            except HomeError as error:
                if not os.path.isfile(config.store):
                    raise
                message(f"showing what is stored already; nothing new was read: {error}")
        if self.local is None and os.path.isfile(config.store):
            self.local = Store(config.store, readonly=True)
        self.store = self.local
        try:
            if not local:
                self._use_server(config)
        except BaseException:
            self.close()
            raise

    def _use_server(self, config: Config) -> None:
        """Read from the store past this machine, if there is one; only what is in flight is this machine's."""
        address = chosen(os.environ)
        if address is None:
            return
        from autoinst.cli import sending
        from autoinst.store.clickhouse.reader import Server

        self.path = address.place
        sending.catch_up(config, address)
        self.store = Server(address)

    def __enter__(self) -> Home:  # noqa: PYI034 - Self is not in typing before 3.11
        """Return the home itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the store."""
        for store in {id(store): store for store in (self.store, self.local) if store is not None}.values():
            store.close()

    def jobs(self, wanted: JobFilter) -> Iterator[Record]:
        """Yield the jobs asked for, newest first, those in flight among them; `*` in `action` stands for any text."""
        pattern = wanted.action if wanted.action is not None and "*" in wanted.action else None
        exact = wanted if pattern is None else replace(wanted, action=None, limit=0)
        found = self._jobs(exact)
        if pattern is not None:
            found = (record for record in found if fnmatchcase(record.action or "", pattern))
        return itertools.islice(found, wanted.limit) if wanted.limit > 0 else found

    def _jobs(self, wanted: JobFilter) -> Iterator[Record]:
        stored = iter(()) if self.store is None else self.store.jobs(wanted)
        flying = [record for record in self.flying if wanted.matches(record)]
        if not flying:
            return stored
        ended = {record.id for record in flying if self.store is not None and self.store.job(record.id) is not None}
        alive = [record for record in flying if record.id not in ended]
        return heapq.merge(alive, stored, key=lambda record: record.started_ns, reverse=True)

    def trace(self, record: Record) -> list[Record]:
        """Return the jobs of the trace that `record` is in, the first one first."""
        return [] if self.store is None else self.store.trace(record.trace_id or record.id, MAX_TRACE)

    def find(self, text: str) -> list[Record]:
        """Return the jobs that `text` may mean: their id, its short form or first digits, or the library's own job id.

        Last digits do as well, for the newest jobs. More than one job means that `text` is not enough; no more than ten
        are returned, the newest first.
        """
        digits = text.lower().replace("-", "")
        is_hexadecimal = bool(digits) and HEXADECIMAL.issuperset(digits)
        if is_hexadecimal and len(digits) <= ID_DIGITS:
            found = self._with_ids(digits, "")
            if found:
                return found
        found = list(self.jobs(JobFilter(limit=ENOUGH, job_id=text)))
        if not found and is_hexadecimal and len(digits) == 2 * HALF:
            found = self._with_ids(digits[:HALF], digits[HALF:])
        if not found and is_hexadecimal and len(digits) >= LEAST:
            found = self._with_ids("", digits)
        return found

    def _with_ids(self, first: str, last: str) -> list[Record]:
        """Return some jobs, in flight or stored, whose ids begin with `first` and end with `last`."""
        found = {job.id: job for job in self.flying if job.id.startswith(first) and job.id.endswith(last)}
        store = self.store
        if store is not None:
            if first:
                ids = store.ids_like(first, last, limit=ENOUGH)
            else:
                ids = store.recent_ids(last, newest=RECENT, limit=ENOUGH)
            found.update((job.id, job) for job in map(store.job, ids) if job is not None)
        newest = sorted(found.values(), key=lambda job: job.started_ns, reverse=True)
        return newest[:ENOUGH]


@contextlib.contextmanager
def writable(config: Config) -> Iterator[Writable]:
    """Lend the store that commands read from, to write a person's word into it; raises StoreError."""
    address = chosen(os.environ)
    if address is not None:
        from autoinst.store.clickhouse.reader import Server

        with Server(address) as server:
            yield server
    else:
        with Store(config.store) as store, store.transaction():
            yield store
