"""Whether the process that owns an arena is dead. A live one is never said to be dead; doubt counts as alive.

A free lease is only a suspicion: python-daemon closes every descriptor, and a program that opens and closes its own
arena drops the lease. What is needed beside it depends on where the owner runs, seen from here.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import re
import signal
import struct
import sys
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

from autoinst.spool import process

if TYPE_CHECKING:
    from autoinst.spool.reader import Arena

ARENA_NAME = re.compile(r"(\d{1,10})-([0-9a-f]{16})\.arena")
QUIET_NS = 30 * 1_000_000_000  # how long another pid namespace's arena must not change
UNKNOWN_ID = bytes(16)
START_TIME, EXIT_CODE = 19, 49  # fields of /proc/PID/stat counted from its state, the third

# struct flock: Linux puts type and whence first, the BSDs and macOS last (native alignment in both).
_FLOCK_LINUX = struct.Struct("hhqqi")
_FLOCK_BSD = struct.Struct("qqihh")


class Life(enum.Enum):
    """What is known of an arena's owner."""

    ALIVE = "alive"
    DEAD = "dead"
    SUSPECT = "suspect"  # the lease is free in another pid namespace, but not for long enough
    FOREIGN = "foreign"  # another machine's: not to be judged from here


class Verdict(NamedTuple):
    """A judgement and why; `signal` is the name of the one that killed the owner, where it is known.

    `how` names an end that is no signal ("restart", "exec").
    """

    life: Life
    reason: str
    signal: str | None = None
    how: str | None = None


class Machine(NamedTuple):
    """Where a process runs, as arena headers say it."""

    boot_id: bytes
    machine_id: bytes
    pid_namespace: int

    @classmethod
    def current(cls) -> Machine:
        """Return where this process runs."""
        return cls(process.boot_id(), process.machine_id(), process.pid_namespace())


class Suspicion(NamedTuple):
    """The checksum of an arena whose lease is free, and since when (CLOCK_MONOTONIC, ns) it has been the same."""

    checksum: int
    since_ns: int


class Judge:
    """Judges arenas' owners; remembers in `suspects` (by arena uid) those that need a second look."""

    def __init__(self, machine: Machine | None = None, *, local: bool = True) -> None:
        """Judge as from `machine` (None: this one); `local`: no other kernel can have the spool mounted."""
        self.machine = machine or Machine.current()
        self.local = local
        self.suspects: dict[bytes, Suspicion] = {}

    def judge(self, arena: Arena) -> Verdict:
        """Return whether the owner of `arena` (opened from a file, not this process's own) still lives."""
        header, here = arena.header, self.machine
        held = lease_held(arena.fd)
        if held is None:
            return Verdict(Life.FOREIGN, "the file system keeps no locks")
        if held:
            self.suspects.pop(arena.uid, None)
            return Verdict(Life.ALIVE, "holds its lease")
        if header.boot_id != here.boot_id or here.boot_id == UNKNOWN_ID:
            return self._other_boot(header.machine_id)
        if header.pid_namespace != here.pid_namespace or header.machine_id != here.machine_id:
            return self._other_namespace(arena)
        return judge_process(header.pid, header.start_time, arena)

    def _other_boot(self, machine_id: bytes) -> Verdict:
        if machine_id != self.machine.machine_id:
            return Verdict(Life.FOREIGN, "another machine's")
        if machine_id == UNKNOWN_ID and not self.local:
            return Verdict(Life.FOREIGN, "which machine it is on is unknown")
        return Verdict(Life.DEAD, "the machine was restarted", how="restart")

    def _other_namespace(self, arena: Arena) -> Verdict:
        # The same boot id is the same kernel, so the lease can be trusted as far as it goes.
        now = time.monotonic_ns()
        checksum = zlib.crc32(arena.mm)
        before = self.suspects.get(arena.uid)
        if before is None or before.checksum != checksum or before.since_ns > now:
            self.suspects[arena.uid] = Suspicion(checksum, now)
            return Verdict(Life.SUSPECT, "lease free, in another pid namespace")
        if now - before.since_ns < QUIET_NS:
            return Verdict(Life.SUSPECT, "lease free, in another pid namespace")
        return Verdict(Life.DEAD, "lease free and no change, in another pid namespace")


