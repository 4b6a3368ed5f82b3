"""Pages about hostile text, hostile addresses, a store that is none, and nothing at all."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
import subprocess
import time
from urllib.parse import quote

import pytest

from autoinst.config import make_private
from autoinst.store import schema
from autoinst.store.sqlite import Store
from tests import webdata
from tests.agents import eventually
from tests.launching import AUTOINST, environment
from tests.web_pages import PAGES, Text, serving

pytestmark = pytest.mark.once

# What webdata.EVIL becomes where a template evaluates it; long, as a time of day holds any number of two digits.
EVALUATED = str(7919 * 7907)


@pytest.fixture(scope="module")
def ui(shop_ui):
    return shop_ui


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
        assert EVALUATED not in answer.text, path
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
