"""The built-in Prefect pack with flows and tasks against Prefect's own temporary server: every run is recorded once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.tested import Library
from tests.workers import Worker, run, whole

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

SHOP = """
import asyncio, glob, os, signal
from prefect import flow, task
from notes import note

@task
def part(n):
    return n + 1

@flow
def add(a, b=0):
    note("add")
    return part(a) + b

@flow(retries=1, retry_delay_seconds=0)
def flaky():
    if note("flaky") == 1:
        raise RuntimeError("try again")

@flow
async def later(n):
    note("later")
    return n

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
    asyncio.run(later(3))
    part(7)
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
EXPECTED = [
    job("add", kwargs={"a": 1, "b": 2}, events=[INSIDE]),
    job("flaky", status="error", exception=("RuntimeError", "try again", [], "flaky")),
    job("flaky", attempts=2),
    job("later", kwargs={"n": 3}),
    job("part", "task", kwargs={"n": 7}),
    job("die", status="killed", killed=True),
]


def test_every_run_of_flows_and_of_tasks_outside_of_them(tmp_path: Path) -> None:
    variables = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "80",
    }
    worker = Worker(tmp_path / "program", "frameworks", {"shop.py": SHOP}, variables)
    worker.start("python", "shop.py")
    status = worker.stop_after(["add", "flaky", "flaky", "later", "die"], by=None)
    assert status == -signal.SIGKILL, worker.output
    ids, found = [], []
    for records in worker.records().values():
        for record in map(whole, records):
            ids.append(record.pop("job_id"))
            assert record["tags"].pop("run")
            found.append({**record, "job_id": ""})
    assert found == EXPECTED
    assert len(set(ids)) == 5


LIBRARY = Library(
    "Prefect",
    "prefect",
    "prefect",
    "frameworks",
    "the temporary server, flows and tasks, plain and async",
    {"flow": EXPECTED},
    recorded=("job id",),
    missing="The queue is that of the work pool, where there is one. A flow's tasks are events of it.",
)
