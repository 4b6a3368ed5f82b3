"""Check-ins: what a rule says of them, when they are due, and how the store and `doctor` tell that one was missed."""

from __future__ import annotations

import datetime as dt
import subprocess
import time

import pytest

from autoinst.record import rfc3339
from autoinst.rules.crontab import Crontab
from autoinst.store.check_ins import Seen, standing
from autoinst.store.sqlite import Store
from tests.agents import eventually
from tests.exported import job
from tests.harness import Program
from tests.launching import AUTOINST, environment
from tests.test_export_settings import settings
from tests.web_pages import serving

pytestmark = pytest.mark.once

UTC = dt.timezone.utc


def ns(text):
    return int(dt.datetime.fromisoformat(text).timestamp()) * 10**9


def last(line, now, zone="UTC"):
    found = Crontab(line, zone).last(ns(now))
    return None if found is None else dt.datetime.fromtimestamp(found // 10**9, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("line", "now", "zone", "due"),
    [
        ("30 3 * * *", "2026-11-28T03:29:59+00:00", "UTC", "2026-11-27 03:30"),
        ("30 3 * * *", "2026-11-28T03:30:00+00:00", "UTC", "2026-11-28 03:30"),
        ("*/15 8-9 * * mon-fri", "2026-11-28T12:00:00+00:00", "UTC", "2026-11-27 09:45"),
        ("5/20 * * * *", "2026-11-28T12:04:00+00:00", "UTC", "2026-11-28 11:45"),
        ("0 0 1,15 * *", "2026-11-14T23:59:00+00:00", "UTC", "2026-11-01 00:00"),
        ("0 0 13 * 5", "2026-11-28T00:00:00+00:00", "UTC", "2026-11-27 00:00"),  # a Friday, though not the 13th
        ("0 0 29 2 *", "2026-11-28T00:00:00+00:00", "UTC", "2024-02-29 00:00"),
        ("0 0 * * 7", "2026-11-28T00:00:00+00:00", "UTC", "2026-11-22 00:00"),
        ("@monthly", "2026-11-28T00:00:00+00:00", "UTC", "2026-11-01 00:00"),
        ("0 0 31 2 *", "2026-11-28T00:00:00+00:00", "UTC", None),
        ("30 3 * * *", "2026-07-01T12:00:00+00:00", "Europe/Berlin", "2026-07-01 01:30"),
        ("30 3 * * *", "2026-12-01T12:00:00+00:00", "Europe/Berlin", "2026-12-01 02:30"),
        # put forward from 2:00 to 3:00, and back from 3:00 to 2:00
        ("30 2 * * *", "2026-03-29T12:00:00+00:00", "Europe/Berlin", "2026-03-29 01:30"),
        ("30 2 * * *", "2026-10-25T00:45:00+00:00", "Europe/Berlin", "2026-10-25 00:30"),
        ("30 2 * * *", "2026-10-25T01:15:00+00:00", "Europe/Berlin", "2026-10-25 00:30"),
    ],
)
def test_the_last_due_time_of_a_crontab(line, now, zone, due):
    assert last(line, now, zone) == due


