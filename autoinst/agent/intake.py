"""The spool folder as its one reader sees it: which arenas there are, what is new in them, what cannot be read."""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import resource
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoinst.agent import tally
from autoinst.agent.reserve import Reserve
from autoinst.config import make_folder
from autoinst.errors import HomeError, SpoolError
from autoinst.spool.header import NewerArenaError, open_private
from autoinst.spool.owner import ARENA_NAME, Life, is_own, lease_held
from autoinst.spool.reader import Arena
from autoinst.spool.tally import NAME

if TYPE_CHECKING:
    from autoinst.agent.deaths import Deaths
    from autoinst.agent.reserve import Claimed
    from autoinst.spool.owner import Judge, Verdict
    from autoinst.spool.reader import Done, InFlight

QUARANTINE_NAME = "quarantine"
ARENA_LIMIT = 4096  # records taken from one arena at a time
OPEN_LIMIT = 2_000  # arenas kept mapped: each takes up to two descriptors, and to open one takes 80 us
LIVELY_SECONDS = 2.0  # how long after something new in an arena more is expected
LEFTOVER_SECONDS = 60  # age at which an arena whose making was cut short is removed
# What a file that can never become an arena makes open(2) or mmap(2) say; anything else may pass.
_HOPELESS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV})


@dataclass(slots=True)
class Source:
    """One arena file, and what this leader remembers of it between steps.

    `process` is its process's number in the store, `alive_ns` when its owner was last seen to live (ns since the
    epoch), `written_ns` when the file was last written before this leader touched it,
    `seen_whole` whether all that was finished when this leader came is stored and its slots are free again,
    `lively_until` until when more is expected (CLOCK_MONOTONIC, s).
    """

    path: str
    arena: Arena | None = None
    process: int | None = None
    alive_ns: int | None = None
    written_ns: int | None = None
    sequence: int = -1
    overflow: bytes = b""
    cgroup: str | None = None
    seen_whole: bool = False
    lively_until: float = 0.0

    def close(self) -> None:
        """Unmap the arena; it is opened again when needed."""
        if self.arena is not None:
            self.arena.close()
            self.arena = None

    def forget_store(self) -> None:
        """Make everything the arena tells count as new, for a store that knows nothing of it."""
        self.process, self.sequence, self.overflow = None, -1, b""


@dataclass(slots=True)
class Taken:
    """What was read of one arena and is to be stored; `last`: its owner is dead, and nothing is left beside this."""

    source: Source
    arena: Arena
    verdict: Verdict
    done: Done
    flights: list[InFlight] = field(default_factory=list)
    overflow: bytes | None = None
    sequence: int | None = None
    status: dict[str, Any] | None = None
    last: bool = False


