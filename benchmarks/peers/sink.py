"""A server of ours for what the products send: it answers each as its own would, keeps all, and counts nothing itself.

HTTP on one port, the same within TLS (New Relic's) on another, frames of JSON with their length before them (Scout's)
on a third.
"""

from __future__ import annotations

import gzip
import os
import socket
import socketserver
import ssl
import struct
import subprocess
import tempfile
import threading
import zlib
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from benchmarks.peers.product import Product

ORDER = "/order/"  # what jobs of the real workload ask for


class Seen(NamedTuple):
    """How many jobs arrived one by one, how many more only as a number, and how many as not finished."""

    recorded: int = 0
    counted: int = 0
    unfinished: int = 0


class Posted(NamedTuple):
    """One request: its path with the query, and its body without the compression."""

    path: str
    body: bytes


class Ports(NamedTuple):
    """Where a product is to send: HTTP, HTTP within TLS, frames; and the file with the sink's certificate."""

    http: int
    https: int
    frames: int
    certificate: str = ""

    @property
    def url(self) -> str:
        """Return the address for HTTP."""
        return f"http://127.0.0.1:{self.http}"


class Http(BaseHTTPRequestHandler):
    """Keeps a request and answers it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def answer(self) -> None:
        """Read the body, whatever its form, and answer."""
        body = self._body()
        if self.path.startswith(ORDER):
            said = b'{"price": 7}'
        else:
            self.server.sink.kept.append((self.path, self.headers.get("Content-Encoding", ""), body))
            said = self.server.sink.product.answer(self.path) if self.server.sink.product else b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if said else "application/x-protobuf")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names the base class calls

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Frames(socketserver.StreamRequestHandler):
    """Keeps frames and answers each with an empty object."""

    server: _Server

    def handle(self) -> None:
        """Read until the other end is gone."""
        while len(head := self.rfile.read(4)) == 4:
            self.server.sink.kept.append(("frame", "", self.rfile.read(*struct.unpack(">I", head))))
            self.wfile.write(b"\0\0\0\2{}")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, sink: Sink, handler: type[socketserver.BaseRequestHandler], certificate: str = "") -> None:
        self.sink = sink
        super().__init__(("127.0.0.1", 0), handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate + ".key")
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing: a client that is killed goes without a word."""


class Sink:
    """`with Sink() as sink: ... sink.ports ... sink.posted()`; `product` says what is answered."""

    def __init__(self) -> None:
        self.product: Product | None = None
        self.kept: list[tuple[str, str, bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="peers-sink-")
        certificate = made_certificate(self._folder.name)
        self._servers = [_Server(self, Http), _Server(self, Http, certificate), _Server(self, Frames)]
        self.ports = Ports(*(server.server_address[1] for server in self._servers), certificate)

    def posted(self) -> list[Posted]:
        """Return what was sent, oldest first."""
        return [Posted(path, unpacked(encoding, body)) for path, encoding, body in list(self.kept)]

    def clear(self, product: Product) -> None:
        """Forget what was sent; from now on `product` sends."""
        self.product = product
        self.kept.clear()

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._folder.cleanup()


def made_certificate(folder: str) -> str:
    """Return the path of a certificate for 127.0.0.1, made by openssl; its key is beside it with `.key`."""
    path = os.path.join(folder, "sink.pem")
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=sink", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", *options, *names, "-keyout", path + ".key", "-out", path],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return path


def unpacked(encoding: str, body: bytes) -> bytes:
    """Return `body` without its compression."""
    if encoding == "gzip" or body[:2] == b"\x1f\x8b":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


def refusing() -> Ports:
    """Return ports on which nobody listens."""
    found = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
    return Ports(*found)


class Silent:
    """`with Silent() as ports`: connections are accepted, and nothing is ever read or said."""

    def __enter__(self) -> Ports:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(3)]
        return Ports(*(listening.getsockname()[1] for listening in self._sockets))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for listening in self._sockets:
            listening.close()
