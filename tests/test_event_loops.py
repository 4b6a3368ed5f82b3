"""trio, anyio and uvloop: jobs that are coroutines, in whatever tasks and threads the library runs them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.harness import Program
from tests.libraries import python_of
from tests.turns import RULES

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.once

WORK = """
import anyio


async def step(label):
    await anyio.sleep(0.002)


async def job(number):
    for i in range(3):
        await step(f"{number}.{i}")
    return number


async def job_that_waits():
    await anyio.sleep(60)


async def job_failing(number):
    await step(f"{number}")
    raise ValueError(number)


def job_in_thread(number):
    return number


async def job_with_tasks(number):
    async with anyio.create_task_group() as group:
        group.start_soon(job, number + 1)
        group.start_soon(step, f"{number}.step")
        await anyio.to_thread.run_sync(job_in_thread, number + 2)
    return number
"""
WORKER = """
import sys

import anyio

import work


async def main():
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(work.job, number)
    print(await work.job(20), await work.job_with_tasks(30))
    with anyio.move_on_after(0.01):
        await work.job_that_waits()
    try:
        await work.job_failing(40)
    except ValueError as error:
        print("failed", error)
    print(await anyio.to_thread.run_sync(work.job_in_thread, 50))


how = sys.argv[1]
if how == "trio":
    import trio

    trio.run(main)
elif how == "uvloop":
    import uvloop

    uvloop.run(main())
else:
    anyio.run(main, backend=how)
"""


@pytest.mark.parametrize(
    ("loop", "cancelled"),
    [
        ("trio", "trio.Cancelled"),
        ("uvloop", "asyncio.exceptions.CancelledError"),
        ("asyncio", "asyncio.exceptions.CancelledError"),
    ],
)
def test_jobs_in_tasks_and_threads(tmp_path: Path, loop: str, cancelled: str) -> None:
    program = Program(tmp_path)
    program.write("work.py", WORK)
    program.write("worker.py", WORKER)
    program.write("rules.yaml", RULES)
    command = [python_of("peers"), "worker.py", loop]
    plain = program.execute(command, {}, instrumented=False)
    ours = program.execute(command, {})
    assert (ours.stdout, ours.stderr, ours.status) == (plain.stdout, plain.stderr, 0)
    assert plain.stdout == "20 30\nfailed 40\n50\n"
    found: dict[tuple[Any, ...], dict[str, Any]] = {(r["method"], *(r["args"] or ())): r for r in ours.records}
    assert len(found) == len(ours.records) == 15
    for number in (*range(10), 20):
        record = found["job", number]
        assert (record["status"], [event["title"] for event in record["events"]]) == (
            "ok",
            [f"{number}.{i}" for i in range(3)],
        )
    inside = Counter((event["name"], event["title"]) for event in found["job_with_tasks", 30]["events"])
    assert inside == {
        ("perform_job.python", "work#job"): 1,
        ("perform_job.python", "work#job_in_thread"): 1,
        ("step.work", "30.step"): 1,
        **{("step.work", f"31.{i}"): 1 for i in range(3)},
    }
    waiting = found["job_that_waits",]
    assert (waiting["status"], waiting["exception"]["class"]) == ("ignored", cancelled)
    assert found["job_failing", 40]["exception"]["class"] == "ValueError"
    assert found["job_in_thread", 50]["status"] == "ok"
