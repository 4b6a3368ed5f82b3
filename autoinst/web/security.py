"""Who may look: the Host and Origin of a request, the token, and the headers that bind the browser.

The page shows arguments and source lines, so by default only this machine's own browser gets it, and only by a name of
this machine: a name that somebody else's DNS has turned to 127.0.0.1 is refused (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with "no-referrer" a form's Origin would be "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
METHODS = frozenset({"GET", "HEAD", "POST"})
OPEN_PATHS = ("/static/", "/login")  # what may be had without the token
MAX_ADDRESS = 8_192
MAX_BODY = 8_192


class Guard:
    """ASGI middleware that lets a request through, or answers it."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None, cookie: str) -> None:
        """Protect `app`, which is called by the names `hosts`; with a token also by any address of numbers."""
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts) | OWN_NAMES
        self.token = token
        self.cookie = cookie
        self._key = secrets.token_bytes(32)

    def csrf(self) -> str:
        """Return what a form has to bring back."""
        return hmac.new(self._key, b"form", hashlib.sha256).hexdigest()

    def is_csrf(self, given: str) -> bool:
        """Return whether a form brought it back."""
        return same(given, self.csrf())

    def session(self) -> str:
        """Return the value of the cookie of a browser that knew the token; it outlives this process."""
        return hmac.new((self.token or "").encode(), b"autoinst ui session", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Return whether `given` is the token."""
        return self.token is not None and same(given, self.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [
                    (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given
                ]
                if b"cache-control" not in given:
                    more.append((b"cache-control", b"no-store"))
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        request = Request(scope, receive)
        response = self.refusal(request) or self.question(request)
        await (response or self.app)(scope, receive, send_with_headers)

    def refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that is none of ours, None if it is fine."""
        if request.method not in METHODS:
            return PlainTextResponse("method not allowed\n", 405, {"allow": "GET, HEAD, POST"})
        if len(request.url.path) + len(request.url.query) > MAX_ADDRESS:
            return PlainTextResponse("the address is too long\n", 414)
        if not self.is_host(request.headers.get("host", "")):
            return PlainTextResponse("autoinst ui does not go by this name; `--allow-host NAME` would let it\n", 421)
        site = request.headers.get("sec-fetch-site", "none")
        if request.method == "POST":
            if not is_own_origin(request) or site not in ("same-origin", "none"):
                return PlainTextResponse("this form is not ours\n", 403)
            length = request.headers.get("content-length", "")
            if not (length.isascii() and length.isdigit() and len(length) < len(str(MAX_BODY)) + 1):
                return PlainTextResponse("the form is too long, or does not say how long it is\n", 413)
            if int(length) > MAX_BODY:
                return PlainTextResponse("the form is too long\n", 413)
        elif site == "cross-site" and request.headers.get("sec-fetch-mode", "navigate") != "navigate":
            return PlainTextResponse("another site may link here, not read from here\n", 403)
        return None

    def is_host(self, header: str) -> bool:
        """Return whether a Host header names this server."""
        try:
            name = urlsplit(f"//{header}").hostname
        except ValueError:
            return False
        if not name or header != header.strip() or "@" in header or "/" in header:
            return False
        if name in self.hosts:
            return True
        # No DNS is asked about an address, so none can lie; without a token only this machine is served anyway.
        return self.token is not None and is_address(name)

    def question(self, request: Request) -> Response | None:
        """Return the way to the login where a token is needed and not given, None if all is fine."""
        if self.token is None or request.url.path.startswith(OPEN_PATHS):
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return None
        if same(request.cookies.get(self.cookie, ""), self.session()):
            return None
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return PlainTextResponse("a token is needed: Authorization: Bearer ...\n", 401, {"www-authenticate": "Bearer"})


def is_own_origin(request: Request) -> bool:
    """Return whether a form was sent by a page of the very host it is sent to."""
    origin = request.headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""
    except ValueError:
        return False


def same(given: str, wanted: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))


def is_address(name: str) -> bool:
    """Return whether a host name is an address of numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether a server bound to `host` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
