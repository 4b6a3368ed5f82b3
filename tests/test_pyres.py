"""The built-in pyres pack, with pyres' own worker and a real Redis, and payloads as Resque itself pushes them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as Client

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, check_records, link, put_by, run, utc

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

JOBS = '''
"""Jobs that end in every way; each run notes its first argument."""
import os, signal
from notes import note

class Add:
    queue = "mail"

    @staticmethod
    def perform(name, b=0, token=None):
        note(name)

class Fail:
    queue = "mail"

    @staticmethod
    def perform(name):
        note(name)
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("bad") from error

class Order:
    queue = "mail"

    @classmethod
    def perform(cls, name):
        note(name)
        cls.resq.enqueue(Add, "child")

class Flaky:
    queue = "mail"
    retry_every = 1
    retry_timeout = 600

    @staticmethod
    def perform(name):
        if note(name) < 3:
            raise RuntimeError("try again")

class Die:
    queue = "mail"

    @staticmethod
    def perform(name):
        note(name)
        os.kill(os.getpid(), signal.SIGKILL)
'''
SEND = """
import datetime, os, sys
from pyres import ResQ
import shop

queue = ResQ(os.environ["REDIS"])
for name in sys.argv[1:]:
    if name == "add":
        queue.enqueue(shop.Add, "add", 2, "hunter2")
    elif name == "early":
        queue.enqueue(shop.Add, "early")
    elif name == "later":
        queue.enqueue_at(datetime.datetime.now() + datetime.timedelta(seconds=2), shop.Add, "later")
    else:
        queue.enqueue(getattr(shop, name.title()), name)
"""


def pyres(name: str, function: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run, which has no id and is not counted."""
    given = {"args": [name], "kwargs": None, "job_id": None, "attempts": None, "parent_span_id": True}
    return run("pyres", name, f"shop.{function}.perform") | given | fields


BAD = ("ValueError", "bad", [("KeyError", "'key'")], "perform")
SENT = {"name": "enqueue.pyres", "title": "shop.Add", "body": None, "parent": None}
EXPECTED = {
    "add": [pyres("add", "Add", args=["add", 2, "[FILTERED]"])],
    "fail": [pyres("fail", "Fail", status="error", exception=BAD)],
    "order": [pyres("order", "Order", events=[SENT])],
    "child": [pyres("child", "Add")],
    "early": [pyres("early", "Add", clock_skew=True)],
    "die": [pyres("die", "Die", status="killed", killed=True)],
    "resque": [pyres("resque", "Add", queue_time=False, parent_span_id=False)],
}
AGAIN: dict[str, Any] = {"status": "error", "exception": ("RuntimeError", "try again", [], "perform")}
PUT_OFF = SENT | {"title": "shop.Flaky"}
# What waits with pyres' scheduler keeps no trace: it has that of the scheduler's own.
LATER = {
    "later": [pyres("later", "Add")],
    "flaky": [
        pyres("flaky", "Flaky", events=[PUT_OFF], **AGAIN),
        pyres("flaky", "Flaky", events=[PUT_OFF], **AGAIN),
        pyres("flaky", "Flaky"),
    ],
}
LIBRARY = Library(
    "pyres (Resque)",
    pack="pyres",
    distribution="pyres",
    environment="queues",
    runs="Redis, jobs of pyres' own and payloads as Resque pushes them",
    expected=EXPECTED | LATER,
    delayed=("later",),
    missing=(
        "Resque's payloads have a class and arguments: pyres adds the time a job was put on its queue; there is no "
        "id and no count of runs. What is put off, or tried again, comes by pyres' scheduler, which counts the time "
        "anew and keeps no trace; pyres 1.5 puts nothing off with redis-py 3 or later."
    ),
)


def test_every_run_is_recorded_once(tmp_path: Path) -> None:
    with Redis() as redis:
        variables = {"REDIS": f"127.0.0.1:{redis.port}", "PYTHONPATH": "."}  # as its documentation has it
        worker = Worker(tmp_path / "program", "queues", {"shop.py": JOBS, "send.py": SEND}, variables)
        worker.call("python", "send.py", *[name for name in EXPECTED if name not in ("child", "early", "resque")])
        worker.call("python", "ahead.py", "send.py", "early")
        with Client.from_url(redis.url) as client:
            client.rpush("resque:queue:mail", '{"class": "shop.Add", "args": ["resque"]}')
        worker.start("pyres_worker", "mail", "--host", "127.0.0.1", "--port", str(redis.port), "--interval", "1")
        worker.wait_for_records(len(EXPECTED))  # a worker that is told to stop kills its child
        worker.stop_after(list(EXPECTED))
        found = check_records(worker, EXPECTED, key="args")
        assert link(found["child"][0]) == put_by(found["order"][0])


def test_jobs_that_are_put_off_wait_from_when_they_were_due(tmp_path: Path) -> None:
    with Redis() as redis:
        place = ("--host", "127.0.0.1", "--port", str(redis.port))
        variables = {"REDIS": f"127.0.0.1:{redis.port}", "PYTHONPATH": "."}
        worker = Worker(tmp_path / "program", "older", {"shop.py": JOBS, "send.py": SEND}, variables)
        worker.call("python", "send.py", *LATER)
        command = worker.command(("pyres_scheduler", *place))
        scheduler = subprocess.Popen(command, cwd=worker.program.folder, env=worker.environ)
        try:
            worker.start("pyres_worker", "mail", *place, "--interval", "1")
            runs = [name for name, records in LATER.items() for _ in records]
            worker.wait_for(runs)
            worker.wait_for_records(len(runs))
            scheduler.terminate()
            scheduler.wait(60)
        finally:
            scheduler.kill()
            scheduler.wait()
        worker.stop_after(runs)
        found = check_records(worker, LATER, key="args")
    first, second, third = found["flaky"]
    # A retry is due a second after, to the whole second, and counts from when the scheduler puts it on its queue.
    for before, after in ((first, second), (second, third)):
        assert utc(after["enqueued_at"]) > utc(before["started_at"])
    assert utc(found["later"][0]["enqueued_at"]) > utc(first["enqueued_at"])
