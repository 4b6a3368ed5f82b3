"""Who leads a home: the drain's lock, and in it how often its holders have looked, so that others can wait for a look.

The lock is the kernel's, so it is free the moment its holder is dead. The rounds are counted on from one holder to the
next: a reader that saw N rounds begun has everything that was finished by then once more than N have ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from stat import S_ISFIFO

from autoinst.config import share_file
from autoinst.errors import HomeError
from autoinst.leader import LOCK_NAME, MAGIC, SAFE, STATE, read

WAKE_NAME = "agent.wake"
POLL_SECONDS = 0.01


class Lead:
    """The lock of one home, held or not."""

    def __init__(self, home: str, *, is_agent: bool = False) -> None:
        """Be ready to lead `home`; nothing is opened yet."""
        self.home = home
        self.path = os.path.join(home, LOCK_NAME)
        self._is_agent = is_agent
        self._fd = -1
        self._begun = self._ended = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd >= 0

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        """Try for up to `wait_seconds` to take the lock; return whether it is held. Raises HomeError."""
        if self.held:
            return True
        self._fd = _lock(self.path, wait_seconds)
        if not self.held:
            return False
        self._begun = self._ended = read(self._fd).begun
        self._tell()
        return True

    def release(self) -> None:
        """Let another process lead."""
        if self.held:
            os.close(self._fd)
            self._fd = -1

    def in_place(self) -> bool:
        """Return whether the lock held is still the home's: a home that was removed may have been made anew."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        held = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def begin_round(self) -> None:
        """Say that a look at all arenas begins."""
        self._begun += 1
        self._tell()

    def end_round(self) -> None:
        """Say that all that was finished when the round began is stored."""
        self._ended = self._begun
        self._tell()

    def _tell(self) -> None:
        # On a full disk nobody hears of it, and whoever asks waits for nothing.
        try:
            os.pwrite(self._fd, STATE.pack(MAGIC, self._is_agent, os.getpid(), self._begun, self._ended), 0)
        except OSError:
            return


def wake(home: str) -> None:
    """Have an agent that sleeps look now."""
    try:
        fd = os.open(os.path.join(home, WAKE_NAME), os.O_WRONLY | SAFE)
    except OSError:  # none sleeps
        return
    try:
        if S_ISFIFO(os.fstat(fd).st_mode):
            os.write(fd, b".")
    except OSError:  # full: it has been asked often enough
        return
    finally:
        os.close(fd)


def open_wake(home: str) -> int:
    """Return the descriptor an agent sleeps on, which is readable when `wake` was called; -1 where there is none."""
    path = os.path.join(home, WAKE_NAME)
    fd = -1
    try:
        if not os.path.lexists(path):
            os.mkfifo(path, 0o600)
        fd = os.open(path, os.O_RDWR | SAFE)
        if S_ISFIFO(os.fstat(fd).st_mode):
            return fd
    except OSError:  # it then looks as often as it would without being asked
        pass
    if fd >= 0:
        os.close(fd)
    return -1


def _lock(path: str, wait_seconds: float) -> int:
    """Return a descriptor that holds the lock `path`, -1 if another process keeps it for `wait_seconds`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror}") from error
    share_file(fd, os.path.dirname(path))
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return -1
            time.sleep(POLL_SECONDS)
        except OSError as error:
            os.close(fd)
            raise HomeError(f"{path}: {error.strerror}") from error
        else:
            return fd