def lease_held(fd: int) -> bool | None:
    """Return whether another process holds the lease on `fd`; None where the file system cannot tell.

    Only asks (F_GETLK): a reader never holds the lease itself, not even for a moment.
    """
    if sys.platform == "linux":
        question = _FLOCK_LINUX.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    else:
        question = _FLOCK_BSD.pack(0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, question)
    except OSError:
        return None
    kind = _FLOCK_LINUX.unpack(answer)[0] if sys.platform == "linux" else _FLOCK_BSD.unpack(answer)[3]
    return bool(kind != fcntl.F_UNLCK)


def judge_process(pid: int, start_time: int, arena: Arena) -> Verdict:
    """Judge process `pid` of this pid namespace, started `start_time` ticks after boot, by /proc alone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            fields = file.read(4096).rsplit(b")", 1)[1].split()
        state, started, exit_code = (
            fields[0],
            int(fields[START_TIME]),
            int(fields[EXIT_CODE]) if len(fields) > EXIT_CODE else 0,
        )
    except (FileNotFoundError, ProcessLookupError):
        return _missing(pid)
    except (OSError, IndexError, ValueError) as error:
        return Verdict(Life.ALIVE, f"/proc/{pid}/stat: {error}")
    if start_time and started != start_time:
        return Verdict(Life.DEAD, "its pid is another process's now")
    if state in b"ZXx":
        if _has_live_thread(pid):
            return Verdict(Life.ALIVE, "only its main thread has ended")
        return Verdict(Life.DEAD, "it is a zombie", signal_name(exit_code & 0x7F))
    return _still_maps(pid, arena)


def _missing(pid: int) -> Verdict:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Verdict(Life.DEAD, "its process is gone")
    except (OSError, OverflowError):
        pass
    return Verdict(Life.ALIVE, "/proc hides its process")


def _has_live_thread(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/task/{task}/stat", "rb", 0) as file:
                if file.read(4096).rsplit(b")", 1)[1].split()[0] not in b"ZXx":
                    return True
    return False


def _still_maps(pid: int, arena: Arena) -> Verdict:
    """Judge by the mapping: a process that exec'ed another program keeps pid and start time, but not that."""
    name = os.fsencode(os.path.basename(arena.path))
    inode = str(os.fstat(arena.fd).st_ino).encode()
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            for line in file:
                if name in line or line.split(None, 5)[4] == inode:
                    return Verdict(Life.ALIVE, "lost its lease but maps the arena")
    except (FileNotFoundError, ProcessLookupError):
        return Verdict(Life.DEAD, "its process is gone")
    except (OSError, IndexError) as error:
        return Verdict(Life.ALIVE, f"/proc/{pid}/maps: {error}")
    return Verdict(Life.DEAD, "its process runs another program now", how="exec")


def signal_name(number: int) -> str | None:
    """Return "SIGKILL" for 9; None for 0 and what is no signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def is_own(path: str) -> bool:
    """Return whether `path` is an arena of this very process, which must not open it: closing drops its lease.

    The pid in the name settles it, but for processes of other pid namespaces with the same number.
    """
    found = ARENA_NAME.fullmatch(os.path.basename(path).removesuffix(".new"))
    if found is None or int(found[1]) != os.getpid():
        return False
    try:
        wanted = os.lstat(path)
        names = os.listdir("/proc/self/fd")
    except OSError:
        return True
    for name in names:
        with contextlib.suppress(OSError):
            held = os.stat(f"/proc/self/fd/{name}")
            if (held.st_dev, held.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False
