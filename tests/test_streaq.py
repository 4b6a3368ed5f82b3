"""The built-in streaq pack with a real Redis and streaq's own worker: every run is recorded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, check_records, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

JOBS = '''
"""Tasks that end in every way; each run notes its first argument."""
import asyncio, os, signal
from streaq import StreaqRetry, Worker
from notes import note

worker = Worker(redis_url=os.environ["REDIS"], queue_name="mail")

@worker.task
async def add(name, token=None, b=0):
    note(name)
    await asyncio.sleep(0.01)
    return b

@worker.task
def plain(name):
    note(name)

@worker.task
async def fail(name):
    note(name)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@worker.task
async def flaky(name):
    if note(name) == 1:
        raise StreaqRetry("again", delay=0.2)

@worker.task(timeout=1)
async def slow(name):
    note(name)
    await asyncio.sleep(60)

@worker.task
async def order(name):
    note(name)
    await add.enqueue("child")

@worker.task
async def die(name):
    note(name)
    os.kill(os.getpid(), signal.SIGKILL)
'''
SEND = """
import asyncio, sys
from shop import *

async def send(*names):
    async with worker:
        for name in names:
            if name == "add":
                await add.enqueue("add", "hunter2", b=2)
            elif name == "early":
                await add.enqueue("early")
            elif name == "later":
                await add.enqueue("later").start(delay=1)
            else:
                await globals()[name].enqueue(name)

asyncio.run(send(*sys.argv[1:]))
"""


def streaq(name: str, function: str, **fields: Any) -> dict[str, Any]:
    given = {"args": [name], "tags": {"task": function, "priority": "normal"}}
    return run("streaq", name, f"shop.{function}") | given | fields


BAD: tuple[Any, ...] = ("ValueError", "bad", [("KeyError", "'key'")], "fail")
AGAIN: tuple[Any, ...] = ("streaq.types.StreaqRetry", "again", [], "flaky")
LATE: tuple[Any, ...] = (
    "asyncio.exceptions.CancelledError",
    "Cancelled via cancel scope ADDRESS; reason: deadline exceeded",
    [],
    "slow",
)
SENT = {"name": "enqueue.streaq", "title": "add", "body": None, "parent": None}
EXPECTED: dict[str, list[dict[str, Any]]] = {
    "add": [streaq("add", "add", args=["add", "[FILTERED]"], kwargs={"b": 2})],
    "plain": [streaq("plain", "plain")],
    "fail": [streaq("fail", "fail", status="error", exception=BAD)],
    "flaky": [streaq("flaky", "flaky", status="ignored", exception=AGAIN), streaq("flaky", "flaky", attempts=2)],
    "slow": [streaq("slow", "slow", status="ignored", exception=LATE)],
    "order": [streaq("order", "order", events=[SENT])],
    "child": [streaq("child", "add")],
    "later": [streaq("later", "add")],
    "early": [streaq("early", "add", clock_skew=True)],
}
DEADLY = {"die": [streaq("die", "die", status="killed", killed=True)]}
LIBRARY = Library(
    "streaq",
    pack="streaq",
    distribution="streaq",
    environment="queues",
    runs="Redis, coroutines and plain functions",
    expected=EXPECTED | DEADLY,
    delayed=("later",),
    lacks=("trace",),
    missing=(
        "streaq's messages have no place for a trace. Where streaq gives a task up by its timeout, the run shows as "
        "ignored, by the `CancelledError` it gets."
    ),
)


def test_every_run_is_recorded_once(tmp_path: Path) -> None:
    with Redis() as redis:
        worker = Worker(tmp_path / "program", "queues", {"shop.py": JOBS, "send.py": SEND}, {"REDIS": redis.url})
        worker.call("python", "send.py", *[name for name in EXPECTED if name not in ("child", "early")])
        worker.call("python", "ahead.py", "send.py", "early")
        worker.start("streaq", "run", "shop:worker")
        names = [name for name, runs in EXPECTED.items() for _ in runs]
        worker.wait_for(names)
        log = worker.program.folder / "worker.log"
        # Seven have ended well, and one by its timeout: then the last may kill the worker.
        wait_until(lambda: log.read_text().count("■") == 7 and "timed out" in log.read_text())
        worker.call("python", "send.py", "die")
        worker.stop_after([*names, "die"], by=None)
        found = check_records(worker, EXPECTED | DEADLY, key="args")
    assert found["slow"][0]["duration"] > 900
    assert found["later"][0]["enqueued_at"] <= found["later"][0]["started_at"]
