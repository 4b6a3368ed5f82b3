"""The built-in schedule pack with a loop of the program's own, as schedule's documentation has it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.tested import Library
from tests.workers import Worker, check_records, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

LOOP = """
import os, signal, time
import schedule
from notes import note

def add(name, b=0):
    note(name)
    return schedule.CancelJob

def fail(name):
    note(name)
    schedule.clear(name)
    raise ValueError("bad")

def die(name):
    note(name)
    os.kill(os.getpid(), signal.SIGKILL)

schedule.every(1).seconds.do(add, "add", b=2)
schedule.every(1).seconds.do(fail, "fail").tag("fail")
while schedule.jobs:
    try:
        schedule.run_pending()
    except ValueError:
        pass
    time.sleep(0.02)
schedule.every(1).seconds.do(die, "die")
while True:
    schedule.run_pending()
    time.sleep(0.02)
"""
# What version 0.6 can do on a Python of today.
OLD_LOOP = """
import time
import schedule
from notes import note

def add(name):
    note(name)
    return schedule.CancelJob

schedule.every(1).seconds.do(add, "add")
while schedule.jobs:
    schedule.run_pending()
    time.sleep(0.02)
"""


def job(name: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run, of which schedule knows neither queue nor id, nor which it is."""
    given = {"args": [name], "job_id": None, "attempts": None, "queue": None}
    return run("schedule", name, f"__main__.{name}") | given | fields


EXPECTED = {
    "add": [job("add", kwargs={"b": 2})],
    "fail": [job("fail", status="error", exception=("ValueError", "bad", [], "fail"))],
    "die": [job("die", status="killed", killed=True)],
}
LIBRARY = Library(
    "schedule",
    pack="schedule",
    distribution="schedule",
    environment="queues",
    runs="a loop of the program's own",
    expected=EXPECTED,
    delayed=("add",),
    lacks=("retried", "clock skew", "trace"),
    missing=(
        "There is no queue, no id and no count of runs; a job waits from when it was due. One that failed runs again "
        "only when it is due again, and the clock that says when is the one it runs by. Nothing puts a job on a queue, "
        "so that no trace leads to it."
    ),
)


def test_every_run_is_recorded_once(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "queues", {"loop.py": LOOP}, {})
    worker.start("python", "loop.py")
    worker.stop_after(list(EXPECTED))
    check_records(worker, EXPECTED, key="args")


def test_a_version_that_the_pack_is_not_for_is_left_alone_and_named(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "older", {"loop.py": OLD_LOOP}, {})
    worker.start("python", "loop.py")
    assert worker.stop_after(["add"], by=None) == 0
    assert worker.program.records() == []
    diagnosis = [str(worker.bin / "autoinst"), "doctor", "--json"]
    folder = worker.program.folder
    done = subprocess.run(diagnosis, cwd=folder, env=worker.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    # A library that its pack is for, and Python's own that every pack is for, are not named.
    assert found["attention"] == [
        "schedule 0.6.0 is installed, its pack is for >=1,<2: no job of it is recorded",
    ]
    packs = {pack["library"]: pack for pack in found["rules"]["packs"]}
    assert packs["schedule"] | {"on": True} == packs["schedule"]
    assert (packs["schedule"]["unfit"], packs["pyres"]["unfit"]) == (">=1,<2", None)
