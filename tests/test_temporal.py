"""The built-in Temporal pack with Temporal's development server and a real worker: every attempt is recorded once."""

from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.bad_payloads import MANGLE
from tests.libraries import program_of
from tests.servers import Server
from tests.sides import Side, both, check_same
from tests.temporal_payloads import LARGE, PAYLOADS, SHARED
from tests.tested import Library
from tests.workers import BEHIND, Worker, check_records, run, utc

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]


class Temporal(Server):
    """Temporal's server for development, with all it keeps in memory, and with `namespaces` besides its own."""

    package = "temporal"
    start_seconds = 90.0

    def __init__(self, *namespaces: str) -> None:
        super().__init__()
        self.program = program_of("frameworks", "temporal")
        self.namespaces = namespaces

    @property
    def address(self) -> str:
        """Return the address clients take."""
        return f"127.0.0.1:{self.port}"

    def start(self, program: str, folder: Path) -> None:
        """Start it without its web pages."""
        options = ["--headless", "--ip", "127.0.0.1", "--port", str(self.port), "--log-level", "error"]
        options += [word for name in self.namespaces for word in ("--namespace", name)]
        self.spawn(program, "server", "start-dev", *options)

    def answers(self, connection: socket.socket) -> bool:
        """Begin HTTP/2: it answers with its settings."""
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        return len(connection.recv(9)) == 9


SHOP = """
import asyncio, os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.worker import Worker
from notes import note

@activity.defn
def add(a, b):
    note("add")
    return a + b

@activity.defn(name="a-name")
async def later(n):
    note("later")
    return n

@activity.defn
async def order():
    note("order")
    await clients[0].start_workflow("Later", id="later", task_queue="mail", start_delay=timedelta(seconds=2))

@activity.defn
def flaky():
    if note("flaky") == 1:
        raise RuntimeError("try again")

@activity.defn
def fail():
    note("fail")
    raise ValueError("bad")

@activity.defn
def die():
    note("die")
    os.kill(os.getpid(), signal.SIGKILL)

@workflow.defn(sandboxed=False)
class Later:
    @workflow.run
    async def run(self):
        await workflow.execute_activity("add", args=[5, 6], start_to_close_timeout=timedelta(minutes=1))
        await workflow.execute_activity("die", start_to_close_timeout=timedelta(minutes=1))

@workflow.defn(sandboxed=False)
class All:
    @workflow.run
    async def run(self):
        retry = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2)
        options = {"start_to_close_timeout": timedelta(minutes=1), "retry_policy": retry}
        await workflow.execute_activity("add", args=[1, 2], **options)
        await workflow.execute_activity("a-name", args=[3], **options)
        await workflow.execute_activity("flaky", **options)
        try:
            await workflow.execute_activity("fail", **{**options, "retry_policy": RetryPolicy(maximum_attempts=1)})
        except ActivityError:
            pass
        await workflow.execute_activity("order", **options)

clients = []

async def main():
    client = await Client.connect(os.environ["ADDRESS"])
    clients.append(client)
    await client.start_workflow("All", id="all", task_queue="mail")
    with ThreadPoolExecutor(2) as pool:
        await Worker(client, task_queue="mail", workflows=[All, Later],
                     activities=[add, later, flaky, fail, order, die], activity_executor=pool).run()

if __name__ == "__main__":
    asyncio.run(main())
"""

# An activity without a workflow.
ONE = """
import asyncio, os, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker
from notes import note

@activity.defn
def one():
    note("one")

async def main():
    client = await Client.connect(os.environ["ADDRESS"])
    options = {"id": "activity-of-its-own", "task_queue": "one", "start_to_close_timeout": timedelta(minutes=5)}
    with ThreadPoolExecutor(1) as pool:
        async with Worker(client, task_queue="one", activities=[one], activity_executor=pool):
            await client.execute_activity(one, **options)

if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # the SDK's own threads may end a Python that is ending
"""
NAMESPACES = [uuid.uuid4().hex for _ in "12"]  # ids, which are no difference between two sides


