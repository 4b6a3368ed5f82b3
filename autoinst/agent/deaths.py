"""Why a process died, as far as the kernel tells: the OOM killer's count of its cgroup, and the kernel's log."""

from __future__ import annotations

import contextlib
import os
import re

KMSG = "/dev/kmsg"
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # its inode number: PROC_PID_INIT_INO in Linux, include/linux/proc_ns.h
CGROUP_ROOT = "/sys/fs/cgroup"
_OOM = re.compile(rb"Killed process (\d+)")
_FAULT = re.compile(rb"\[(\d+)\]:? (?:segfault at|general protection|trap )")
_COUNT = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_RECORD_BYTES = 8192


class Deaths:
    """Watches the cgroups of living processes, so that a rise of their OOM count can explain a death."""

    def __init__(self, cgroup_root: str = CGROUP_ROOT, kmsg: str = KMSG) -> None:
        """Look under `cgroup_root` and in `kmsg`."""
        self._root = cgroup_root
        self._kmsg = kmsg
        self._log: int | None = None
        self._counts: dict[str, int] = {}
        self._told: dict[int, tuple[float, str]] = {}

    def close(self) -> None:
        """Close the kernel's log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def watch(self, cgroup: str) -> None:
        """Remember how many OOM kills the cgroup of a living process has had; `cgroup` as in /proc/PID/cgroup."""
        if cgroup not in self._counts:
            count = self._oom_kills(cgroup)
            if count is not None:
                self._counts[cgroup] = count

    def cause(self, pid: int | None, start_time: int, cgroup: str | None) -> str | None:
        """Return "oom" or a signal's name for a process that died, None if nothing is told.

        `pid` is None where it is not the first pid namespace's.
        `start_time` are clock ticks after boot: what the log says of an earlier process with that pid is not meant.
        """
        if pid is not None:
            self._read_log()
        told = None if pid is None else self._told.get(pid)
        if told is not None and told[0] >= start_time / os.sysconf("SC_CLK_TCK") - 1:
            return told[1]
        before = self._counts.get(cgroup) if cgroup else None
        if cgroup and before is not None:
            now = self._oom_kills(cgroup)
            if now is not None and now > before:
                self._counts[cgroup] = before + 1  # each kill explains one death
                return "oom"
        return None

    def _oom_kills(self, cgroup: str) -> int | None:
        for line in cgroup.splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":") if number.isdigit() else ("", "", line)
            path = os.path.normpath("/" + path)
            if "memory" in controllers.split(","):
                places = [f"/memory{path}/memory.oom_control"]
            else:
                places = [f"{path}/memory.events", f"/unified{path}/memory.events"]
            for place in places:
                with contextlib.suppress(OSError), open(self._root + place, "rb") as file:
                    found = _COUNT.search(file.read())
                    if found:
                        return int(found[1])
        return None

    def _read_log(self) -> None:
        try:
            if self._log is None:
                self._log = os.open(self._kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # not for this user
            return
        while True:
            try:
                data = os.read(self._log, _RECORD_BYTES)
            except BrokenPipeError:  # what came next was overwritten; the read after this goes on behind it
                continue
            except OSError:  # EAGAIN: read to its end
                return
            if not data:
                return
            self._note(data)

    def _note(self, data: bytes) -> None:
        fields, _, message = data.partition(b";")
        parts = fields.split(b",")
        with contextlib.suppress(IndexError, ValueError):
            at = int(parts[2]) / 1e6
            for pattern, cause in ((_OOM, "oom"), (_FAULT, "SIGSEGV")):
                found = pattern.search(message)
                if found:
                    self._told[int(found[1])] = at, cause
