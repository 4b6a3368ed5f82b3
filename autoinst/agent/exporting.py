"""The exporters' process as the agent has it: started where exporters are on, told of new jobs, started again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from autoinst import config as configuration
from autoinst.export.choice import BUSY_MARK, GRACE_SECONDS, IDLE_MARK, anything
from autoinst.rules.cache import load_cached

if TYPE_CHECKING:
    import logging

LOOK_SECONDS = 10.0  # between two looks whether the settings have changed
RESTART_SECONDS = (1.0, 60.0)  # the first and the longest pause before a child that ended is started again
STEADY_SECONDS = 60.0  # a child that lived so long is started again at once
END_SECONDS = GRACE_SECONDS + 2.0


class Exporting:
    """Keeps one child process while exporters are on."""

    def __init__(self, journal: logging.Logger) -> None:
        """Say what the child says in `journal`; nothing is started yet."""
        self._journal = journal
        self._child: subprocess.Popen[bytes] | None = None
        self._told = ""
        self._rest = b""
        self._busy = False
        self._look_at = 0.0
        self._start_at = 0.0
        self._started = 0.0
        self._pause = RESTART_SECONDS[0]

    @property
    def busy(self) -> bool:
        """Whether there are jobs that can be sent."""
        return self._child is not None and self._busy

    @property
    def descriptor(self) -> int:
        """What is readable when the child has something to say, -1 where there is none."""
        child = self._child
        return -1 if child is None or child.stdout is None else child.stdout.fileno()

    def tend(self, *, new_jobs: bool) -> None:
        """Start, replace or end the child as the settings say, hear it, and tell it of new jobs."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            told = wanted()
            if told != self._told:
                self._told = told
                self.end()
                self._start_at = now
        self._hear()
        if self._child is None and self._told and now >= self._start_at:
            self._start()
        elif new_jobs:
            self._write(b".")

    def end(self) -> None:
        """Let the child send what it can at once, and wait until it is gone."""
        child = self._child
        if child is None:
            return
        assert child.stdin is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._hear()
        self._forget()

    def _start(self) -> None:
        line = [sys.executable, os.path.join(os.path.dirname(configuration.__file__), "export", "__main__.py")]
        try:
            child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:
            self._journal.error("exporters: %s", error)
            self._pause_before_start()
            return
        self._child = child
        self._started = time.monotonic()
        assert child.stdin is not None
        assert child.stdout is not None
        os.set_blocking(child.stdin.fileno(), False)
        os.set_blocking(child.stdout.fileno(), False)

    def _hear(self) -> None:
        child = self._child
        if child is None or child.stdout is None:
            return
        while True:
            try:
                data = os.read(child.stdout.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._say(line.decode("utf-8", "replace"))
        child.wait()
        if child.returncode:
            self._journal.error("exporters: their process ended with status %d", child.returncode)
        self._pause_before_start()
        self._forget()

    def _say(self, line: str) -> None:
        if line in (BUSY_MARK, IDLE_MARK):
            self._busy = line == BUSY_MARK
        elif line:
            self._journal.info("%s", line)

    def _write(self, data: bytes) -> None:
        child = self._child
        if child is None or child.stdin is None:
            return
        # A full pipe has been told often enough; a broken one is noticed when it is heard.
        with contextlib.suppress(OSError):
            os.write(child.stdin.fileno(), data)

    def _pause_before_start(self) -> None:
        now = time.monotonic()
        if self._started and now - self._started > STEADY_SECONDS:
            self._pause = RESTART_SECONDS[0]
        self._start_at = now + self._pause
        self._pause = min(self._pause * 2, RESTART_SECONDS[1])

    def _forget(self) -> None:
        child, self._child = self._child, None
        self._busy = False
        self._rest = b""
        for stream in (child.stdin, child.stdout) if child is not None else ():
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def wanted() -> str:
    """Return what names the exporters that are on and their settings, nothing where none is."""
    return anything(os.environ, load_cached(configuration.from_environ()).settings)
