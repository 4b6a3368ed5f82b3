"""From a Page to bytes: HTML by templates that escape everything, JSON, and CSV."""

from __future__ import annotations

import csv
import io
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from starlette.responses import Response

from autoinst.web import figures
from autoinst.web.jobs import quoted
from autoinst.web.window import RANGES
from autoinst.wording import ago, clock, csv_cell, duration, exact, to_json

if TYPE_CHECKING:
    from autoinst.web.page import Context, Page
    from autoinst.web.sources import Shown

MARKS = {"ok": "✓", "error": "✕", "ignored": "○", "killed": "☠", "running": "▶"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
MAX_TEXT = 20_000
MAX_LINKED = 2_000  # bytes of a name in an address
NAV = (
    ("overview", "/", "Overview"),
    ("actions", "/actions", "Actions"),
    ("errors", "/errors", "Errors"),
    ("jobs", "/jobs", "Jobs"),
    ("running", "/running", "Running"),
    ("queries", "/queries", "Queries"),
    ("processes", "/processes", "Processes"),
    ("rules", "/rules", "Rules"),
)


def environment() -> jinja2.Environment:
    """Return the templates with their filters."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("autoinst.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(
        ns=figures.ns_text,
        ms=lambda ms: duration(ms) or figures.UNKNOWN,
        num=lambda number: figures.UNKNOWN if number is None else f"{number:,}",
        percent=figures.percent,
        rate=figures.rate,
        json=lambda value: clip(to_json(value)),
        clip=clip,
        short=short,
        breakable=breakable,
        dots=dots,
        quoted=quoted,
        plural=plural,
        place=place,
    )
    made.tests["linkable"] = is_linkable
    made.globals.update(marks=MARKS, nav_items=NAV, ranges=RANGES)
    return made


def html(templates: jinja2.Environment, page: Page, ctx: Context, more: dict[str, Any]) -> Response:
    """Return `page` as HTML."""
    now = ctx.now_ns
    values = {
        "title": page.title,
        "nav": page.nav,
        "ctx": ctx,
        "now": now,
        "url": ctx.url,
        "window": ctx.window,
        "ago": lambda ns: ago(ns, now),
        "clock": lambda ns: clock(ns, now),
        "exact": exact,
        "iso": lambda ns: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(ns // 10**9, 0), 253402300799))),
        "elapsed": lambda record: record.elapsed_ms(now),
        "data_links": data_links(page, ctx),
        **more,
        **page.data,
    }
    text = templates.get_template(page.template).render(values)
    return Response(text.encode("utf-8", "backslashreplace"), page.status, media_type="text/html")


def data_links(page: Page, ctx: Context) -> list[tuple[str, str]]:
    """Return the other forms of this page and where they are; none of one that only says what is wrong."""
    if page.template == "problem.html":
        return []
    return [(kind, data_url(ctx, kind)) for kind in ("json", *(["csv"] if page.columns else []))]


def data_url(ctx: Context, kind: str) -> str:
    """Return the address of this page as JSON or CSV."""
    path = "/overview" if ctx.path == "/" else ctx.path
    return ctx.url(f"{path}.{kind}", **ctx.query)


def as_json(page: Page) -> Response:
    """Return `page` as JSON."""
    text = to_json(page.json() if callable(page.json) else page.json) + "\n"
    return Response(text.encode("utf-8", "backslashreplace"), page.status, media_type="application/json")


def as_csv(page: Page) -> Response:
    """Return the main table of `page` as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(page.columns)
    for row in page.rows() if callable(page.rows) else page.rows:
        writer.writerow([harmless(csv_cell(value)) for value in row])
    name = re.sub(r"[^a-z0-9]+", "-", (page.nav or "page").lower())
    headers = {"content-disposition": f'attachment; filename="autoinst-{name}.csv"'}
    return Response(out.getvalue().encode("utf-8", "backslashreplace"), page.status, headers, "text/csv")


def harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def is_linkable(text: str | None) -> bool:
    """Return whether `text` fits into an address."""
    return bool(text) and len(quote(str(text), errors="replace")) <= MAX_LINKED


def clip(text: str, most: int = MAX_TEXT) -> str:
    """Return at most `most` characters, saying how many are left out."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def short(record_id: str) -> str:
    """Return the twelve digits that name a job on the command line too."""
    return record_id[:6] + record_id[-6:]


def breakable(text: str | None) -> Markup:
    """Return a dotted name that may be broken after its dots, its last part marked."""
    if not text:
        return Markup('<span class="none">no name</span>')
    head, mark, method = text.rpartition("#")
    path, dot, last = (head or method).rpartition(".")
    parts = [Markup("{}.<wbr>").format(part) for part in path.split(".")] if dot else []
    tail = Markup("<wbr>#{}").format(method) if mark else Markup("")
    return Markup('<span class="path">{}</span><span class="last">{}{}</span>').format(
        Markup("").join(parts), last, tail
    )


def dots(text: str) -> Markup:
    """Return a text whose dotted names may be broken after their dots."""
    return Markup("<wbr>").join(re.split(r"(?<=\w\.)(?=\w)", text))


def plural(number: int, noun: str) -> str:
    """Return `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def place(shown: Shown) -> str:
    """Return where a frame is, the end of its path being what tells it from others."""
    parts = shown.frame.file.replace("\\", "/").split("/")
    return "/".join(parts[-3:]) if len(parts) > len(("", "a", "b", "c")) else shown.frame.file
