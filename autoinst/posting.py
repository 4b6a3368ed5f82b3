"""Posting to an address: connections, TLS, a proxy, and a limit on how long a request may take in all."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from autoinst import __version__
from autoinst.errors import AutoinstError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 5.0
LONGEST_PLACE = 300  # characters shown of a redirection's
PIECE = 65_536  # bytes read at a time
USER_AGENT = f"autoinst/{__version__}"
# urllib3 1.26 names no IP address to OpenSSL, which then refuses to check it, and checks itself what OpenSSL does not.
OLD = urllib3.__version__.startswith("1.")  # type: ignore[attr-defined]  # it is public all the same
_ours = threading.local()


class SettingsError(AutoinstError):
    """A certificate cannot be read, or a proxy's address: the message says which, and why."""


class NoAnswerError(AutoinstError):
    """There was no answer; the message says why in a few words. `late`: none within the time there was."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Response(NamedTuple):
    """What came back for a request: HTTP status, headers in lower case, and the body (`whole`) or its beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def redirection(self) -> str:
        """Where a redirection goes, in words."""
        return f"a redirection to {self.headers.get('location', 'nowhere')[:LONGEST_PLACE]}"


class _Noted:
    """Notes the socket of the connection this thread uses, so that it can be shut down when time is up."""

    sock: Any

    def _new_conn(self) -> Any:  # before the TLS handshake, in which a peer may dawdle too
        sock = super()._new_conn()  # type: ignore[misc]
        _watch(sock)
        return sock

    def request(self, *arguments: Any, **options: Any) -> Any:
        _watch(self.sock)  # a connection that was kept
        return super().request(*arguments, **options)  # type: ignore[misc]


def _watch(sock: Any) -> None:
    clock = getattr(_ours, "clock", None)
    if clock is not None and sock is not None:
        clock.watch(sock)


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
            self._forget()

    def watch(self, sock: socket.socket) -> None:
        """Watch `sock` from now on; raises TimeoutError where time is up already."""
        with self._lock:
            self._forget()
            if self.over:
                raise TimeoutError("time is up")
            # Another descriptor of the same connection: the first may be closed, and its number be another's, any time.
            self._handle = socket.socket(fileno=os.dup(sock.fileno()))

    def _forget(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _end(self) -> None:
        with self._lock:
            self.over = True
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)


class Poster:
    """Posts to addresses of one scheme and keeps its connections; used by one thread at a time."""

    def __init__(self, *, context: ssl.SSLContext | None = None, proxy: str | None = None) -> None:
        """Prepare; `context` is for TLS, `proxy` an address. Raises SettingsError."""
        options: dict[str, Any] = {"maxsize": 2, "retries": False}
        if context is not None:
            if OLD:
                context.check_hostname = False
            options["ssl_context"] = context
        self._manager = urllib3.PoolManager(**options) if proxy is None else _by_proxy(proxy, options)
        self._manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def close(self) -> None:
        """Close all connections."""
        self._manager.clear()

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, most: int) -> Response:
        """Post `body`; return what came back within `seconds` in all, of its body the first `most` bytes.

        Redirections are not followed. Raises NoAnswerError.
        """
        clock = _Clock(seconds)
        try:
            with clock:
                return self._exchange(url, body, headers, seconds, most, clock)
        except urllib3.exceptions.TimeoutError as error:
            late = clock.over or isinstance(error, urllib3.exceptions.ReadTimeoutError)
            raise self._unanswered(error, seconds, late=late) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._unanswered(error, seconds, late=clock.over) from None

    def _unanswered(self, error: Exception, seconds: float, *, late: bool) -> NoAnswerError:
        return NoAnswerError(f"no answer within {seconds:g} s" if late else reason(error), late=late)

    def _exchange(
        self, url: str, body: bytes, headers: Mapping[str, str], seconds: float, most: int, clock: _Clock
    ) -> Response:
        answer = self._manager.request(
            "POST",
            url,
            body=body,
            headers=headers,
            redirect=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds),
            preload_content=False,
            enforce_content_length=True,  # urllib3 1.26 takes half an answer for one
        )
        data = bytearray()
        ended = False
        try:
            while len(data) < most and not ended:
                piece = answer.read(min(PIECE, most - len(data)))
                data += piece
                ended = not piece
        finally:
            if clock.over or not ended:
                answer.close()
            answer.release_conn()
        if clock.over:
            raise TimeoutError("the answer did not end")
        told = {key.lower(): value for key, value in answer.headers.items()}
        return Response(answer.status, told, bytes(data), ended)


def _by_proxy(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    parts = urlsplit(proxy)
    headers = None
    if parts.username is not None:
        headers = urllib3.make_headers(proxy_basic_auth=f"{parts.username}:{parts.password or ''}")
    try:
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except (ValueError, urllib3.exceptions.HTTPError) as error:
        raise SettingsError(f"proxy {parts.hostname}: {error}") from None


def tls(
    certificate: str | None = None, client_certificate: str | None = None, client_key: str | None = None
) -> ssl.SSLContext:
    """Return how TLS is done: `certificate` is a file of authorities to trust instead of the system's.

    Raises SettingsError for a file that cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"certificate {certificate}: {error.strerror or error}") from None
    if client_certificate:
        try:
            context.load_cert_chain(client_certificate, client_key)
        except (OSError, ssl.SSLError) as error:
            place = f"client_certificate {client_certificate}"
            raise SettingsError(f"{place}: {error.strerror or error}") from None
    return context


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
    # urllib3 1.26.20 raises one for another name that is no error of `ssl`.
    if isinstance(inner, ssl.SSLCertVerificationError) or type(inner).__name__ == "CertificateError":
        told = getattr(inner, "verify_message", None) or inner.args[-1]  # urllib3 1.26 raises one of its own
        return f"its certificate is not trusted: {told}"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed: {inner.reason or inner}"
    if isinstance(inner, socket.gaierror):
        return f"its name has no address: {inner.strerror}"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror[0].lower() + inner.strerror[1:]
    text = str(inner) or type(inner).__name__
    return text.partition(": ")[2] if "object at 0x" in text else text
