"""Agents that tests start: found by the lock they hold, and gone when the test ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from autoinst.demand import command
from autoinst.leader import leader
from tests.launching import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from autoinst.leader import Leader

DEADLINE = 30.0  # seconds, for what takes a fraction of one


def eventually(what: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until `what()` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class Agents:
    """The agents of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[str]] = []

    def leading(self) -> Leader | None:
        """Return the agent that leads."""
        found = leader(str(self.home))
        return found if found is not None and found.is_agent else None

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Start one in the foreground, a child of the test, and return it when it leads."""
        process = self.launch(**variables)
        eventually(lambda: (found := self.leading()) is not None and found.pid == process.pid)
        return process

    def launch(self, line: list[str] | None = None, /, **variables: str) -> subprocess.Popen[str]:
        """Start one in the foreground without waiting; `line` is the command if it is a special one."""
        process = subprocess.Popen(
            line or command("--foreground"), env=environment(self.home, **variables), stderr=subprocess.PIPE, text=True
        )
        self._started.append(process)
        return process

    def log(self) -> str:
        """Return the daemon's log."""
        path = self.home / "agent.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Kill whatever leads, daemons included, and wait until it is gone."""
        for process in self._started:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        deadline = time.monotonic() + DEADLINE
        quiet = 0
        # A daemon may still be on its way to the lock.
        while quiet < (25 if self.log() or (self.home / "runs").exists() else 1) and time.monotonic() < deadline:
            found = self.leading()
            assert found is None or found.pid != os.getpid(), "the test itself still leads"
            quiet = 0 if found else quiet + 1
            if found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.pid, signal.SIGKILL)
            time.sleep(0.02)
