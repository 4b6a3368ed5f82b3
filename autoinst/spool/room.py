"""How much the spool of a home may take: beyond it no arena is made, however many processes no reader comes by for."""

from __future__ import annotations

import os

SAMPLES = 256  # arenas whose size is asked for; more are reckoned from these
FULL_NAME = "full"  # of the mark, in the spool, that says since when and until when arenas were refused


class SpoolFullError(Exception):
    """The spool has no room for another arena."""


def check(folder: str, wanted: int, limit: int) -> None:
    """Raise SpoolFullError, and leave a mark for `doctor`, if `wanted` bytes more in `folder` would exceed `limit`.

    A limit of 0 is none.
    """
    if not limit:
        return
    taken = used(folder)
    if taken + wanted <= limit:
        return
    try:
        fd = os.open(os.path.join(folder, FULL_NAME), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.utime(fd)
        os.close(fd)
    except OSError:  # then the error says it alone
        pass
    raise SpoolFullError(f"{folder} takes {taken} of {limit} bytes")


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
