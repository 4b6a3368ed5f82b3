"""Servers for tests, each on a free loopback port of its own and gone when the test is over."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

START_SECONDS = 20.0
TRIES = 5


class Redis:
    """A Redis server without persistence: `with Redis() as redis: ... redis.url`."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """Return the address clients take."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Redis:  # noqa: PYI034 - Self is not in typing before 3.11
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is missing; `make test` installs it, or: apt-get install redis-server")
        self._folder = tempfile.TemporaryDirectory(prefix="autoinst-redis-")
        for _ in range(TRIES):
            self.port = free_port()
            options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
            self._process = subprocess.Popen(
                [program, *options, "--dir", self._folder.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if self._answers():
                return self
            self._stop()
        self._folder.cleanup()
        raise RuntimeError("redis-server does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        if self._folder is not None:
            self._folder.cleanup()

    def _answers(self) -> bool:
        """Whether this very process answers a PING in time (another one may have taken the port before it)."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(7) == b"+PONG\r\n":
                        return True
            except OSError:
                time.sleep(0.02)
        return False

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """Return a loopback port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
