"""The worker's side of the spool: claims a slot when a job starts and stores the record in it when the job ends.

No system call is made on a job's path but getpid(2), no lock is waited for, and nothing is lost silently: where no
slot is free and no further arena can be had, the job is counted in the overflow table.
"""

from __future__ import annotations

import marshal
import os
import time
import zlib
from _thread import allocate_lock
from itertools import count
from struct import Struct

from autoinst.spool import layout
from autoinst.spool.arena import Arena

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any

    # action, queue, attempts (0: unknown), namespace, name, rule, thread
    Head = tuple[str | None, str | None, int, str, str, str | None, str | None]
else:
    from _collections import deque  # importing collections costs 2 ms

NAN = float("nan")
RETRY_SECONDS = 30  # how long a failed attempt to make an arena is remembered
MAX_MISSES = 3  # slots found undrained before it is taken that the reader has not come by
MAX_HEADS = 2_048  # combinations of names kept packed
REFILL = 128  # finished slots looked at in one go
THREAD_RESERVE = 3072  # bytes of the intern table that thread names may not take

# BODY in three parts: what differs from job to job, the names, and what is known at the end.
_pack_times = Struct("<Qqqd").pack
_pack_names = Struct("<HHHHHHHH").pack
_pack_status = Struct("<IBBH").pack
NO_STATUS = bytes(8)
_crc32 = zlib.crc32
_pack_crc = layout.CRC.pack_into
_pack_duration = Struct("<q").pack_into
_pack_event = Struct("<H").pack_into
_pack_end = Struct("<HIBB").pack_into
BODY_SIZE = layout.BODY.size
STATE = layout.STATE_OFFSET
TAIL = layout.TAIL_OFFSET
ROOM = layout.TAIL_ROOM
DURATION = 16  # where BODY keeps the duration
END = 46  # where BODY keeps the number of continuation slots, then tail length, status and flags
INTERNED = (4, 5, 7, 8, 9, 10)  # which fields of BODY are numbers of the intern table
OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1


