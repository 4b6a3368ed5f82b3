"""What an arena file must be before its records are looked at: a private, regular file with a header that holds."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from autoinst.errors import SpoolError
from autoinst.spool import layout

if TYPE_CHECKING:
    import mmap

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_PID = 2**31 - 1
INTERN_OFFSETS = {1: 10240, 2: layout.INTERN_OFFSET}  # by version, of those that can be read
LEAST_BYTES = min(INTERN_OFFSETS.values()) + layout.INTERN_COUNT.size


class NewerArenaError(SpoolError):
    """The file is an arena of a version this autoinst does not know; another one will read it."""


class Header(NamedTuple):
    """The header page's fixed fields, in the order of layout.HEADER."""

    magic: bytes
    version: int
    slot_size: int
    slots: int
    slots_offset: int
    intern_size: int
    pid: int
    euid: int
    start_time: int
    pid_namespace: int
    boot_id: bytes
    machine_id: bytes
    arena_uid: bytes
    process_uid: bytes
    number: int
    created_ns: int

    @property
    def intern_offset(self) -> int:
        """Where the intern table is, and where the overflow table ends."""
        return INTERN_OFFSETS[self.version]


def open_private(path: str, *, owner: int | None = None, writable: bool = False) -> int:
    """Open `path` without following a link and return its descriptor; raises SpoolError unless it is a plain file.

    `owner` is the user id it must belong to (None: this process's).
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from error
    found = os.fstat(fd)
    wanted = os.geteuid() if owner is None else owner
    if not stat.S_ISREG(found.st_mode):
        reason = "not a regular file"
    elif found.st_uid != wanted:
        reason = f"belongs to user {found.st_uid}, not {wanted}"
    else:
        return fd
    os.close(fd)
    raise SpoolError(f"{path}: {reason}")


def checked_size(fd: int, path: str) -> int:
    """Return the size of the file `fd`; raises SpoolError if it is no arena's."""
    size = os.fstat(fd).st_size
    if not LEAST_BYTES < size <= MAX_FILE_BYTES:
        raise SpoolError(f"{path}: {size} bytes is no arena's size")
    return size


def read_header(buffer: mmap.mmap | bytearray | bytes, path: str) -> Header:
    """Return the header of a whole arena; raises SpoolError or NewerArenaError with the reason."""
    if len(buffer) < LEAST_BYTES:
        raise SpoolError(f"{path}: {len(buffer)} bytes is too short for an arena")
    header = Header(*layout.HEADER.unpack_from(buffer))
    if header.magic != layout.MAGIC:
        raise SpoolError(f"{path}: not an arena file")
    if header.version > layout.VERSION:
        raise NewerArenaError(f"{path}: arena version {header.version}, this autoinst reads {layout.VERSION}")
    size = header.slots_offset + header.slots * layout.SLOT_SIZE
    if header.version not in INTERN_OFFSETS or header.slot_size != layout.SLOT_SIZE:
        raise SpoolError(f"{path}: damaged header: version {header.version}, slot size {header.slot_size}")
    if header.slots_offset != header.intern_offset + header.intern_size or not header.slots or size > len(buffer):
        raise SpoolError(
            f"{path}: damaged header: {header.slots} slots at {header.slots_offset} in {len(buffer)} bytes"
        )
    if header.intern_size < layout.INTERN_COUNT.size or not 0 < header.pid <= MAX_PID:
        raise SpoolError(f"{path}: damaged header: pid {header.pid}, intern table {header.intern_size}")
    return header
