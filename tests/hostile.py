"""A receiver of JSON, or of anything, that misbehaves as told, request after request, and then does its work."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from autoinst.export.pump import Pump

JSON = {"Content-Type": "application/json"}
Behaviour = Callable[["Handler"], object]


def certificate(folder: Path, name: str = "own") -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for the address 127.0.0.1 in `folder`; return a server's half and the file a client trusts."""
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", chain], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, chain


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    receiver: Receiver

    was_read = False
    data = b""

    def do_POST(self) -> None:
        self.was_read = False
        receiver = self.receiver
        receiver.requests += 1
        told = receiver.next() if receiver.only in self.path else None
        behave = told or receiver.path_behaviours.get(self.path) or receiver.chance()
        if behave is not None:
            behave(self)
            return
        self.accept()

    def accept(self) -> None:
        """Take the request, as a good receiver does."""
        self.receiver.accept(self)

    def sent(self) -> bytes:
        """Return the request's body as it came."""
        if not self.was_read:
            self.was_read = True
            self.data = self.rfile.read(int(self.headers["Content-Length"]))
        return self.data

    def body(self) -> bytes:
        """Return the request's body, unpacked."""
        data = self.sent()
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a whole response."""
        self.sent()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""


class Receiver:
    """`with Receiver() as receiver: receiver.behave(status(503)); ... receiver.jobs`.

    What it accepted is kept once for each idempotency token, as a receiver that knows the token would.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests = 0
        self.tokens: list[str] = []
        self.bodies: dict[str, Any] = {}  # by path and token
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.conflicts: list[str] = []  # tokens that came again with other jobs
        self._behaviours: list[Behaviour] = []
        self._lock = threading.Lock()
        handler = type("Bound", (Handler,), {"receiver": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self._scheme = "http" if context is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.released = threading.Event()
        self.path_behaviours: dict[str, Behaviour] = {}  # what is always done at a path
        self.chance: Callable[[], Behaviour | None] = lambda: None  # asked where nothing else is to be done
        self.hanging = 0
        self.only = ""  # what a path must have in it for `behave` to be about it

    @property
    def url(self) -> str:
        """Return the address, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def behave(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, one after the other."""
        with self._lock:
            self._behaviours += behaviours

    def next(self) -> Behaviour | None:
        """Return how to behave now, None for well."""
        with self._lock:
            return self._behaviours.pop(0) if self._behaviours else None

    @property
    def pending(self) -> int:
        """How many behaviours have not been shown yet."""
        return len(self._behaviours)

    def accept(self, handler: Handler) -> None:
        """Take a request, and say so."""
        self.take(handler)
        handler.reply(200, b"{}", JSON)

    def take(self, handler: Handler) -> None:
        """Keep what was posted."""
        token = handler.headers["Idempotency-Key"] or f"none {len(self.raw)}"
        raw = handler.body()
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw
        with self._lock:
            self.raw.append(raw)
            self.tokens.append(token)
            self.headers.append(dict(handler.headers))
            key = f"{handler.path} {token}"
            if key in self.bodies and self.bodies[key] != body:
                self.conflicts.append(key)
            self.bodies.setdefault(key, body)

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All spans that were accepted, each token once."""
        with self._lock:
            bodies = [body for body in self.bodies.values() if isinstance(body, dict) and "resourceSpans" in body]
        return [s for body in bodies for of in body["resourceSpans"] for sc in of["scopeSpans"] for s in sc["spans"]]

    @property
    def jobs(self) -> list[str]:
        """The ids of the jobs whose spans were accepted."""
        return [span["traceId"] for span in self.spans if span["name"] != "autoinst doctor"]

    def __enter__(self) -> Receiver:  # noqa: PYI034 - Self is not in typing before 3.11
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    """Answer with a status."""
    return lambda handler: handler.reply(code, body, {name.replace("_", "-"): text for name, text in headers.items()})


def taken_then(behave: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Take the request, and misbehave only then: whoever sent it cannot know."""

    def both(handler: Handler) -> None:
        handler.receiver.take(handler)
        behave(handler)

    return both


def reset(handler: Handler) -> None:
    """Break the connection with a RST in the middle of the request."""
    handler.rfile.read(10)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def hang(handler: Handler) -> None:
    """Never answer."""
    handler.receiver.hanging += 1
    handler.receiver.released.wait(60)
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    """Answer a byte at a time, without end."""
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 100_000:
            handler.wfile.write(bytes((byte,)))
            if handler.receiver.released.wait(0.02):
                return
    handler.close_connection = True


def half_an_answer(handler: Handler) -> None:
    """Promise a long body and end in the middle of it."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
    handler.close_connection = True


def refuse_jobs(*ids: str, code: int = 400) -> Callable[[Handler], None]:
    """Refuse a request that has one of these jobs; accept any other."""
    return refuse_what_has(*(ident.encode() for ident in ids), code=code)


def refuse_what_has(*marks: bytes, code: int = 400) -> Callable[[Handler], None]:
    """Refuse a request that has one of these bytes in it; accept any other."""

    def behave(handler: Handler) -> None:
        if any(mark in handler.body() for mark in marks):
            handler.reply(code, b"bad span", {"Content-Type": "text/plain"})
        else:
            handler.accept()

    return behave


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `what()` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def pauses(pump: Pump, now: list[float]) -> list[float]:
    """Return how long a pump waits between attempts until one succeeds, by a clock that reads `now[0]`."""
    found = []
    while (turn := pump.turn(all_now=True)).troubled:
        found.append(turn.wait)
        now[0] += turn.wait
    return found


def repeated(behaviour: Behaviour, times: int) -> list[Behaviour]:
    """Return a behaviour that often."""
    return [behaviour] * times
