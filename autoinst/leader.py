"""Who leads a home, as anybody may ask: workers before they start an agent, readers before they drain by themselves."""

from __future__ import annotations

import fcntl
import os
from struct import Struct

LOCK_NAME = "drain.lock"
STATE = Struct("<8sIIQQ")  # MAGIC, whether it is an agent, pid, rounds begun, rounds ended
MAGIC = b"AUTOLEAD"
SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Leader:
    """What the lock's holder says of itself; a holder that is no agent drains once and goes.

    `begun` and `ended` are the rounds of all holders so far.
    """

    __slots__ = ("begun", "ended", "is_agent", "pid")

    def __init__(self, pid: int = 0, is_agent: bool = False, begun: int = 0, ended: int = 0) -> None:
        """Take over what was read; without arguments: nobody."""
        self.pid = pid
        self.is_agent = is_agent
        self.begun = begun
        self.ended = ended


def told(home: str) -> Leader:
    """Return what the last holder of the lock said, whether or not it still holds it."""
    try:
        fd = os.open(os.path.join(home, LOCK_NAME), os.O_RDONLY | SAFE)
    except OSError:
        return Leader()
    try:
        return read(fd)
    finally:
        os.close(fd)


def leader(home: str) -> Leader | None:
    """Return who holds the lock of `home`, None where nobody does or this user may not ask."""
    try:
        fd = os.open(os.path.join(home, LOCK_NAME), os.O_RDONLY | SAFE)
    except OSError:
        return None
    try:
        # A shared lock, and only for a moment: whoever wants to lead tries again.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def read(fd: int) -> Leader:
    """Return what the lock file `fd` says."""
    try:
        data = os.pread(fd, STATE.size, 0)
    except OSError:
        return Leader()
    if len(data) != STATE.size:
        return Leader()
    magic, is_agent, pid, begun, ended = STATE.unpack(data)
    return Leader(pid, bool(is_agent), begun, ended) if magic == MAGIC else Leader()
