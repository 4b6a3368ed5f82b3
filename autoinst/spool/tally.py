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

from autoinst.spool.arena import move_high
from autoinst.spool.blocks import BLOCK, FIRST, MORE, OWNER, SAFE, Part, block
from autoinst.spool.cells import SIZE, Cells

TYPE_CHECKING = False

NAME = "tally"
NAME_AT = OWNER.size + 1
SUMS = Struct("<QQ")  # sum and maximum of the durations in ns
SUMS_AT = (120, 136)
NAME_ROOM = SUMS_AT[0] - NAME_AT
CELLS_AT = {FIRST: 152, MORE: OWNER.size}
KINDS = 4
WIDE = 16  # blocks of a process that needs more cells than one block has
MAX_BYTES = 32 * 1024 * 1024  # 131,072 processes
TRIES = 3
FULL = (errno.ENOSPC, errno.EDQUOT)


class Tally:
    """The block, or the blocks, of this process."""

    def __init__(self, folder: str, uid: bytes, blocks: int = 1) -> None:
        """Append so many blocks to the file in `folder`; raises OSError where that cannot be.

        On a full disk a single one is taken from the reserve beside `folder`.
        """
        self._folder = folder
        self._uid = uid
        self._action: str | None = None
        self._wide: Tally | None = None
        self._may_widen = blocks == 1
        try:
            self._part = _append(folder, uid, blocks)
        except OSError as error:
            if error.errno not in FULL or blocks > 1:
                raise
            from autoinst.spool.reserve import claim

            self._part = claim(os.path.dirname(folder))
        at = self._part.at
        offsets = [cell for number in range(blocks) for cell in cell_offsets(at + number * BLOCK, _kind(number))]
        self._cells = Cells(self._part.mm, offsets, KINDS)

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
        mm = self._part.mm
        at = self._part.at + SUMS_AT[row]
        before = SUMS.unpack_from(mm, at)
        mm[at : at + SUMS.size] = SUMS.pack(before[0] + sum_ns, max(before[1], max_ns))  # one slice: nothing is zeroed
        self._cells.add(kind, bucket, jobs)

    def _name(self, action: str) -> None:
        self._action = action
        name = action.encode("utf-8", "replace")[:NAME_ROOM]
        at = self._part.at + OWNER.size
        self._part.mm[at : at + 1 + len(name)] = len(name).to_bytes(1, "little") + name

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
        self._part.abandon()


def cell_offsets(at: int, kind: int) -> range:
    """Return where the cells of a block of that kind at `at` are."""
    return range(at + CELLS_AT[kind], at + BLOCK, SIZE)


def _kind(number: int) -> int:
    return MORE if number else FIRST


def _append(folder: str, uid: bytes, blocks: int) -> Part:
    """Append blocks of this process to the tally and map them. Raises OSError."""
    data = b"".join(block(uid, _kind(number)) for number in range(blocks))
    for _ in range(TRIES):
        fd, at = _written(os.path.join(folder, NAME), data)
        try:
            part = Part(fd, len(data), at)
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return part
        except BlockingIOError:  # its reader is taking it away: a new one is begun
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), folder)


def _written(path: str, data: bytes) -> tuple[int, int]:
    """Append `data` to the file; return a descriptor of it and where the data is. Raises OSError."""
    fd = move_high(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | SAFE, 0o600))
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or not S_ISREG(found.st_mode) or found.st_size >= MAX_BYTES:
            raise OSError(errno.EFBIG, "full, or not ours", path)  # noqa: TRY301
        written = os.write(fd, data)
        at = os.lseek(fd, 0, os.SEEK_CUR) - written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)  # noqa: TRY301
        if at < 0 or at % BLOCK:
            raise OSError(errno.EIO, "damaged", path)  # noqa: TRY301
    except BaseException:
        os.close(fd)
        raise
    return fd, at