def job(job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    tags = {"activity": function, "workflow": job_id.partition("/")[0].title()}
    return run("temporal", job_id, f"__main__.{function}", **{"kwargs": None, "tags": tags, **fields})


EXPECTED = {
    "all/1": [job("all/1", "add", args=[1, 2])],
    "all/2": [job("all/2", "later", args=[3], tags={"activity": "a-name", "workflow": "All"})],
    "all/3": [
        job("all/3", "flaky", status="error", exception=("RuntimeError", "try again", [], "flaky")),
        job("all/3", "flaky", attempts=2),
    ],
    "all/4": [job("all/4", "fail", status="error", exception=("ValueError", "bad", [], "fail"))],
    "all/5": [
        job("all/5", "order", events=[{"name": "enqueue.temporal", "title": "Later", "body": None, "parent": None}])
    ],
    "later/1": [job("later/1", "add", args=[5, 6])],
    "later/2": [job("later/2", "die", status="killed", killed=True)],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Temporal]:
    with Temporal(*NAMESPACES) as server:
        yield server


def test_every_attempt_of_every_activity(tmp_path: Path, server: Temporal) -> None:
    variables = {"ADDRESS": server.address}
    worker = Worker(tmp_path / "program", "frameworks", {"shop.py": SHOP}, variables)
    worker.start("python", "shop.py")
    runs = [record["method"] for records in EXPECTED.values() for record in records]
    assert worker.stop_after(runs, by=None) == -signal.SIGKILL, worker.output
    found = check_records(worker, EXPECTED)
    # A run waits from when it was due, also one that is tried again.
    first, second = found["all/3"]
    assert utc(second["enqueued_at"]) > utc(first["started_at"]) + 0.9
    assert utc(found["later/1"][0]["enqueued_at"]) > utc(found["all/5"][0]["started_at"]) + 1.9


def test_the_clock_of_a_server_that_is_ahead_is_told(tmp_path: Path, server: Temporal) -> None:
    worker = Worker(tmp_path / "program", "frameworks", {"one.py": ONE}, {"ADDRESS": server.address})
    worker.start(*BEHIND, "python", "one.py")
    assert worker.stop_after(["one"], by=None) == 0, worker.output
    (record,) = worker.program.records()
    assert (record["status"], record["job_id"]) == ("ok", "activity-of-its-own")
    assert (record["queue_time"], record["clock_skew"]) == (0, True)
    assert utc(record["enqueued_at"]) > utc(record["started_at"]) + 200


READABLE: tuple[Any, ...] = ("mangled", None, [1], {})
RAN = [
    *(("ok", method, value) for value in READABLE for method in ("job", "later")),
    ("ok", "job", '"mangled"'),  # as bytes
    *(("error", method) for method in ("job", "later")),  # which miss an argument
    ("ok", "anything", ["#<temporalio.common.RawValue>"]),
    ("ok", "count", 7),
    ("error", "count", 7, 8),
    ("ok", "job", "never", [1]),
    ("ok", "unserialisable"),
    ("ok", "order"),
    *(("ok", method, "large", f"{'x' * 2_000}... {LARGE - 2_000} more") for method in ("job", "later")),
    *(("ok", method, "touchy", "#<mangle.Touchy>", "abc") for method in ("job", "later")),
    ("ok", "job", "last"),
]


def test_a_worker_does_with_wrong_payloads_what_it_does_without(tmp_path: Path, server: Temporal) -> None:
    """What a side leaves is its workflow's history, which it prints."""
    files = {"shop.py": PAYLOADS, "shared.py": SHARED, "mangle.py": MANGLE}
    variables = [{"ADDRESS": server.address, "NAMESPACE": name} for name in NAMESPACES]
    plain = Side(tmp_path / "plain", "frameworks", files, variables[0], instrumented=False)
    side = Side(tmp_path / "with", "frameworks", files, variables[1], instrumented=True)
    both(lambda side: side.work(["python", "shop.py"], None, lambda: False), plain, side)
    check_same(plain.did([]), side.did([]))
    records = side.records()
    assert [(record["status"], record["method"], *record["args"]) for record in records] == RAN
    assert {record["queue"] for record in records} == {"mail", "any"}
    (order,) = (record for record in records if record["method"] == "order")
    assert [event["title"] for event in order["events"]] == ["All", "job"] * 4
    assert "Nothing needs attention" in side.doctor()


LIBRARY = Library(
    "Temporal",
    "temporal",
    "temporalio",
    "frameworks",
    "the development server, activities in threads and coroutines",
    EXPECTED,
    delayed=("later/1",),
    ran=("clock skew",),
    lacks=("trace",),
    missing=(
        "An activity has positional arguments only, and has ended well also where Temporal then cannot serialise its "
        "result. Workflows are no jobs: they are run again from their history. A workflow's headers hold Temporal's "
        "own payloads, and its activities get none of them: no trace leads there."
    ),
)
