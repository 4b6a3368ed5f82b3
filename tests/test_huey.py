"""The built-in Huey pack with real storages and consumers of every kind: every run is recorded once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, check_records, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

TASKS = '''
"""Tasks that end in every way; each run notes its id."""
import os, signal, sys, time
if "greenlet" in sys.argv:
    from gevent import monkey
    monkey.patch_all()
import huey
from huey import RedisHuey, SqliteHuey
from notes import note

url = os.environ["STORAGE"]
queue = RedisHuey("mail", url=url) if url.startswith("redis") else SqliteHuey("mail", filename=url, fsync=False)

@queue.task(context=True)
def add(a, token=None, b=0, task=None):
    note(task.id)
    return a + b

@queue.task(context=True)
def fail(task=None):
    note(task.id)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@queue.task(retries=1, context=True)
def flaky(task=None):
    if note(task.id) == 1:
        raise RuntimeError("try again")

@queue.task(context=True)
def again(task=None):
    if note(task.id) == 1:
        raise huey.RetryTask("later")

@queue.task(name="a-name", context=True)
def cancelled(task=None):
    note(task.id)
    raise huey.CancelExecution("not now")

class Mail(huey.api.Task):
    def execute(self):
        note(self.id)

queue._registry.register(Mail)

@queue.task(context=True)
def order(task=None):
    note(task.id)
    queue.enqueue(add.task_class((7,), id="child"))

@queue.task(context=True)
def die(task=None):
    note(task.id)
    os.kill(os.getpid(), signal.SIGKILL)
'''
SEND = """
import sys
import shop

for name in sys.argv[1:]:
    if name == "early":
        shop.add.schedule(args=(6,), delay=0.1, id=name)
    elif name == "later":
        shop.add.schedule(args=(5,), delay=1.5, id=name)
    elif name == "mail":
        shop.queue.enqueue(shop.Mail(id=name))
    elif name == "add":
        shop.queue.enqueue(shop.add.task_class((1, "hunter2"), {"b": 2}, id=name))
    else:
        shop.queue.enqueue(getattr(shop, name).task_class(id=name))
"""


def huey(job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run, of which it is not known when the task was put on the queue."""
    task = fields.pop("task", function.rpartition(".")[2])
    return run("huey", job_id, function, **{"queue_time": False, "tags": {"task": task}, **fields})


def sent(task: str) -> dict[str, Any]:
    return {"name": "enqueue.huey", "title": task, "body": None, "parent": None}


EXPECTED = {
    "add": [huey("add", "shop.add", args=[1, "[FILTERED]"], kwargs={"b": 2})],
    "fail": [
        huey("fail", "shop.fail", status="error", exception=("ValueError", "bad", [("KeyError", "'key'")], "fail"))
    ],
    "flaky": [
        huey(
            "flaky",
            "shop.flaky",
            status="error",
            exception=("RuntimeError", "try again", [], "flaky"),
            events=[sent("flaky")],
        ),
        huey("flaky", "shop.flaky", attempts=2),
    ],
    "again": [
        huey(
            "again",
            "shop.again",
            status="ignored",
            exception=("huey.exceptions.RetryTask", "later", [], "again"),
            events=[sent("again")],
        ),
        huey("again", "shop.again"),
    ],
    "cancelled": [
        huey(
            "cancelled",
            "shop.cancelled",
            task="a-name",
            status="ignored",
            exception=("huey.exceptions.CancelExecution", "not now", [], "cancelled"),
        )
    ],
    "mail": [huey("mail", "shop.Mail.execute", task="Mail")],
    "order": [huey("order", "shop.order", events=[sent("add")])],
    "child": [huey("child", "shop.add", args=[7])],
    "later": [huey("later", "shop.add", args=[5], queue_time=True)],
}
DEADLY = {"die": [huey("die", "shop.die", status="killed", killed=True)]}
LIBRARY = Library(
    "Huey",
    pack="huey",
    distribution="huey",
    environment="queues",
    runs="Redis and SQLite, workers that are threads, processes and greenlets",
    expected=EXPECTED | DEADLY,
    delayed=("later",),
    lacks=("clock skew", "trace"),
    missing=(
        "Huey's messages have no place for the time a task was put on its queue, nor for a trace: the queue time is "
        "known where a task was due at some time, and counts from then; it runs when the consumer's own clock says so. "
        "Attempts count from the `retries` of the task; a `RetryTask`, or a call's own `retries`, is not kept."
    ),
)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "storage", "expected"),
    [("thread", "sqlite", EXPECTED), ("process", "redis", EXPECTED | DEADLY), ("greenlet", "redis", EXPECTED)],
)
def test_every_run_is_recorded_once(
    redis: Redis, tmp_path: Path, kind: str, storage: str, expected: dict[str, Any]
) -> None:
    url = redis.database(1 if kind == "process" else 2) if storage == "redis" else "huey.db"
    worker = Worker(tmp_path / "program", "queues", {"shop.py": TASKS, "send.py": SEND}, {"STORAGE": url})
    worker.call("python", "send.py", *[name for name in expected if name != "child"])
    worker.call("python", "ahead.py", "send.py", "early")  # which is never due here
    worker.start("huey_consumer", "shop.queue", "--worker-type", kind, "--workers", "2", "--scheduler-interval", "1")
    worker.stop_after((name for name, runs in expected.items() for _ in runs), by=signal.SIGINT)
    check_records(worker, expected)
