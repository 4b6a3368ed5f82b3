"""A running `autoinst ui` for tests, and what an HTTP client of one request sees of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tests.launching import AUTOINST, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = (
    *("/", "/actions", "/errors", "/jobs", "/running", "/queries", "/revisions", "/processes", "/rules"),
    "/check-ins",
)


@dataclass
class Answer:
    """An answer to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Ui:
    """A page that is being served at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.port = urlsplit(address).port or 80

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """Send one request; underscores in the names of `headers` stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(None if body is None else body.encode())
            found = connection.getresponse()
            return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            connection.close()

    def json(self, path: str, **query: str) -> Any:
        """Return a page as JSON."""
        text = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        return self.ask(f"{path}.json?{text}").json()

    def csrf(self, path: str) -> str:
        """Return what the forms of a page have to bring back."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.ask(path).text)
        assert found is not None
        return found[1]


@contextlib.contextmanager
def serving(home: Path, *options: str, program: str = AUTOINST, **variables: str) -> Iterator[Ui]:
    """Serve `home` at a free port by `program`."""
    command = [program, "ui", "--port", "0", *options]
    env = environment(home, **variables)
    process = subprocess.Popen(
        command, env=env, cwd=home.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("autoinst ui: http://"), line + process.stderr.read()
        yield Ui(line.split()[-1])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in errors, errors


def every_page(ui: Ui) -> list[str]:
    """Return an address of every kind of page."""
    failed = ui.json("/jobs", q="status:error")["jobs"][0]["id"]
    slow = ui.json("/jobs", q="action:StockReport")["jobs"][0]["id"]
    retried = ui.json("/jobs", q="job:P-1")["jobs"][0]["id"]
    error = ui.json("/errors")["errors"][0]["fingerprint"]
    more = [f"/jobs/{each}" for each in (failed, slow, retried)] + [f"/errors/{error}"]
    return [*PAGES, *more, "/action?name=shop.mail.InvoiceMailer%23perform", "/jobs?q=status:error+queue:mail"]


class Text(HTMLParser):
    """Gathers the text of a page, its elements, and the addresses it leads to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
