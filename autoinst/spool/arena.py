"""One arena file as its owner writes it: created whole, locked for life, mapped, with an intern table that grows."""

from __future__ import annotations

import errno
import fcntl
import marshal
import mmap
import os
import sys
import time
import zlib

from autoinst.config import new_lock, share_file
from autoinst.spool import layout, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Descriptors are moved up here, away from the numbers a program counts on.
HIGH_DESCRIPTOR = 256
STANDARD_DESCRIPTORS = 3  # never taken, also where they are closed: the program may write to them all the same
LOCK_WAIT = 0.1  # seconds
FIRST_INTERN_SIZE = 6144
INTERN_SIZE = 65536


_never_freed: list[mmap.mmap] = []


class Arena:
    """A mapped arena of the process that made it.

    `uid` are 8 random bytes, `mm` the mapping, `ids` the interned texts (id 0 is null).
    """

    __slots__ = (
        "_file",
        "_intern_end",
        "_intern_next",
        "_lock",
        "_mapped_fd",
        "crowded",
        "fd",
        "heads",
        "ids",
        "marks",
        "mm",
        "path",
        "slots",
        "slots_offset",
        "uid",
    )

    def __init__(self, folder: str, number: int, slots: int, process_uid: bytes, description: dict[str, Any]) -> None:
        """Create arena `number` of this process in `folder`, with all its blocks allocated.

        A sparse file would kill the worker by SIGBUS on a full disk. Raises OSError (ENOSPC among others).
        """
        intern_size = INTERN_SIZE if number else FIRST_INTERN_SIZE
        self.slots = slots
        self.slots_offset = layout.INTERN_OFFSET + intern_size
        self.uid = os.urandom(8)
        self.ids: dict[str, int] = {}
        self.heads: dict[Any, bytes] = {}  # the writer's packed combinations of interned texts
        self.marks: dict[str, bytes] = {}  # the writer's packed names of events
        self._intern_next = layout.INTERN_OFFSET + layout.INTERN_COUNT.size
        self._intern_end = self.slots_offset
        self._lock = new_lock()
        self.crowded = False  # a text other than a thread's name found no room
        pid = os.getpid()
        self.path = os.path.join(folder, f"{pid}-{self.uid.hex()}.arena")
        size = self.slots_offset + slots * layout.SLOT_SIZE
        new = self.path + ".new"
        low = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.fd = move_high(low)
        except OSError:
            os.unlink(new)
            raise
        try:
            share_file(self.fd, folder)
            os.posix_fallocate(self.fd, 0, size)
            self._file = file_of(self.fd)
            self.mm, self._mapped_fd = map_part(self.fd, size)
            # After the mapping: to close any descriptor of the file gives the lease up.
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write_header(pid, number, process_uid, description)
            os.rename(new, self.path)
        except BaseException:
            os.close(self.fd)
            for name in (new, self.path):
                try:
                    os.unlink(name)
                except FileNotFoundError:
                    continue
            raise

    def _write_header(self, pid: int, number: int, process_uid: bytes, description: dict[str, Any]) -> None:
        mm = self.mm
        info = marshal.dumps(description, 2)
        while len(info) > layout.INFO_ROOM and description:
            # The longest entry goes first: a header without its environment is better than none.
            description = {k: v for k, v in description.items() if k != _longest(description)}
            info = marshal.dumps(description, 2)
        at = layout.INFO_OFFSET + layout.INFO.size
        mm[at : at + len(info)] = info
        layout.INFO.pack_into(mm, layout.INFO_OFFSET, len(info), zlib.crc32(info))
        layout.HEADER.pack_into(
            mm,
            0,
            layout.MAGIC,
            layout.VERSION,
            layout.SLOT_SIZE,
            self.slots,
            self.slots_offset,
            self.slots_offset - layout.INTERN_OFFSET,
            pid,
            os.geteuid(),
            process.start_time(pid),
            process.pid_namespace(),
            process.boot_id(),
            process.machine_id(),
            self.uid,
            process_uid,
            number,
            time.time_ns(),
        )

    def abandon(self) -> None:
        """Close a forked child's copy of its parent's descriptor, unless the program has used its number anew."""
        abandon(self._file, self.fd, self._mapped_fd, self.mm)

    def intern(self, text: str, reserve: int = 0) -> int:
        """Return the id of `text` in this arena's table, adding it while over `reserve` bytes stay free; else 0."""
        found = self.ids.get(text)
        if found is not None:
            return found
        data = text.encode("utf-8", "replace")
        if len(data) > layout.INTERN_MAX_BYTES:
            self.crowded = self.crowded or not reserve
            return 0
        # Bounded: a signal handler's job may come while its own thread is in here.
        if not self._lock.acquire(timeout=LOCK_WAIT):
            return 0
        try:
            found = self.ids.get(text)
            if found is not None:
                return found
            at = self._intern_next
            end = at + layout.INTERN_LENGTH.size + len(data)
            number = len(self.ids) + 1
            if end + reserve > self._intern_end or number >= layout.OVERFLOW_REST:
                self.crowded = self.crowded or not reserve
                return 0
            layout.INTERN_LENGTH.pack_into(self.mm, at, len(data))
            self.mm[at + layout.INTERN_LENGTH.size : end] = data
            self._intern_next = end
            layout.INTERN_COUNT.pack_into(self.mm, layout.INTERN_OFFSET, number)
            self.ids[text] = number
            return number
        finally:
            self._lock.release()

    def write_status(self, status: dict[str, Any]) -> bool:
        """Store the process's rule statuses; return whether they fit. A reader sees the old ones or the new ones."""
        data = marshal.dumps(status, 2)
        if len(data) > layout.STATUS_ROOM:
            return False
        if not self._lock.acquire(timeout=LOCK_WAIT):  # another thread is writing them: these are as good
            return True
        try:
            mm = self.mm
            sequence = int.from_bytes(mm[layout.STATUS_OFFSET : layout.STATUS_OFFSET + 8], "little")
            at = layout.STATUS_OFFSET + layout.STATUS.size
            layout.STATUS.pack_into(mm, layout.STATUS_OFFSET, sequence | 1, 0, 0)
            mm[at : at + len(data)] = data
            layout.STATUS.pack_into(mm, layout.STATUS_OFFSET, (sequence | 1) + 1, len(data), zlib.crc32(data))
        finally:
            self._lock.release()
        return True


