"""Webhooks: what is told of, once; in which words; signed; not too often; and what doctor says."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import subprocess
import time
from typing import Any

import pytest

from autoinst.export.circuit import Circuit
from autoinst.export.endpoint import Endpoint, Reaching
from autoinst.export.pump import IDLE, Pump
from autoinst.export.settings import choose
from autoinst.export.watch import KINDS, Watch
from autoinst.export.webhook import MAX_LINES, Webhook, slack, text_of
from autoinst.record import ExceptionInfo
from autoinst.store.sqlite import Store
from tests import hostile
from tests.exported import job
from tests.hostile import Receiver, status
from tests.launching import AUTOINST, environment
from tests.test_export_pump import run_dry
from tests.test_export_receivers import fill
from tests.test_export_settings import settings

pytestmark = pytest.mark.once

OTHER = ExceptionInfo("shop.OtherError", "<b> & all")
MINUTE = 60 * 10**9


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "store.sqlite3")) as found:
        yield found


def add(store, *records):
    with store.transaction():
        store.insert(records)


def told(store):
    return [(notice.kind, notice.subject, notice.data.get("because")) for notice in store.notices_after(0, -1)]


def kinds(store):
    return [kind for kind, _, _ in told(store)]


def test_an_error_is_told_of_once(store):
    watch = Watch(KINDS, {})
    watch.look(store)
    add(store, job(1, "error"), job(2, "error"), job(3))
    watch.look(store)
    [notice] = store.notices_after(0, -1)
    assert notice.kind == "new_error"
    assert (
        notice.data.items()
        >= {
            "job": job(1).id,
            "action": "shop.Mailer#perform",
            "queue": "mail",
            "exception": "shop.MailError",
            "message": "no items",
            "revision": "abc123",
            "environment": "production",
        }.items()
    )
    assert "args" not in notice.data
    assert text_of(notice) == "New error in shop.Mailer#perform: shop.MailError: no items"
    add(store, job(4, "error"))
    watch.look(store)
    Watch(KINDS, {}).look(store)
    assert kinds(store) == ["new_error"]
    add(store, job(5, "error", exception=OTHER))
    watch.look(store)
    assert kinds(store) == ["new_error", "new_error"]


def test_what_was_there_before_is_known(store):
    add(store, job(1, "error"), job(2, "killed"))
    watch = Watch(KINDS, {})
    watch.look(store)
    add(store, job(3, "error"))
    watch.look(store)
    assert told(store) == []


def resolve(store, state="resolved"):
    [group] = store.errors()
    with store.transaction():
        store.set_error_state(group, state)


def test_an_error_that_was_resolved_is_told_of_when_it_is_back(store):
    watch = Watch(KINDS, {})
    watch.look(store)
    add(store, job(1, "error"))
    watch.look(store)
    resolve(store)
    add(store, job(2, "error"))  # from before it was resolved
    watch.look(store)
    assert kinds(store) == ["new_error"]
    later = time.time_ns() + MINUTE
    add(store, job(3, "error", started_ns=later), job(4, "error", started_ns=later + 1))
    watch.look(store)
    assert [kind for kind, _, because in told(store)][1:] == ["reopened_error"]
    assert told(store)[1][2] == "resolved"
    assert text_of(store.notices_after(1, 1)[0]).startswith("Error is back in revision abc123 in shop.Mailer#perform")


def test_an_error_that_goes_on_after_a_deploy_is_told_of_once_a_revision(store):
    watch = Watch(KINDS, {})
    watch.look(store)
    add(store, job(1, "error"))
    watch.look(store)
    for number in (2, 3):
        add(store, job(number, "error", revision="def456"))
        watch.look(store)
    add(store, job(4, "error"))  # the old revision runs beside the new one
    watch.look(store)
    assert [(kind, because) for kind, _, because in told(store)] == [("new_error", None), ("reopened_error", "deploy")]
    resolve(store, "ignored")
    add(store, job(5, "error", revision="ghi789"))
    watch.look(store)
    assert len(told(store)) == 2


def test_killed_jobs_and_slow_queues_are_told_of_again_after_a_while(store, monkeypatch):
    watch = Watch(KINDS, {}, queue_ns=10**9, repeat_seconds=600)
    watch.look(store)
    slow: dict[str, Any] = {"queue_time_ms": 1500.0}
    add(
        store, job(1, "killed"), job(2, "killed"), job(3, **slow), job(4, **slow), job(5, queue="other", **slow), job(6)
    )
    watch.look(store)
    first = [
        ("killed_job", "shop.Mailer#perform", None),
        ("slow_queue", "mail", None),
        ("slow_queue", "other", None),
    ]
    assert told(store) == first
    texts = [text_of(notice) for notice in store.notices_after(0, -1)]
    assert texts[0] == "Killed: shop.Mailer#perform: process 42 killed by SIGKILL in query.sqlite"
    assert texts[1] == "Slow: shop.Mailer#perform waited 1.50 s in queue mail (more than 1.00 s)"
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 601 * 10**9)
    add(store, job(7, "killed"))
    watch.look(store)
    assert told(store) == [*first, first[0]]


def test_a_clock_that_is_set_back_silences_nothing_for_long(store, monkeypatch):
    watch = Watch(KINDS, {}, repeat_seconds=600)
    watch.look(store)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**15)
    add(store, job(1, "killed"))
    watch.look(store)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    add(store, job(2, "killed"))
    watch.look(store)
    assert kinds(store) == ["killed_job", "killed_job"]


def failed(number):
    """Return a job with an error of its own."""
    return job(number, "error", exception=ExceptionInfo(f"shop.Error{number}", "no"))


RULE = {"type": "cron", "schedule": None, "timezone": "UTC", "every": 60.0, "grace": 60.0}


def test_a_missed_check_in_is_told_of_once_each_time(store, monkeypatch):
    now = time.time_ns()

    def look(after_seconds):
        monkeypatch.setattr(time, "time_ns", lambda: now + int(after_seconds * 1e9))
        watch._check_at = 0
        watch.look(store)

    watch = Watch(KINDS, {"nightly": RULE}, repeat_seconds=1)
    look(0)
    look(30)
    look(119)
    assert told(store) == []
    look(125)
    look(300)
    assert told(store) == [("missed_check_in", "nightly", None)]
    assert text_of(store.notices_after(0, 1)[0]).endswith("it has never run")
    add(store, job(1, started_ns=now + 310 * 10**9, tags={"check_in.cron": "nightly"}))
    look(360)
    assert len(told(store)) == 1
    look(440)
    assert len(told(store)) == 2


def test_only_what_is_asked_for_is_told(store):
    watch = Watch(["killed_job"], {"nightly": RULE}, queue_ns=1)
    watch.look(store)
    add(store, job(1, "error"), job(2, "killed"), job(3, queue_time_ms=100.0))
    watch.look(store)
    assert kinds(store) == ["killed_job"]


def test_many_at_once_are_all_looked_at(store, monkeypatch):
    monkeypatch.setattr("autoinst.export.watch.LOOK", 7)
    watch = Watch(KINDS, {})
    watch.look(store)
    add(store, *(failed(number) for number in range(1, 31)), job(31))
    watch.look(store)
    assert len(told(store)) == 30
    row = store.feed("webhook.watch")
    assert row is not None
    assert row.n == store.last()


# -- posting -----------------------------------------------------------------------------------------------------


def variables(url, **more):
    return {"AUTOINST_EXPORTERS": "webhook", "AUTOINST_WEBHOOK_URL": url, "NO_PROXY": "*", **more}


def once(home, url, rules="version: 1\n", **more):
    file = home.parent / "rules.yaml"
    file.write_text(rules)
    env = environment(home, AUTOINST_RULES=str(file), **variables(url, **more))
    line = [AUTOINST, "agent", "--once"]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)


def posted(receiver) -> list[dict[str, Any]]:
    return [body for _, body in receiver.bodies.items()]


def test_notices_are_posted_signed_in_one_message(home):
    fill(home, [job(1)])
    with Receiver() as receiver:
        url = f"{receiver.url}/hooks/T0/s3cret?x=1"
        page = "version: 1\nexporters: {webhook: {page: 'http://here:8080', headers: {X-From: me}}}\n"
        assert once(home, url, page, AUTOINST_WEBHOOK_SECRET="shh").returncode == 0
        fill(home, [job(2, "error"), job(3, "killed"), job(4, "error", exception=OTHER)])
        done = once(home, url, page, AUTOINST_WEBHOOK_SECRET="shh")
        assert (done.returncode, "webhook: 3 notice(s) sent" in done.stderr) == (0, True)
        [body] = posted(receiver)
        assert body["version"] == 1
        assert [notice["kind"] for notice in body["notices"]] == ["new_error", "killed_job", "new_error"]
        assert body["notices"][0]["url"] == f"http://here:8080/jobs/{job(2).id}"
        [headers] = receiver.headers
        assert headers["X-From"] == "me"
        at = headers["X-Autoinst-Timestamp"]
        assert abs(int(at) - time.time()) < 300
        [raw] = receiver.raw
        wanted = hmac.new(b"shh", at.encode() + b"." + raw, hashlib.sha256).hexdigest()
        assert headers["X-Autoinst-Signature"] == f"v1={wanted}"
        assert once(home, url, page).returncode == 0
        assert len(posted(receiver)) == 1


def test_slack_gets_a_message_it_takes(home):
    fill(home, [job(1)])
    with Receiver() as receiver:
        rules = "version: 1\nexporters: {webhook: {format: slack}}\n"
        once(home, receiver.url, rules)
        fill(home, [job(2, "error", exception=OTHER)])
        receiver.behave(hostile.taken_then(status(200, b"ok", Content_Type="text/html")))
        assert once(home, receiver.url, rules).returncode == 0
        [body] = posted(receiver)
    line = "• New error in shop.Mailer#perform: shop.OtherError: &lt;b&gt; &amp; all"
    assert body["text"] == f"autoinst: 1 thing to see to\n{line}"
    assert body["blocks"][0]["text"] == {"type": "mrkdwn", "text": f"*autoinst: 1 thing to see to*\n{line}"}


def test_a_long_message_for_slack_is_cut():
    body = slack([{"text": "x" * 500, "url": "http://here/jobs/1"}] * 50)
    lines = body["text"].splitlines()
    assert len(lines) == MAX_LINES + 2
    assert lines[-1] == "and 30 more"
    assert lines[1].endswith("... (<http://here/jobs/1|job>)")
    assert len(body["blocks"][0]["text"]["text"]) <= 3000


def test_the_address_is_not_told_and_a_refusal_is(home):
    fill(home, [job(1)])
    with Receiver() as receiver:
        url = f"{receiver.url}/hooks/s3cret"
        once(home, url)
        fill(home, [job(2, "error")])
        receiver.chance = lambda: status(404, b"no /hooks/s3cret here", Content_Type="text/plain")
        done = once(home, url)
        assert done.returncode == 1
        assert f"webhook: 0 notice(s) sent, 1 wait: {receiver.url}/...: answered 404: no /... here" in done.stderr
        assert "s3cret" not in done.stderr


def test_a_notice_that_is_refused_is_parked_and_the_others_arrive(home):
    fill(home, [job(1)])
    with Receiver() as receiver:
        once(home, receiver.url)
        fill(home, [failed(number) for number in range(2, 8)])
        receiver.path_behaviours["/"] = hostile.refuse_jobs("shop.Error4")
        assert once(home, receiver.url).returncode == 0
        arrived = [notice["exception"] for body in posted(receiver) for notice in body["notices"]]
        assert sorted(arrived) == [f"shop.Error{number}" for number in (2, 3, 5, 6, 7)]
    with Store(str(home / "store.sqlite3")) as store:
        [parked] = store.parked()
    assert (parked.feed, parked.job) == ("webhook", None)
    assert parked.reason.startswith("new_error ")


def test_posts_are_no_more_frequent_than_asked_for(store, tmp_path):
    with Receiver() as receiver:
        feed = Webhook(Endpoint(receiver.url, Reaching()), Watch(KINDS, {}), str(tmp_path), interval=3600)
        feed.batch = 2
        pump = Pump(feed, store.path, logging.getLogger("autoinst.tests.webhook"), Circuit(0.001, 0.01))
        assert pump.turn().wait == IDLE
        add(store, *(failed(number) for number in range(1, 10)))
        assert pump.turn().sent == 2
        turn = pump.turn()
        assert (turn.sent, 3500 < turn.wait <= 3600) == (0, True)
        run_dry(pump)
        assert len(posted(receiver)) == 5
        pump.close()


def test_doctor_posts_a_test(home):
    fill(home, [job(1)])
    with Receiver() as receiver:
        env = environment(home, **variables(f"{receiver.url}/s3cret"))
        line = [AUTOINST, "doctor", "--json"]
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
        [feed] = json.loads(done.stdout)["exporters"]["feeds"]
        assert (feed["name"], feed["ok"], feed["test"], feed["waiting"]) == ("webhook", True, "answered 200", 0)
        assert feed["to"] == f"{receiver.url}/..."
        assert posted(receiver) == [{"version": 1, "notices": [], "test": "autoinst doctor: a test, nothing is wrong"}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "url: hooks.example",
            "2:28: 'url' must be an address that begins with http:// or https://, not 'hooks.example'",
        ),
        ("on: [new_eror]", "2:28: an item of 'on' cannot be 'new_eror' (did you mean 'new_error'?)"),
        ("format: teams", "2:31: 'format' cannot be 'teams' (it may be json, slack)"),
        ("queue_time: 5s", "2:35: 'queue_time' must be a number of milliseconds, not '5s'"),
        ("repeat: often", "2:31: 'repeat' must be a time such as 90s, 5m, 2h or 1d, not 'often'"),
    ],
)
def test_what_is_wrong_in_the_rules_file_is_told(tmp_path, text, problem):
    _, problems = settings(tmp_path, f"version: 1\nexporters: {{webhook: {{{text}}}}}\n")
    assert problems == [problem]


def test_what_is_wrong_with_a_variable_is_told_without_it():
    [problem] = choose({"AUTOINST_EXPORTERS": "webhook"}, {}).problems
    assert problem.startswith("exporter webhook: AUTOINST_WEBHOOK_URL is not set, nor url of the rules file; it is off")
    [problem] = choose(variables("hooks.example/s3cret"), {}).problems
    assert problem.startswith("exporter webhook: AUTOINST_WEBHOOK_URL: must be an address that begins with http://")
    assert "s3cret" not in problem
