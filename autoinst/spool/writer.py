"""The worker's side of the spool: claims a slot when a job starts and stores the record in it when the job ends.

No system call is made on a job's path, no lock is waited for, and nothing is lost silently: where no slot is free and
no further arena can be had, the job is counted in the overflow table.
"""

from __future__ import annotations

import marshal
import zlib
from itertools import count
from struct import Struct

from autoinst.config import SPOOL_MAX
from autoinst.spool import layout
from autoinst.spool.shorten import shorten, spelled_out
from autoinst.spool.slots import NEAR, OFFSET_BITS, OFFSET_MASK, STATE, Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any, Protocol

    from autoinst.spool.arena import Arena
    from autoinst.spool.slots import Slot

    # action, queue, attempts (0: unknown), namespace, name, rule, thread
    Names = tuple[str | None, str | None, int, str, str, str | None, str | None]

    class Claimant(Protocol):
        """What a slot is claimed for: it is told its slot before the job counts as running."""

        slot: Slot | None

    class Kind(Protocol):
        """What many jobs have in common."""

        def names(self, thread: str) -> Names:
            """Return the texts of a slot for a job in `thread`."""


ID_ROOM = 64  # bytes of a tail kept for an id spelled out
MAX_HEADS = 2_048  # combinations of names kept packed
THREAD_RESERVE = 3072  # bytes of the intern table that thread names may not take

# BODY in three parts: what differs from job to job, the names, and what is known at the end.
_pack_times = Struct("<Qqqd").pack
_NAMES = Struct("<HHHHHHHH")
_pack_names, _unpack_names = _NAMES.pack, _NAMES.unpack
_pack_end = Struct("<IBBH").pack
# The same for a job of which no more is known than its names, when it starts and when it has ended well.
_start_into = Struct("<Qqqd16s14s").pack_into
_pack_whole = Struct("<Qqqd16s8s").pack
_pack_sum = Struct(f"<{layout.CRC_OFFSET}sI").pack
_crc32 = zlib.crc32
CRC_END = layout.CRC_OFFSET + layout.CRC.size
NO_EVENT = bytes(2)
START_SIZE = CRC_END + len(NO_EVENT)
NOTHING_YET = bytes(START_SIZE - 48)  # end, checksum and event of a job that has just begun
OK_END = _pack_end(0, layout.OK, 0, 0)
INTERNED = (0, 1, 3, 4, 5, 6)  # which of the packed names are numbers of the intern table
LINKS_AT = 14  # where the packed names keep the number of continuation slots
TAIL = layout.TAIL_OFFSET
ROOM = layout.TAIL_ROOM
RUNNING, DONE = layout.RUNNING, layout.DONE
NAN = float("nan")


