"""How much the spool of a home may take: beyond it no arena is made, however many processes no reader comes by for."""

from __future__ import annotations

import os
import time

SMALL = 32 * 1024  # a first arena's slots, and less
SAMPLES = 256  # arenas whose size is asked for; more are reckoned from these
LARGE_FOLDER = 262_144  # bytes of a folder itself, some thousand files: to list it takes milliseconds,
LOOKERS = 16  # so one process in so many looks, and the others heed the mark it leaves for so long
MARK_SECONDS = 2.0
FULL_NAME = "full"  # of the mark, in the spool, that says since when and until when arenas were refused


class SpoolFullError(Exception):
    """The spool has no room for another arena."""


def check(folder: str, wanted: int, limit: int) -> None:
    """Raise SpoolFullError, and leave a mark for `doctor`, if `wanted` bytes more in `folder` would exceed `limit`.

    A limit of 0 is none.
    """
    if not limit:
        return
    if wanted <= SMALL and os.stat(folder).st_size > LARGE_FOLDER and os.getpid() % LOOKERS:
        if _marked(folder):
            raise SpoolFullError(f"{folder} was full a moment ago")
        return
    taken = used(folder)
    if taken + wanted <= limit:
        return
    _mark(folder)
    raise SpoolFullError(f"{folder} takes {taken} of {limit} bytes")


def _marked(folder: str) -> bool:
    try:
        return abs(time.time() - os.stat(os.path.join(folder, FULL_NAME)).st_mtime) < MARK_SECONDS
    except OSError:
        return False


def _mark(folder: str) -> None:
    try:
        fd = os.open(os.path.join(folder, FULL_NAME), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.utime(fd)
        os.close(fd)
    except OSError:  # then the error says it alone
        return


def used(folder: str) -> int:
    """Return how many bytes the arenas in `folder` take: exactly while they are few."""
    names = [name for name in os.listdir(folder) if name.endswith(".arena")]
    step = len(names) // SAMPLES + 1
    total = asked = 0
    for name in names[::step]:
        try:
            total += os.stat(os.path.join(folder, name)).st_size
        except OSError:  # drained and gone meanwhile
            continue
        asked += 1
    return total * len(names) // asked if asked else 0
