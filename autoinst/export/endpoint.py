"""An address that is posted to: how it is reached, and what came back, or why nothing did."""

from __future__ import annotations

import gzip
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autoinst import posting
from autoinst.errors import AutoinstError
from autoinst.export.answers import Answer, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.posting import Response

SECONDS = 10.0
MAX_BODY = 65_536  # bytes read of an answer


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


class Endpoint:
    """One address; used by one thread at a time."""

    def __init__(self, url: str, reaching: Reaching, *, compress: bool = True) -> None:
        """Prepare to post to `url`; raises ExporterError where certificates cannot be read."""
        self.url = url
        self.compress = compress
        self._reaching = reaching
        secure = url.lower().startswith("https:")
        try:
            context = (
                posting.tls(reaching.certificate, reaching.client_certificate, reaching.client_key) if secure else None
            )
            self._poster = posting.Poster(context=context, proxy=reaching.proxy or _environment_proxy(url))
        except posting.SettingsError as error:
            raise ExporterError(str(error)) from None

    def close(self) -> None:
        """Close all connections."""
        self._poster.close()

    def post(
        self, body: bytes, content_type: str, headers: Mapping[str, str], query: str = ""
    ) -> tuple[Response | Answer, int]:
        """Post `body`; return the response, or the answer where there was none, and the bytes of the body as sent."""
        given = {"User-Agent": posting.USER_AGENT, "Content-Type": content_type, **self._reaching.headers, **headers}
        if self.compress:
            body = gzip.compress(body, 5, mtime=0)
            given["Content-Encoding"] = "gzip"
        url = f"{self.url}?{query}" if query else self.url
        try:
            return self._poster.post(url, body, given, seconds=self._reaching.seconds, most=MAX_BODY), len(body)
        except posting.NoAnswerError as error:
            return Answer(Verdict.LATER, str(error)), len(body)


def _environment_proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    found = urllib.request.getproxies().get(parts.scheme.lower())
    if found and "://" not in found:
        found = f"http://{found}"
    return found or None
