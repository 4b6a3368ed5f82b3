"""The built-in Django Q2 pack with real clusters, on Redis and on the database: every run is recorded once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, link, put_by, run, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

SETTINGS = """
import os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django_q"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": {"timeout": 60}}}
Q_CLUSTER = {"name": "mail", "workers": 1, "timeout": 60, "retry": 70, "poll": 0.1, "guard_cycle": 0.1}
if os.environ["BROKER"] == "orm":
    Q_CLUSTER["orm"] = "default"
    if os.environ.get("RETRY"):
        Q_CLUSTER |= {"timeout": 5, "retry": 6, "max_attempts": 2}
else:
    Q_CLUSTER["redis"] = os.environ["BROKER"]
"""

SHOP = '''
"""Tasks that end in every way; each run notes its name."""
import os, signal, time
from django_q.tasks import async_task
from notes import note

def add(a, token=None, b=0):
    note("add")
    return a + b

def fail(x):
    note("fail")
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

class Mail:
    @staticmethod
    def send(to):
        note("send")

def slow():
    note("slow")
    while True:
        time.sleep(0.01)

def unkept():
    note("unkept")
    return lambda: 0

def order():
    note("order")
    async_task("shop.add", 7, task_name="child", group="g")

def large(text):
    note("large")

def later(n):
    note("later")

def flaky():
    if note("flaky") == 1:
        raise RuntimeError("try again")

def early():
    note("early")

def die():
    note("die")
    os.kill(os.getpid(), signal.SIGKILL)
'''

SEND = """
import datetime, sys
import django
django.setup()
from django.utils import timezone
from django_q.tasks import async_task, schedule
import shop

print("add", async_task("shop.add", 1, "hunter2", b=2, task_name="add", group="g"))
print("fail", async_task(shop.fail, "x", task_name="fail"))
print("send", async_task(shop.Mail.send, "me", task_name="send"))
print("missing", async_task("shop.nothing", 5, task_name="missing"))
print("order", async_task("shop.order", task_name="order"))
print("slow", async_task("shop.slow", task_name="slow", timeout=1))
print("large", async_task("shop.large", "x" * 3_000_000, task_name="large"))
schedule("shop.later", 3, name="later", next_run=timezone.now() + datetime.timedelta(seconds=1), repeats=1,
         schedule_type="O")