def _longest(description: dict[str, Any]) -> str:
    return max(description, key=lambda key: len(marshal.dumps(description[key], 2)))


def move_high(low: int) -> int:
    """Return a descriptor of a number the program does not count on for the file `low`, which is closed.

    Raises OSError (EMFILE).
    """
    try:
        for least in (HIGH_DESCRIPTOR, STANDARD_DESCRIPTORS):  # the limit may be lower than the first
            try:
                return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, least)
            except OSError:
                continue
    finally:
        os.close(low)
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def file_of(fd: int) -> tuple[int, int] | None:
    """Return what tells the file of `fd` from all others, None where the program closed it, as daemons do."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def abandon(file: tuple[int, int] | None, fd: int, mapped_fd: int | None, mm: mmap.mmap) -> None:
    """Close a forked child's copy of `fd`, unless the program has used its number for another file than `file`."""
    if file_of(fd) == file:
        os.close(fd)
    if mapped_fd is not None and file_of(mapped_fd) != file:
        _never_freed.append(mm)  # it would close that number


def map_part(fd: int, size: int, offset: int = 0) -> tuple[mmap.mmap, int | None]:
    """Return a mapping of part of `fd` and the descriptor that it keeps for itself, which takes the lowest free number.

    There is none on 3.13+. Locks on the file are given up by this. Raises OSError.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, offset=offset, trackfd=False), None
    held: list[int] = []
    try:
        number = os.dup(fd)
        while number < STANDARD_DESCRIPTORS:
            held.append(number)
            number = os.dup(fd)
        os.close(number)
        return mmap.mmap(fd, size, offset=offset), number
    finally:
        for other in held:
            os.close(other)
