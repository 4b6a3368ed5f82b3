"""What a page is made from, and what it is made into: HTML, JSON or CSV of the same answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from autoinst.web.window import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.config import Config
    from autoinst.record import Record
    from autoinst.store.reader import Reader
    from autoinst.store.rollups import Cell
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

    store: Reader
    config: Config
    query: dict[str, str]
    path: str
    now_ns: int
    window: Window
    flying: Sequence[Record] = ()
    frozen: bool = False

    def get(self, name: str, most: int = 500) -> str:
        """Return a parameter of the address, at most `most` characters of it."""
        return self.query.get(name, "")[:most]

    def url(self, path: str, **parameters: Any) -> str:
        """Return the address of a page about the same time; parameters that are None or empty are left out."""
        kept = {name: self.query[name] for name in KEPT if self.query.get(name)}
        if kept.get("range") == DEFAULT:
            del kept["range"]
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
    """A page: its template with `data`, the same as plain JSON, and its main table as rows of CSV."""

    template: str
    title: str
    data: dict[str, Any]
    json: Any
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    status: int = 200
    nav: str = field(default="")


def totals_json(cell: Cell) -> dict[str, Any]:
    """Return totals as JSON; times in milliseconds."""
    return {
        "jobs": cell.jobs,
        "ok": cell.ok,
        "errors": cell.errors,
        "ignored": cell.ignored,
        "killed": cell.killed,
        "only_counted": cell.counted,
        "mean": to_ms(cell.mean_ns),
        "p50": to_ms(cell.percentile_ns(0.5)),
        "p95": to_ms(cell.percentile_ns(0.95)),
        "p99": to_ms(cell.percentile_ns(0.99)),
        "max": to_ms(cell.max_ns) if cell.durations else None,
        "queue_p50": to_ms(cell.queue_percentile_ns(0.5)),
        "queue_p95": to_ms(cell.queue_percentile_ns(0.95)),
        "total": to_ms(cell.sum_ns),
    }


TOTALS_COLUMNS = (
    *("jobs", "ok", "errors", "ignored", "killed", "only_counted", "mean", "p50", "p95", "p99", "max"),
    *("queue_p50", "queue_p95", "total"),
)


def to_ms(ns: float | None) -> float | None:
    """Return nanoseconds as milliseconds, to the microsecond."""
    return None if ns is None else round(ns / 1e6, 3)


def failing(cell: Cell) -> float:
    """Return the share of jobs that failed or were killed, 0..1."""
    return (cell.errors + cell.killed) / cell.jobs if cell.jobs else 0.0
