"""Tells a process from its forked child without asking the kernel at every job."""

from __future__ import annotations

import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Here(Protocol):
        """`here[0]` is true in the process that made it, false in its forked children."""

        def __getitem__(self, index: int, /) -> int: ...


MADV_WIPEONFORK = 18  # Linux 4.14: a forked child sees zeroes, however it was forked (madvise(2))


class _Pid:
    """Asks for the process's id each time, where the kernel wipes nothing."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __getitem__(self, _index: int) -> int:
        return self.pid == os.getpid()


def mark() -> Here:
    """Return a mark of this process: one page of memory that the kernel empties in a forked child."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(MADV_WIPEONFORK)
    except (AttributeError, OSError, ValueError):
        return _Pid()
    page[0] = 1
    return page
