"""Every address of the web page with whatever parameters: no answer is an error of the server's, all are bounded."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoinst.config import from_environ, make_private
from autoinst.store.query import JobFilter
from autoinst.store.search import WORDS
from autoinst.store.sqlite import Store
from autoinst.web import app
from autoinst.web.source import Source
from tests import webdata
from tests.web_pages import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web_pages import Ui

pytestmark = pytest.mark.once

ENDLESS = frozenset({"/live"})
SIMPLE = ["", "0", "-1", "*", "%", "\0", "'--", "\x1b[31m", "\u202e", "\ud800", "9" * 400, "1e999", webdata.EVIL]
TIMES = [
    "0000-01-01",
    "0001-01-01",
    "9999-12-31T23:59:59",
    "1970-01-01",
    "2262-04-12",
    "24h",
    "99999999999w",
    "2026-13-40",
    "nan",
]
KNOWN = ["impact", "all", "open", "30d", "15m", "shop.mail.InvoiceMailer#perform", "9b07e31", "1790000000000000000.3"]
KEYS = [*sorted(WORDS), "tag.tenant", "args.0", "kwargs.order", "x", "-status"]

texts = st.one_of(st.sampled_from([*SIMPLE, *TIMES, *KNOWN]), st.text(max_size=30))
terms = st.builds(
    lambda minus, key, op, value: f"{minus}{key}{op}{value}",
    st.sampled_from(["", "-"]),
    st.sampled_from(KEYS),
    st.sampled_from([":", ">", "<=", "=", ""]),
    st.one_of(texts, st.sampled_from(["error,killed", '"quoted"', '"open', "1s", "10m", "*", "a,b,,c"])),
)
searches = st.lists(st.one_of(terms, texts), max_size=6).map(" ".join)
parameters = st.dictionaries(
    st.sampled_from(["range", "from", "to", "before", "sort", "filter", "name", "action", "kind", "a", "b", "state"]),
    texts,
    max_size=5,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fuzz") / "home"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=3)
        webdata.retried(store, now)
        webdata.trouble(store, now)
        webdata.hostile(store, now)
    return home


@pytest.fixture(scope="module")
def ui(home: Path) -> Iterator[Ui]:
    with serving(home) as ui:
        yield ui


@pytest.fixture(scope="module")
def paths(home: Path) -> list[str]:
    """Return the addresses there are, those of single things with ones that are there and ones that are not."""
    site = app.Site(Source(str(home), frozen=True), from_environ(), hosts=[], token=None, port=1)
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        job = next(store.jobs(JobFilter(limit=1, status=frozenset({"error"}))))
        error = store.errors(limit=1)[0].fingerprint
    found = {str(getattr(route, "path", "")) for route in site.routes} - ENDLESS
    things = [job.id, error, "0" * 32, "zz", quote(webdata.EVIL)]
    pairs = ((path, one) for path in found for one in things)
    return sorted({path.replace("{record_id:str}", one).replace("{fingerprint:str}", one) for path, one in pairs})


@given(data=st.data())
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_address_is_an_error_of_the_server(ui: Ui, paths: list[str], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths))
    query = data.draw(parameters)
    if data.draw(st.booleans()):
        query["q"] = data.draw(searches)
    method = data.draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]))
    answer = ui.ask(f"{path}?{urlencode(query, errors='surrogatepass')}", method)
    assert answer.status < 500, (method, path, query)
    kind = answer.headers.get("content-type", "") if method == "GET" else ""
    if kind.startswith("application/json"):
        answer.json()
    if kind.startswith("text/csv"):
        assert len({len(row) for row in csv.reader(io.StringIO(answer.text, newline=""))}) == 1


def test_every_page_is_fuzzed(paths: list[str]) -> None:
    assert {"/jobs", "/jobs.json", "/jobs.csv", "/action", "/errors.csv", "/suggest.json", "/login", "/rules"} <= set(
        paths
    )


def test_what_takes_too_long_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.requests import Request

    from autoinst.web.overview import overview

    monkeypatch.setattr(app, "QUERY_SECONDS", -1.0)
    monkeypatch.setattr("autoinst.store.reader.STEPS_A_LOOK", 1)
    source = Source(str(home), frozen=True)
    site = app.Site(source, from_environ(), hosts=[], token=None, port=1)
    headers = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers, "scheme": "http"}
    answer = site._answer(overview, "html", Request(scope))
    source.close()
    assert answer.status_code == 503
    assert b"That took too long" in answer.body
