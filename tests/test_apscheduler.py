"""The built-in APScheduler pack with real schedulers and each kind of executor: every run is recorded once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.tested import Library
from tests.workers import Worker, run, whole

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SHOP = '''
"""Jobs that end in every way; each run notes its job's name."""
import asyncio, functools, os, signal, time
from notes import note

def add(a, b=0):
    note("add")
    return a + b

def fail(x):
    note("fail")
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

def again():
    note("again")

class Mail:
    def send(self, to):
        note("send")

async def later(n):
    note("later")
    await asyncio.sleep(0.01)

async def fail_later():
    note("fail_later")
    raise ValueError("bad")

def leave():
    note("leave")
    raise SystemExit(3)

def order():
    note("order")
    options = {"id": "child", "executor": "mail", "misfire_grace_time": 60}
    scheduler.add_job("shop:add", args=[7], **options)

def missed():
    note("missed")

def die():
    note("die")
    while True:  # until all others have begun, which end at once
        with open("runs.log") as log:
            if len(log.readlines()) >= runs:
                break
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
'''

RUN = """
import asyncio, datetime, os, sys
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
import shop
from shop import *

async def forever(scheduler):
    scheduler.start()
    await asyncio.sleep(3600)

def main():
    kind = sys.argv[1]
    executor = {"thread": ThreadPoolExecutor, "process": ProcessPoolExecutor, "asyncio": AsyncIOExecutor}[kind]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # before 3.11 a scheduler takes that of when it was made
    scheduler = (AsyncIOScheduler if kind == "asyncio" else BlockingScheduler)(executors={"mail": executor()})
    shop.scheduler, shop.runs = scheduler, int(sys.argv[3])
    def plan(function, *args, when=0, **options):
        name = getattr(function, "__name__", "a")
        due = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=when)
        options = {"executor": "mail", "id": name, "misfire_grace_time": 60, **options}
        scheduler.add_job(function, "date", run_date=due, args=args, **options)
    plan(add, 1, kwargs={"b": 2}, name="a name")
    plan(fail, "x")
    plan(Mail().send, "me")
    plan(leave)
    plan(missed, when=-10, misfire_grace_time=1)
    plan(add, 5, when=1.5, id="delayed")
    if kind != "process":
        plan(order)
    if kind == "asyncio":
        plan(later, 3)
        plan(fail_later)
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=0.25)
    end = start + datetime.timedelta(seconds=0.2)
    # Due three times before the scheduler starts, each of which counts.
    scheduler.add_job(again, "interval", seconds=0.1, start_date=start, end_date=end, coalesce=False, id="again",
                      executor="mail", next_run_time=start, misfire_grace_time=60)
    if sys.argv[2] == "die":
        plan(die, when=2)
    loop.run_until_complete(forever(scheduler)) if kind == "asyncio" else scheduler.start()

if __name__ == "__main__":
    main()
"""

BAD: tuple[Any, ...] = ("ValueError", "bad", [("KeyError", "'key'")], "fail")


def job(name: str, function: str, **fields: Any) -> dict[str, Any]:
    expected = {"attempts": None, "tags": {"job": function.rpartition(".")[2]}, **fields}
    if "." in function and "tags" not in fields:
        expected["tags"] = {"job": function}
    return run("apscheduler", name, f"shop.{function}", **expected)


JOBS = {
    "add": [job("add", "add", args=[1], kwargs={"b": 2}, tags={"job": "a name"})],
    "fail": [job("fail", "fail", args=["x"], status="error", exception=BAD)],
    "send": [job("send", "Mail.send", args=["me"])],
    "leave": [job("leave", "leave", status="error", exception=("SystemExit", "3", [], "leave"))],
    "delayed": [job("delayed", "add", args=[5])],
    "again": [job("again", "again")] * 3,
}
SENT = {"name": "enqueue.apscheduler", "title": "shop:add", "body": None, "parent": None}
ORDER = {"order": [job("order", "order", events=[SENT])], "child": [job("child", "add", args=[7])]}
ASYNC = {
    "later": [job("later", "later", args=[3])],
    "fail_later": [job("fail_later", "fail_later", status="error", exception=("ValueError", "bad", [], "fail_later"))],
}
DIE = {"die": [job("die", "die", status="killed", killed=True)]}


@pytest.mark.parametrize("kind", ["thread", "process", "asyncio"])
def test_every_run_by_every_executor(tmp_path: Path, kind: str) -> None:
    expected = JOBS | (ASYNC if kind == "asyncio" else {}) | (ORDER | DIE if kind != "process" else {})
    if kind == "process":  # what is sent there is the class's function, with the object as an argument
        expected["send"] = [job("send", "Mail.send", args=["#<shop.Mail>", "me"])]
    files = {"shop.py": SHOP, "run.py": RUN}
    worker = Worker(tmp_path / "program", "databases", files, {"PYTHONPATH": "."})
    names = [record["method"] for records in expected.values() for record in records]
    worker.start("python", "run.py", kind, "stay" if kind == "process" else "die", str(len(names)))
    status = worker.stop_after(names, by=signal.SIGTERM if kind == "process" else None)
    assert status == (-signal.SIGTERM if kind == "process" else -signal.SIGKILL)
    found = {name: [whole(record) for record in records] for name, records in worker.records().items()}
    assert {name: found.pop(name, None) for name in expected} == expected, worker.output
    assert not found


LIBRARY = Library(
    "APScheduler",
    "apscheduler",
    "apscheduler",
    "databases",
    "executors of threads, processes and asyncio",
    JOBS | ORDER | ASYNC | DIE,
    delayed=("delayed",),
    lacks=("retried", "clock skew", "trace"),
    missing=(
        "The queue is the executor's name; runs are not counted. A job that failed runs again only when it is due "
        "again, and the clock that says when is the one it runs by. A job may run again and again, and its runs are no "
        "part of the trace of what added it. Version 4 has no release yet."
    ),
)
