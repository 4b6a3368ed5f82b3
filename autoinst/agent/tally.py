"""Reads the tally: what processes that could make no arena have counted. See autoinst/spool/tally.py for its layout."""

from __future__ import annotations

import fcntl
import os
import zlib
from dataclasses import dataclass

from autoinst.spool import process
from autoinst.spool.header import open_private
from autoinst.spool.reader import MAX_COUNT
from autoinst.spool.tally import BLOCK, COUNTS, LENGTH_AT, MAX_BYTES, NAME_AT, NAME_ROOM, OWNER, ROWS
from autoinst.store.sqlite import Counted

TAKEN = ".taken"  # the end of its name once nobody counts in it any more
INT64_MAX = 2**63 - 1


@dataclass(slots=True)
class Told:
    """What an open tally says; where `last`, nobody will change it any more.

    `uid` names it as an arena's uid names an arena, `checksum` tells whether it has changed.
    """

    path: str
    fd: int
    uid: bytes
    checksum: int
    rows: list[Counted]
    last: bool = False

    def close(self, *, remove: bool = False) -> None:
        """Close it, and `remove` it first where nobody has it any more."""
        if remove and self.last:
            os.unlink(self.path)
        os.close(self.fd)


def read(path: str, known: int | None) -> Told | None:
    """Return what the tally `path` says; None where there is none, or it is as `known` and still in use.

    `known` is the checksum of what was read before. One that nobody uses is renamed at once, so that who comes now
    begins another. Raises SpoolError where it is no plain file of this user, OSError.
    """
    if not os.path.lexists(path):
        return None
    fd = open_private(path, writable=True)
    try:
        data = _content(fd)
        last = not _any_lives(data) and _lock(fd) and os.fstat(fd).st_size == len(data)
        if last:
            if not path.endswith(TAKEN):
                os.rename(path, path + TAKEN)
                path += TAKEN
            data = _content(fd)
        data = data[: len(data) - len(data) % BLOCK]
        checksum = zlib.crc32(data)
        if checksum != known or last:
            return Told(path, fd, data[:8].ljust(8, b"\0"), checksum, _rows(data), last)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _content(fd: int) -> bytes:
    return os.pread(fd, MAX_BYTES + BLOCK, 0)


def _lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _any_lives(data: bytes) -> bool:
    """Return whether the owner of any block runs in this pid namespace: it may have lost its lock, as daemons do."""
    here = process.pid_namespace()
    seen = set()
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        _, pid, start, namespace = OWNER.unpack_from(data, at)
        if namespace == here and pid not in seen:
            seen.add(pid)
            if start and process.start_time(pid) == start:
                return True
    return False


def _rows(data: bytes) -> list[Counted]:
    sums: dict[str | None, list[int]] = {}
    for at in range(0, len(data), BLOCK):
        for row in ROWS:
            counts = COUNTS.unpack_from(data, at + row)
            if 0 < counts[0] <= MAX_COUNT:
                name = at + row + NAME_AT
                size = min(data[at + row + LENGTH_AT], NAME_ROOM)
                action = data[name : name + size].decode("utf-8", "backslashreplace") or None
                total = sums.setdefault(action, [0, 0, 0])
                for i, count in enumerate(counts):
                    total[i] = min(total[i] + count, INT64_MAX)
    return [Counted(action, total[0], min(total[1], total[0]), total[2]) for action, total in sums.items()]
