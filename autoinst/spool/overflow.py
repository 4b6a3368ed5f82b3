"""Counts the jobs that found no slot, exactly and per action: in a table of the first arena, or in the shared tally."""

from __future__ import annotations

from autoinst.config import new_lock
from autoinst.spool import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from autoinst.spool.arena import Arena
    from autoinst.spool.tally import Tally

LOCK_WAIT = 0.1  # seconds; a signal handler's job may come while its own thread counts
MAX_ACTIONS = 1_000  # counted apart while there is no arena


class Overflow:
    """What one process has only counted; what comes before there is an arena or a tally is kept and entered later."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self.missed = 0  # jobs that could not even be counted
        self._arena: Arena | None = None
        self._tally: Tally | None = None
        self._early: dict[str, tuple[int, int, int]] = {}
        self._rows: dict[str, int] = {}
        self._lock = new_lock()

    def attach(self, arena: Arena) -> None:
        """Count in `arena` from now on."""
        self._arena = arena
        self._enter_early_locked()

    def share(self, folder: str, uid: bytes) -> None:
        """Count in the tally that all processes share which have no arena; raises OSError where that cannot be."""
        if self._tally is None:
            from autoinst.spool.tally import Tally

            self._tally = Tally(folder, uid)
            self._enter_early_locked()

    def abandon(self) -> None:
        """Leave what is the parent's alone, in a forked child."""
        if self._tally is not None:
            self._tally.abandon()

    def _enter_early_locked(self) -> None:
        if self._lock.acquire(timeout=LOCK_WAIT):  # else whoever counts next enters it
            try:
                self._enter_early()
            finally:
                self._lock.release()

    def _enter_early(self) -> None:
        while self._early:
            action, counted = self._early.popitem()
            self._add(action, *counted)

    def add(self, action: str | None, failed: bool, duration_ns: int) -> None:
        """Count one job of `action` that took `duration_ns`."""
        if not self._lock.acquire(timeout=LOCK_WAIT):
            self.missed += 1
            return
        try:
            key = action or "?"
            if self._arena is not None or self._tally is not None:
                self._enter_early()
                self._add(key, 1, int(failed), duration_ns)
            elif key in self._early or len(self._early) < MAX_ACTIONS:
                jobs, errors, total = self._early.get(key, (0, 0, 0))
                self._early[key] = (jobs + 1, errors + failed, total + duration_ns)
            else:
                self.missed += 1
        finally:
            self._lock.release()

    def _add(self, key: str, more: int, more_errors: int, more_ns: int) -> None:
        arena = self._arena
        if arena is None:
            if self._tally is not None:
                self._tally.add(key, more, more_errors, more_ns)
            return
        row = self._rows.get(key)
        if row is None:
            row = self._row(arena, key)
        at = layout.OVERFLOW_OFFSET + row * layout.OVERFLOW.size
        number, _, _, jobs, errors, total = layout.OVERFLOW.unpack_from(arena.mm, at)
        # One slice, not pack_into, which zeroes first: a kill in between would lose the count.
        arena.mm[at : at + layout.OVERFLOW.size] = layout.OVERFLOW.pack(
            number, 0, 0, jobs + more, errors + more_errors, total + more_ns
        )

    def _row(self, arena: Arena, key: str) -> int:
        row = len(self._rows)
        number = arena.intern(key) if row < layout.OVERFLOW_ENTRIES - 1 else 0
        if not number:
            row, number = layout.OVERFLOW_ENTRIES - 1, layout.OVERFLOW_REST
        at = layout.OVERFLOW_OFFSET + row * layout.OVERFLOW.size
        arena.mm[at : at + 2] = number.to_bytes(2, "little")
        if number != layout.OVERFLOW_REST:
            self._rows[key] = row
        return row