def test_a_check_in_of_a_rule(tmp_path):
    found, problems = settings(
        tmp_path,
        """\
version: 1
defaults: {keep: {ok: 1/20}}
jobs:
  - {function: a.f, check_in: nightly}
  - function: a.g
    check_in: {identifier: often, type: heartbeat, every: 5m, grace: 30s}
  - function: a.h
    check_in: {identifier: mondays, schedule: 0 6 * * mon, timezone: Europe/Berlin}
""",
    )
    assert problems == []
    rest = {"schedule": None, "timezone": "UTC", "every": None, "grace": 300.0}
    assert found["check_ins"] == {
        "nightly": {"identifier": "nightly", "type": "cron", **rest, "where": "rules.yaml:4"},
        "often": {
            "identifier": "often",
            "type": "heartbeat",
            **rest,
            "every": 300.0,
            "grace": 30.0,
            "where": "rules.yaml:5",
        },
        "mondays": {
            "identifier": "mondays",
            "type": "cron",
            **rest,
            "schedule": "0 6 * * mon",
            "timezone": "Europe/Berlin",
            "where": "rules.yaml:7",
        },
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "2:34: 'check_in' needs 'identifier' (write {identifier: nightly})"),
        ("[a]", "2:34: 'check_in' must be a text or a mapping, not a list (write check_in: nightly)"),
        ("{identifer: a}", "2:35: unknown key 'identifer' in 'check_in' (did you mean 'identifier'?)"),
        ("{identifier: a, type: corn}", "2:56: 'type' cannot be 'corn' (did you mean 'cron'?)"),
        (
            "{identifier: a, schedule: daily}",
            "2:60: 'schedule' 'daily': must be five fields as in a crontab, such as 30 3 * * *",
        ),
        (
            "{identifier: a, schedule: 61 * * * *}",
            "2:60: 'schedule' '61 * * * *': has '61' for the minute, which is from 0 to 59",
        ),
        (
            "{identifier: a, schedule: 5-1 * * * *}",
            "2:60: 'schedule' '5-1 * * * *': has the minute '5-1', which ends before it begins",
        ),
        (
            "{identifier: a, schedule: '@daily', timezone: Berlin}",
            "2:80: 'timezone' 'Berlin': there is no time zone 'Berlin'",
        ),
        ("{identifier: a, every: often}", "2:57: 'every' must be a time such as 90s, 5m, 2h or 1d, not 'often'"),
        (
            "{identifier: a, every: 5m, schedule: '@daily'}",
            "2:57: a check-in has 'schedule' or 'every', not both",
        ),
        ("{identifier: a, timezone: UTC}", "2:60: 'timezone' goes with 'schedule'"),
        ('"${x}"', "2:34: 'identifier' is a text: it cannot have expressions"),
    ],
)
def test_what_is_wrong_with_a_check_in_is_told(tmp_path, text, problem):
    found, problems = settings(tmp_path, f"version: 1\njobs: [{{function: a.f, check_in: {text}}}]\n")
    assert problems == [problem]
    assert found["check_ins"] == {}


def test_a_rule_with_a_check_in_keeps_all_its_jobs(tmp_path):
    text = "version: 1\njobs: [{function: a.f, check_in: a, keep: {ok: 0.5}}]\n"
    _, problems = settings(tmp_path, text)
    assert problems == ["2:43: of a rule with 'check_in' all jobs are kept (leave out 'keep')"]


NOON = ns("2026-11-28T12:00:00+00:00")
HOUR = 3600 * 10**9
NIGHTLY = {"type": "cron", "schedule": "0 3 * * *", "timezone": "UTC", "every": None, "grace": 600.0}
HOURLY = {"type": "heartbeat", "schedule": None, "timezone": "UTC", "every": 3600.0, "grace": 600.0}
EVERY_MINUTE = NIGHTLY | {"schedule": "* * * * *"}
DUE = ns("2026-11-28T03:00:00+00:00")


def state(rule, now, seen=None, flying=()):
    known = {} if seen is None else {"it": seen}
    [found] = standing({"it": rule}, known, flying, now)
    return found.state, found.due_ns


