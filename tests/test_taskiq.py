"""The built-in taskiq pack with a real Redis and taskiq's own worker: every run is recorded once."""

from __future__ import annotations

import subprocess
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
import asyncio, datetime, os, signal
from taskiq import Context, NoResultError, SimpleRetryMiddleware, TaskiqDepends, TaskiqScheduler
import taskiq_redis
from taskiq_redis import ListQueueBroker
from notes import note

broker = ListQueueBroker(os.environ["REDIS"], queue_name="mail").with_middlewares(SimpleRetryMiddleware())
if hasattr(taskiq_redis, "ListRedisScheduleSource"):
    source = taskiq_redis.ListRedisScheduleSource(os.environ["REDIS"])
    scheduler = TaskiqScheduler(broker, [source])

@broker.task
async def add(a, b=0, context: Context = TaskiqDepends()):
    note(context.message.task_id)
    await asyncio.sleep(0.01)
    return a + b

@broker.task(task_name="a-name")
def plain(name: str):
    note(name)

@broker.task
async def fail(name: str):
    note(name)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@broker.task(retry_on_error=True, max_retries=3)
async def flaky(name: str):
    if note(name) == 1:
        raise RuntimeError("try again")

@broker.task
async def silent(name: str):
    note(name)
    raise NoResultError()

@broker.task(timeout=0.2)
async def endless(name: str):
    note(name)
    await asyncio.sleep(60)

@broker.task
async def order(name: str):
    note(name)
    await add.kicker().with_task_id("child").kiq(7)

@broker.task
async def die(name: str):
    note(name)
    os.kill(os.getpid(), signal.SIGKILL)
'''
SEND = """
import asyncio, datetime, sys
import shop

async def main():
    await shop.broker.startup()
    for name in sys.argv[1:]:
        if name == "add":
            await shop.add.kicker().with_task_id(name).kiq(1, b=2)
        elif name == "later":
            await shop.source.startup()
            due = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
            await shop.add.kicker().with_task_id(name).schedule_by_time(shop.source, due, 5)
        else:
            await getattr(shop, name).kicker().with_task_id(name).kiq(name)
    await shop.broker.shutdown()

asyncio.run(main())
"""


def taskiq(job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    task = fields.pop("task", function.replace(".", ":"))
    return run(
        "taskiq", job_id, function, **{"parent_span_id": True, "args": [job_id], "tags": {"task": task}, **fields}
    )


def sent(task: str) -> dict[str, Any]:
    return {"name": "enqueue.taskiq", "title": task, "body": None, "parent": None}


CANCELLED = "Cancelled via cancel scope ADDRESS; reason: deadline exceeded"
EXPECTED = {
    "add": [taskiq("add", "shop.add", args=[1], kwargs={"b": 2})],
    "plain": [taskiq("plain", "shop.plain", task="a-name")],
    "fail": [
        taskiq("fail", "shop.fail", status="error", exception=("ValueError", "bad", [("KeyError", "'key'")], "fail"))
    ],
    "flaky": [
        taskiq(
            "flaky",
            "shop.flaky",
            status="error",
            exception=("RuntimeError", "try again", [], "flaky"),
            events=[sent("shop:flaky")],
        ),
        taskiq("flaky", "shop.flaky", attempts=2),
    ],
    "silent": [
        taskiq(
            "silent",
            "shop.silent",
            status="ignored",
            exception=("taskiq.exceptions.NoResultError", "User doesn't want to set result", [], "silent"),
        )
    ],
    "endless": [
        taskiq(
            "endless",
            "shop.endless",
            status="error",
            exception=("TimeoutError", "", [("asyncio.exceptions.CancelledError", CANCELLED)], None),
        )
    ],
    "order": [taskiq("order", "shop.order", events=[sent("shop:add")])],
    "child": [taskiq("child", "shop.add", args=[7])],
    "later": [taskiq("later", "shop.add", args=[5])],
    "die": [taskiq("die", "shop.die", status="killed", killed=True)],
}
LIBRARY = Library(
    "taskiq",
    pack="taskiq",
    distribution="taskiq",
    environment="taskiq",
    runs="Redis, coroutines and plain functions, and the scheduler",
    expected=EXPECTED,
    delayed=("later",),
)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def test_every_run_is_recorded_once(redis: Redis, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "taskiq", {"shop.py": TASKS, "send.py": SEND}, {"REDIS": redis.url})
    worker.call("python", "send.py", *[name for name in EXPECTED if name not in ("child", "die")])
    worker.start("taskiq", "worker", "shop:broker", "--workers", "1")
    with subprocess.Popen(
        worker.command(("taskiq", "scheduler", "shop:scheduler", "--update-interval", "1")),
        cwd=worker.program.folder,
        env=worker.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as scheduler:
        worker.wait_for(gentle := [name for name, runs in EXPECTED.items() if name != "die" for _ in runs])
        scheduler.terminate()
    worker.call("python", "send.py", "die")
    worker.stop_after([*gentle, "die"])
    check_records(worker, EXPECTED)
