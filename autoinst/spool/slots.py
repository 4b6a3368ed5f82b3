"""The slots of this process's arenas: claimed one by one, taken back once drained, more made as they are needed."""

from __future__ import annotations

import os
import time

from autoinst.config import SPOOL_MAX, new_lock
from autoinst.errors import HomeError
from autoinst.spool import layout, room
from autoinst.spool.arena import Arena
from autoinst.spool.here import mark
from autoinst.spool.overflow import Overflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any

    from autoinst.spool.here import Here

    # handle, mapping, offset of the slot in it, packed names
    Slot = tuple[int, mmap, int, bytes]
else:
    from _collections import deque  # importing collections costs 2 ms

GROW_WAIT = 0.1  # seconds a thread waits for another one that makes an arena
RETRY_SECONDS = 30  # how long a failed attempt to make an arena is remembered
MAX_MISSES = 3  # slots found undrained before it is taken that the reader has not come by
REFILL = 128  # finished slots looked at in one go
NEAR = 8  # free slots of other arenas passed over before a chain is looked for in another arena
STATE = layout.STATE_OFFSET
NOT_HERE = bytes(1)
OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1


class Slots:
    """The arenas of this process and their free slots. A forked child leaves its parent's alone.

    A slot's handle is `arena number << 40 | offset`.
    """

    def __init__(
        self,
        folder: str,
        describe: Callable[[], dict[str, Any]],
        limit: int = SPOOL_MAX,
        group: str | None = None,
        grown: Callable[[], None] | None = None,
    ) -> None:
        """Keep arenas in `folder` (made when the first is); `describe` gives the process's description.

        `limit` are the bytes that the arenas of all processes may take there, 0 for any number; `group` may read them.
        `grown` is called after each arena that was made.
        """
        self.folder = folder
        self.limit = limit
        self.group = group
        self.here: Here = mark()
        self.uid = os.urandom(8)
        self.arenas: list[Arena] = []
        self.problem: str | None = None
        self.overflow = Overflow()
        self._describe = describe
        self._grown = grown
        self._free: deque[int] = deque()
        self._finished: deque[int] = deque()
        self._chains: dict[int, list[int]] = {}  # continuation slots of finished records, free when these are
        self._refill_lock = new_lock()
        self._grow_lock = new_lock()
        self._retry_at = 0.0
        self._ends_known = False  # whether the end of the process is waited for

    def uid_of(self, slot: Slot) -> bytes:
        """Return the uid of the arena that `slot` is in."""
        return self.arenas[slot[0] >> OFFSET_BITS].uid

    def discard(self, slot: Slot, *, last: bool = False) -> None:
        """Give `slot` back without a record; `last` if it is to be claimed after all others that are free now."""
        slot[1][slot[2] + STATE] = layout.FREE
        if last:
            self._free.appendleft(slot[0])
        else:
            self._free.append(slot[0])

    def _claim(self) -> int:
        try:
            return self._free.pop()
        except IndexError:
            pass  # no longer being handled, or what the program raises meanwhile would have it as its context
        return self._claim_slow()

    def _claim_slow(self) -> int:
        # Only one thread takes back drained slots; the others go on to grow or to count.
        if self._refill_lock.acquire(False):
            try:
                self._take_back()
            finally:
                self._refill_lock.release()
        try:
            return self._free.pop()
        except IndexError:
            pass
        # One thread makes an arena; the others wait for it a moment, as long as it takes the one that makes it, and may
        # find it full again already.
        for had in range(len(self.arenas), len(layout.SEGMENTS)):
            if self._grow_lock.acquire(timeout=GROW_WAIT):
                try:
                    if len(self.arenas) <= had:
                        self._grow()
                finally:
                    self._grow_lock.release()
            try:
                return self._free.pop()
            except IndexError:
                if len(self.arenas) <= had:
                    break
        return -1

    def _take_back(self) -> None:
        finished, free, arenas = self._finished, self._free, self.arenas
        misses = 0
        for _ in range(min(len(finished), REFILL)):
            handle = finished.popleft()
            if arenas[handle >> OFFSET_BITS].mm[(handle & OFFSET_MASK) + STATE]:
                finished.append(handle)
                misses += 1
                if misses > MAX_MISSES:
                    return
            else:
                if self._chains:  # before the slot itself, which another thread may take for a chain anew
                    self._free_chain(handle)
                free.append(handle)

    def _free_chain(self, handle: int) -> None:
        mm = self.arenas[handle >> OFFSET_BITS].mm
        for link in self._chains.pop(handle, ()):
            mm[(link & OFFSET_MASK) + STATE] = layout.FREE
            self._free.append(link)

    def _nearest(self) -> int:
        """Return the number of the arena of which a slot is free that was used last, -1 where none is free."""
        try:
            return self._free[-1] >> OFFSET_BITS
        except IndexError:
            return -1

    def _claim_many(self, number: int, wanted: int, far: int = REFILL) -> list[int] | None:
        """Claim `wanted` free slots of arena `number`, all or none, passing over at most `far` of others."""
        if wanted > layout.CHAIN_MAX + 1:
            return None
        found: list[int] = []
        other: list[int] = []
        while len(found) < wanted and len(other) < far:
            handle = self._claim()
            if handle < 0:
                break
            (found if handle >> OFFSET_BITS == number else other).append(handle)
        self._free.extend(other)
        if len(found) == wanted:
            return found
        self._free.extend(found)
        return None

    def open(self) -> bool:
        """Make the first arena if there is none yet; return whether there is one."""
        if not self.arenas and self._grow_lock.acquire(timeout=GROW_WAIT):
            try:
                if not self.arenas:
                    self._grow()
            finally:
                self._grow_lock.release()
        return bool(self.arenas)

    def _grow(self) -> None:
        number = len(self.arenas)
        now = time.monotonic()
        if number >= len(layout.SEGMENTS) or now < self._retry_at:
            return
        try:
            if not number:
                from autoinst.config import make_folder, make_home

                make_home(os.path.dirname(self.folder), self.group)
                make_folder(self.folder)
            room.check(self.folder, layout.SEGMENTS[number] * layout.SLOT_SIZE, self.limit)
            arena = Arena(self.folder, number, layout.SEGMENTS[number], self.uid, self._describe())
        except (OSError, ValueError, MemoryError, HomeError, room.SpoolFullError) as error:
            # The program goes on, and its jobs are counted.
            self._retry_at = now + RETRY_SECONDS
            self.problem = f"{type(error).__name__}: {error}"
            if not number:
                self._share_tally()
            return
        self.problem = None
        self.arenas.append(arena)
        if not number:
            self.overflow.attach(arena)
            self._keep_reserve()
        base = number << OFFSET_BITS
        first = arena.slots_offset
        self._free.extend(range(base + first, base + first + arena.slots * layout.SLOT_SIZE, layout.SLOT_SIZE))
        if self._grown is not None:
            self._grown()

    def _share_tally(self) -> None:
        try:
            self.overflow.share(self.folder, self.uid)
        except (OSError, ValueError, ImportError):
            # No folder, no descriptor: counted in memory, and entered as soon as there is a place, at the end at last.
            if not self._ends_known:
                import atexit

                self._ends_known = True
                atexit.register(self._hand_over)

    def _hand_over(self) -> None:
        if self.here[0] and self.overflow.has_early():
            self._retry_at = 0.0
            self.open()

    def _keep_reserve(self) -> None:
        """See to it that processes which find the disk full have somewhere to count."""
        home = os.path.dirname(self.folder)
        try:
            if os.stat(os.path.join(home, "reserve")).st_size:
                return
        except OSError:
            pass
        try:
            from autoinst.spool.reserve import make

            make(home)
        except (OSError, ImportError):
            return

    def abandon(self) -> None:
        """Leave all of it alone from now on: it is the parent's, in a forked child, or is to be removed."""
        self.here = NOT_HERE
        for arena in self.arenas:
            arena.abandon()
        self.overflow.abandon()
