"""A process's blocks in a file that many share: what the tally and its reserve have in common.

A block begins with its OWNER; autoinst/spool/tally.py says what follows.
"""

from __future__ import annotations

import os
from struct import Struct

from autoinst.spool import process
from autoinst.spool.arena import abandon, file_of, map_part

BLOCK = 256
OWNER = Struct("<8sIIQQ")  # 32 bytes
FIRST, MORE = 1, 2  # kinds of blocks
PAGE = 4096
SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Part:
    """A mapped part of a file, in which this process has blocks at `at`."""

    __slots__ = ("_fd", "_file", "_mapped_fd", "at", "mm")

    def __init__(self, fd: int, size: int, offset: int = 0) -> None:
        """Map `size` bytes of `fd` at `offset`. Locks on the file are given up by this. Raises OSError, ValueError."""
        self._fd = fd
        self._file = file_of(fd)
        # Written by the mapping, never by the descriptor: the program may close that and use its number anew.
        self.at = offset % PAGE
        self.mm, self._mapped_fd = map_part(fd, self.at + size, offset - self.at)

    def abandon(self) -> None:
        """Leave the parent's part alone, in a forked child."""
        abandon(self._file, self._fd, self._mapped_fd, self.mm)


def block(uid: bytes, kind: int = FIRST) -> bytes:
    """Return an empty block of this process."""
    pid = os.getpid()
    owner = OWNER.pack(uid, pid, kind, process.start_time(pid), process.pid_namespace())
    return owner.ljust(BLOCK, b"\0")
