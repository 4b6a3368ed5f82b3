"""What a page is made from, and what it is made into: HTML, JSON or CSV of the same answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autoinst.config import Config
    from autoinst.record import Record
    from autoinst.store.interface import Readable
    from autoinst.web.window import Window

KEPT = ("range", "from", "to")  # parameters that go along from page to page


class PageError(Exception):
    """A page that cannot be shown; `status` is that of HTTP."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text


@dataclass
class Context:
    """What a page is asked for, and where its answer comes from."""

    store: Readable
    config: Config
    query: dict[str, str]
    path: str
    now_ns: int
    window: Window
    flying: Sequence[Record] = ()
    frozen: bool = False
    version: int = 0

    def get(self, name: str, most: int = 500) -> str:
        """Return a parameter of the address, at most `most` characters of it."""
        return self.query.get(name, "")[:most]

    def url(self, path: str, **parameters: Any) -> str:
        """Return the address of a page about the same time; parameters that are None or empty are left out."""
        kept = {name: self.query[name] for name in KEPT if self.query.get(name)}
        wanted = {**kept, **parameters}
        text = urlencode({name: value for name, value in wanted.items() if value not in (None, "")})
        return f"{path}?{text}" if text else path

    def here(self, **parameters: Any) -> str:
        """Return this page's address with other parameters."""
        return self.url(self.path, **{**self.query, "before": None, **parameters})

    def flying_ones(self) -> list[Record]:
        """Return the jobs in flight whose end is not stored yet."""
        return [record for record in self.flying if self.store.job(record.id) is None]


@dataclass
class Page:
    """A page: its template with `data`, the same as plain JSON, and its main table as rows of CSV.

    What is JSON or rows may be a function, called only where it is asked for: HTML needs neither.
    """

    template: str
    title: str
    data: dict[str, Any]
    json: Any
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] | Callable[[], Sequence[Sequence[Any]]] = ()
    status: int = 200
    nav: str = field(default="")
