"""The web page over HTTP: what it shows, in three forms; who may look; hostile text, hostile addresses, no store."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import sqlite3
import subprocess
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from autoinst.config import make_private
from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store import schema
from autoinst.store.sqlite import Store
from tests import webdata
from tests.agents import eventually
from tests.launching import AUTOINST, environment
from tests.web_pages import PAGES, serving

if TYPE_CHECKING:
    from tests.web_pages import Ui

pytestmark = pytest.mark.once

TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("web") / "home"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=10)
        webdata.retried(store, now)
    return home


@pytest.fixture(scope="module")
def ui(home):
    with serving(home) as ui:
        yield ui


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

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# -- what is shown -----------------------------------------------------------------------------------------------------


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


# -- search ------------------------------------------------------------------------------------------------------------


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


# -- errors as incidents -----------------------------------------------------------------------------------------------


def test_an_error_is_resolved_until_it_comes_again(tmp_path):
    home = tmp_path / "home"
    make_private(str(home))
    frames = [Frame("/app/jobs.py", 7, "perform", in_app=True)]

    def fail(n: int) -> None:
        record = Record(record_id(b"12345678", n), "error", time.time_ns(), action="a#b")
        record.exception = ExceptionInfo("builtins.ValueError", "x", frames)
        with Store(str(home / "store.sqlite3")) as store, store.transaction():
            store.insert([record])

    fail(1)
    with serving(home) as ui:
        (error,) = ui.json("/errors")["errors"]
        path = f"/errors/{error['fingerprint']}"
        body = f"csrf={ui.csrf(path)}&state=resolved"
        for wrong in (
            {"Origin": "http://evil.example"},
            {},
            {"Origin": ui.address, "Sec_Fetch_Site": "cross-site"},
            {"Origin": "null"},
        ):
            assert ui.ask(f"{path}/state", "POST", body, **wrong).status == 403
        own = {"Origin": ui.address, "Content_Type": "application/x-www-form-urlencoded"}
        assert ui.ask(f"{path}/state", "POST", "csrf=wrong&state=resolved", **own).status == 403
        assert ui.ask(f"{path}/state", "POST", body.replace("resolved", "gone"), **own).status == 400
        assert ui.ask(f"{path}/state", "POST", "x" * 9000, **own).status == 413
        assert ui.ask("/errors/0123456789abcdef/state", "POST", body, **own).status == 404
        assert ui.json("/errors")["errors"][0]["state"] == "open"
        assert ui.ask(f"{path}/state", "POST", body, **own).status == 303
        assert ui.json("/errors")["errors"] == []
        assert ui.json("/errors", state="resolved")["errors"][0]["state"] == "resolved"
        fail(2)
        (error,) = ui.json("/errors")["errors"]
        assert (error["state"], error["reopened"], error["total"]) == ("open", True, 2)
        assert ui.ask(f"{path}/state", "POST", body.replace("resolved", "ignored"), **own).status == 303
        fail(3)
        assert ui.json("/errors")["errors"] == []
        assert ui.json("/errors", state="ignored")["errors"][0]["total"] == 3


def test_what_is_only_read_cannot_be_changed(home, tmp_path):
    home = shutil.copytree(home, tmp_path / "copy", ignore=shutil.ignore_patterns("spool", "*.lock", "*.wake"))
    before = {name: (home / name).stat().st_mtime_ns for name in os.listdir(home)}
    with serving(tmp_path / "none", "--read-from", str(home / "store.sqlite3")) as ui:
        path = f"/errors/{ui.json('/errors')['errors'][0]['fingerprint']}"
        page = ui.ask(path).text
        assert "as it is" in page
        body = f"csrf={ui.csrf(path)}&state=resolved"
        assert ui.ask(f"{path}/state", "POST", body, Origin=ui.address).status == 403
    unchanged = [name for name in before if not name.endswith(("-shm", "-wal"))]
    assert {name: (home / name).stat().st_mtime_ns for name in unchanged} == {name: before[name] for name in unchanged}


# -- who may look ------------------------------------------------------------------------------------------------------


def test_headers_bind_the_browser(ui):
    for path in ("/", "/static/app.css", "/jobs.json", "/nowhere", "/errors/x"):
        headers = ui.ask(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers
    page = Text(ui.ask("/").text)
    assert not [link for link in page.links if "//" in link]
    assert not page.attributes & {"style", "onclick", "onload"}
    assert "style" not in page.tags


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "", "a@localhost", "[::"]
)
def test_another_name_is_refused(ui, name):
    assert ui.ask("/", Host=name).status in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]:7700"])
def test_own_names_are_served(ui, name):
    assert ui.ask("/static/app.js", Host=name).status == 200


def test_methods_and_cross_site_reads_are_refused(ui):
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert ui.ask("/", method).status == 405
    assert ui.ask("/jobs.json", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 403
    assert ui.ask("/jobs", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    assert ui.ask("/?" + "x" * 9000).status == 414


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/", "/../x"],
)
def test_no_way_out_of_the_folder(ui, path):
    assert ui.ask(path).status in (400, 404)


def test_a_token_opens(home):
    with serving(home, "--allow-host", "jobs.example", AUTOINST_UI_TOKEN=TOKEN) as ui:
        assert ui.ask("/jobs.json").status == 401
        assert ui.ask("/live").status == 401
        assert ui.ask("/", Accept="text/html").headers["location"] == "/login"
        assert ui.ask("/login").status == 200
        assert ui.ask("/jobs.json", Authorization="Bearer wrong").status == 401
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}").status == 200
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}", Host="jobs.example").status == 200
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}", Host="10.1.2.3").status == 200
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}", Host="evil.example").status == 421
        own = {"Origin": ui.address, "Content_Type": "application/x-www-form-urlencoded"}
        assert ui.ask("/login", "POST", "token=wrong", **own).status == 401
        assert ui.ask("/login", "POST", f"token={TOKEN.replace(' ', '+')}").status == 403
        given = ui.ask("/login", "POST", f"token={TOKEN.replace(' ', '+')}", **own)
        cookie = given.headers["set-cookie"]
        assert given.status == 303
        assert "HttpOnly" in cookie
        assert TOKEN not in cookie
        assert ui.ask("/jobs.json", Cookie=cookie.partition(";")[0]).status == 200
        assert ui.ask("/jobs.json", Cookie=cookie.partition("=")[0] + "=0").status == 401


@pytest.mark.parametrize(
    ("options", "variables", "status", "said"),
    [
        (["--host", "0.0.0.0"], {}, 1, "AUTOINST_UI_TOKEN"),
        (["--token", "short"], {}, 2, "too short"),
        (["--port", "70000"], {}, 2, "no port"),
        (["--read-from", "/no/such"], {}, 2, "no such file"),
        (["--host", "no.such.host.invalid", "--token", TOKEN], {}, 1, "no.such.host.invalid"),
    ],
)
def test_wrong_options_are_told(tmp_path, options, variables, status, said):
    done = subprocess.run(
        [AUTOINST, "ui", *options], env=environment(tmp_path, **variables), capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert said in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_told(ui, home):
    command = [AUTOINST, "ui", "--port", str(ui.port)]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--port 0" in done.stderr


# -- hostile and missing -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    home = tmp_path_factory.mktemp("evil") / "home"
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        record, *_ = webdata.hostile(store, time.time_ns())
    with serving(home) as ui:
        yield ui, record


def test_hostile_text_is_only_text(evil):
    ui, record = evil
    error = next(e["fingerprint"] for e in ui.json("/errors")["errors"] if e["last_job"] == record.id)
    name = ui.json("/jobs", q=f"id:{record.id}")["jobs"][0]["action"]
    from urllib.parse import quote

    pages = [
        *PAGES,
        f"/jobs/{record.id}",
        f"/errors/{error}",
        f"/action?name={quote(name)}",
        f"/jobs?q={quote(webdata.EVIL)}",
    ]
    clean = Text(ui.ask("/nowhere").text)
    shown = 0
    for path in pages:
        answer = ui.ask(path)
        assert answer.status in (200, 400), path
        assert "<script>alert" not in answer.text, path
        page = Text(answer.text)
        assert page.tags.count("script") == clean.tags.count("script"), path
        assert "img" not in page.tags, path
        assert "onerror" not in page.attributes, path
        assert not [link for link in page.links if link.startswith(("javascript:", "//", "http"))], path
        assert "49" not in re.findall(r"\$\{7\*7\}|\{\{7\*7\}\}|\b49\b", answer.text), path
        shown += "alert(1)" in page.text
    assert shown > len(pages) / 2


def test_no_cell_is_a_formula(evil):
    ui, _ = evil
    row = next(row for row in csv.DictReader(io.StringIO(ui.ask("/jobs.csv?q=queue:@x").text)))
    assert (row["action"], row["queue"], row["job_id"]) == ("'=HYPERLINK(1)", "'@x", "'+1")


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/" + "0" * 32,
        "/jobs/x",
        "/jobs/%00",
        "/errors/zz",
        "/errors/0123456789abcdef",
        "/action",
        "/action?name=none",
        "/nowhere",
        "/jobs/..%2f..",
    ],
)
def test_what_is_not_there_is_404(ui, path):
    answer = ui.ask(path)
    assert answer.status == 404
    assert "<h1>" in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "range=forever",
        "from=0001-01-01&to=9999-12-31",
        "from=9999-12-31&to=0001-01-01",
        "from=1970-01-01",
        "to=2262-04-12",
        "from=x&to=y",
        "from=99999999999d",
        "before=1.1",
        "before=" + "9" * 400,
        "sort=%00",
        "q=%00%ff",
        "a=%F0%9F%92%A9&b=x",
        "range=24h&range=7d",
        "state=all'--",
    ],
)
def test_odd_parameters_are_brought_into_bounds(ui, query):
    for path in (*PAGES, "/overview.json", "/jobs.csv"):
        assert ui.ask(f"{path}?{query}").status in (200, 400), path


def test_nothing_recorded_says_what_to_type_next(tmp_path):
    with serving(tmp_path / "home") as ui:
        for path in PAGES:
            answer = ui.ask(path)
            assert answer.status == 200, path
            assert "<code>" in answer.text, path
        assert "autoinst run" in ui.ask("/").text
        assert ui.json("/jobs")["jobs"] == []
    assert not (tmp_path / "home" / "store.sqlite3").exists()


def test_a_store_of_another_version_or_none_at_all_is_told(tmp_path):
    home = tmp_path / "home"
    make_private(str(home))
    path = home / "store.sqlite3"
    Store(str(path)).close()
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    con.commit()
    con.close()
    with serving(home) as ui:
        assert ui.ask("/").status == 503
        assert "newer autoinst" in ui.ask("/").text
        path.write_bytes(b"no database " * 1000)
        eventually(lambda: ui.ask("/").status == 200)  # it was moved aside
        assert ui.ask("/rules").text.count("damaged")


def test_an_older_store_that_is_only_read_is_told(tmp_path):
    path = tmp_path / "old.sqlite3"
    Store(str(path)).close()
    con = sqlite3.connect(path)
    con.execute("PRAGMA user_version = 1")
    con.commit()
    con.close()
    with serving(tmp_path / "home", "--read-from", str(path)) as ui:
        answer = ui.ask("/jobs")
        assert answer.status == 503
        assert "brought up to date" in answer.text


def test_the_worker_half_loads_none_of_it(tmp_path):
    code = "import autoinst, sys; autoinst.monitor; print([m for m in sys.modules if m.split('.')[0] in"
    code += " ('jinja2', 'starlette', 'uvicorn', 'anyio') or m.startswith('autoinst.web')])"
    env = environment(tmp_path)
    env["PYTHONPATH"] = subprocess.run(
        [AUTOINST, "path"], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()
    python = os.path.join(os.path.dirname(AUTOINST), "python")
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
