"""Reads the tally: what processes that could make no arena have counted. See autoinst/spool/tally.py for its layout."""

from __future__ import annotations

import fcntl
import os
import zlib
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING

from autoinst.record import INT64_MAX
from autoinst.spool import process
from autoinst.spool.blocks import BLOCK, FIRST, MORE, OWNER
from autoinst.spool.cells import histograms
from autoinst.spool.counted import MAX_COUNT, Counted, counted
from autoinst.spool.header import open_private
from autoinst.spool.tally import MAX_BYTES, NAME_ROOM, SUMS, SUMS_AT, cell_offsets

if TYPE_CHECKING:
    from autoinst.spool.cells import Histogram

TAKEN = ".taken"  # the end of its name once nobody counts in it any more
VERSION_1 = Struct("<QQQB87s")  # a row of a block of kind 0: jobs, errors, sum of durations, length of the name, name
VERSION_1_ROWS = (32, 144)


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
        last = not any_lives(data) and _lock(fd) and os.fstat(fd).st_size == len(data)
        if last:
            if not path.endswith(TAKEN):
                os.rename(path, path + TAKEN)
                path += TAKEN
            data = _content(fd)
        data = data[: len(data) - len(data) % BLOCK]
        checksum = zlib.crc32(data)
        if checksum != known or last:
            return Told(path, fd, data[:8].ljust(8, b"\0"), checksum, rows(data), last)
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


def any_lives(data: bytes) -> bool:
    """Return whether the owner of any block runs in this pid namespace: it may have lost its lock, as daemons do."""
    here = process.pid_namespace()
    seen = set()
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        _, pid, _, start, namespace = OWNER.unpack_from(data, at)
        if namespace == here and pid not in seen:
            seen.add(pid)
            if start and process.start_time(pid) == start:
                return True
    return False


@dataclass(slots=True)
class _Sum:
    """What the blocks say of one action."""

    jobs: int = 0  # and the two below: what a first version has counted, which tells no durations
    errors: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    by_outcome: tuple[Histogram, Histogram] = field(default_factory=lambda: ({}, {}))


def rows(data: bytes) -> list[Counted]:
    """Return what the blocks of a tally say, by action."""
    sums: dict[str | None, _Sum] = {}
    heads: dict[bytes, str | None] = {}  # the action that the last first block of a process names
    for at in range(0, len(data), BLOCK):
        uid, _, kind, _, _ = OWNER.unpack_from(data, at)
        if kind in (FIRST, MORE):
            if kind == FIRST:
                heads[uid] = _name(data, at + OWNER.size)
            _add_block(sums, data, at, kind, heads.get(uid))
        elif not kind:
            _add_old_block(sums, data, at)
    return [row for action, total in sums.items() for row in _counted(action, total)]


def _add_block(sums: dict[str | None, _Sum], data: bytes, at: int, kind: int, action: str | None) -> None:
    found = histograms(data, cell_offsets(at, kind))
    for row, name in enumerate((action, None)):
        by_outcome = found.get(2 * row, {}), found.get(2 * row + 1, {})
        if not any(by_outcome) and kind != FIRST:
            continue
        total = sums.setdefault(name, _Sum())
        if kind == FIRST:
            sum_ns, max_ns = SUMS.unpack_from(data, at + SUMS_AT[row])
            total.sum_ns += sum_ns
            total.max_ns = max(total.max_ns, max_ns)
        for into, more in zip(total.by_outcome, by_outcome, strict=True):
            for bucket, jobs in more.items():
                into[bucket] = into.get(bucket, 0) + jobs


def _add_old_block(sums: dict[str | None, _Sum], data: bytes, at: int) -> None:
    for row in VERSION_1_ROWS:
        jobs, errors, sum_ns, _, _ = VERSION_1.unpack_from(data, at + row)
        if 0 < jobs <= MAX_COUNT:
            total = sums.setdefault(_name(data, at + row + 24), _Sum())
            total.jobs += jobs
            total.errors += min(errors, jobs)
            total.sum_ns += sum_ns


def _counted(action: str | None, total: _Sum) -> list[Counted]:
    timed = counted(action, total.sum_ns, total.max_ns, *total.by_outcome)
    if not total.jobs:
        return [timed] if timed else []
    jobs, errors, durations = (timed.jobs, timed.errors, timed.durations) if timed else (0, 0, {})
    return [
        Counted(action, jobs + total.jobs, errors + total.errors, min(total.sum_ns, INT64_MAX), total.max_ns, durations)
    ]


def _name(data: bytes, at: int) -> str | None:
    size = min(data[at], NAME_ROOM)
    return data[at + 1 : at + 1 + size].decode("utf-8", "backslashreplace") or None
