"""The built-in Prefect pack with flows and tasks against Prefect's own temporary server: every run is recorded once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.tested import Library
from tests.workers import Worker, link, put_by, run, utc, whole

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

SHOP = """
import asyncio, datetime, glob, os, signal
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
    for path in glob.glob("/proc/self/task/*/children"):  # the server, which would stay
        for child in open(path).read().split():
            os.kill(int(child), signal.SIGKILL)
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


def test_every_run_of_flows_and_of_tasks_outside_of_them(tmp_path: Path) -> None:
    variables = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "80",
    }
    worker = Worker(tmp_path / "program", "frameworks", {"shop.py": SHOP}, variables)
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
    # A run waits from when it was due, also one that is tried again.
    retried = [records for records in worker.records().values() if len(records) == 2]
    assert [records[0]["method"] for records in retried] == ["flaky", "shaky"]
    for first, second in retried:
        assert utc(second["enqueued_at"]) > utc(first["started_at"]) + 0.9
    assert utc(by_flow["child"]["enqueued_at"]) > utc(by_flow["order"]["started_at"]) + 1.9
    assert link(by_flow["child"]) == put_by(by_flow["order"])


NAMES = {record["method"] for record in EXPECTED}
LIBRARY = Library(
    "Prefect",
    "prefect",
    "prefect",
    "frameworks",
    "the temporary server, flows and tasks, plain and async",
    {name: [record for record in EXPECTED if record["method"] == name] for name in NAMES},
    delayed=("child",),
    recorded=("job id",),
    missing=(
        "The queue is that of the work pool, where there is one. A flow's tasks are events of it. Deferred "
        "tasks have no place for a trace."
    ),
)
