"""The built-in SAQ pack with a real Redis and SAQ's own worker: every run is recorded once."""

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
"""Jobs that end in every way; each run notes its key."""
import asyncio, os, signal
from saq import Queue
from notes import note

queue = Queue.from_url(os.environ["REDIS"], name="mail")

async def add(ctx, a=0, b=0):
    note(ctx["job"].key)
    await asyncio.sleep(0.01)
    return a + b

def plain(ctx, *, func=None):
    note(ctx["job"].key)

async def fail(ctx):
    note(ctx["job"].key)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

async def flaky(ctx):
    if note(ctx["job"].key) == 1:
        raise RuntimeError("try again")

async def order(ctx):
    note(ctx["job"].key)
    await queue.enqueue("add", a=7, key="child")

async def hook(ctx):
    pass

def die(ctx):
    note(ctx["job"].key)
    os.kill(os.getpid(), signal.SIGKILL)

settings = {
    "queue": queue,
    "functions": [add, ("a-name", plain), fail, flaky, order, die],
    "before_process": hook,
    "after_process": hook,
    "startup": hook,
    "concurrency": 4,
}
'''
SEND = """
import asyncio, sys, time
from shop import queue

async def main():
    for name in sys.argv[1:]:
        if name == "add":
            await queue.enqueue("add", a=1, b=2, key=name)
        elif name == "later":
            await queue.enqueue("add", a=5, key=name, scheduled=time.time() + 1)
        elif name == "flaky":
            await queue.enqueue("flaky", key=name, retries=2, meta={"mine": 1})
        elif name == "plain":
            await queue.enqueue("a-name", func="x", key=name)
        else:
            await queue.enqueue(name, key=name)
    await queue.disconnect()

asyncio.run(main())
"""


def saq(job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    return run("saq", job_id, function, **{"parent_span_id": True, **fields})


def sent(function: str) -> dict[str, Any]:
    return {"name": "enqueue.saq", "title": function, "body": None, "parent": None}


EXPECTED = {
    "add": [saq("add", "shop.add", kwargs={"a": 1, "b": 2})],
    "plain": [saq("plain", "shop.plain", kwargs={"func": "x"})],
    "fail": [
        saq("fail", "shop.fail", status="error", exception=("ValueError", "bad", [("KeyError", "'key'")], "fail"))
    ],
    "flaky": [
        saq("flaky", "shop.flaky", status="error", exception=("RuntimeError", "try again", [], "flaky")),
        saq("flaky", "shop.flaky", attempts=2),
    ],
    "order": [saq("order", "shop.order", events=[sent("add")])],
    "child": [saq("child", "shop.add", kwargs={"a": 7})],
    "later": [saq("later", "shop.add", kwargs={"a": 5})],
}
DEADLY = {"die": [saq("die", "shop.die", status="killed", killed=True)]}
LIBRARY = Library(
    "SAQ",
    pack="saq",
    distribution="saq",
    environment="queues",
    runs="Redis, coroutines and plain functions",
    expected=EXPECTED | DEADLY,
    delayed=("later",),
    missing="Where SAQ gives a job up by its timeout, the job shows as ignored, by the `CancelledError` it gets.",
)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def test_every_run_is_recorded_once(redis: Redis, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "queues", {"shop.py": JOBS, "send.py": SEND}, {"REDIS": redis.url})
    worker.call("python", "send.py", *[name for name in EXPECTED if name != "child"])
    worker.start("saq", "shop.settings")
    gentle = [name for name, runs in EXPECTED.items() for _ in runs]
    worker.wait_for(gentle)
    with Client.from_url(redis.url) as client:  # a worker that is told to stop cancels what it runs
        wait_until(lambda: not client.exists("saq:mail:active", "saq:mail:incomplete", "saq:mail:queued"))
    worker.stop_after(gentle)
    worker.call("python", "send.py", "die")
    worker.start("saq", "shop.settings")
    worker.stop_after([*gentle, "die"])
    check_records(worker, EXPECTED | DEADLY)
