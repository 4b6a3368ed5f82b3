"""Check-ins: what a rule says of them, when they are due, and how the store and `doctor` tell that one was missed."""

from __future__ import annotations

import datetime as dt

import pytest

from autoinst.rules.crontab import Crontab
from tests.test_export_settings import settings

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