class Spool:
    """The arenas of this process. A forked child makes a Spool of its own and leaves its parent's alone.

    A slot's handle is `arena number << 40 | offset`; handle -1 stands for a job that can only be counted.
    """

    def __init__(self, folder: str, describe: Callable[[], dict[str, Any]]) -> None:
        """Keep arenas in `folder` (made when the first is); `describe` gives the process's description."""
        self.folder = folder
        self.pid = os.getpid()
        self.uid = os.urandom(8)
        self.arenas: list[Arena] = []
        self.problem: str | None = None
        self.crowded = False  # an intern table has turned a text away: records must spell their names out
        self.uncounted = 0  # jobs that not even the overflow table could take
        self.next_seq = count(1).__next__
        self._describe = describe
        self._free: deque[int] = deque()
        self._finished: deque[int] = deque()
        self._refill_lock = allocate_lock()
        self._grow_lock = allocate_lock()
        self._overflow_lock = allocate_lock()
        self._overflow_rows: dict[str, int] = {}
        self._retry_at = 0.0

    def uid_of(self, handle: int) -> bytes:
        """Return the uid of the arena that slot `handle` is in."""
        return self.arenas[handle >> OFFSET_BITS].uid

    def claim(self) -> int:
        """Return the handle of a free slot, or -1."""
        try:
            return self._free.pop()
        except IndexError:
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
        if self._grow_lock.acquire(False):
            try:
                self._grow()
            finally:
                self._grow_lock.release()
        try:
            return self._free.pop()
        except IndexError:
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
                free.append(handle)

    def open(self) -> bool:
        """Make the first arena if there is none yet; return whether there is one."""
        if not self.arenas and self._grow_lock.acquire(False):
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
                from autoinst.config import make_private

                make_private(os.path.dirname(self.folder))
                make_private(self.folder)
            arena = Arena(self.folder, number, layout.SEGMENTS[number], self.uid, self._describe())
        except Exception as error:  # whatever the disk says, the program goes on and jobs are counted
            self._retry_at = now + RETRY_SECONDS
            self.problem = f"{type(error).__name__}: {error}"
            return
        self.problem = None
        self.arenas.append(arena)
        base = number << OFFSET_BITS
        first = arena.slots_offset
        self._free.extend(range(base + first, base + first + arena.slots * layout.SLOT_SIZE, layout.SLOT_SIZE))

    def begin(self, seq: int, start_ns: int, queue_time: float, head: Head, tail: bytes) -> int:
        """Claim a slot, mark it RUNNING with what is known of the job, and return its handle (-1: only counted).

        `start_ns` counts from the epoch, `queue_time` is in ms (NaN: unknown), `tail` a marshalled dict or empty.
        """
        try:
            handle = self._free.pop()
        except IndexError:
            handle = self._claim_slow()
            if handle < 0:
                return -1
        self.amend(handle, seq, start_ns, queue_time, head, tail)
        self.arenas[handle >> OFFSET_BITS].mm[(handle & OFFSET_MASK) + STATE] = layout.RUNNING
        return handle

    def amend(self, handle: int, seq: int, start_ns: int, queue_time: float, head: Head, tail: bytes) -> None:
        """Write what is known of the job in progress into its slot, so that a kill from now on can report it."""
        arena = self.arenas[handle >> OFFSET_BITS]
        offset = handle & OFFSET_MASK
        packed = arena.heads.get(head) or self._pack_head(arena, head)
        mm = arena.mm
        if tail:
            if len(tail) > ROOM:
                tail = shorten(tail, ROOM)
            body = _pack_times(seq, start_ns, 0, queue_time) + packed + _pack_status(len(tail), layout.UNSET, 0, 0)
            mm[offset : offset + BODY_SIZE] = body
            mm[offset + TAIL : offset + TAIL + len(tail)] = tail
            _pack_crc(mm, offset + BODY_SIZE, _crc32(tail, _crc32(body)))
        else:
            mm[offset : offset + BODY_SIZE] = _pack_times(seq, start_ns, 0, queue_time) + packed + NO_STATUS

    def _pack_head(self, arena: Arena, head: Head) -> bytes:
        """Intern the texts of `head` in `arena` and keep the 16 bytes that name them in a slot."""
        action, queue, attempts, namespace, name, rule, thread = head
        intern = arena.intern
        packed = _pack_names(
            intern(action) if action else 0,
            intern(queue) if queue else 0,
            attempts,
            intern(namespace),
            intern(name),
            intern(rule) if rule else 0,
            intern(thread, THREAD_RESERVE) if thread else 0,
            0,
        )
        if arena.crowded:
            self.crowded = True
        if len(arena.heads) >= MAX_HEADS:
            arena.heads.clear()
        arena.heads[head] = packed
        return packed

    def finish(self, handle: int, duration_ns: int, status: int, flags: int, tail: bytes) -> None:
        """Complete the record in slot `handle` and mark it DONE; safe to repeat if an exception cut it short.

        `tail` replaces the one given so far. One that needs continuation slots where this arena has none left moves
        the record to another arena; where that fails too, its largest parts are dropped (FLAG_TRUNCATED).
        """
        mm = self.arenas[handle >> OFFSET_BITS].mm
        offset = handle & OFFSET_MASK
        if mm[offset + STATE] != layout.RUNNING:
            return
        size = len(tail)
        if size > ROOM:
            if self._finish_long(handle, duration_ns, status, flags, tail):
                return
            tail = shorten(tail, ROOM)
            size = len(tail)
            flags |= layout.FLAG_TRUNCATED
        _pack_duration(mm, offset + DURATION, duration_ns)
        _pack_end(mm, offset + END, 0, size, status, flags)
        crc = _crc32(mm[offset : offset + BODY_SIZE])
        if size:
            mm[offset + TAIL : offset + TAIL + size] = tail
            crc = _crc32(tail, crc)
        _pack_crc(mm, offset + BODY_SIZE, crc)
        mm[offset + STATE] = layout.DONE
        self._finished.append(handle)

    def _finish_long(self, handle: int, duration_ns: int, status: int, flags: int, tail: bytes) -> bool:
        """Store a record whose tail needs a chain of continuation slots; return whether there was room for it."""
        number = handle >> OFFSET_BITS
        if len(tail) > layout.TAIL_MAX - 64:
            tail = shorten(tail, layout.TAIL_MAX - 64)
            flags |= layout.FLAG_TRUNCATED
        links = -(-len(tail) // ROOM)
        slots = self._claim_many(number, links)
        target = handle
        if slots is None:
            tail = self._with_id(handle, tail)
            links = -(-len(tail) // ROOM)
            for other in range(len(self.arenas) - 1, -1, -1):
                slots = self._claim_many(other, links + 1) if other != number else None
                if slots is not None:
                    target = slots.pop()
                    self._copy_body(handle, target)
                    break
            else:
                return False
        arena = self.arenas[target >> OFFSET_BITS]
        mm = arena.mm
        offset = target & OFFSET_MASK
        _pack_duration(mm, offset + DURATION, duration_ns)
        _pack_end(mm, offset + END, links, len(tail), status, flags)
        numbers = b""
        for i, link in enumerate(slots):
            at = link & OFFSET_MASK
            part = tail[i * ROOM : (i + 1) * ROOM]
            mm[at + TAIL : at + TAIL + len(part)] = part
            mm[at + STATE] = layout.CONTINUATION
            numbers += ((at - arena.slots_offset) // layout.SLOT_SIZE).to_bytes(4, "little")
        mm[offset + TAIL : offset + TAIL + len(numbers)] = numbers
        _pack_crc(mm, offset + BODY_SIZE, _crc32(tail, _crc32(mm[offset : offset + BODY_SIZE])))
        mm[offset + STATE] = layout.DONE
        self._finished.append(target)
        self._finished.extend(slots)
        if target != handle:
            self.discard(handle)
        return True

    def _claim_many(self, number: int, wanted: int) -> list[int] | None:
        """Claim `wanted` free slots of arena `number`, all or none."""
        if wanted > layout.CHAIN_MAX + 1:
            return None
        found: list[int] = []
        other: list[int] = []
        while len(found) < wanted and len(other) < REFILL:
            handle = self.claim()
            if handle < 0:
                break
            (found if handle >> OFFSET_BITS == number else other).append(handle)
        self._free.extend(other)
        if len(found) == wanted:
            return found
        self._free.extend(found)
        return None

    def _with_id(self, handle: int, tail: bytes) -> bytes:
        """Return `tail` with the record's id spelled out: in another arena its number would make another id."""
        content: dict[str, Any] = marshal.loads(tail)
        arena = self.arenas[handle >> OFFSET_BITS]
        seq = int.from_bytes(arena.mm[handle & OFFSET_MASK : (handle & OFFSET_MASK) + 8], "little")
        content.setdefault("id", layout.record_id(arena.uid, seq))
        return marshal.dumps(content, 2)

    def _copy_body(self, handle: int, target: int) -> None:
        """Write the fixed fields of slot `handle` into slot `target`, with the other arena's interned ids."""
        source = self.arenas[handle >> OFFSET_BITS]
        texts = ["", *source.ids]
        values = list(layout.BODY.unpack_from(source.mm, handle & OFFSET_MASK))
        arena = self.arenas[target >> OFFSET_BITS]
        for i in INTERNED:
            values[i] = arena.intern(texts[values[i]]) if values[i] else 0
        layout.BODY.pack_into(arena.mm, target & OFFSET_MASK, *values)

    def discard(self, handle: int) -> None:
        """Give slot `handle` back without a record."""
        self.arenas[handle >> OFFSET_BITS].mm[(handle & OFFSET_MASK) + STATE] = layout.FREE
        self._free.append(handle)

    def mark_event(self, handle: int, name: str) -> None:
        """Note that the event `name` is in progress (empty: none), for the case that the process dies in it."""
        arena = self.arenas[handle >> OFFSET_BITS]
        number = (arena.ids.get(name) or arena.intern(name)) if name else 0
        _pack_event(arena.mm, (handle & OFFSET_MASK) + layout.EVENT_OFFSET, number)

    def count_only(self, action: str | None, failed: bool, duration_ns: int) -> None:
        """Add a job that found no slot to the overflow table of the first arena, exactly."""
        with self._overflow_lock:
            if not self.arenas:
                self.uncounted += 1
                return
            arena = self.arenas[0]
            key = action or "?"
            row = self._overflow_rows.get(key)
            if row is None:
                row = self._overflow_row(arena, key)
            at = layout.OVERFLOW_OFFSET + row * layout.OVERFLOW.size
            number, _, _, jobs, errors, total = layout.OVERFLOW.unpack_from(arena.mm, at)
            layout.OVERFLOW.pack_into(arena.mm, at, number, 0, 0, jobs + 1, errors + failed, total + duration_ns)

    def _overflow_row(self, arena: Arena, key: str) -> int:
        row = len(self._overflow_rows)
        number = arena.intern(key) if row < layout.OVERFLOW_ENTRIES - 1 else 0
        if not number:
            row, number = layout.OVERFLOW_ENTRIES - 1, layout.OVERFLOW_REST
        at = layout.OVERFLOW_OFFSET + row * layout.OVERFLOW.size
        arena.mm[at : at + 2] = number.to_bytes(2, "little")
        if number != layout.OVERFLOW_REST:
            self._overflow_rows[key] = row
        return row


def shorten(tail: bytes, room: int) -> bytes:
    """Drop the largest parts of a marshalled tail until it fits in `room` bytes; its ids go last."""
    content: dict[str, Any] = marshal.loads(tail)
    for key in ("events", "kwargs", "args", "params", "env", "tags", "exc"):
        value = content.get(key)
        if value is None:
            continue
        if key == "exc":
            name, message, frames, _ = value
            for kept in (20, 5, 1, 0):
                content[key] = (name, message[: max(kept * 10, 40)], frames[-kept:] if kept else [], [])
                data = marshal.dumps(content, 2)
                if len(data) <= room:
                    return data
        if key == "events":
            content["dropped"] = content.get("dropped", 0) + len(value)
        del content[key]
        data = marshal.dumps(content, 2)
        if len(data) <= room:
            return data
    return b""