class Intake:
    """Reads the arenas of a spool folder. `problems` are texts for `doctor`, to be taken away once stored."""

    def __init__(self, spool: str, judge: Judge, deaths: Deaths) -> None:
        """Read the folder `spool`."""
        self.spool = spool
        self.judge = judge
        self.sources: dict[str, Source] = {}
        self.problems: list[str] = []
        self.quarantined = 0
        self._deaths = deaths
        # Of a process's descriptors half may be arenas'.
        self._open_limit = min(OPEN_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._kept: set[str] | None = None  # the arenas that stay open, None for all
        self._skipped: set[str] = set()
        self._scanned = -1  # when the folder was changed last, at the last scan (ns since the epoch)
        self._tally: tuple[bytes, int] | None = None  # uid and checksum of what is stored of it
        self.reserve = Reserve(os.path.dirname(spool))

    def close(self) -> None:
        """Unmap all arenas and forget them."""
        for source in self.sources.values():
            source.close()
        self.sources.clear()

    def scan(self) -> None:
        """Look which arenas there are; raises HomeError if the folder cannot be listed."""
        found = set()
        self._scanned = self._changed_ns()  # before it is listed
        try:
            with os.scandir(self.spool) as entries:
                for entry in entries:
                    if entry.name.endswith(".new"):
                        _remove_leftover(entry)
                    elif entry.name.endswith(".arena"):
                        found.add(entry.path)
        except OSError as error:
            raise HomeError(f"{self.spool}: {error.strerror}") from error
        for path in self.sources.keys() - found:
            self.drop(path)
        self._skipped &= found
        for path in sorted(found - self.sources.keys() - self._skipped):
            if not ARENA_NAME.fullmatch(os.path.basename(path)):
                self.put_aside(path, f"{path}: no arena has such a name")
            elif is_own(path):
                self._skipped.add(path)
            else:
                self.sources[path] = Source(path, lively_until=time.monotonic() + LIVELY_SECONDS)
        self._choose_kept()

    def _choose_kept(self) -> None:
        """Keep the arenas open in which something was new last, as many as may be; close the others."""
        self._kept = None
        if len(self.sources) > self._open_limit:
            last = heapq.nlargest(self._open_limit, self.sources.values(), key=lambda source: source.lively_until)
            self._kept = {source.path for source in last}
            for path in self.sources.keys() - self._kept:
                self.sources[path].close()

    def has_changed(self) -> bool:
        """Return whether arenas have come or gone since the last scan, but for one in its very clock tick."""
        return self._changed_ns() != self._scanned

    def _changed_ns(self) -> int:
        try:
            return os.stat(self.spool).st_mtime_ns
        except OSError:
            return -1

    def lively(self) -> list[Source]:
        """Return the arenas in which something was new lately, or that are new."""
        now = time.monotonic()
        return [source for source in self.sources.values() if source.lively_until > now]

    def uids(self) -> set[bytes]:
        """Return the uids of all arenas, as their names say them."""
        names = (ARENA_NAME.fullmatch(os.path.basename(path)) for path in (*self.sources, *self._skipped))
        found = {bytes.fromhex(name[2]) for name in names if name}
        return found | self.reserve.uids() | ({self._tally[0]} if self._tally else set())

    def drop(self, path: str) -> None:
        """Forget an arena that is gone."""
        source = self.sources.pop(path, None)
        if source is not None:
            source.close()
        name = ARENA_NAME.fullmatch(os.path.basename(path))
        if name:
            self.judge.suspects.pop(bytes.fromhex(name[2]), None)

    def take(self, source: Source) -> Taken | None:
        """Judge an arena's owner and read what is new; None if that is nothing."""
        arena = self._open(source)
        if arena is None:
            return None
        verdict = self.judge.judge(arena)  # before the last read, so that nothing can be added after it
        if verdict.life is Life.ALIVE:
            self._note_alive(source, arena)
        taken = Taken(source, arena, verdict, arena.done(ARENA_LIMIT))
        taken.last = verdict.life is Life.DEAD and not taken.done.more
        if taken.last:
            taken.flights = arena.running()
        overflow = arena.overflow_bytes()
        if overflow != source.overflow:
            taken.overflow = overflow
        sequence = arena.status_sequence()
        if sequence != source.sequence:
            taken.status = arena.status()
            taken.sequence = sequence
        worth = taken.done.slots or taken.last or taken.overflow is not None or taken.status is not None
        if worth or source.process is None:
            return taken
        self.spare(source)
        return None

    def spare(self, source: Source) -> None:
        """Close an arena that is read to its end, unless it is one of those that stay open."""
        if self._kept is not None and source.path not in self._kept:
            source.close()

    def take_tally(self) -> tally.Told | None:
        """Return what the processes without arenas have counted, if that is new; `tallied` follows."""
        path = os.path.join(self.spool, NAME)
        for name in (path + tally.TAKEN, path):  # the first was left by a leader that was killed
            try:
                told = tally.read(name, self._tally[1] if self._tally else None)
            except SpoolError as error:
                self.put_aside(name, str(error))
            except OSError as error:
                self.problems.append(f"{name}: {error.strerror}")
            else:
                if told is not None or os.path.lexists(path + tally.TAKEN):
                    return told
        return None

    def take_reserve(self) -> list[Claimed]:
        """Return what processes have counted in the reserve, if that is new; `reserve.stored` or `.close` follows."""
        try:
            return self.reserve.take()
        except SpoolError as error:
            self.put_aside(self.reserve.path, str(error))
        except OSError as error:
            self.problems.append(f"{self.reserve.path}: {error.strerror}")
        return []

    def tallied(self, told: tally.Told) -> None:
        """Note that what the tally said is stored, and remove it where nobody counts in it any more."""
        told.close(remove=True)
        self._tally = None if told.last else (told.uid, told.checksum)

    def forget_store(self) -> None:
        """Make everything count as new, for a store that knows nothing of it."""
        for source in self.sources.values():
            source.forget_store()
        self._tally = None
        self.reserve.forget_store()

    def _open(self, source: Source) -> Arena | None:
        path = source.path
        try:
            if source.arena is None:
                source.arena = Arena.open(path, writable=True)
                if source.written_ns is None:
                    source.written_ns = os.fstat(source.arena.fd).st_mtime_ns
            if not source.arena.intact():
                raise SpoolError(f"{path}: cut short since it was opened")  # noqa: TRY301
        except NewerArenaError as error:  # its owner's own autoinst will read it
            self.drop(path)
            self._skipped.add(path)
            self.problems.append(str(error))
        except SpoolError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError):
                self.drop(path)
            elif not isinstance(cause, OSError) or cause.errno in _HOPELESS:
                self.put_aside(path, str(error))
            # Else it is we who lack descriptors, memory or rights: the next step tries again.
        else:
            return source.arena
        return None

    def _note_alive(self, source: Source, arena: Arena) -> None:
        source.alive_ns = time.time_ns()
        if source.cgroup is None:
            source.cgroup = self._cgroup(arena)
            if source.cgroup:
                self._deaths.watch(source.cgroup)

    def _cgroup(self, arena: Arena) -> str:
        """Return the cgroups of a living process as /proc has them, else the one it told of."""
        if arena.header.pid_namespace == self.judge.machine.pid_namespace:
            with contextlib.suppress(OSError), open(f"/proc/{arena.header.pid}/cgroup", encoding="utf-8") as file:
                return file.read()
        told = arena.description().get("cgroup")
        return told if isinstance(told, str) else ""

    def put_aside(self, path: str, reason: str) -> None:
        """Move an unreadable file to the quarantine folder, with a file beside it that says why."""
        self.drop(path)
        folder = os.path.join(self.spool, QUARANTINE_NAME)
        target = os.path.join(folder, os.path.basename(path))
        try:
            make_folder(folder)
            with open(target + ".reason", "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(reason + "\n")
            os.rename(path, target)
        except FileNotFoundError:
            return
        except (OSError, HomeError) as error:
            self._skipped.add(path)
            reason = f"{reason} (and it cannot be moved away: {error})"
        self.quarantined += 1
        self.problems.append(reason)


def _remove_leftover(entry: os.DirEntry[str]) -> None:
    """Remove an arena whose owner died while making it: it never held a job."""
    with contextlib.suppress(OSError, SpoolError):
        if time.time() - entry.stat(follow_symlinks=False).st_mtime < LEFTOVER_SECONDS or is_own(entry.path):
            return
        fd = open_private(entry.path)
        try:
            if lease_held(fd) is False:
                os.unlink(entry.path)
        finally:
            os.close(fd)
