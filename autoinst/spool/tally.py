"""Counts the jobs of processes that may not make an arena, in one small file that they share.

The file is a row of blocks of BLOCK bytes, each appended whole by one process (O_APPEND) and changed by it alone:

    0    uid of the process, its pid, start time and pid namespace as in an arena's header
    32   the first action it counted: HEAD
    144  all other actions: HEAD, without a name

Its owners hold a shared POSIX lock on the file, so that its reader knows when nobody changes it any more.
"""

from __future__ import annotations

import errno
import fcntl
import os
from stat import S_ISREG
from struct import Struct

from autoinst.spool import process
from autoinst.spool.arena import abandon, file_of, map_part, move_high

NAME = "tally"
BLOCK = 256
OWNER = Struct("<8sI4xQQ")  # 32 bytes
COUNTS = Struct("<QQQ")  # jobs, errors, sum of durations in ns
ROWS = (32, 144)
LENGTH_AT = COUNTS.size  # 1 byte: how long the name is
NAME_AT = LENGTH_AT + 1
NAME_ROOM = ROWS[1] - ROWS[0] - NAME_AT
MAX_BYTES = 32 * 1024 * 1024  # 131,072 processes
TRIES = 3
PAGE = 4096
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Tally:
    """The block of this process."""

    def __init__(self, folder: str, uid: bytes) -> None:
        """Append a block to the file in `folder`; raises OSError where that cannot be."""
        self._action: str | None = None
        for _ in range(TRIES):
            self._fd, at = _append(os.path.join(folder, NAME), uid)
            try:
                self._file = file_of(self._fd)
                # Written by the mapping, never by the descriptor: the program may close that and use its number anew.
                self._mm, self._mapped_fd = map_part(self._fd, at % PAGE + BLOCK, at - at % PAGE)
                self._at = at % PAGE
                fcntl.lockf(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.fstat(self._fd).st_nlink:
                    return
            except BlockingIOError:  # its reader is taking it away: a new one is begun
                pass
            except BaseException:
                os.close(self._fd)
                raise
            os.close(self._fd)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), folder)

    def add(self, action: str, more: int, errors: int, sum_ns: int) -> None:
        """Count `more` jobs of `action`, `errors` of them failed."""
        mm = self._mm
        if self._action is None:
            self._action = action
            name = action.encode("utf-8", "replace")[:NAME_ROOM]
            at = self._at + ROWS[0] + LENGTH_AT
            mm[at : at + 1 + len(name)] = len(name).to_bytes(1, "little") + name
        at = self._at + ROWS[action != self._action]
        before = COUNTS.unpack_from(mm, at)
        # One slice: a kill in between would lose the counts.
        mm[at : at + COUNTS.size] = COUNTS.pack(before[0] + more, before[1] + errors, before[2] + sum_ns)

    def abandon(self) -> None:
        """Leave the parent's block alone, in a forked child."""
        abandon(self._file, self._fd, self._mapped_fd, self._mm)


def _append(path: str, uid: bytes) -> tuple[int, int]:
    """Append this process's block; return a descriptor of the file and where the block is. Raises OSError."""
    pid = os.getpid()
    block = OWNER.pack(uid, pid, process.start_time(pid), process.pid_namespace()).ljust(BLOCK, b"\0")
    fd = move_high(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _SAFE, 0o600))
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or not S_ISREG(found.st_mode) or found.st_size >= MAX_BYTES:
            raise OSError(errno.ENOSPC, "full, or not ours", path)  # noqa: TRY301
        os.write(fd, block)
        at = os.lseek(fd, 0, os.SEEK_CUR) - BLOCK
        if at < 0 or at % BLOCK:
            raise OSError(errno.EIO, "damaged", path)  # noqa: TRY301
    except BaseException:
        os.close(fd)
        raise
    return fd, at
