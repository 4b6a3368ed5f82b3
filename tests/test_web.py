"""The pages over HTTP: what they show in three forms, and how they are searched."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import time

import pytest

from autoinst.config import make_private
from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store.sqlite import Store
from autoinst.web import window
from autoinst.web.charts import HEIGHT, Steps
from tests.web_pages import Text, every_page, serving

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def home(shop):
    return shop


@pytest.fixture(scope="module")
def ui(shop_ui):
    return shop_ui


def test_every_page_is_there_in_three_forms(ui):
    for path in every_page(ui):
        page = ui.ask(path)
        assert page.status == 200, path
        text = Text(page.text)
        assert text.tags.count("h1") == 1, path
        address, _, query = ("/overview" if path == "/" else path).partition("?")
        found = ui.ask(f"{address}.json?{query}")
        assert found.headers["content-type"].startswith("application/json")
        assert found.json()
        table = ui.ask(f"{address}.csv?{query}")
        assert table.headers["content-type"].startswith("text/csv")
        rows = list(csv.reader(io.StringIO(table.text)))
        assert len({len(row) for row in rows}) == 1, path
        for kind in ("json", "csv"):
            assert any(link.partition("?")[0] == f"{address}.{kind}" for link in text.links), path


def test_every_link_leads_somewhere(ui):
    seen: set[str] = set()
    waiting = every_page(ui)
    for _ in range(2):
        found: set[str] = set()
        for path in waiting:
            if path in seen:
                continue
            seen.add(path)
            found |= {link for link in Text(ui.ask(path).text).links if link.startswith("/")}
        # Of the many jobs a few are enough.
        kinds: dict[str, int] = {}
        waiting = []
        for link in sorted(found - seen):
            kind = re.sub(r"[0-9a-f]{16,}|=[^&]*", "*", link)
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] <= 2:
                waiting.append(link)
    for link in waiting:
        if link != "/live" and not link.endswith("/state"):
            assert ui.ask(link).status in (200, 303), link


def test_numbers_are_those_of_the_store(ui, home):
    overview = ui.json("/overview")
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        assert overview["totals"]["jobs"] == store.count()
        assert sum(action["jobs"] for action in overview["actions"]) == store.count()
        failed = sum(cell.error for cell in store.totals(0, 2**62).values())
    assert (
        sum(error["total"] for error in ui.json("/errors", state="all")["errors"])
        == failed
        == overview["totals"]["errors"]
    )


def test_a_job_shows_its_events_its_exception_and_its_runs(ui):
    stock = ui.json("/jobs", q="action:StockReport")["jobs"][0]
    text = Text(ui.ask(f"/jobs/{stock['id']}").text).text
    assert "One query for each row (N+1)?" in text
    assert f"\N{MULTIPLICATION SIGN}{len(stock['events'])}" in text
    runs = ui.json("/jobs", q="job:P-1")["jobs"]
    assert [run["attempts"] for run in runs] == [3, 2, 1]
    last = ui.ask(f"/jobs/{runs[0]['id']}")
    assert all(f"/jobs/{run['id']}" in last.text for run in runs[1:])
    children = ui.json(f"/jobs/{runs[0]['id']}")["trace"]
    assert len(children) == 4
    assert "one trace across processes" in last.text
    assert "1 frame of libraries" in ui.ask(f"/jobs/{ui.json('/jobs', q='error:CardDeclined')['jobs'][0]['id']}").text


def test_source_lines_are_shown_for_python_files_only(tmp_path):
    home = tmp_path / "home"
    make_private(str(home))
    program, secret = tmp_path / "jobs.py", tmp_path / "secret.txt"
    program.write_text("def perform():\n    raise ValueError('here it is')\n")
    secret.write_text("nobody may read this\n" * 3)
    frames = [Frame(str(secret), 2, "perform", in_app=True), Frame("../jobs.py", 2, "perform", in_app=True)]
    frames += [Frame(str(program), 2, "perform", in_app=True), Frame("/\x00.py", 2, "perform", in_app=True)]
    record = Record(record_id(b"12345678", 1), "error", time.time_ns() + 10**9, action="jobs#perform")
    record.exception = ExceptionInfo("builtins.ValueError", "x", frames)
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert([record])
    with serving(home) as ui:
        page = ui.ask(f"/jobs/{record.id}").text
    assert page.count("here it is") == 1
    assert "nobody may read" not in page


def test_two_revisions_are_compared(ui):
    found = ui.json("/revisions")
    assert [found["a"]["revision"], found["b"]["revision"]] == ["4f2c1aa", "9b07e31"]
    actions = {row["action"]: row for row in found["actions"]}
    payment = actions["shop.payments.PaymentCapture#perform"]
    assert payment["a"]["p50"] > payment["b"]["p50"] > 0
    assert ui.json("/revisions", a="9b07e31", b="4f2c1aa")["a"]["jobs"] == found["b"]["jobs"]
    assert "4f2c1aa" in ui.ask("/?range=7d").text


def test_queries_tell_of_repeats(ui):
    rows = {row["text"]: row for row in ui.json("/queries")["statements"]}
    row = rows["SELECT price FROM item WHERE number = #"]
    assert row["n_plus_one_jobs"] == row["jobs"] > 0
    assert row["count"] >= 18 * row["jobs"]
    everything = ui.json("/queries", kind="all")["statements"]
    assert {"request.http", "render.template"} <= {row["name"] for row in everything}


def test_search_pages_through_all_and_keeps_its_address(ui):
    seen: list[str] = []
    path = "/jobs?q=queue:payments"
    while path:
        page = Text(ui.ask(path).text)
        ids = [
            link.rpartition("/")[2].partition("?")[0] for link in page.links if re.match(r"/jobs/[0-9a-f]{32}", link)
        ]
        seen += dict.fromkeys(ids)
        path = next((link for link in page.links if "before=" in link), "")
        assert not path or "q=queue" in path
    assert len(seen) == len(set(seen)) == len(ui.json("/jobs", q="queue:payments")["jobs"])


def test_a_search_that_does_not_parse_says_where(ui):
    page = ui.ask("/jobs?q=queue:mail%20acton:x")
    assert page.status == 400
    assert "did you mean action?" in page.text
    assert "queue:mail acton:x\n           ^" in page.text
    assert ui.ask("/jobs.json?q=acton:x").json()["error"]["at"] == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("st", "status:"),
        ("status:er", "status:error "),
        ("queue:mail -act", "queue:mail -action:"),
        ("action:invoice", 'action:"shop.mail.InvoiceMailer#perform" '),
        ("queue:pay", "queue:payments "),
        ("revision:", "revision:4f2c1aa "),
        ("ta", "tag."),
    ],
)
def test_suggestions(ui, text, value):
    assert value in [item["value"] for item in ui.json("/suggest", q=text)]


def test_every_action_has_a_sparkline_that_says_its_scale(ui):
    body = ui.ask("/actions").text.partition("<tbody>")[2]
    rows = body.partition("</tbody>")[0].split("<tr ")[1:]
    assert len(rows) > 3
    for row in rows:
        found = re.search(r'<svg class="spark"[^>]*aria-label="at most \d+ a step">.*?</svg>', row, re.DOTALL)
        assert found is not None, row
        assert re.search(r'class="(ok|error|failed)" d="M[\d.]', found[0]), row


def test_times_are_exact_beside_relative(ui):
    rows = ui.ask("/jobs").text.partition("<tbody>")[2].split("<tr ")[1:]
    assert len(rows) > 3
    for row in rows:
        found = re.search(r'<time datetime="([^"]*)Z" title="([^"]*)">([^<]+) <small>(\d+[smhd] ago|now)</small>', row)
        assert found is not None, row
        moment = dt.datetime.fromisoformat(f"{found[1]}+00:00").astimezone()
        assert found[2].startswith(f"{moment:%Y-%m-%d %H:%M:%S}.")
        assert found[2].endswith(f" {moment:%Z}")
        assert found[3] in (f"{moment:%H:%M:%S}", f"{moment:%Y-%m-%d %H:%M:%S}")  # the day where it is not today


@pytest.mark.parametrize("name", ["1h", "6h"])
def test_the_time_that_is_shown_unless_told_begins_no_later_than_the_first_job(name: str) -> None:
    _, span, step = window.RANGES[name]
    for past in (0, 1, step // 2, step - 1):  # since the last whole step
        now = 1_800_000_000 * 10**9 // step * step + past
        for age in (span - step, span - step // 2, span - 1, span):
            shown = window.of({}, now, now - age)
            assert shown.since_ns <= now - age, (past, age)
    assert window.of({}, now, now - (span - step)).name == name


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (4.95, ["6/min", "4", "2", "0"]),
        (1, ["1/min", "0.5", "0"]),
        (1 / 60, ["0.02/min", "0.01", "0"]),
        (10, ["10/min", "5", "0"]),
        (31, ["40/min", "20", "0"]),
        (1_234_567, ["1,500,000/min", "1,000,000", "500,000", "0"]),
    ],
)
def test_lines_of_a_chart_are_round(most: float, ticks: list[str]) -> None:
    scale = Steps(most)
    assert scale.ticks("/min") == ticks
    assert 0 < scale.height(most) <= HEIGHT


def test_a_chart_of_counts_has_no_parts_of_one() -> None:
    assert Steps(1, 1).ticks() == ["1", "0"]
    assert Steps(4, 1).ticks() == ["4", "2", "0"]
    assert Steps(0, 1).ticks() == ["1", "0"]
