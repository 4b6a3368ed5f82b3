"""A proxy before a real server that misbehaves as told: before the server has a request, or after it has taken it."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from tests.hostile import Receiver

if TYPE_CHECKING:
    import ssl

    from tests.hostile import Handler

KEPT = ("Content-Type", "Retry-After")


class Between(Receiver):
    """`with Between(server.port) as proxy: proxy.behave(hostile.taken_then(hostile.reset))`; with a context, TLS."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(context)
        self._target = port
        self.taken = 0  # requests the server has got

    def accept(self, handler: Handler) -> None:
        """Ask the server, and say what it says."""
        handler.reply(*self._ask(handler))

    def take(self, handler: Handler) -> None:
        """Have the server do what is asked, and keep its answer to ourselves."""
        self._ask(handler)

    def _ask(self, handler: Handler) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=120)
        try:
            headers = {name: text for name, text in handler.headers.items() if name != "Host"}
            connection.request("POST", handler.path, handler.sent(), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self.taken += 1
        return answer.status, body, {name: answer.headers[name] for name in KEPT if name in answer.headers}
