"""Room for counts on a full disk: blocks of a tally, allocated while there was room.

The file is BLOCKS blocks as autoinst/spool/tally.py describes them; one whose first bytes are 0 is free. A process that
finds the disk full takes one and holds a POSIX lock on its bytes; who frees it holds that lock too.
"""

from __future__ import annotations

import errno
import fcntl
import os

from autoinst.config import share_file
from autoinst.spool.arena import move_high
from autoinst.spool.blocks import BLOCK, SAFE, Part, block

NAME = "reserve"
BLOCKS = 256
SIZE = BLOCKS * BLOCK
ID_BYTES = 8


def make(home: str) -> None:
    """Allocate the file in `home` if it is not there yet; raises OSError where there is no room."""
    fd = os.open(os.path.join(home, NAME), os.O_RDWR | os.O_CREAT | SAFE, 0o600)
    try:
        share_file(fd, home)
        os.posix_fallocate(fd, 0, SIZE)
    finally:
        os.close(fd)


def is_made(home: str) -> bool:
    """Return whether the file is there in its whole size."""
    try:
        return os.stat(os.path.join(home, NAME)).st_size == SIZE
    except OSError:
        return False


def claim(home: str) -> Part:
    """Take a free block for this process; raises OSError where there is none."""
    path = os.path.join(home, NAME)
    fd = move_high(os.open(path, os.O_RDWR | SAFE))
    try:
        if os.fstat(fd).st_size != SIZE or os.fstat(fd).st_uid != os.geteuid():
            raise OSError(errno.EIO, "damaged, or not ours", path)  # noqa: TRY301
        part = Part(fd, SIZE)
        mine = block(os.urandom(ID_BYTES))
        for number in range(BLOCKS):
            at = (os.getpid() + number) % BLOCKS * BLOCK
            if not lock(fd, at):
                continue
            if part.mm[at : at + ID_BYTES] == bytes(ID_BYTES):
                part.mm[at : at + BLOCK] = mine
                part.at = at
                return part
            fcntl.lockf(fd, fcntl.LOCK_UN, BLOCK, at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)  # noqa: TRY301
    except BaseException:
        os.close(fd)
        raise


def lock(fd: int, at: int) -> bool:
    """Lock the block at `at`; return False where another process has it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, BLOCK, at)
    except OSError:
        return False
    return True
