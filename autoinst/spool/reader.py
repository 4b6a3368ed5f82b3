"""One arena file as the reading half sees it: whatever its bytes are, reading ends with records or a SpoolError."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import zlib
from dataclasses import dataclass, field
from typing import Any

from autoinst.errors import SpoolError
from autoinst.record import Record
from autoinst.spool import counted, layout, tail
from autoinst.spool.header import checked_size, open_private, read_header

STATUS_RETRIES = 20

_STATE = layout.STATE_OFFSET
_BODY = layout.BODY.size
_SIZE = layout.SLOT_SIZE
_RECORD_STATUS = {layout.OK: "ok", layout.ERROR: "error", layout.IGNORED: "ignored", layout.KILLED: "killed"}


@dataclass(slots=True)
class Done:
    """Finished records and the slots to free once they are stored.

    `left_out` are the jobs that are only to be counted.
    """

    records: list[Record] = field(default_factory=list)
    left_out: list[Record] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    torn: int = 0
    more: bool = False


@dataclass(slots=True)
class InFlight:
    """A job whose slot is RUNNING.

    `last_event` names the event it was in; `complete` is whether only the state byte was missing, so that `record`
    has the status its job ended with; `ended` whether the owner was storing its end (then `duration_ns` is known);
    `left_out` whether the job is only to be counted.
    """

    record: Record
    last_event: str | None
    complete: bool
    ended: bool
    left_out: bool = False


class Arena:
    """A mapped arena. Not for the arena of this very process: closing it would drop the owner's lease."""

    def __init__(self, buffer: mmap.mmap | bytearray | bytes, path: str, fd: int = -1) -> None:
        """Read the header of `buffer` (whole file); raises SpoolError or NewerArenaError with the reason."""
        self.path = path
        self.fd = fd
        self.mm: Any = buffer
        self.header = read_header(buffer, path)
        self.uid = self.header.arena_uid
        self._first = self.header.slots_offset
        self._end = self._first + self.header.slots * _SIZE
        self._next = 0
        self._names: list[str | None] = [None]
        self._names_at = self.header.intern_offset + layout.INTERN_COUNT.size
        self._origin: tuple[str | None, ...] = ()  # read with the first record: most arenas that are opened have none

    @classmethod
    def open(cls, path: str, *, owner: int | None = None, writable: bool = False) -> Arena:
        """Open and map the arena file `path`; raises SpoolError.

        `owner`: the user id it must belong to (None: this process's); `writable`: needed for `free`.
        """
        fd = open_private(path, owner=owner, writable=writable)
        mm: mmap.mmap | None = None
        try:
            size = checked_size(fd, path)
            mm = mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
            return cls(mm, path, fd)
        except (SpoolError, OSError, ValueError) as error:
            if mm is not None:
                mm.close()
            os.close(fd)
            if isinstance(error, SpoolError):
                raise
            raise SpoolError(f"{path}: {error}") from error

    def close(self) -> None:
        """Unmap and close the file."""
        if isinstance(self.mm, mmap.mmap):
            self.mm.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def intact(self) -> bool:
        """Return whether the file still has its length: reading a mapping of a file cut short is fatal (SIGBUS)."""
        return self.fd < 0 or os.fstat(self.fd).st_size >= self._end

    def description(self) -> dict[str, Any]:
        """Return what the process said of itself (service, host, argv, ...); empty if that is damaged."""
        size, crc = layout.INFO.unpack_from(self.mm, layout.INFO_OFFSET)
        at = layout.INFO_OFFSET + layout.INFO.size
        data = bytes(self.mm[at : at + min(size, layout.INFO_ROOM)])
        return _plain_dict(data, crc)

    def status_sequence(self) -> int:
        """Return the status region's sequence number, which changes whenever its content does."""
        return int(layout.STATUS.unpack_from(self.mm, layout.STATUS_OFFSET)[0])

    def status(self) -> dict[str, Any] | None:
        """Return the status region's content; None if there is none or its owner keeps writing it."""
        at = layout.STATUS_OFFSET + layout.STATUS.size
        for _ in range(STATUS_RETRIES):
            sequence, size, crc = layout.STATUS.unpack_from(self.mm, layout.STATUS_OFFSET)
            if sequence % 2 or not size:
                continue
            data = bytes(self.mm[at : at + min(size, layout.STATUS_ROOM)])
            if self.status_sequence() == sequence and zlib.crc32(data) == crc:
                return _plain_dict(data, crc) or None
        return None

    def overflow_bytes(self) -> bytes:
        """Return the overflow table as it is, to see cheaply whether it changed."""
        return bytes(self.mm[layout.OVERFLOW_OFFSET : self.header.intern_offset])

    def overflow(self) -> list[counted.Counted]:
        """Return the counts of jobs that found no slot.

        A number being stored may be seen as smaller than it was: a caller keeps the largest it has seen of each.
        """
        return list(counted.of_arena(self.overflow_bytes(), self.header.version, self._name))

    def states(self) -> bytes:
        """Return the state byte of every slot."""
        return bytes(self.mm[self._first + _STATE : self._end : _SIZE])

    def done(self, limit: int | None = None) -> Done:
        """Return up to `limit` finished records and the slots to free once they are kept elsewhere.

        A record whose checksum is wrong is counted as torn, and its slot is among those to free. The next call goes on
        where this one stopped: an owner that keeps filling the first slots would else keep the last ones waiting.
        """
        out = Done()
        states = self.states()
        start = self._next
        for first, end in ((start, len(states)), (0, start)):
            at = states.find(layout.DONE, first, end)
            while at >= 0:
                if limit is not None and len(out.records) + len(out.left_out) >= limit:
                    self._next = at
                    out.more = True
                    return out
                self._take(at, out)
                at = states.find(layout.DONE, at + 1, end)
        self._next = 0
        return out

    def _take(self, slot: int, out: Done) -> None:
        data = self._slot(slot)
        found = self._intact_tail(data)
        out.slots.append(slot)
        status = _RECORD_STATUS.get(data[_STATUS_AT])
        if found is None or status is None:
            out.torn += 1
            return
        content, links = found
        if self.header.version == 1:  # later owners free these themselves once the first is free
            out.slots.extend(links)
        record = self._record(data, status)
        record.duration_ns = max(int.from_bytes(data[16:24], "little", signed=True), 0)
        if content:
            self._fill(record, content)
        (out.left_out if data[_FLAGS_AT] & layout.FLAG_LEFT_OUT else out.records).append(record)

    def running(self) -> list[InFlight]:
        """Return the jobs in flight; slots whose job ends while they are read are left out."""
        out = []
        states = self.states()
        at = states.find(layout.RUNNING)
        while at >= 0:
            data = self._slot(at)
            found = self._intact_tail(data)
            again = self._slot(at)
            if data[_STATE] == layout.RUNNING == again[_STATE] and data[:8] == again[:8]:
                out.append(self._in_flight(data, found))
            at = states.find(layout.RUNNING, at + 1)
        return out

    def _in_flight(self, data: bytes, found: tuple[bytes, tuple[int, ...]] | None) -> InFlight:
        status = _RECORD_STATUS.get(data[_STATUS_AT])
        complete = status is not None and found is not None
        record = self._record(data, status if complete and status else "running")
        if record.started_ns <= 0:  # killed while the slot was being filled: all that is sure is that it came after
            record.started_ns = self.header.created_ns
        if status is not None:
            record.duration_ns = max(int.from_bytes(data[16:24], "little", signed=True), 0)
        if found and found[0]:
            self._fill(record, found[0])
        event = self._name(int.from_bytes(data[layout.EVENT_OFFSET : layout.EVENT_OFFSET + 2], "little"))
        left_out = complete and bool(data[_FLAGS_AT] & layout.FLAG_LEFT_OUT)
        return InFlight(record, event, complete, status is not None, left_out)

    def free(self, slots: list[int]) -> None:
        """Give `slots` back to the owner, in this order; for the one leader that has stored their records."""
        mm, first = self.mm, self._first + _STATE
        for slot in slots:
            mm[first + slot * _SIZE] = layout.FREE

    def _slot(self, slot: int) -> bytes:
        at = self._first + slot * _SIZE
        return bytes(self.mm[at : at + _SIZE])

    def _intact_tail(self, data: bytes) -> tuple[bytes, tuple[int, ...]] | None:
        """Return the tail and the continuation slots of slot `data`; None unless the checksum is right."""
        links = int.from_bytes(data[_LINKS_AT : _LINKS_AT + 2], "little")
        size = int.from_bytes(data[_LENGTH_AT : _LENGTH_AT + 4], "little")
        numbers: tuple[int, ...] = ()
        if not links:
            if size > layout.TAIL_ROOM:
                return None
            content = data[layout.TAIL_OFFSET : layout.TAIL_OFFSET + size]
        else:
            if links > layout.CHAIN_MAX or size > links * layout.TAIL_ROOM:
                return None
            area = data[layout.TAIL_OFFSET : layout.TAIL_OFFSET + 4 * links]
            numbers = tuple(int.from_bytes(area[i : i + 4], "little") for i in range(0, 4 * links, 4))
            if max(numbers) >= self.header.slots:
                return None
            parts = [self._slot(number) for number in numbers]
            if any(part[_STATE] != layout.CONTINUATION for part in parts):
                return None
            content = b"".join(part[layout.TAIL_OFFSET :] for part in parts)[:size]
        crc = int.from_bytes(data[_BODY : _BODY + 4], "little")
        return (content, numbers) if zlib.crc32(content, zlib.crc32(data[:_BODY])) == crc else None

    def _record(self, data: bytes, status: str) -> Record:
        (seq, start, _, queue_time, action, queue, attempts, namespace, name, rule, thread, _, _, _, flags, _) = (
            layout.BODY.unpack_from(data)
        )
        names = self._names
        if max(action, queue, namespace, name, rule, thread) >= len(names):
            self._read_names()
        count = len(names)
        action_text = names[action] if action < count else None
        record = Record(layout.record_id(self.uid, seq), status, start)
        if action_text is not None:
            record.action = action_text
            class_name, mark, method = action_text.rpartition("#")
            if mark:
                record.class_name = class_name
                record.method = method
        if queue and queue < count:
            record.queue = names[queue]
        if math.isfinite(queue_time):
            record.queue_time_ms = queue_time
        record.attempts = attempts or None
        if namespace and namespace < count:
            record.namespace = names[namespace] or ""
        if name and name < count:
            record.name = names[name] or ""
        if rule and rule < count:
            record.rule = names[rule]
        if thread and thread < count:
            record.thread = names[thread]
        if flags:
            record.clock_skew = bool(flags & layout.FLAG_CLOCK_SKEW)
            record.truncated = bool(flags & layout.FLAG_TRUNCATED)
        if not self._origin:
            info = self.description()
            self._origin = tuple(_text(info.get(key)) for key in ("service", "environment", "revision", "host"))
        record.service, record.environment, record.revision, record.host = self._origin
        record.pid = self.header.pid
        return record

    @staticmethod
    def _fill(record: Record, content: bytes) -> None:
        try:
            tail.fill(record, tail.decode(content))
        except ValueError:  # the checksum is right, so the owner wrote it so: keep the rest and say so
            record.truncated = True

    def _name(self, number: int) -> str | None:
        if number >= len(self._names):
            self._read_names()
        return self._names[number] if number < len(self._names) else None

    def _read_names(self) -> None:
        """Read on in the intern table, which its owner extends all the time."""
        mm, names = self.mm, self._names
        (count,) = layout.INTERN_COUNT.unpack_from(mm, self.header.intern_offset)
        at = self._names_at
        while len(names) <= count and at + layout.INTERN_LENGTH.size <= self._first:
            (size,) = layout.INTERN_LENGTH.unpack_from(mm, at)
            end = at + layout.INTERN_LENGTH.size + size
            if end > self._first:
                break
            names.append(bytes(mm[at + layout.INTERN_LENGTH.size : end]).decode("utf-8", "backslashreplace"))
            at = end
        self._names_at = at


_LINKS_AT, _LENGTH_AT, _STATUS_AT, _FLAGS_AT = 46, 48, 52, 53


def _plain_dict(data: bytes, crc: int) -> dict[str, Any]:
    if zlib.crc32(data) != crc:
        return {}
    with contextlib.suppress(ValueError):
        found = tail.clean(tail.decode(data))
        if isinstance(found, dict):
            return found
    return {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
