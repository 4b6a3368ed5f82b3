"""The built-in pyres pack, with pyres' own worker and a real Redis, and payloads as Resque itself pushes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as Client

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, check_records, link, put_by, run

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

class Die:
    queue = "mail"

    @staticmethod
    def perform(name):
        note(name)
        os.kill(os.getpid(), signal.SIGKILL)
'''
SEND = """
import os
from pyres import ResQ
import shop

queue = ResQ(os.environ["REDIS"])
queue.enqueue(shop.Add, "add", 2, "hunter2")
queue.enqueue(shop.Fail, "fail")
queue.enqueue(shop.Order, "order")
queue.enqueue(shop.Die, "die")
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
    "die": [pyres("die", "Die", status="killed", killed=True)],
    "resque": [pyres("resque", "Add", queue_time=False, parent_span_id=False)],
}
LIBRARY = Library(
    "pyres (Resque)",
    pack="pyres",
    distribution="pyres",
    environment="queues",
    runs="Redis, jobs of pyres' own and payloads as Resque pushes them",
    expected=EXPECTED,
    missing=(
        "Resque's payloads have a class and arguments: pyres adds the time a job was put on its queue; there is no "
        "id and no count of runs."
    ),
)


def test_every_run_is_recorded_once(tmp_path: Path) -> None:
    with Redis() as redis:
        variables = {"REDIS": f"127.0.0.1:{redis.port}", "PYTHONPATH": "."}  # as its documentation has it
        worker = Worker(tmp_path / "program", "queues", {"shop.py": JOBS, "send.py": SEND}, variables)
        worker.call("python", "send.py")
        with Client.from_url(redis.url) as client:
            client.rpush("resque:queue:mail", '{"class": "shop.Add", "args": ["resque"]}')
        worker.start("pyres_worker", "mail", "--host", "127.0.0.1", "--port", str(redis.port), "--interval", "1")
        worker.stop_after(list(EXPECTED))
        found = check_records(worker, EXPECTED, key="args")
        assert link(found["child"][0]) == put_by(found["order"][0])
