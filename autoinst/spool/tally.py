"""Counts the jobs of processes that may not make an arena, in one small file that they share.

The file is a row of blocks of BLOCK bytes, appended by one process (O_APPEND) and changed by it alone:

    0    OWNER: uid of the process, its pid, KIND of the block, start time and pid namespace as in an arena's header
    32   the length of the name (1 byte) of the first action it counted, and the name
    120  SUMS of that action, then of all others
    152  cells (cells.py): of that action's kinds 0 and 1, of the others' 2 and 3

A process whose cells are used up appends some blocks at once, of which all but the first have cells from 32 on.
The first version had blocks of KIND 0: two rows of jobs, errors, sum of durations, length of the name and name.

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
from autoinst.spool.cells import SIZE, Cells

NAME = "tally"
BLOCK = 256
OWNER = Struct("<8sIIQQ")  # 32 bytes
FIRST, MORE = 1, 2  # kinds of blocks
NAME_AT = OWNER.size + 1
SUMS = Struct("<QQ")  # sum and maximum of the durations in ns
SUMS_AT = (120, 136)
NAME_ROOM = SUMS_AT[0] - NAME_AT
CELLS_AT = {FIRST: 152, MORE: OWNER.size}
KINDS = 4
WIDE = 16  # blocks of a process that needs more cells than one block has
MAX_BYTES = 32 * 1024 * 1024  # 131,072 processes
TRIES = 3
PAGE = 4096
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Tally:
    """The block, or the blocks, of this process."""

    def __init__(self, folder: str, uid: bytes, blocks: int = 1) -> None:
        """Append so many blocks to the file in `folder`; raises OSError where that cannot be."""
        self._folder = folder
        self._uid = uid
        self._action: str | None = None
        self._wide: Tally | None = None
        self._may_widen = blocks == 1
        for _ in range(TRIES):
            self._fd, at = _append(os.path.join(folder, NAME), uid, blocks)
            try:
                self._file = file_of(self._fd)
                # Written by the mapping, never by the descriptor: the program may close that and use its number anew.
                self._at = at % PAGE
                self._mm, self._mapped_fd = map_part(self._fd, self._at + blocks * BLOCK, at - self._at)
                fcntl.lockf(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.fstat(self._fd).st_nlink:
                    break
            except BlockingIOError:  # its reader is taking it away: a new one is begun
                pass
            except BaseException:
                os.close(self._fd)
                raise
            os.close(self._fd)
        else:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), folder)
        offsets = [at for number in range(blocks) for at in cell_offsets(self._at + number * BLOCK, _kind(number))]
        self._cells = Cells(self._mm, offsets, KINDS)

    def add(self, action: str, failed: bool, bucket: int, jobs: int, sum_ns: int, max_ns: int) -> None:
        """Count `jobs` of `action` whose durations are in `bucket`."""
        if self._action is None:
            self._name(action)
        row = int(action != self._action)
        kind = 2 * row + failed
        if self._may_widen and not self._cells.has_room(kind, bucket):
            self._widen()
        if self._wide is not None:
            self._wide.add(action, failed, bucket, jobs, sum_ns, max_ns)
            return
        mm = self._mm
        at = self._at + SUMS_AT[row]
        before = SUMS.unpack_from(mm, at)
        mm[at : at + SUMS.size] = SUMS.pack(before[0] + sum_ns, max(before[1], max_ns))  # one slice: nothing is zeroed
        self._cells.add(kind, bucket, jobs)

    def _name(self, action: str) -> None:
        self._action = action
        name = action.encode("utf-8", "replace")[:NAME_ROOM]
        at = self._at + OWNER.size
        self._mm[at : at + 1 + len(name)] = len(name).to_bytes(1, "little") + name

    def _widen(self) -> None:
        self._may_widen = False
        try:
            wide = Tally(self._folder, self._uid, WIDE)
        except (OSError, ValueError):  # then in the nearest bucket that has a cell
            return
        if self._action is not None:
            wide._name(self._action)
        self._wide = wide

    def abandon(self) -> None:
        """Leave the parent's blocks alone, in a forked child."""
        if self._wide is not None:
            self._wide.abandon()
        abandon(self._file, self._fd, self._mapped_fd, self._mm)


def cell_offsets(at: int, kind: int) -> range:
    """Return where the cells of a block of that kind at `at` are."""
    return range(at + CELLS_AT[kind], at + BLOCK, SIZE)


def _kind(number: int) -> int:
    return MORE if number else FIRST


def _append(path: str, uid: bytes, blocks: int) -> tuple[int, int]:
    """Append blocks of this process; return a descriptor of the file and where they are. Raises OSError."""
    pid = os.getpid()
    start, namespace = process.start_time(pid), process.pid_namespace()
    data = b"".join(
        OWNER.pack(uid, pid, _kind(number), start, namespace).ljust(BLOCK, b"\0") for number in range(blocks)
    )
    fd = move_high(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _SAFE, 0o600))
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or not S_ISREG(found.st_mode) or found.st_size >= MAX_BYTES:
            raise OSError(errno.ENOSPC, "full, or not ours", path)  # noqa: TRY301
        written = os.write(fd, data)
        at = os.lseek(fd, 0, os.SEEK_CUR) - written
        if written < len(data) or at < 0 or at % BLOCK:
            raise OSError(errno.EIO, "damaged", path)  # noqa: TRY301
    except BaseException:
        os.close(fd)
        raise
    return fd, at
