"""Counts the jobs that found no slot, exactly and per action: in a table of the first arena, or in the shared tally."""

from __future__ import annotations

from _thread import get_ident

from autoinst.config import new_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Protocol

    from autoinst.spool.arena import Arena
    from autoinst.spool.tally import Tally

    Kind = tuple[str, bool, int]  # action, failed, bucket
    Counts = tuple[int, int, int]  # jobs, sum and maximum of their durations in ns

    class Table(Protocol):
        """Where jobs are counted: in an arena, or in the tally."""

        def add(self, action: str, failed: bool, bucket: int, jobs: int, sum_ns: int, max_ns: int, /) -> None:
            """Count `jobs` of `action` whose durations are in `bucket`."""

else:
    from _collections import deque  # importing collections costs 2 ms

LOCK_WAIT = 0.1  # seconds
MAX_EARLY = 4_000  # kinds of jobs counted apart while there is neither arena nor tally
ROUNDS = 2  # one more for what comes at the end of the first
NOTHING = (0, 0, 0)
OTHERS = "?"
BUCKETS_A_DOUBLING = 8
SCALE = 32  # bits of the fraction that is compared
STEPS = tuple(int(2 ** (SCALE + step / BUCKETS_A_DOUBLING)) + 1 for step in range(1, BUCKETS_A_DOUBLING))
LAST_BUCKET = 511


class Overflow:
    """What one process has only counted; what comes before there is an arena or a tally is kept and entered later.

    Each job is put into a queue, which whoever has the lock empties; threads wait until theirs is counted, for queues
    die with the process. A job that comes while its own thread is here (a signal handler's, a finalizer's, or that of a
    tracer that is told of these lines) waits for nobody: it is added up apart, for this thread to enter before it goes.
    """

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._arena: Arena | None = None
        self._tally: Tally | None = None
        self._table: Table | None = None
        self._late: deque[tuple[str, bool, int]] = deque()
        self._early: dict[Kind, Counts] = {}
        self._nested: dict[Kind, Counts] = {}
        self._lock = new_lock()
        self._busy: set[int] = set()  # threads that have the lock or wait for it

    def attach(self, arena: Arena) -> None:
        """Count in `arena` from now on."""
        self._arena = arena
        self._table = None
        self._enter()

    def share(self, folder: str, uid: bytes) -> None:
        """Count in the tally that all processes share which have no arena; raises OSError where that cannot be."""
        if self._tally is None:
            from autoinst.spool.tally import Tally

            self._tally = Tally(folder, uid)
            self._table = self._tally
            self._enter()

    def has_early(self) -> bool:
        """Return whether there is something that is kept in memory alone."""
        return bool(self._early or self._late or self._nested)

    def abandon(self) -> None:
        """Leave what is the parent's alone, in a forked child."""
        if self._tally is not None:
            self._tally.abandon()

    def add(self, action: str | None, failed: bool, duration_ns: int) -> None:
        """Count one job of `action` that took `duration_ns`."""
        action = action or OTHERS
        if get_ident() in self._busy:
            self._merge((action, failed, bucket(duration_ns)), (1, duration_ns, duration_ns))
        else:
            self._late.append((action, failed, duration_ns))
            self._enter()

    def _merge(self, kind: Kind, counts: Counts) -> None:
        """Add to the nested jobs of that kind, in steps that are whole: a nested job must not wait for a lock."""
        nested = self._nested
        if kind not in nested and len(nested) >= MAX_EARLY:
            kind = OTHERS, kind[1], kind[2]
        while nested.setdefault(kind, counts) is not counts:
            counts = together(nested.pop(kind, NOTHING), counts)

    def _enter(self) -> None:
        me = get_ident()
        for _ in range(ROUNDS):
            if me in self._busy:
                return
            try:
                self._busy.add(me)
                while self.has_early() and self._lock.acquire(timeout=LOCK_WAIT):
                    try:
                        self._enter_all()
                    finally:
                        self._lock.release()
                    if not self._late:
                        break
            finally:
                self._busy.discard(me)
            if not self._nested:
                return

    def _enter_all(self) -> None:
        table = self._table or self._open_table()
        early, late = self._early, self._late
        while early and table is not None:
            kind, counts = next(iter(early.items()))
            table.add(*kind, *counts)
            del early[kind]
        while late:
            action, failed, duration_ns = late[0]
            self._count(table, (action, failed, bucket(duration_ns)), (1, duration_ns, duration_ns))
            late.popleft()
        # Only those of now: where a tracer is a job itself, each line run here brings another one.
        for kind in list(self._nested):
            counts = self._nested.pop(kind, NOTHING)
            try:
                self._count(table, kind, counts)
            except BaseException:
                self._merge(kind, counts)
                raise

    def _count(self, table: Table | None, kind: Kind, counts: Counts) -> None:
        if table is not None:
            table.add(*kind, *counts)
            return
        early = self._early
        if kind not in early and len(early) >= MAX_EARLY:
            kind = OTHERS, kind[1], kind[2]
        early[kind] = together(early.get(kind, NOTHING), counts)

    def _open_table(self) -> Table | None:
        if self._arena is not None:
            try:
                from autoinst.spool.cells import ArenaTable
            except (ImportError, OSError):  # no descriptor is free to read it by: the next job tries again
                return None
            self._table = ArenaTable(self._arena)
        return self._table


def together(one: Counts, other: Counts) -> Counts:
    """Return what both counted."""
    return one[0] + other[0], one[1] + other[1], max(one[2], other[2])


def bucket(duration_ns: int) -> int:
    """Return the bucket of a duration, as autoinst/store/histogram.py has them, without loading the math module."""
    if duration_ns <= 1:
        return 0
    power = duration_ns.bit_length() - 1
    fraction = duration_ns << SCALE >> power
    number = power * BUCKETS_A_DOUBLING
    for step in STEPS:
        if fraction < step:
            break
        number += 1
    return min(number, LAST_BUCKET)
