"""Reads the reserve: what processes have counted that found the disk full. See autoinst/spool/reserve.py."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

from autoinst.agent import tally
from autoinst.spool import reserve
from autoinst.spool.blocks import BLOCK
from autoinst.spool.header import open_private

if TYPE_CHECKING:
    from autoinst.spool.counted import Counted

MAKE_SECONDS = 60  # between attempts to make the file, on a disk that is full already


class Claimed(NamedTuple):
    """A block in use: who counts there, what is counted, and whether nobody will change it any more."""

    at: int
    uid: bytes
    rows: list[Counted]
    checksum: int
    last: bool


class Reserve:
    """The file of one home."""

    def __init__(self, home: str) -> None:
        """Read the file in `home`, which is made when it is first taken from."""
        self.home = home
        self.path = os.path.join(home, reserve.NAME)
        self._fd = -1
        self._known: dict[int, tuple[bytes, int]] = {}  # uid and checksum of what is stored, by place
        self._make_at = 0.0

    def take(self) -> list[Claimed]:
        """Return what is new in it; `stored` or `close` follows. Raises SpoolError (no plain file), OSError."""
        if not reserve.is_made(self.home):
            self._make()
            return []
        self._fd = open_private(self.path, writable=True)
        data = os.pread(self._fd, reserve.SIZE, 0)
        found = []
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            if block[: reserve.ID_BYTES] == bytes(reserve.ID_BYTES):
                continue
            last = not tally.any_lives(block) and reserve.lock(self._fd, at)
            if last:  # it may have counted since
                block = os.pread(self._fd, BLOCK, at)
            claimed = Claimed(at, block[: reserve.ID_BYTES], tally.rows(block), zlib.crc32(block), last)
            if last or self._known.get(at) != (claimed.uid, claimed.checksum):
                found.append(claimed)
        if not found:
            self.close()
        return found

    def _make(self) -> None:
        now = time.monotonic()
        if now >= self._make_at:
            self._make_at = now + MAKE_SECONDS
            with contextlib.suppress(OSError):
                reserve.make(self.home)

    def stored(self, found: list[Claimed]) -> None:
        """Note that all this is stored, and free the blocks of those who are gone."""
        for claimed in found:
            if claimed.last:
                os.pwrite(self._fd, bytes(BLOCK), claimed.at)
                self._known.pop(claimed.at, None)
            else:
                self._known[claimed.at] = claimed.uid, claimed.checksum
        self.close()

    def uids(self) -> set[bytes]:
        """Return the uids of those whose counts may be read again."""
        return {uid for uid, _ in self._known.values()}

    def forget_store(self) -> None:
        """Make everything count as new, for a store that knows nothing of it."""
        self._known.clear()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