"""

ONE = """
import sys
import django
django.setup()
from django_q.tasks import async_task
print(async_task(f"shop.{sys.argv[1]}", task_name=sys.argv[1]))
"""

BAD: tuple[Any, ...] = ("ValueError", "bad", [("KeyError", "'key'")], "fail")
TIMEOUT: tuple[Any, ...] = (
    "django_q.exceptions.TimeoutException",
    "Task exceeded maximum timeout value (1 seconds)",
    [],
    "slow",
)
KNOWN: dict[str, dict[str, Any]] = {
    "add": {"args": [1, "[FILTERED]"], "kwargs": {"b": 2}, "tags": {"task": "add", "group": "g"}},
    "fail": {"args": ["x"], "status": "error", "exception": BAD},
    "send": {"args": ["me"]},
    "missing": {
        "args": ["[FILTERED]"],  # of a function that is not found no parameter is known
        "status": "error",
        "exception": ("ValueError", "Function shop.nothing is not defined", [], None),
    },
    "slow": {"status": "error", "exception": TIMEOUT},
    "order": {
        "events": [{"name": "enqueue.django-q2", "title": "shop.add", "body": None, "parent": None}],
    },
    "child": {"args": [7], "tags": {"task": "child", "group": "g"}},
    "large": {"args": ["..."]},
    "later": {"args": [3], "tags": {"task": "later", "group": "later"}},
    "early": {"clock_skew": True},
    "flaky": {},
    "die": {"status": "killed", "killed": True},
}


def expected(name: str, job_id: str, **fields: Any) -> dict[str, Any]:
    function = {"send": "Mail.send", "missing": "nothing", "child": "add"}.get(name, name)
    usual = {"attempts": None, "tags": {"task": name}, "parent_span_id": True}
    return run("django-q2", job_id, f"shop.{function}", **{**usual, **KNOWN[name], **fields})


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.mark.parametrize(("environment", "broker"), [("databases", "redis"), ("databases", "orm"), ("oldest", "redis")])
def test_every_run_of_every_task(tmp_path: Path, request: pytest.FixtureRequest, environment: str, broker: str) -> None:
    url = request.getfixturevalue("redis").url if broker == "redis" else broker
    variables = {"PYTHONPATH": ".", "DJANGO_SETTINGS_MODULE": "settings", "BROKER": url}
    files = {"settings.py": SETTINGS, "shop.py": SHOP, "send.py": SEND, "one.py": ONE}
    unsent = {"missing", "flaky", "die"}
    if environment == "oldest":  # whose workers do not end what is over its time
        unsent.add("slow")
        files["send.py"] = "".join(line for line in SEND.splitlines(keepends=True) if "slow" not in line)
    worker = Worker(tmp_path / "program", environment, files, variables)
    worker.call("django-admin", "migrate")
    ids = dict(line.split() for line in worker.call("python", "send.py").splitlines() if len(line.split()) == 2)
    if broker == "redis":  # a database's row is taken only when the worker's own clock has come that far
        ids["early"] = worker.call("python", "ahead.py", "one.py", "early").split()[-1]
    else:
        unsent.add("early")
    worker.start("django-admin", "qcluster")
    runs = ["add" if name == "child" else name for name in KNOWN if name not in unsent]
    worker.wait_for(runs)
    ids["die"] = worker.call("python", "one.py", "die").split()[-1]
    worker.stop_after([*runs, "die"], by=signal.SIGTERM)
    found = {job: [whole(record) for record in records] for job, records in worker.records().items()}
    ids["later"] = next(job for job, records in found.items() if records[0]["method"] == "later")
    ids["child"] = next(job for job, records in found.items() if records[0]["tags"].get("task") == "child")
    (order,), (child,) = (worker.records()[ids[name]] for name in ("order", "child"))
    assert link(child) == put_by(order)
    for name, job in ids.items():
        (record,) = found.pop(job)
        if name == "later":  # a schedule's task has a name made up for it
            assert record["tags"].pop("task")
            record["tags"]["task"] = name
        if name == "large":
            assert record["args"][0].startswith("xxx")
            record["args"] = ["..."]
        assert record == expected(name, job), worker.output
    assert not found


def test_a_task_that_runs_where_it_is_put_on_the_queue(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": ".", "DJANGO_SETTINGS_MODULE": "settings", "BROKER": "orm"}
    text = ONE.replace("task_name", "1, sync=True, task_name")
    worker = Worker(
        tmp_path / "program", "databases", {"settings.py": SETTINGS, "shop.py": SHOP, "now.py": text}, variables
    )
    worker.call("django-admin", "migrate")
    job = worker.call("python", "now.py", "add").split()[-1]
    (record,) = worker.records()[job]
    assert whole(record) == expected("add", job, args=[1], kwargs={}, tags={"task": "add"}, queue=None)


AGAIN: dict[str, Any] = {"status": "error", "exception": ("RuntimeError", "try again", [], "flaky")}
FLAKY = {"flaky": [expected("flaky", "flaky", **AGAIN), expected("flaky", "flaky")]}


def test_a_task_that_failed_is_run_again_from_the_database(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": ".", "DJANGO_SETTINGS_MODULE": "settings", "BROKER": "orm", "RETRY": "1"}
    files = {"settings.py": SETTINGS, "shop.py": SHOP, "one.py": ONE}
    worker = Worker(tmp_path / "program", "databases", files, variables)
    worker.call("django-admin", "migrate")
    job = worker.call("python", "one.py", "flaky").split()[-1]
    worker.start("django-admin", "qcluster")
    worker.wait_for(["flaky"] * 2)
    worker.wait_for_records(2)
    worker.stop_after(["flaky"] * 2, by=signal.SIGTERM)
    first, second = worker.records()[job]
    assert [whole(first), whole(second)] == [{**record, "job_id": job} for record in FLAKY["flaky"]]
    # Nothing in the task tells the second run from the first: it waits from when it was put on its queue.
    assert second["enqueued_at"] == first["enqueued_at"]
    assert second["trace_id"] == first["trace_id"]


LIBRARY = Library(
    "Django Q2",
    "django-q2",
    "django-q2",
    "databases",
    "Redis and the database",
    {name: [expected(name, name)] for name in KNOWN} | FLAKY,
    delayed=("later",),
    missing=(
        "A task that failed, or was not acknowledged in time, is run again from the database, from Redis never. That "
        "is not counted, and each run's queue time counts from when the task was put on its queue."
    ),
    oldest="oldest",
)
