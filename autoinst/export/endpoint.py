"""An address that is posted to: connections, TLS, proxy, and a limit on how long a request may take in all."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import ssl
import threading
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from autoinst import __version__
from autoinst.errors import AutoinstError
from autoinst.export.answers import Answer, Response, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 5.0
SECONDS = 10.0
MAX_BODY = 65_536  # bytes read of an answer
PIECE = 4_096
USER_AGENT = f"autoinst/{__version__}"
_ours = threading.local()


class ExporterError(AutoinstError):
    """An exporter's settings cannot be used: the message says which, and why."""


@dataclass(frozen=True)
class Reaching:
    """How an endpoint is reached; `seconds` is how long a request may take in all."""

    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    proxy: str | None = None


class _Noted:
    """Notes the socket of the connection this thread uses, so that it can be shut down when time is up."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._note()

    def request(self, *arguments: Any, **options: Any) -> Any:
        self._note()  # a connection that was kept
        return super().request(*arguments, **options)  # type: ignore[misc]

    def _note(self) -> None:
        clock = getattr(_ours, "clock", None)
        if clock is not None and self.sock is not None:
            clock.watch(self.sock)


class _Plain(_Noted, HTTPConnection):
    pass


class _Secure(_Noted, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Clock:
    """Shuts a request's connection down when `seconds` are over, however busily its other end trickles."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Clock:  # noqa: PYI034 - Self is not in typing before 3.11
        _ours.clock = self
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        _ours.clock = None
        self._timer.cancel()
        with self._lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def watch(self, sock: socket.socket) -> None:
        """Watch `sock` from now on."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            # Another descriptor of the same connection: the first may be closed, and its number be another's, any time.
            self._handle = socket.socket(fileno=os.dup(sock.fileno()))

    def _end(self) -> None:
        with self._lock:
            self.over = True
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)


class Endpoint:
    """One address; used by one thread at a time."""

    def __init__(self, url: str, reaching: Reaching, *, compress: bool = True) -> None:
        """Prepare to post to `url`; raises ExporterError where certificates cannot be read."""
        self.url = url
        self.compress = compress
        self._reaching = reaching
        self._manager = _manager(url, reaching)

    def close(self) -> None:
        """Close all connections."""
        self._manager.clear()

    def post(
        self, body: bytes, content_type: str, headers: Mapping[str, str], query: str = ""
    ) -> tuple[Response | Answer, int]:
        """Post `body`; return the response, or the answer where there was none, and the bytes of the body as sent."""
        given = {"User-Agent": USER_AGENT, "Content-Type": content_type, **self._reaching.headers, **headers}
        if self.compress:
            body = gzip.compress(body, 5, mtime=0)
            given["Content-Encoding"] = "gzip"
        try:
            with _Clock(self._reaching.seconds) as clock:
                return self._exchange(query, body, given, clock), len(body)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if clock.over:
                return Answer(Verdict.LATER, f"no answer within {self._reaching.seconds:g} s"), len(body)
            return Answer(Verdict.LATER, reason(error)), len(body)

    def _exchange(self, query: str, body: bytes, headers: Mapping[str, str], clock: _Clock) -> Response:
        seconds = self._reaching.seconds
        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds)
        answer = self._manager.request(
            "POST",
            f"{self.url}?{query}" if query else self.url,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=timeout,
            preload_content=False,
        )
        data = b""
        try:
            while len(data) < MAX_BODY and (piece := answer.read(PIECE)):
                data += piece
        finally:
            if clock.over or len(data) >= MAX_BODY:
                answer.close()
            answer.release_conn()
        if clock.over:
            raise TimeoutError("the answer did not end")
        return Response(answer.status, {key.lower(): value for key, value in answer.headers.items()}, data)


def reason(error: Exception) -> str:
    """Return in a few words why there was no answer."""
    inner: BaseException = error
    seen = {id(inner)}
    while True:
        found = getattr(inner, "reason", None)
        cause = found if isinstance(found, BaseException) else inner.__cause__ or inner.__context__
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        inner = cause
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {inner.verify_message}"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed: {inner.reason or inner}"
    if isinstance(inner, socket.gaierror):
        return f"its name has no address: {inner.strerror}"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror[0].lower() + inner.strerror[1:]
    text = str(inner) or type(inner).__name__
    return text.partition(": ")[2] if "object at 0x" in text else text


def _manager(url: str, reaching: Reaching) -> urllib3.PoolManager:
    options: dict[str, Any] = {"maxsize": 1, "retries": False}
    if url.lower().startswith("https:"):
        options["ssl_context"] = _context(reaching)
    proxy = reaching.proxy or _environment_proxy(url)
    if proxy is None:
        manager = urllib3.PoolManager(**options)
    else:
        parts = urlsplit(proxy)
        headers = None
        if parts.username is not None:
            headers = urllib3.make_headers(proxy_basic_auth=f"{parts.username}:{parts.password or ''}")
        try:
            manager = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise ExporterError(f"proxy {parts.hostname}: {error}") from None
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager


def _context(reaching: Reaching) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=reaching.certificate)
    except (OSError, ssl.SSLError) as error:
        raise ExporterError(f"certificate {reaching.certificate}: {error.strerror or error}") from None
    if reaching.client_certificate:
        try:
            context.load_cert_chain(reaching.client_certificate, reaching.client_key)
        except (OSError, ssl.SSLError) as error:
            place = f"client_certificate {reaching.client_certificate}"
            raise ExporterError(f"{place}: {error.strerror or error}") from None
    return context


def _environment_proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    found = urllib.request.getproxies().get(parts.scheme.lower())
    if found and "://" not in found:
        found = f"http://{found}"
    return found or None
