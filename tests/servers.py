"""Servers for tests, each on a free loopback port of its own and gone when the test is over."""

from __future__ import annotations

import gzip
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

START_SECONDS = 20.0
TRIES = 5
GZIP = b"\x1f\x8b"


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


class Sink:
    """An HTTP server that keeps what is posted to it: `with Sink() as sink: ... sink.url, sink.posted`.

    Every request is answered with 200 and an empty JSON object.
    """

    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes]] = []  # path, body (unpacked)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = sink.read(self)
                sink.posted.append((self.path, gzip.decompress(body) if body[:2] == GZIP else body))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names the base class calls

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Return the address, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def sent(self, path: str) -> bytes:
        """Return all that was posted to paths which begin with `path`."""
        return b"".join(body for where, body in self.posted if where.startswith(path))

    @staticmethod
    def read(handler: BaseHTTPRequestHandler) -> bytes:
        """Return a request's body, sent whole or in chunks."""
        if handler.headers.get("Transfer-Encoding") != "chunked":
            return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body = b""
        while size := int(handler.rfile.readline(), 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body

    def __enter__(self) -> Sink:  # noqa: PYI034 - Self is not in typing before 3.11
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def free_port() -> int:
    """Return a loopback port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
