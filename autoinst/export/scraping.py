"""Serves `/metrics` to who asks, and writes them to a file for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import socketserver
import stat
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from autoinst.errors import AutoinstError, StoreError
from autoinst.export.answers import OK, Answer, Verdict
from autoinst.export.exposition import OPENMETRICS, TEXT, render, wants_openmetrics
from autoinst.export.feed import Service
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    import logging

    from autoinst.export.prometheus import Prometheus

UNIX = "unix:"
RETRY_SECONDS = 5.0  # until an address that is taken is tried again
REQUEST_SECONDS = 10.0  # for a request in all
CONCURRENT = 8  # requests at once
PATHS = ("/metrics", "/")
FILE_MODE = 0o644  # another user's node_exporter reads it


class Scraped(Service):
    """Listens at an address, `host:port` or `unix:path`."""

    name = "prometheus/listen"

    def __init__(self, maker: Prometheus, listen: str) -> None:
        self.place = listen if listen.startswith(UNIX) else f"http://{listen}/metrics"
        self._maker = maker
        self._listen = listen

    def run(self, store: str, journal: logging.Logger, stop: threading.Event) -> None:
        """Serve until `stop`; an address that is taken is tried again."""
        said = ""
        while not stop.is_set():
            try:
                server = _Server(self._listen, self._maker, store)
            except OSError as error:
                text = f"{self.name}: cannot listen at {self._listen}: {error.strerror or error}; trying again"
                if text != said:
                    journal.error("%s", text)
                said = text
                stop.wait(RETRY_SECONDS)
                continue
            journal.info("%s: at %s", self.name, self.place)
            thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
            thread.start()
            stop.wait()
            server.shutdown()
            server.server_close()

    def test(self) -> Answer:
        """Ask for the metrics, as Prometheus does."""
        connection = _connection(self._listen)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            size = len(response.read())
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or error
            text = f"nobody listens there ({reason}): it is the agent that does, while it lives"
            return Answer(Verdict.LATER, text)
        text = f"answered {response.status} with {size} bytes"
        return Answer(Verdict.ACCEPTED if response.status == OK else Verdict.WRONG, text)


class Textfile(Service):
    """Writes the metrics to a file every `interval` seconds, whole or not at all."""

    name = "prometheus/textfile"

    def __init__(self, maker: Prometheus, path: str, interval: float) -> None:
        self.place = path
        self._maker = maker
        self._interval = interval

    def run(self, store: str, journal: logging.Logger, stop: threading.Event) -> None:
        """Write until `stop`."""
        said = ""
        while True:
            text = ""
            try:
                self.once(store)
            except (AutoinstError, OSError) as error:
                text = f"{self.name}: {self.place}: {getattr(error, 'strerror', None) or error}; trying again"
            if text and text != said:
                journal.error("%s", text)
            said = text
            if stop.wait(self._interval):
                return

    def once(self, store: str) -> str:
        """Write once; raises StoreError, OSError."""
        data = _metrics(self._maker, store, openmetrics=False)
        # Its name must not end in .prom, or the collector would read it half written.
        unfinished = f"{self.place}.{os.getpid()}.tmp"
        try:
            fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            with open(fd, "wb") as file:
                os.fchmod(fd, FILE_MODE)
                file.write(data)
            os.replace(unfinished, self.place)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
        return f"{self.name}: {len(data)} bytes written to {self.place}"

    def test(self) -> Answer:
        """Say whether the file could be written, without writing to it."""
        folder = os.path.dirname(os.path.abspath(self.place))
        try:
            is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
        except OSError as error:
            return Answer(Verdict.WRONG, f"{folder}: {error.strerror}")
        if not is_folder or not os.access(folder, os.W_OK):
            return Answer(Verdict.WRONG, f"{folder} is no folder that can be written")
        if not self.place.endswith(".prom"):
            return Answer(Verdict.WRONG, "node_exporter reads only files whose name ends in .prom")
        return Answer(Verdict.ACCEPTED, "the folder can be written")


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, listen: str, maker: Prometheus, store: str) -> None:
        self.maker = maker
        self.store_path = store
        self.room = threading.BoundedSemaphore(CONCURRENT)
        self.unix = ""
        address: Any = listen.removeprefix(UNIX)
        if listen.startswith(UNIX):
            self.address_family = socket.AF_UNIX
            self.allow_reuse_address = False
            _remove_dead(address)
            self.unix = address
        else:
            host, _, port = listen.rpartition(":")
            self.address_family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
            address = (host.strip("[]"), int(port))
        super().__init__(address, _Handler)

    def server_close(self) -> None:
        """Close the socket, and remove its file."""
        super().server_close()
        if self.unix:
            with contextlib.suppress(OSError):
                os.unlink(self.unix)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of who breaks off."""


def _remove_dead(path: str) -> None:
    """Remove a socket's file that nobody listens at; raises OSError where somebody does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(17, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(98, "somebody listens there already")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS

    def handle(self) -> None:
        """Answer one request, however slowly it comes, within its time."""
        if not self.server.room.acquire(blocking=False):
            self.wfile.write(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n")
            return
        timer = threading.Timer(REQUEST_SECONDS, self._end)
        timer.daemon = True
        timer.start()
        try:
            super().handle()
        finally:
            timer.cancel()
            self.server.room.release()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Answer with the metrics."""
        openmetrics = wants_openmetrics(self.headers.get("Accept", ""))
        if self.path.partition("?")[0] not in PATHS:
            self._answer(404, "text/plain; charset=utf-8", b"the metrics are at /metrics\n")
            return
        try:
            data = _metrics(self.server.maker, self.server.store_path, openmetrics=openmetrics)
        except StoreError as error:
            self._answer(503, "text/plain; charset=utf-8", f"{error}\n".encode())
            return
        self._answer(OK, OPENMETRICS if openmetrics else TEXT, data)

    do_HEAD = do_GET  # noqa: N815 - the name the base class calls

    def _answer(self, status: int, content_type: str, data: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def _metrics(maker: Prometheus, path: str, *, openmetrics: bool) -> bytes:
    """Return the metrics of the store `path`, none where there is no store yet; raises StoreError."""
    if not os.path.exists(path):
        return render([], openmetrics=openmetrics)
    with Store(path, readonly=True) as store:
        return render(maker.families(store), openmetrics=openmetrics)


def _connection(listen: str) -> http.client.HTTPConnection:
    if not listen.startswith(UNIX):
        return http.client.HTTPConnection(listen, timeout=REQUEST_SECONDS)
    connection = http.client.HTTPConnection("localhost", timeout=REQUEST_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(REQUEST_SECONDS)
    with contextlib.suppress(OSError):  # told when it is asked
        connection.sock.connect(listen.removeprefix(UNIX))
    return connection
