"""The built-in arq pack with a real Redis and arq's own worker: every run is recorded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as Client

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, check_records, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

JOBS = '''
"""Jobs that end in every way; each run notes its id."""
import asyncio, functools, os, signal
from arq import Retry, cron, func
from arq.connections import RedisSettings
from notes import note

def noted(function):
    @functools.wraps(function)
    async def wrapper(ctx, *args, **kwargs):
        note(ctx["job_id"])
        return await function(ctx, *args, **kwargs)
    return wrapper

@noted
async def add(ctx, a, b=0):
    await asyncio.sleep(0.01)
    return a + b

@noted
async def fail(ctx, x):
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@noted
async def again(ctx):
    if ctx["job_try"] == 1:
        raise Retry(defer=0.2)

@noted
async def order(ctx):
    await ctx["redis"].enqueue_job("add", 7, _job_id="child")
    await add({"not": "a job's"} | {"job_id": "called"}, 1)

class Mail:
    async def send(self, ctx, to):
        note(ctx["job_id"])

async def tick(ctx):
    note("tick")

async def die(ctx):
    note(ctx["job_id"])
    os.kill(os.getpid(), signal.SIGKILL)

async def started(ctx):
    ctx["shop"] = "open"

class WorkerSettings:
    functions = [add, fail, func(again, name="a-name"), order, func(Mail().send, name="mail"), die]
    cron_jobs = [cron(tick, run_at_startup=True, month=2, day=29, hour=3, minute=0, job_id="tick")]  # as good as never
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS"])
    queue_name = "mail"
    on_startup = started
    poll_delay = 0.05
    health_check_interval = 600
    retry_jobs = True
'''
SEND = """
import asyncio, sys
from arq import create_pool
from shop import WorkerSettings

async def main():
    pool = await create_pool(WorkerSettings.redis_settings, default_queue_name="mail")
    for name in sys.argv[1:]:
        if name == "add":
            await pool.enqueue_job("add", 1, b=2, _job_id="add")
        elif name == "early":
            await pool.enqueue_job("add", 6, _job_id="early")
        elif name == "later":
            await pool.enqueue_job("add", 5, _job_id="later", _defer_by=1)
        elif name == "big":
            await pool.enqueue_job("fail", "x" * 2_000_000, _job_id="big")
        elif name == "nobody":
            await pool.enqueue_job("nobody", _job_id="nobody")
        elif name == "broken":
            await pool.set("arq:job:broken", b"no pickle")
            await pool.zadd("mail", {"broken": 1})
        elif name in ("fail", "mail"):
            await pool.enqueue_job(name, "x", _job_id=name)
        else:
            await pool.enqueue_job({"again": "a-name"}.get(name, name), _job_id=name)

asyncio.run(main())
"""
BAD = ("ValueError", "bad", [("KeyError", "'key'")], "fail")


def arq(job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    return run("arq", job_id, function, **fields)


def sent(function: str) -> dict[str, Any]:
    return {"name": "enqueue.arq", "title": function, "body": None, "parent": None}


EXPECTED = {
    "add": [arq("add", "shop.add", args=[1], kwargs={"b": 2})],
    "fail": [arq("fail", "shop.fail", args=["x"], status="error", exception=BAD)],
    "again": [
        arq(
            "again",
            "shop.again",
            status="ignored",
            exception=("arq.worker.Retry", "<Retry defer 0.20s>", [], "again"),
        ),
        arq("again", "shop.again", attempts=2),
    ],
    "mail": [arq("mail", "shop.Mail.send", args=["x"])],
    "order": [arq("order", "shop.order", events=[sent("add")])],
    "child": [arq("child", "shop.add", args=[7])],
    "later": [arq("later", "shop.add", args=[5])],
    "tick": [arq("tick", "shop.tick")],
    "big": [arq("big", "shop.fail", args=["x" * 2000 + "... 1998000 more"], status="error", exception=BAD)],
    "die": [arq("die", "shop.die", status="killed", killed=True)],
}
LIBRARY = Library(
    "arq",
    pack="arq",
    distribution="arq",
    environment="queues",
    runs="Redis, jobs and cron jobs",
    expected=EXPECTED,
    delayed=("later",),
    lacks=("clock skew", "trace"),
    missing=(
        "arq's messages have no place for a trace. A job is taken only when the worker's own clock has come to when it "
        "was put on its queue. A retry at once keeps the time of the first run; where arq gives a "
        "job up by its timeout, the job shows as ignored, by the `CancelledError` it gets."
    ),
)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def test_every_run_is_recorded_once(redis: Redis, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "queues", {"shop.py": JOBS, "send.py": SEND}, {"REDIS": redis.url})
    names = [name for name in EXPECTED if name not in ("child", "tick", "die")]
    worker.call("python", "ahead.py", "send.py", "early")  # which is never due here
    worker.call("python", "send.py", "broken", "nobody", *names)
    worker.start("arq", "shop.WorkerSettings")
    gentle = [name for name, runs in EXPECTED.items() if name != "die" for _ in runs] + ["called"]
    worker.wait_for(gentle)
    with Client.from_url(redis.url) as client:  # a worker that is told to stop cancels what it runs
        wait_until(lambda: client.zrange("mail", 0, -1) == [b"early"])
    worker.stop_after(gentle)
    worker.call("python", "send.py", "die")
    worker.start("arq", "shop.WorkerSettings")
    worker.stop_after([*gentle, "die"])
    check_records(worker, EXPECTED)
