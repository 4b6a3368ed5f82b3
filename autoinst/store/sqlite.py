"""The embedded store: one SQLite file that one leader writes and any number of processes read."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from autoinst.config import SHARED_FILE, is_shared, share_file
from autoinst.errors import StoreError
from autoinst.store import check_ins, feeds, incidents, notices, overflow, rollups, schema, unsent
from autoinst.store.clickhouse.sending import Sending
from autoinst.store.insert import Inserter, by_process, total, without_ties
from autoinst.store.leftout import LeftOut
from autoinst.store.reader import CorruptStoreError, OutdatedStoreError, Reader, told_as_store_errors
from autoinst.store.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from autoinst.record import Record
    from autoinst.spool.counted import Counted
    from autoinst.store.failures import ErrorGroup
    from autoinst.store.feeds import Batch, Feed
    from autoinst.store.insert import Inserted
    from autoinst.store.processes import ProcessInfo
    from autoinst.store.retention import Forgotten, Limits
    from autoinst.store.unsent import Change, Sender

BUSY_SECONDS = 10.0
COMPANIONS = ("-wal", "-shm")
WAL_LIMIT_BYTES = 64 * 1024 * 1024


class Store(Reader):
    """An open store. Writes happen inside `with store.transaction():`; all methods raise StoreError."""

    def __init__(
        self, path: str, *, readonly: bool = False, timeout: float = BUSY_SECONDS, any_thread: bool = False
    ) -> None:
        """Open the database `path`, made or brought to this version unless `readonly`.

        `timeout` are the seconds to wait for a lock; with `any_thread` threads may use it one after the other.
        Raises StoreError, OutdatedStoreError, CorruptStoreError.
        """
        self._writes = not readonly
        with told_as_store_errors(path):
            con = _connect(path, readonly=readonly, timeout=timeout, any_thread=any_thread)
        try:
            with told_as_store_errors(path):
                _prepare(con, path, readonly=readonly)
        except StoreError:
            con.close()
            raise
        super().__init__(con, path)
        self._inserter = Inserter(self._con, self._names)
        self._left_out = LeftOut(self._con, self._names, self._inserter)

    @classmethod
    def empty(cls) -> Store:
        """Return a store that has nothing and keeps nothing, for any thread."""
        return cls(":memory:", any_thread=True)

    def __enter__(self) -> Store:  # noqa: PYI034 - Self is not in typing before 3.11
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the database; in a shared home its companions stay, without which its group could not read it."""
        super().close()
        if self._writes:
            _leave_companions(self.path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all that is written inside one transaction; on any exception nothing of it is kept."""
        with self._errors():
            self._con.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._inserter.flush()
                self._con.execute("COMMIT")
            except BaseException:
                for part in (self._inserter, self._names, self._processes):
                    part.forget()
                if self._con.in_transaction:
                    with contextlib.suppress(sqlite3.Error):  # what went wrong first is what matters
                        self._con.execute("ROLLBACK")
                raise

    # -- writing, inside a transaction -------------------------------------------------------------------------

    def enter_process(self, info: ProcessInfo) -> int:
        """Return the number of a process, adding it if it is new."""
        return self._processes.enter(info, time.time_ns())

    def process_seen(self, process: int, alive_ns: int) -> None:
        """Note that a process was alive at `alive_ns`."""
        self._processes.seen(process, alive_ns)

    def process_status(self, process: int, status: dict[str, Any]) -> None:
        """Keep the rule statuses a process told of."""
        self._processes.set_status(process, status)

    def process_ended(self, process: int, how: str) -> None:
        """Note that a process was found dead now."""
        self._processes.end(process, time.time_ns(), how)

    def insert(self, records: Sequence[Record], process: int | None = None) -> Inserted:
        """Insert records that are not known yet; an end that was seen replaces one that was only inferred.

        `process` is their process's number (None: found or made from each record's pid, host, service, ...).
        """
        if process is not None:
            return self._inserter.insert(records, process)
        return total(
            self._inserter.insert(group, self._processes.enter_unknown(texts))
            for texts, group in by_process(records).items()
        )

    def import_(self, records: Sequence[Record]) -> Inserted:
        """Insert records of another store as `insert` does, in their order; exporters are not told of them.

        What is remembered of rows is read anew, so that an agent may write and remove rows between two transactions.
        """
        for part in (self._inserter, self._names, self._processes):
            part.forget()
        return total(
            self._inserter.insert(group, self._processes.enter_imported(texts, group), imported=True)
            for part in without_ties(records)
            for texts, group in by_process(part).items()
        )

    def set_counted(self, arena_uid: bytes, rows: Iterable[Counted]) -> int:
        """Bring what an arena has only counted up to date; the numbers never fall. Returns how many jobs were added."""
        return overflow.bring_up_to_date(self._con, self._names, self._inserter.rollups, arena_uid, rows)

    def count_left_out(self, arena_uid: bytes, records: Sequence[Record], process: int, *, freed: bool) -> int:
        """Count jobs of that process of which no record is kept, each once; returns how many were new.

        `freed`: the slots of all that were given before are free again, so that none of them can come another time.
        """
        self._inserter.of_process(process)
        return self._left_out.count(arena_uid, records, time.time_ns(), freed=freed)

    def note_problem(self, kind: str, detail: str, count: int = 1) -> None:
        """Remember something that went wrong, for `doctor`."""
        now = time.time_ns()
        self._con.execute(
            "INSERT INTO problem(kind, detail, count, first, last) VALUES(?,?,?,?,?) ON CONFLICT(kind, detail)"
            " DO UPDATE SET count = count + excluded.count, last = excluded.last",
            (kind, detail, count, now, now),
        )

    def expect_check_ins(self, identifiers: Iterable[str]) -> None:
        """Remember from when on check-ins are expected, those that are not known yet."""
        check_ins.expect(self._con, identifiers, time.time_ns())

    def set_suspects(self, suspects: dict[bytes, tuple[int, int]]) -> None:
        """Keep (checksum, since) of the arenas under suspicion, for the next process that looks."""
        self._con.execute("DELETE FROM suspect")
        self._con.executemany(
            "INSERT INTO suspect(arena, checksum, since) VALUES(?,?,?)", [(uid, *row) for uid, row in suspects.items()]
        )

    def set_error_state(self, group: ErrorGroup, state: str) -> None:
        """Put an error group into one of failures.STATES; raises ValueError for another."""
        incidents.set_state(self._con, group, state, time.time_ns())

    def add_feed(self, name: str, n: int) -> Feed:
        """Begin a feed behind cursor `n`, if it is new; return it."""
        return feeds.add(self._con, name, n, time.time_ns())

    def fix_batch(self, feed: Feed, upto: int) -> Batch:
        """Make what comes after the feed's cursor up to `upto` its batch, under a new token."""
        return feeds.fix(self._con, feed, upto, time.time_ns())

    def finish_batch(self, feed: Feed, *, jobs: int, posts: int = 1, size: int = 0, rejected: int = 0) -> None:
        """Move the feed's cursor behind its batch, of which `jobs` were sent in `posts` of `size` bytes in all."""
        feeds.finish(self._con, feed, jobs=jobs, posts=posts, size=size, rejected=rejected, now_ns=time.time_ns())

    def park(self, feed: Feed, reason: str) -> None:
        """Put the only job of the feed's batch aside, and move the cursor behind it."""
        feeds.park(self._con, feed, reason, time.time_ns())

    def tell_of_feed(self, feed: Feed, state: str, detail: str) -> None:
        """Keep what went wrong with a feed, for `doctor`."""
        feeds.tell(self._con, feed, state, detail, time.time_ns())

    def leave_out(self, feed: Feed, upto: int, jobs: int) -> None:
        """Move the feed's cursor to `upto` without sending the `jobs` up to there."""
        feeds.leave_out(self._con, feed, upto, jobs)

    def move_feed(self, feed: Feed, upto: int) -> None:
        """Move the cursor of a feed that sends nothing."""
        feeds.move(self._con, feed, upto)

    def begin_notices(self) -> None:
        """Take all errors there are for known."""
        notices.begin(self._con)

    def mark_told(self, fingerprint: bytes, revision: int, at_ns: int) -> None:
        """Note that an error was told of under a revision (a number of `name`)."""
        notices.mark_told(self._con, fingerprint, revision, at_ns)

    def add_notice(self, kind: str, subject: str, at_ns: int, data: dict[str, Any]) -> None:
        """Add something to tell people of."""
        notices.add(self._con, kind, subject, at_ns, data)

    def forget_notices(self) -> None:
        """Remove notices that are a month old."""
        notices.forget(self._con, time.time_ns())

    def begin_sending(self, destination: str) -> Sender:
        """Note from now on what changes, for `destination`; what there is already counts as changed, if it is new."""
        return unsent.begin(self._con, destination)

    def sent(self, changes: Iterable[Change]) -> None:
        """Note that what changed was sent."""
        unsent.sent(self._con, changes)

    def unsent(self, home: int, limit: int) -> tuple[list[Change], dict[str, list[dict[str, Any]]]]:
        """Return up to `limit` changes since they were sent, and what to send of them by ClickHouse's table."""
        with self._errors():
            return Sending(self, self._con, self._names, home).take(limit)

    def forget(self, limits: Limits, now_ns: int, arenas: Collection[bytes] = (), *, batches: int = 1000) -> Forgotten:
        """Remove jobs beyond `limits`, see Retention.apply; not inside a transaction."""
        with self._errors():
            try:
                return Retention(self._con, self.transaction).apply(limits, now_ns, arenas, batches)
            finally:
                self._inserter.forget()  # it remembers numbers of rows that may be gone

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log into the database file and empty the log; not inside a transaction."""
        with self._errors():
            self._con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def set_aside(path: str) -> str:
    """Move a damaged database and its companions out of the way and return its new path; raises StoreError."""
    aside = f"{path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{aside.partition('~')[0]}~{number}"
    try:
        for suffix in (*COMPANIONS, ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + suffix, aside + suffix)
    except OSError as error:
        raise StoreError(f"{path}: damaged, and cannot be moved aside: {error.strerror}") from error
    return aside


def open_repaired(path: str, *, timeout: float = BUSY_SECONDS) -> tuple[Store, str | None]:
    """Open the store for its one leader; a damaged one is moved aside. Returns it and where the damaged one is now."""
    try:
        return Store(path, timeout=timeout), None
    except CorruptStoreError as error:
        aside = set_aside(path)
        store = Store(path, timeout=timeout)
        with store.transaction():
            store.note_problem("store", f"damaged, moved to {aside}: {error}")
        return store, aside


def _connect(path: str, *, readonly: bool, timeout: float, any_thread: bool) -> sqlite3.Connection:
    if path == ":memory:":
        uri = "file::memory:"
    elif readonly:
        uri = f"file:{quote(path)}?mode=ro"
    else:
        uri = f"file:{quote(path)}"
        _make_file(path)  # SQLite would make it as the umask says; its companions take over the mode
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=not any_thread)


def _make_file(path: str) -> None:
    with contextlib.suppress(OSError):
        folder = os.path.dirname(path)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            # Without a descriptor: to close one would drop the locks of another connection of this process.
            if is_shared(os.stat(folder).st_mode) and stat.S_IMODE(os.stat(path).st_mode) != SHARED_FILE:
                os.chmod(path, SHARED_FILE)
            return
        try:
            share_file(fd, folder)
        finally:
            os.close(fd)


def _leave_companions(path: str) -> None:
    # Only those that are missing: to close one would drop the locks of another connection of this process.
    with contextlib.suppress(OSError):
        if is_shared(os.stat(os.path.dirname(path)).st_mode):
            for companion in (path + suffix for suffix in COMPANIONS):
                if not os.path.lexists(companion):
                    _make_file(companion)


def _prepare(con: sqlite3.Connection, path: str, *, readonly: bool) -> None:
    version = con.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.VERSION:
        raise StoreError(f"{path}: written by a newer autoinst (version {version}, this one knows {schema.VERSION})")
    application = con.execute("PRAGMA application_id").fetchone()[0]
    empty = not con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != schema.APPLICATION_ID and not (empty and not application and not version):
        raise StoreError(f"{path}: a database, but not autoinst's")
    if readonly:
        if version != schema.VERSION:
            raise OutdatedStoreError(
                f"{path}: version {version}, to be brought to {schema.VERSION} by whoever may write it"
            )
        return
    if empty:
        con.execute("PRAGMA page_size = 8192")
        con.execute("PRAGMA auto_vacuum = INCREMENTAL")
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = NORMAL")
    con.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    con.execute("PRAGMA cache_size = -16384")
    con.execute("PRAGMA temp_store = MEMORY")
    if version < schema.VERSION:
        _migrate(con)


def _migrate(con: sqlite3.Connection) -> None:
    con.execute("BEGIN IMMEDIATE")
    try:
        version = con.execute("PRAGMA user_version").fetchone()[0]  # another process may have been first
        for script in schema.MIGRATIONS[version:]:
            for statement in script.split(";"):
                con.execute(statement)
        if 0 < version < schema.WITH_LEVELS:
            rollups.fill(con)
        if 0 < version < schema.WITH_TOTAL:
            rollups.fill_total(con)
        con.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        con.execute(f"PRAGMA user_version = {schema.VERSION}")
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