class Spool(Slots):
    """The records of this process. A forked child makes a Spool of its own."""

    def __init__(
        self,
        folder: str,
        describe: Callable[[], dict[str, Any]],
        limit: int = SPOOL_MAX,
        group: str | None = None,
        grown: Callable[[], None] | None = None,
    ) -> None:
        """See Slots."""
        super().__init__(folder, describe, limit, group, grown)
        self.crowded = False  # an intern table has turned a text away: records must spell their names out
        self.next_seq = count(1).__next__

    def start(self, run: Claimant, seq: int, start_ns: int, kind: Kind, thread: str) -> None:
        """Claim a slot for a job of which only its names are known; see `begin`. `kind` is kept packed, by identity."""
        try:
            handle = self._free.pop()
        except IndexError:
            handle = -1
        if handle < 0:
            handle = self._claim_slow()
            if handle < 0:
                return
        arena = self.arenas[handle >> OFFSET_BITS]
        mm = arena.mm
        offset = handle & OFFSET_MASK
        packed = arena.heads.get((kind, thread))
        if packed is None:
            packed, tail = self._pack_head(arena, (kind, thread), kind.names(thread), b"")
            if tail:
                self._write_start(mm, offset, _pack_times(seq, start_ns, 0, NAN) + packed, tail, NO_EVENT)
                run.slot = handle, mm, offset, packed
                mm[offset + STATE] = RUNNING
                return
        # Field by field, which nobody reads before the slot is RUNNING.
        _start_into(mm, offset, seq, start_ns, 0, NAN, packed, NOTHING_YET)
        run.slot = handle, mm, offset, packed
        mm[offset + STATE] = RUNNING

    def complete(self, slot: Slot, seq: int, start_ns: int, duration_ns: int) -> None:
        """Complete the record of a job that `start` began and that ended well; see `finish`."""
        handle, mm, offset, packed = slot
        body = _pack_whole(seq, start_ns, duration_ns, NAN, packed, OK_END)
        mm[offset : offset + CRC_END] = _pack_sum(body, _crc32(body))
        mm[offset + STATE] = DONE
        self._finished.append(handle)

    def begin(self, seq: int, start_ns: int, queue_time: float, names: Names, tail: bytes) -> Slot | None:
        """Claim a slot and mark it RUNNING with what is known of the job; None where it can only be counted.

        `start_ns` counts from the epoch, `queue_time` is in ms (NaN: unknown), `tail` a marshalled dict or empty.
        """
        try:
            handle = self._free.pop()
        except IndexError:
            handle = -1
        if handle < 0:
            handle = self._claim_slow()
            if handle < 0:
                return None
        arena = self.arenas[handle >> OFFSET_BITS]
        mm = arena.mm
        offset = handle & OFFSET_MASK
        packed = arena.heads.get(names)
        if packed is None:
            packed, tail = self._pack_head(arena, names, names, tail)
        if tail:
            self._write_start(mm, offset, _pack_times(seq, start_ns, 0, queue_time) + packed, tail, NO_EVENT)
        else:
            mm[offset : offset + START_SIZE] = _pack_times(seq, start_ns, 0, queue_time) + packed + NOTHING_YET
        mm[offset + STATE] = layout.RUNNING
        return handle, mm, offset, packed

    def amend(self, slot: Slot, seq: int, start_ns: int, queue_time: float, names: Names, tail: bytes) -> Slot:
        """Write what is known of a job in progress into its slot, so that a kill from now on can report it."""
        handle, mm, offset, _ = slot
        arena = self.arenas[handle >> OFFSET_BITS]
        packed = arena.heads.get(names)
        if packed is None:
            packed, tail = self._pack_head(arena, names, names, tail)
        self._write_start(mm, offset, _pack_times(seq, start_ns, 0, queue_time) + packed, tail, b"")
        return handle, mm, offset, packed

    def _write_start(self, mm: mmap, offset: int, start: bytes, tail: bytes, event: bytes) -> None:
        if len(tail) > ROOM:
            tail = shorten(tail, ROOM)
        body = start + _pack_end(len(tail), layout.UNSET, 0, 0)
        mm[offset + TAIL : offset + TAIL + len(tail)] = tail
        data = body + _crc32(tail, _crc32(body)).to_bytes(4, "little") + event
        mm[offset : offset + len(data)] = data

    def _pack_head(self, arena: Arena, key: object, names: Names, tail: bytes) -> tuple[bytes, bytes]:
        """Intern the texts of `names` in `arena` and keep the 16 bytes that name them in a slot under `key`.

        Return them and `tail`; where a text finds no room the names are spelled out in that, and nothing is kept.
        """
        action, queue, attempts, namespace, name, rule, thread = names
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
            numbers = _unpack_names(packed)
            wanted = (action, queue, namespace, name, rule)
            if any(text and not numbers[at] for text, at in zip(wanted, (0, 1, 3, 4, 5), strict=True)):
                return packed, spelled_out(tail, names)
        if len(arena.heads) >= MAX_HEADS:
            arena.heads.clear()
        arena.heads[key] = packed
        return packed, tail

    def finish(
        self,
        slot: Slot,
        seq: int,
        start_ns: int,
        duration_ns: int,
        queue_time: float,
        status: int,
        flags: int,
        tail: bytes,
    ) -> None:
        """Complete the record in `slot` and mark it DONE; `tail` replaces the one given so far.

        One that needs continuation slots where this arena has none left moves the record to another arena; where
        that fails too, its largest parts are dropped (FLAG_TRUNCATED).
        """
        handle, mm, offset, packed = slot
        if tail:
            if len(tail) > ROOM:
                if self._finish_long(slot, _pack_times(seq, start_ns, duration_ns, queue_time), status, flags, tail):
                    return
                tail = shorten(tail, ROOM)
                flags |= layout.FLAG_TRUNCATED
            size = len(tail)
            mm[offset + TAIL : offset + TAIL + size] = tail
            body = _pack_times(seq, start_ns, duration_ns, queue_time) + packed + _pack_end(size, status, flags, 0)
            crc = _crc32(tail, _crc32(body))
        else:
            end = OK_END if status == layout.OK and not flags else _pack_end(0, status, flags, 0)
            body = _pack_times(seq, start_ns, duration_ns, queue_time) + packed + end
            crc = _crc32(body)
        mm[offset : offset + CRC_END] = body + crc.to_bytes(4, "little")
        mm[offset + STATE] = layout.DONE
        self._finished.append(handle)

    def is_running(self, slot: Slot) -> bool:
        """Return whether the record in `slot` has not been completed yet."""
        return bool(slot[1][slot[2] + STATE] == layout.RUNNING)

    def _finish_long(self, slot: Slot, times: bytes, status: int, flags: int, tail: bytes) -> bool:
        """Store a record whose tail needs a chain of continuation slots; return whether there was room for it."""
        handle, _, _, packed = slot
        if len(tail) > layout.TAIL_MAX - ID_ROOM:
            tail = shorten(tail, layout.TAIL_MAX - ID_ROOM)
            flags |= layout.FLAG_TRUNCATED
        number = handle >> OFFSET_BITS
        links = -(-len(tail) // ROOM)
        target = handle
        chain = self._claim_many(number, links, NEAR)
        if chain is None:
            longer = self._with_id(slot, times, tail)
            room = -(-len(longer) // ROOM) + 1
            nearest = self._nearest()
            others = range(len(self.arenas) - 1, -1, -1)
            for other in sorted(others, key=nearest.__ne__):
                chain = self._claim_many(other, room) if other != number else None
                if chain is not None:
                    tail = longer
                    target = chain.pop()
                    packed = self._repack(slot, other)
                    break
            else:
                chain = self._claim_many(number, links)
                if chain is None:
                    return False
        try:
            self._write_long(target, chain, times + packed[:LINKS_AT], status, flags, tail)
        except BaseException:  # a signal's: the caller comes again, and these slots must not be lost
            mm = self.arenas[target >> OFFSET_BITS].mm
            if mm[(target & OFFSET_MASK) + STATE] != layout.DONE:
                for link in chain if target == handle else [*chain, target]:
                    mm[(link & OFFSET_MASK) + STATE] = layout.FREE
                    self._free.append(link)
            raise
        self._chains[target] = chain
        self._finished.append(target)
        if target != handle:
            self.discard(slot, last=True)  # else the next job would be given it, and have to move as well
        return True

    def _write_long(self, target: int, chain: list[int], start: bytes, status: int, flags: int, tail: bytes) -> None:
        arena = self.arenas[target >> OFFSET_BITS]
        mm = arena.mm
        numbers = b""
        for i, link in enumerate(chain):
            at = link & OFFSET_MASK
            part = tail[i * ROOM : (i + 1) * ROOM]
            mm[at + TAIL : at + TAIL + len(part)] = part
            mm[at + STATE] = layout.CONTINUATION
            numbers += ((at - arena.slots_offset) // layout.SLOT_SIZE).to_bytes(4, "little")
        offset = target & OFFSET_MASK
        body = start + len(chain).to_bytes(2, "little") + _pack_end(len(tail), status, flags, 0)
        mm[offset + TAIL : offset + TAIL + len(numbers)] = numbers
        mm[offset : offset + CRC_END] = body + _crc32(tail, _crc32(body)).to_bytes(4, "little")
        mm[offset + STATE] = layout.DONE

    def _with_id(self, slot: Slot, times: bytes, tail: bytes) -> bytes:
        """Return `tail` with the record's id spelled out: in another arena its number would make another id."""
        content: dict[str, Any] = marshal.loads(tail)
        content.setdefault("id", layout.record_id(self.uid_of(slot), int.from_bytes(times[:8], "little")))
        return marshal.dumps(content, 2)

    def _repack(self, slot: Slot, number: int) -> bytes:
        """Return the packed names of `slot` with the interned ids of arena `number`."""
        texts = ["", *self.arenas[slot[0] >> OFFSET_BITS].ids]
        arena = self.arenas[number]
        values = list(_unpack_names(slot[3]))
        for i in INTERNED:
            values[i] = arena.intern(texts[values[i]]) if values[i] else 0
        return _pack_names(*values)

    def mark_event(self, slot: Slot, name: str) -> None:
        """Note that the event `name` is in progress (empty: none), for the case that the process dies in it."""
        arena = self.arenas[slot[0] >> OFFSET_BITS]
        mark = arena.marks.get(name)
        if mark is None:
            if len(arena.marks) >= MAX_HEADS:
                arena.marks.clear()
            mark = arena.marks[name] = (arena.intern(name) if name else 0).to_bytes(2, "little")
        at = slot[2] + layout.EVENT_OFFSET
        slot[1][at : at + 2] = mark
