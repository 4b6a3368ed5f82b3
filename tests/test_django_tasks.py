"""The built-in pack for django-tasks and Django 6's tasks, with each backend that runs tasks: runs recorded once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Postgres, Redis
from tests.tested import Library
from tests.workers import Worker, run, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

SETTINGS = """
import importlib.util
import os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django_tasks_db"]
if importlib.util.find_spec("django_rq"):
    INSTALLED_APPS.append("django_rq")
if os.environ["IMMEDIATE"].startswith("django_tasks"):
    INSTALLED_APPS.append("django_tasks")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# In that zone the time which stands for none is in another year.
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "TIME_ZONE": "America/New_York"}
}
if os.environ["DATABASE_PORT"]:
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "test",
        "HOST": "127.0.0.1", "PORT": os.environ["DATABASE_PORT"],
    }
RQ_QUEUES = {name: {"URL": os.environ["REDIS_URL"]} for name in ("mail", "default")}
TASKS = {
    "default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["mail", "default"]},
    "now": {"BACKEND": os.environ["IMMEDIATE"], "QUEUES": ["mail", "default"]},
}
if importlib.util.find_spec("django_tasks_rq"):
    TASKS["rq"] = {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": ["mail", "default"]}
"""

TASKS = '''
"""Tasks that end in every way; each run notes its id."""
import os, signal
from asgiref.sync import async_to_sync
try:
    from django.tasks import task
except ImportError:
    from django_tasks import task
from notes import note as write

def note(context):
    return write(str(context.task_result.id))

mail = task(queue_name="mail", takes_context=True)

@mail
def add(context, a, token=None, b=0):
    note(context)
    return a + b

@mail
async def add_async(context, a):
    note(context)
    return a

@mail
def fail(context, x):
    note(context)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@mail
def unkept(context):
    note(context)
    return object()

@mail
def leave(context):
    note(context)
    raise SystemExit(3)

@task(queue_name="mail")
def inner():
    raise ValueError("bad")

@mail
def outer(context):
    note(context)
    for refused in (inner.call, lambda: inner.enqueue(object())):
        try:
            refused()
        except (TypeError, ValueError) as error:  # which it expects
            print(type(error))
    inner.using(backend="now").enqueue()
    async_to_sync(inner.using(queue_name="default").aenqueue)()

@mail
def die(context):
    note(context)
    os.kill(os.getpid(), signal.SIGKILL)
'''

SEND = """
import datetime, sys
import django
django.setup()
from django.utils import timezone
from shop_tasks import *

backend, *names = sys.argv[1:]
soon = datetime.timedelta(seconds=2)
for name in names:
    known = {"add": ([1, "hunter2"], {"b": 2}), "fail": (["x"], {}), "add_async": ([3], {})}
    known |= {"later": ([5], {}), "early": ([6], {})}
    arguments = known.get(name, ([], {}))
    task = add.using(run_after=timezone.now() + soon) if name == "later" else globals().get(name, add)
    result = task.using(backend=backend).enqueue(*arguments[0], **arguments[1])
    print(name, result.id)
"""

ALL = ("add", "add_async", "fail", "unkept", "leave", "outer", "later")
ENVIRONMENTS = {
    "databases": "django_tasks.backends.immediate.ImmediateBackend",
    "django6": "django.tasks.backends.immediate.ImmediateBackend",
    "oldest-young": "django.tasks.backends.immediate.ImmediateBackend",
}
BAD = ("ValueError", "bad", [("KeyError", "'key'")], "fail")
ENQUEUE = {"name": "enqueue.django-tasks", "title": "shop_tasks.inner", "body": None, "parent": None}
UNKEPT = "TypeError"  # its message and place are those of what keeps the result


def expected(task: str, job_id: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of the task sent by the name `task`."""
    known: dict[str, dict[str, Any]] = {
        "add": {"args": [1, "[FILTERED]"], "kwargs": {"b": 2}},
        "add_async": {"args": [3]},
        "fail": {"args": ["x"], "status": "error", "exception": BAD},
        "unkept": {"status": "error", "exception": UNKEPT},
        "leave": {"status": "error", "exception": ("SystemExit", "3", [], "leave")},
        "outer": {
            "events": [
                ENQUEUE,
                ENQUEUE,
                {
                    "name": "perform_job.django-tasks",
                    "title": "django_tasks.backends.immediate.ImmediateBackend#_execute_task",
                    "body": None,
                    "parent": 1,
                },
                ENQUEUE,
            ]
        },
        "later": {"args": [5]},
        "early": {"args": [6], "clock_skew": True},
        "die": {"status": "killed", "killed": True},
    }
    function = "add" if task in ("later", "early") else task
    return run("django-tasks", job_id, f"shop_tasks.{function}", **{**known[task], **fields})


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def program(folder: Path, library: str, database: str = "", queue: str = "redis://127.0.0.1:1") -> Worker:
    """Make a Django project whose tables are there."""
    variables = {
        "PYTHONPATH": ".",
        "DJANGO_SETTINGS_MODULE": "settings",
        "DATABASE_PORT": database,
        "REDIS_URL": queue,
        "IMMEDIATE": ENVIRONMENTS[library],
    }
    files = {"settings.py": SETTINGS, "shop_tasks.py": TASKS, "send.py": SEND}
    worker = Worker(folder, library, files, variables)
    worker.call("django-admin", "migrate")
    return worker


def send(worker: Worker, backend: str, *names: str) -> dict[str, str]:
    """Put tasks on the queue and return their ids by name; the one named `early` by a machine whose clock is ahead."""
    ahead = ["ahead.py"] if names == ("early",) else []
    words = [line.split() for line in worker.call("python", *ahead, "send.py", backend, *names).splitlines()]
    return {found[0]: found[1] for found in words if found and found[0] in names}


def check(worker: Worker, ids: dict[str, str], **fields: Any) -> None:
    found = {job: [whole(record) for record in records] for job, records in worker.records().items()}
    for task, job in ids.items():
        (record,) = found.pop(job)
        if task == "unkept":
            record["exception"] = record["exception"][0]
        for event in record["events"]:
            event["title"] = event["title"].replace("django.tasks", "django_tasks")
        assert record == expected(task, job, **fields), worker.output
    assert not found


@pytest.mark.parametrize(
    ("library", "database"),
    [("databases", "sqlite"), ("databases", "postgres"), ("django6", "sqlite"), ("oldest-young", "sqlite")],
)
def test_the_workers_of_the_database(
    tmp_path: Path, request: pytest.FixtureRequest, library: str, database: str
) -> None:
    port = str(request.getfixturevalue("postgres").port) if database == "postgres" else ""
    worker = program(tmp_path / "program", library, port)
    ids = send(worker, "default", *ALL) | send(worker, "default", "early")
    worker.start(
        "django-admin", "db_worker", "--queue-name", "mail", "--interval", "0.2", "--no-startup-delay", "--no-reload"
    )
    worker.wait_for(ids.values())
    ids |= send(worker, "default", "die")
    assert worker.stop_after([*ids.values()], by=None) == -signal.SIGKILL, worker.output
    check(worker, ids)
    assert "eta unavailable" not in worker.call("autoinst", "doctor")


@pytest.mark.parametrize("library", ENVIRONMENTS)
def test_tasks_that_run_where_they_are_put_on_the_queue(tmp_path: Path, library: str) -> None:
    worker = program(tmp_path / "program", library)
    ids = send(worker, "now", "add", "add_async", "fail", "unkept", "leave")
    check(worker, ids, queue_time=False)


def test_the_rq_backends_tasks_are_jobs_of_rq(redis: Redis, tmp_path: Path) -> None:
    worker = program(tmp_path / "program", "databases", queue=redis.url)
    ids = send(worker, "rq", "add", "fail", "later")
    worker.start("django-admin", "rqworker", "mail", "--job-class", "django_tasks_rq.Job", "--with-scheduler")
    worker.stop_after(ids.values())
    rq = {"name": "perform_job.rq", "rule": "rq.yaml", "tags": {}, "parent_span_id": True}
    check(worker, ids, **rq)


LIBRARY = Library(
    "django-tasks, Django 6's tasks",
    "django-tasks",
    "django-tasks-db",
    "django6",
    "SQLite and PostgreSQL, the immediate backend and, by the pack `rq`, that of RQ",
    {task: [expected(task, task)] for task in (*ALL, "early", "die")},
    delayed=("later",),
    lacks=("retried", "trace"),
    missing="These backends run a task once, also one that failed. A task has no place for a trace.",
    oldest="oldest-young",
)