@pytest.mark.parametrize(
    ("rule", "now", "seen", "expected"),
    [
        (NIGHTLY, NOON, None, ("unseen", DUE)),
        (NIGHTLY, NOON, Seen(NOON - HOUR, None, None, None, None), ("unseen", DUE)),  # expected since after it was due
        (NIGHTLY, NOON, Seen(DUE - HOUR, None, None, None, None), ("missed", DUE)),
        (NIGHTLY, NOON, Seen(0, DUE + 5, DUE + 9, "ok", "a"), ("ok", DUE)),
        (NIGHTLY, NOON, Seen(0, DUE - 15 * 10**9, DUE, "ok", "a"), ("ok", DUE)),  # another clock
        (NIGHTLY, NOON, Seen(0, DUE + 5, DUE - HOUR, "error", "a"), ("failed", DUE)),
        (NIGHTLY, NOON, Seen(0, DUE - HOUR, DUE - HOUR, "ok", "a"), ("missed", DUE)),
        (NIGHTLY, DUE + 60 * 10**9, Seen(0, DUE - 25 * HOUR, DUE - HOUR, "ok", "a"), ("missed", DUE - 24 * HOUR)),
        (NIGHTLY, DUE + 60 * 10**9, Seen(0, DUE - HOUR, DUE, "ok", "a"), ("late", DUE)),
        (EVERY_MINUTE, NOON, Seen(0, NOON - 10 * 60 * 10**9, NOON, "ok", "a"), ("late", NOON)),
        (EVERY_MINUTE, NOON, Seen(0, NOON - HOUR, NOON, "ok", "a"), ("missed", NOON - 600 * 10**9)),
        (HOURLY, NOON, Seen(NOON - 30 * 60 * 10**9, None, None, None, None), ("unseen", None)),
        (HOURLY, NOON, Seen(NOON - 2 * HOUR, None, None, None, None), ("missed", NOON - HOUR)),
        (HOURLY, NOON, Seen(0, NOON - 65 * 60 * 10**9, NOON, "ok", "a"), ("late", NOON - 5 * 60 * 10**9)),
        (HOURLY, NOON, Seen(0, NOON - 2 * HOUR, NOON, "ok", "a"), ("missed", NOON - HOUR)),
        (HOURLY, NOON, Seen(0, NOON - HOUR // 2, NOON, "ok", "a"), ("ok", None)),
        (HOURLY | {"every": None}, NOON, Seen(0, 5, 6, "ok", "a"), ("ok", None)),
    ],
)
def test_how_a_check_in_stands(rule, now, seen, expected):
    assert state(rule, now, seen) == expected


def test_a_job_that_runs_has_begun():
    seen = Seen(0, DUE - HOUR, DUE - HOUR, "ok", "a")
    flying = job(1, "running", started_ns=DUE + 5, tags={"check_in.cron": "it"})
    assert state(NIGHTLY, NOON, seen, [flying]) == ("running", DUE)


def test_the_store_knows_the_job_that_began_last(tmp_path):
    with Store(str(tmp_path / "store.sqlite3")) as store:
        with store.transaction():
            store.expect_check_ins(["nightly", "never"])
        first, second, third = (
            job(n, "error" if n == 2 else "ok", tags={"check_in.cron": "nightly"}) for n in (1, 2, 3)
        )
        with store.transaction():
            store.insert([second])
        with store.transaction():
            store.insert([first, job(9)])
        found = store.check_ins()
        assert found["nightly"][1:] == (
            second.started_ns,
            first.started_ns + (first.duration_ns or 0),
            "error",
            second.id,
        )
        assert found["never"][1:] == (None, None, None, None)
        with store.transaction():
            store.insert([third])
        assert store.check_ins()["nightly"].status == "ok"


def test_doctor_tells_of_a_check_in_that_was_missed(tmp_path):
    program = Program(tmp_path)
    text = "version: 1\njobs: [{function: work.job, check_in: {identifier: often, every: 1s, grace: 1s}}]\n"
    program.write("rules.yaml", text)
    program.write("work.py", "def job():\n    pass\n")
    program.run("-c", "import work; work.job()")
    with Store(str(program.home / "store.sqlite3"), readonly=True) as store:
        began = store.check_ins()["often"].started_ns or 0
    eventually(lambda: time.time_ns() > began + 3 * 10**9)
    variables = environment(program.home, AUTOINST_RULES=str(tmp_path / "rules.yaml"))
    done = subprocess.run([AUTOINST, "doctor"], env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    due = rfc3339(began + 10**9)
    assert f"check-in often was missed: it was due at {due}, and it began last at {rfc3339(began)}" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("often")]
    assert line.split()[:3] == ["often", "cron", "missed"]
    done = subprocess.run([AUTOINST, "jobs"], env=variables, capture_output=True, text=True, timeout=120, check=True)
    assert "work#job" in done.stdout
    assert f"check-in often was missed: its job was due at {due}" in done.stderr


def test_the_page_shows_how_check_ins_stand(tmp_path):
    program = Program(tmp_path)
    program.write(
        "rules.yaml",
        """\
        version: 1
        jobs:
          - {function: work.job, check_in: {identifier: often, every: 1s, grace: 1s}}
          - {function: work.no, check_in: {identifier: '<i>no</i>', schedule: 0 0 31 2 *}}  # never due
        """,
    )
    program.write("work.py", "def job():\n    pass\n")
    program.run("-c", "import work; work.job()")
    with serving(program.home, AUTOINST_RULES=str(tmp_path / "rules.yaml")) as ui:
        eventually(lambda: [each["state"] for each in ui.json("/check-ins")["check_ins"]] == ["missed", "unseen"])
        page = ui.ask("/check-ins").text
        assert "1 missed" in page
        assert "&lt;i&gt;no&lt;/i&gt;" in page
        [job_id] = [each["id"] for each in ui.json("/jobs")["jobs"]]
        assert f'href="/jobs/{job_id}"' in page
        assert 'href="/check-ins"' in ui.ask("/").text
        assert ui.ask("/check-ins.csv").text.splitlines()[0].startswith("identifier,type,schedule,state")
    (tmp_path / "rules.yaml").write_text("version: 1\n")
    with serving(program.home, AUTOINST_RULES=str(tmp_path / "rules.yaml")) as ui:
        assert "No rule has a check-in" in ui.ask("/check-ins").text
        assert 'href="/check-ins"' not in ui.ask("/").text
