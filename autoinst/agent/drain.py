"""Moves records from the spool into the store: one leader at a time, nothing lost or doubled wherever it is killed.

The order is everything: judge the owner, read, commit, and only then give slots back or unlink. A leader killed
before the commit has changed nothing; one killed after it leaves records that the next leader finds known already.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from autoinst.agent import entry
from autoinst.agent.deaths import Deaths
from autoinst.agent.entry import Counts
from autoinst.agent.filesystem import NETWORK, SHARED, file_system
from autoinst.agent.intake import ARENA_LIMIT, LIVELY_SECONDS, Intake
from autoinst.agent.lead import POLL_SECONDS, Lead, wake
from autoinst.config import SPOOL_NAME, STORE_NAME, make_folder, make_private
from autoinst.errors import HomeError
from autoinst.leader import told
from autoinst.spool.layout import SEGMENTS
from autoinst.spool.owner import Judge, Suspicion
from autoinst.store.reader import CorruptStoreError
from autoinst.store.sqlite import open_repaired, set_aside

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autoinst.agent.intake import Taken
    from autoinst.spool.owner import Machine
    from autoinst.store.retention import Forgotten, Limits
    from autoinst.store.sqlite import Store

COMMIT_LIMIT = 8192  # records in one transaction
GROUP_LIMIT = 48  # arenas in one transaction, which are open meanwhile and take up to two descriptors each
# What a record with content that nobody thought of may run into. Its file must not keep all others from being stored.
UNEXPECTED = (ArithmeticError, LookupError, TypeError, ValueError)
FEW = 32  # arenas that are all looked at each time: that takes half a millisecond
SEEN_SECONDS = 10  # how often the store hears that idle processes live


class Drain:
    """The leader over one home. Use as a context manager, or `acquire` and `close`.

    `notes` are lines a person should hear of; whoever shows them may clear the list.
    """

    def __init__(
        self, home: str, *, machine: Machine | None = None, deaths: Deaths | None = None, is_agent: bool = False
    ) -> None:
        """Prepare for `home`, which an agent leads for long.

        Raises HomeError (another user's, not writable, on a network file system).
        """
        self.home = make_private(home)
        self.spool = make_folder(os.path.join(home, SPOOL_NAME))
        kind = file_system(self.spool)
        if kind in NETWORK:
            raise HomeError(f"{home}: {kind} is a network file system; set AUTOINST_HOME to a local folder")
        self.store: Store | None = None
        self.notes: list[str] = []
        self._deaths = deaths or Deaths()
        self._judge = Judge(machine, local=kind not in SHARED)
        self._intake = Intake(self.spool, self._judge, self._deaths)
        self.lead = Lead(home, is_agent=is_agent)
        self._seen_at = 0.0
        self._suspects_kept: dict[bytes, Suspicion] = {}

    def __enter__(self) -> Drain:  # noqa: PYI034 - Self is not in typing before 3.11
        """Become the leader; raises HomeError when another one does not make way within a second."""
        if not self.acquire(1.0):
            raise HomeError(f"{self.home}: another process is draining it")
        return self

    def __exit__(self, *_: object) -> None:
        """Make way for another leader."""
        self.close()

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        """Try for up to `wait_seconds` to become the leader, and open the store; return whether it did.

        Raises HomeError, StoreError.
        """
        if not self.lead.acquire(wait_seconds):
            return False
        if self.store is None:
            try:
                self._open_store()
            except BaseException:
                self.close()
                raise
        return True

    def close(self) -> None:
        """Close everything and let another process lead."""
        self._intake.close()
        self._deaths.close()
        store, self.store = self.store, None
        try:
            if store is not None:
                store.close()
        finally:
            self.lead.release()

    def _open_store(self) -> Store:
        self.store, aside = open_repaired(os.path.join(self.home, STORE_NAME))
        if aside is not None:
            self.notes.append(f"the store was damaged and is now {aside}")
        self._judge.suspects = {uid: Suspicion(*row) for uid, row in self.store.suspects().items()}
        self._suspects_kept = dict(self._judge.suspects)
        self._intake.forget_store()
        return self.store

    def step(self, *, everywhere: bool = True) -> Counts:
        """Look once at every arena and store what there is; raises StoreError (nothing is lost by it), HomeError.

        Not `everywhere`: only at arenas that had something a moment ago, and at new ones.
        """
        if self.store is None:
            raise HomeError(f"{self.home}: step() without having acquired the lead")
        try:
            return self._step(self.store, everywhere=everywhere)
        except CorruptStoreError as error:
            with contextlib.suppress(CorruptStoreError):
                self.store.close()
            self.store = None
            aside = set_aside(os.path.join(self.home, STORE_NAME))
            self.notes.append(f"the store was damaged and is now {aside}")
            store = self._open_store()
            with store.transaction():
                store.note_problem("store", f"damaged, moved to {aside}: {error}")
            return self._step(store)

    def run_dry(self) -> Counts:
        """Step until all that was finished when this was called is stored; return the sum."""
        self.lead.begin_round()
        total = self._steps(everywhere=True)
        self.lead.end_round()
        return total

    def glance(self) -> Counts:
        """Do so only where something is to be expected, for what cannot wait until all arenas are looked at again."""
        return self._steps(everywhere=False)

    def has_many(self) -> bool:
        """Return whether there are so many arenas that `glance` saves something."""
        return len(self._intake.sources) > FEW

    def _steps(self, *, everywhere: bool) -> Counts:
        total = self.step(everywhere=everywhere)
        for _ in range(max(SEGMENTS) // ARENA_LIMIT):  # busy workers could keep us here for ever
            if not total.more:
                break
            total.add(self.step(everywhere=everywhere))
        return total

    def forget(self, limits: Limits, *, batches: int = 1000) -> Forgotten:
        """Remove from the store what is beyond `limits`; raises StoreError, HomeError."""
        if self.store is None:
            raise HomeError(f"{self.home}: forget() without having acquired the lead")
        return self.store.forget(limits, time.time_ns(), self._intake.uids(), batches=batches)

    def expect_check_ins(self, identifiers: Iterable[str]) -> None:
        """Remember from when on check-ins are expected; raises StoreError."""
        if self.store is not None and identifiers:
            with self.store.transaction():
                self.store.expect_check_ins(identifiers)

    def living(self, since_ns: int) -> bool:
        """Return whether the owner of any arena was seen to live since then (ns since the epoch)."""
        return any((source.alive_ns or 0) >= since_ns for source in self._intake.sources.values())

    def _step(self, store: Store, *, everywhere: bool = True) -> Counts:
        counts = Counts()
        intake = self._intake
        if everywhere or intake.has_changed():
            intake.scan()
        group: list[Taken] = []
        size = 0
        last_pid = ""
        for source in list(intake.sources.values()) if everywhere else intake.lively():
            taken = intake.take(source)
            if taken is None:
                continue
            counts.more |= taken.done.more
            pid = os.path.basename(source.path).partition("-")[0]
            # The arenas of one process, which tell together when it lived, stay together: they are few.
            if len(group) >= GROUP_LIMIT and (pid != last_pid or len(group) >= 2 * GROUP_LIMIT):
                self._commit(store, group, counts)
                group, size = [], 0
            last_pid = pid
            group.append(taken)
            size += len(taken.done.records) + len(taken.done.left_out) + len(taken.flights)
            if size >= COMMIT_LIMIT:
                self._commit(store, group, counts)
                group, size = [], 0
        if everywhere:
            self._store_tally(store, counts)
            self._store_reserve(store, counts)
        self._commit(store, group, counts)
        self._note_the_living(store)
        counts.quarantined, intake.quarantined = intake.quarantined, 0
        counts.arenas = len(intake.sources)
        return counts

    def _store_tally(self, store: Store, counts: Counts) -> None:
        told = self._intake.take_tally()
        if told is None:
            return
        try:
            with store.transaction():
                counts.counted += store.set_counted(told.uid, told.rows)
        except BaseException:
            told.close()
            raise
        self._intake.tallied(told)

    def _store_reserve(self, store: Store, counts: Counts) -> None:
        found = self._intake.take_reserve()
        if not found:
            return
        reserve = self._intake.reserve
        try:
            with store.transaction():
                for claimed in found:
                    counts.counted += store.set_counted(claimed.uid, claimed.rows)
            reserve.stored(found)
        finally:
            reserve.close()

    def _commit(self, store: Store, group: list[Taken], counts: Counts) -> None:
        """Store what was read; an arena whose content cannot be stored is put aside, and the others go on."""
        try:
            self._commit_group(store, group, counts)
        except UNEXPECTED as error:
            if len(group) > 1:
                for taken in group:
                    self._commit(store, [taken], counts)
            elif group:
                path = group[0].source.path
                self._intake.put_aside(path, f"{path}: cannot be stored: {type(error).__name__}: {error}")
            else:
                raise

    def _commit_group(self, store: Store, group: list[Taken], counts: Counts) -> None:
        """Store what was read in one transaction; then, and only then, give slots back and unlink."""
        ended = {taken.arena.uid for taken in group if taken.last}
        suspects = {uid: row for uid, row in self._judge.suspects.items() if uid not in ended}
        problems = self._intake.problems
        if not group and not problems and suspects == self._suspects_kept:
            return
        found = Counts(more=counts.more)
        processes: list[int] = []
        with store.transaction():
            for problem in problems:
                store.note_problem("spool", problem)
            evidence: dict[bytes, int] = {}
            for taken in group:
                processes.append(entry.enter_process(store, taken, evidence))
                entry.store_taken(store, taken, processes[-1], found)
            for taken, process in zip(group, processes, strict=True):
                if taken.last:
                    entry.store_dead(store, self._deaths, taken, process, evidence, found)
            if suspects != self._suspects_kept:
                store.set_suspects({uid: (row.checksum, row.since_ns) for uid, row in suspects.items()})
        self._suspects_kept = suspects
        self.notes += problems
        problems.clear()
        for taken, process in zip(group, processes, strict=True):
            self._give_back(taken, process, found)
        counts.add(found)

    def _give_back(self, taken: Taken, process: int, found: Counts) -> None:
        source = taken.source
        source.process = process
        source.lively_until = time.monotonic() + LIVELY_SECONDS
        if taken.overflow is not None:
            source.overflow = taken.overflow
        if taken.sequence is not None and taken.status is not None:
            source.sequence = taken.sequence
        if taken.last:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(source.path)
            self._intake.drop(source.path)
            found.unlinked += 1
        else:
            taken.arena.free(taken.done.slots)
            source.seen_whole = source.seen_whole or not taken.done.more
            self._intake.spare(source)

    def _note_the_living(self, store: Store) -> None:
        now = time.monotonic()
        if now - self._seen_at < SEEN_SECONDS:
            return
        self._seen_at = now
        living = [(s.process, s.alive_ns) for s in self._intake.sources.values() if s.process and s.alive_ns]
        if living:
            with store.transaction():
                for process, alive_ns in living:
                    store.process_seen(process, alive_ns)


def drain_once(home: str, wait_seconds: float = 2.0) -> Counts | None:
    """Drain what there is in `home`; None if another process leads and keeps the lead.

    Raises HomeError, StoreError.
    """
    drain = Drain(home)
    try:
        return drain.run_dry() if drain.acquire(wait_seconds) else None
    finally:
        drain.close()


def catch_up(home: str, wait_seconds: float = 2.0) -> bool:
    """Bring the store of `home` up to date: drain, or have the agent do it.

    False if whoever leads has not done so within `wait_seconds`. Raises HomeError, StoreError.
    """
    drain = Drain(home)
    deadline = time.monotonic() + wait_seconds
    asked = told(home).begun
    try:
        if drain.acquire():
            drain.run_dry()
            return True
        wake(home)
        while not drain.acquire():
            if told(home).ended > asked:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        drain.run_dry()
        return True
    finally:
        drain.close()
