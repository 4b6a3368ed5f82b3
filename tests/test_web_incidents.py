"""Errors on the pages as incidents: resolved until they come again, ignored, or only read."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from autoinst.config import make_private
from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store.sqlite import Store
from tests.web_pages import serving

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def home(shop):
    return shop


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
