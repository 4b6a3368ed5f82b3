"""What the web page promises whatever was recorded: secrets masked everywhere, many failures as few errors."""

from __future__ import annotations

import hmac
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from autoinst.config import make_private
from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store import schema
from autoinst.store.sqlite import Store
from autoinst.web import security
from tests.launching import AUTOINST, environment
from tests.web_pages import PAGES, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SECRET = "hunter2-hunter2"
WORKER = f"""
class Login:
    def perform(self, user, settings):
        raise ValueError("refused")

try:
    Login().perform("ada", {{"password": "{SECRET}", "deep": [{{"api_key": "{SECRET}"}}]}})
except ValueError:
    pass
"""
RULES = """
version: 1
jobs:
  - class: __main__.Login
    methods: [perform]
    payload: {args: "${args}", kwargs: "${settings}"}
"""


def test_secrets_are_masked_on_pages_in_json_and_csv(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "rules.yaml").write_text(RULES)
    home = tmp_path / "home"
    command = [AUTOINST, "run", "--rules", "rules.yaml", "worker.py"]
    subprocess.run(command, cwd=tmp_path, env=environment(home), check=True, timeout=60)
    (tmp_path / "worker.py").unlink()  # its lines are shown beside the backtrace, and here they are the secret
    with serving(home) as ui:
        (job,) = ui.json("/jobs")["jobs"]
        assert job["kwargs"] == {"password": "[FILTERED]", "deep": [{"api_key": "[FILTERED]"}]}
        error = ui.json("/errors")["errors"][0]["fingerprint"]
        action = quote(job["action"])
        for path in (*PAGES, f"/jobs/{job['id']}", f"/errors/{error}", f"/action?name={action}", "/jobs?q=password"):
            address, _, query = ("/overview" if path == "/" else path).partition("?")
            for kind in ("", ".json", ".csv"):
                assert SECRET not in ui.ask(f"{address}{kind}?{query}").text, path + kind
        assert "[FILTERED]" in ui.ask(f"/jobs/{job['id']}").text
        assert "[FILTERED]" in ui.ask(f"/jobs/{job['id']}.csv").text


def test_three_causes_of_thousands_of_failures_are_three_errors(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_private(str(home))
    now = time.time_ns()
    records = []
    for n in range(6_000):
        cause = n % 3
        record = Record(record_id(b"failures", n), "error", now - n * 10**6, action="shop.Import#perform")
        frames = [Frame("/srv/shop/imports.py", 10 + cause, f"step_{cause}", in_app=True)]
        record.exception = ExceptionInfo("builtins.ValueError", f"row {n} of file {n * 7}: wrong", frames)
        records.append(record)
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert(records)
    with serving(home) as ui:
        assert sorted(error["total"] for error in ui.json("/errors")["errors"]) == [2_000] * 3
        page = ui.ask("/errors").text
        assert "6,000 failures, really 3 errors" in page
        assert page.count('<tr id="e-') == 3


def test_a_store_that_is_still_to_be_brought_up_to_date_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    Store(str(path)).close()
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA user_version = {schema.VERSION - 1}")
    con.commit()
    con.close()
    with serving(tmp_path / "none", "--read-from", str(path)) as ui:
        for address in (*PAGES, "/jobs.json", "/errors.csv"):
            answer = ui.ask(address)
            assert answer.status == 503, address
            assert "being brought up to date" in answer.text


def test_pages_are_there_while_the_store_is_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store:
        with store.transaction():
            store.insert([Record(record_id(b"12345678", 1), "ok", time.time_ns(), action="a#b")])
        with serving(home) as ui, store.transaction():
            store.insert([Record(record_id(b"12345678", 2), "ok", time.time_ns(), action="a#b")])
            for address in PAGES:
                assert ui.ask(address).status == 200, address
            assert len(ui.json("/jobs")["jobs"]) == 1


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compare = hmac.compare_digest

    def noted(given: bytes, wanted: bytes) -> bool:
        asked.append((given, wanted))
        return compare(given, wanted)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    guard = security.Guard(lambda *_: None, hosts=[], token="the right one", cookie="c")  # type: ignore[arg-type]
    assert [guard.is_token(given) for given in ("", "the wrong one", "the right one")] == [False, False, True]
    assert guard.is_csrf(guard.csrf())
    assert not guard.is_csrf("\ud800")
    assert len(asked) == 5
