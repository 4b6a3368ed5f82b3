"""The built-in Prefect pack with flows and tasks against Prefect's own server: every run is recorded once."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.bad_payloads import LARGE, MANGLE
from tests.libraries import program_of
from tests.prefect_payloads import PAYLOADS
from tests.servers import Server
from tests.sides import Side, both, check_same
from tests.tested import Library
from tests.workers import BEHIND, Worker, link, put_by, run, utc, whole

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once, pytest.mark.timeout(900)]


class Prefect(Server):
    """Prefect's server, which keeps all in SQLite."""

    start_seconds = 300.0  # some ten of them on a machine that has nothing else to do

    def __init__(self) -> None:
        super().__init__()
        self.program = program_of("frameworks", "autoinst")

    @property
    def url(self) -> str:
        """Return the address clients take."""
        return f"http://127.0.0.1:{self.port}/api"

    def start(self, program: str, folder: Path) -> None:
        """Start it under autoinst, without its web pages and what schedules runs."""
        environ = {**os.environ, "PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        environ |= {"AUTOINST_HOME": str(folder / "autoinst"), "AUTOINST_AGENT": "off"}
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-ui", "--no-services"]
        self.spawn(program, "run", program_of("frameworks", "prefect"), "server", "start", *options, environ=environ)

    def answers(self, connection: socket.socket) -> bool:
        """Ask whether it is well."""
        connection.settimeout(30)
        connection.sendall(b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b" 200 " in connection.recv(32)

    def flow_runs(self, tag: str) -> list[dict[str, Any]]:
        """Return what it keeps of the runs of flows that have a tag."""
        body = json.dumps({"flow_runs": {"tags": {"all_": [tag]}}}).encode()
        request = urllib.request.Request(f"{self.url}/flow_runs/filter", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found


SHOP = """
import asyncio, datetime, os, signal
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.flow_engine import run_flow
from prefect.runner import Runner
from notes import note

@task
def part(n):
    return n + 1

@task(retries=1, retry_delay_seconds=1)
def shaky():
    if note("shaky") == 1:
        raise RuntimeError("try again")

@flow
def add(a, b=0):
    note("add")
    return part(a) + b

@flow(retries=1, retry_delay_seconds=1)
def flaky():
    if note("flaky") == 1:
        raise RuntimeError("try again")

@flow
def fail():
    note("fail")
    raise ValueError("bad")

@flow
async def later(n):
    note("later")
    return n

@flow
def order():
    note("order")
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    runs.append(run_deployment("child/mail", timeout=0, scheduled_time=soon).id)
    part.delay(8)

@flow
def child():
    note("child")

@flow
def die():
    note("die")
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    add(1, b=2)
    flaky()
    fail(return_state=True)
    asyncio.run(later(3))
    part(7)
    shaky()
    Runner(name="mail").add_flow(child, name="mail")
    runs = []
    order()
    with get_client(sync_client=True) as client:  # as a worker does, in a process of its own
        run_flow(child, flow_run=client.read_flow_run(runs[0]))
    die()
"""

ONE = """
from prefect import flow
from notes import note

@flow
def one():
    note("one")

if __name__ == "__main__":
    one()
"""


def job(function: str, kind: str = "flow", **fields: Any) -> dict[str, Any]:
    return run(
        "prefect", "", f"__main__.{function}", **{"queue": None, "args": None, "tags": {kind: function}, **fields}
    )


INSIDE = {
    "name": "perform_job.prefect",
    "title": "prefect.task_engine#call_with_parameters",
    "body": None,
    "parent": None,
}


def sent(title: str) -> dict[str, Any]:
    return {"name": "enqueue.prefect", "title": title, "body": None, "parent": None}


EXPECTED = [
    job("add", kwargs={"a": 1, "b": 2}, events=[INSIDE]),
    job("flaky", status="error", exception=("RuntimeError", "try again", [], "flaky")),
    job("flaky", attempts=2),
    job("fail", status="error", exception=("ValueError", "bad", [], "fail")),
    job("later", kwargs={"n": 3}),
    job("part", "task", kwargs={"n": 7}),
    job("shaky", "task", status="error", exception=("RuntimeError", "try again", [], "shaky")),
    job("shaky", "task", attempts=2),
    job("order", events=[sent("child/mail"), sent("part")]),
    job("child", parent_span_id=True),
    job("die", status="killed", killed=True),
]


RUNS = [record["method"] for record in EXPECTED if record["method"] != "part"]


@pytest.fixture(scope="module")
def server() -> Iterator[Prefect]:
    with Prefect() as server:
        yield server


def client(server: Prefect, folder: Path, **more: str) -> dict[str, str]:
    """Return the variables of a client."""
    return {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "prefect"), **more}


def test_every_run_of_flows_and_of_tasks_outside_of_them(tmp_path: Path, server: Prefect) -> None:
    worker = Worker(tmp_path / "program", "frameworks", {"shop.py": SHOP}, client(server, tmp_path))
    worker.start("python", "shop.py")
    status = worker.stop_after(RUNS, by=None)
    assert status == -signal.SIGKILL, worker.output
    ids, found = [], []
    for records in worker.records().values():
        for record in map(whole, records):
            ids.append(record.pop("job_id"))
            assert record["tags"].pop("run")
            found.append({**record, "job_id": ""})
    assert found == EXPECTED
    assert len(set(ids)) == 9
    by_flow = {record["tags"].get("flow"): record for records in worker.records().values() for record in records}
    # A run waits from when it was due, also one that is tried again; the server rounds what is left of the second.
    retried = [records for records in worker.records().values() if len(records) == 2]
    assert [records[0]["method"] for records in retried] == ["flaky", "shaky"]
    for first, second in retried:
        assert utc(second["enqueued_at"]) > utc(first["started_at"]) + 0.45
    assert utc(by_flow["child"]["enqueued_at"]) > utc(by_flow["order"]["started_at"]) + 1.9
    assert link(by_flow["child"]) == put_by(by_flow["order"])


def test_the_clock_of_a_server_that_is_ahead_is_told(tmp_path: Path, server: Prefect) -> None:
    worker = Worker(tmp_path / "program", "frameworks", {"one.py": ONE}, client(server, tmp_path))
    worker.start(*BEHIND, "python", "one.py")
    assert worker.stop_after(["one"], by=None) == 0, worker.output
    (record,) = worker.program.records()
    assert (record["status"], record["queue_time"], record["clock_skew"]) == ("ok", 0, True)
    assert utc(record["enqueued_at"]) > utc(record["started_at"]) + 200


def named(method: str, name: str) -> tuple[str, dict[str, Any]]:
    """Return a run of a function whose parameters are the name of what it is given, and that."""
    values = {
        "unserialisable": ["#<_thread.lock>", "#<generator>", [1, "#<object>"]],
        "touchy": ["#<mangle.Touchy>", "abc"],
        "400 kB": [f"{'x' * 2_000}... 398000 more"],
        "large": [f"{'x' * 2_000}... {LARGE - 2_000} more"],
    }
    return method, {"name": name, "values": values.get(name, [])}


# What does not validate does not begin.
RAN = [
    *(("loose", {"number": value}) for value in ("seven", None)),
    *(("count", {"number": 7}), ("loose", {"number": 7}), ("count", {"number": 0})),
    *(named(method, name) for method in ("job", "later") for name in ("unserialisable", "touchy", "400 kB")),
    named("part", "large"),
    ("order", {}),
    *(("count", {"number": 7}), ("loose", {"number": "8"})),
    *(("count", {"number": number}) for number in (102, 103)),  # the labels of others are too much for Prefect
    *(named("part", name) for name in ("mangled", "touchy", "large", "last")),
]


def test_runs_with_wrong_parameters_are_what_they_are_without(tmp_path: Path, server: Prefect) -> None:
    names = [uuid.uuid4().hex for _ in "12"]  # which are no difference

    def side_of(number: int) -> Side:
        folder = tmp_path / "12"[number]
        files = {"shop.py": PAYLOADS.replace("SIDE", names[number]), "mangle.py": MANGLE}
        variables = client(server, folder, PREFECT_LOGGING_TO_API_ENABLED="false", NO_COLOR="1")
        side = Side(folder / "program", "frameworks", files, variables, instrumented=number == 1)
        side.worker.deadline = 300.0  # seconds for some thirty runs, each of which asks the server many things
        return side

    def work(side: Side) -> None:
        log = side.folder / "worker.log"
        last = "'part-last' - Finished"
        side.work(["python", "shop.py"], signal.SIGTERM, lambda: last in log.read_text())
        side.output = side.output.partition(last)[0]  # how far a connection is when it is closed is luck

    def left(number: int) -> list[str]:
        """Return what the server keeps of the runs, and which folders have how many files."""
        kept = ("state_type", "state_name", "run_count", "labels", "parameters")
        runs = [json.dumps({key: run[key] for key in kept})[:500] for run in server.flow_runs(names[number])]
        return [*runs, *(path.parent.name for path in (tmp_path / "12"[number]).glob("prefect/storage/**/*"))]

    plain, side = map(side_of, range(2))
    both(work, plain, side)
    check_same(plain.did(left(0)), side.did(left(1)))
    records = side.records()
    assert [(record["method"], record["kwargs"]) for record in records] == RAN
    assert {record["status"] for record in records} == {"ok"}
    (order,) = (record for record in records if record["method"] == "order")
    titles = Counter(event["title"] for event in order["events"] if event["name"] == "enqueue.prefect")
    assert titles == {f"count/{names[1]}": 5, f"loose/{names[1]}": 5, "part": 2}
    assert "\n  prefect.yaml:9: traceparent unavailable 2 times: no traceparent\n" in side.doctor()
    linked = [record for record in records if record["parent_span_id"]]
    assert [record["trace_id"] for record in linked] == [order["trace_id"]] * 2


NAMES = {record["method"] for record in EXPECTED}
LIBRARY = Library(
    "Prefect",
    "prefect",
    "prefect",
    "frameworks",
    "its own server, flows and tasks, plain and async",
    {name: [record for record in EXPECTED if record["method"] == name] for name in NAMES},
    delayed=("child",),
    recorded=("job id",),
    ran=("clock skew",),
    missing=(
        "The queue is that of the work pool, where there is one. A flow's tasks are events of it. Deferred "
        "tasks have no place for a trace. Prefect tells them by a hash of their function's code, which a rule of your "
        "own on the function changes: leave them to the pack, or have the rule wherever they are sent and run."
    ),
)
