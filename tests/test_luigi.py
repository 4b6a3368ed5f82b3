"""The built-in Luigi pack with real workers, in their own process and in one for each task: runs are recorded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.tested import Library
from tests.workers import Worker, run, whole

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SHOP = '''
"""Tasks that end in every way; each run notes its class."""
import os, signal
import luigi
from notes import note

class Task(luigi.Task):
    def output(self):
        return luigi.LocalTarget(f"{type(self).__name__}.out")

    def run(self):
        note(type(self).__name__)
        self.work()
        self.output().makedirs()
        with self.output().open("w") as file:
            file.write("done")

    def work(self):
        pass

class Source(luigi.ExternalTask):
    def output(self):
        return luigi.LocalTarget("shop.py")

class Add(Task):
    a = luigi.IntParameter()
    b = luigi.IntParameter(default=0)

    def requires(self):
        return Source()

class Fail(Task):
    retry_count = 1

    def work(self):
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("bad") from error

class Flaky(Task):
    def work(self):
        if note("tries") == 1:
            raise RuntimeError("try again")

class Dynamic(Task):
    def run(self):
        note("Dynamic")
        yield Add(a=7)
        with self.output().open("w") as file:
            file.write("done")

class Leave(Task):
    retry_count = 1

    def work(self):
        raise SystemExit(3)

class Die(Task):
    retry_count = 1

    def work(self):
        os.kill(os.getpid(), signal.SIGKILL)

class All(luigi.WrapperTask):
    names = luigi.Parameter()

    def requires(self):
        return [Add(a=1, b=2) if name == "Add" else globals()[name]() for name in self.names.split("+")]
'''

CONFIG = """
[scheduler]
retry_count = 2
retry_delay = 0
[worker]
keep_alive = true
wait_interval = 0.2
wait_jitter = 0
max_keep_alive_idle_duration = 0 seconds
"""


def task(name: str, **fields: Any) -> dict[str, Any]:
    job_id = fields.pop("job_id", name)
    nothing = {"queue": None, "queue_time": False, "attempts": None, "args": None}
    return run("luigi", job_id, f"shop.{name}.run", **{**nothing, **fields})


BAD: tuple[Any, ...] = ("ValueError", "bad", [("KeyError", "'key'")], "work")
EXPECTED = {
    "Add": [task("Add", kwargs={"a": 1, "b": 2})],
    "Fail": [task("Fail", status="error", exception=BAD)],
    "Flaky": [task("Flaky", status="error", exception=("RuntimeError", "try again", [], "work")), task("Flaky")],
    "Leave": [task("Leave", status="error", exception=("SystemExit", "3", [], "work"))],
}
DIE = {"Die": [task("Die", status="killed", killed=True)]}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_run_of_every_task(tmp_path: Path, workers: str) -> None:
    expected = EXPECTED | (DIE if workers == "2" else {})
    worker = Worker(tmp_path / "program", "databases", {"shop.py": SHOP, "luigi.cfg": CONFIG}, {"PYTHONPATH": "."})
    names = "+".join(expected)
    command = ("luigi", "--module", "shop", "All", "--names", names, "--local-scheduler", "--workers", workers)
    worker.start(*command)
    runs = [name for name, records in expected.items() for _ in records]
    worker.stop_after([*runs, "tries", "tries"], by=None)
    found: dict[str, list[dict[str, Any]]] = {}
    for records in worker.records().values():
        for record in records:
            assert record["job_id"].startswith(record["class"].rpartition(".")[2])
            found.setdefault(record["class"].rpartition(".")[2], []).append(
                {**whole(record), "job_id": record["class"].rpartition(".")[2]}
            )
    assert {name: found.pop(name, None) for name in expected} == expected, worker.output
    assert not found


def test_a_task_with_requirements_found_on_the_way_runs_twice(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "program", "databases", {"shop.py": SHOP}, {"PYTHONPATH": "."})
    worker.call("luigi", "--module", "shop", "Dynamic", "--local-scheduler")
    found = [(record["class"], record["status"]) for records in worker.records().values() for record in records]
    assert sorted(found) == [("shop.Add", "ok"), ("shop.Dynamic", "ok"), ("shop.Dynamic", "ok")]


LIBRARY = Library(
    "Luigi",
    "luigi",
    "luigi",
    "databases",
    "its own scheduler, tasks in the worker and in processes",
    EXPECTED | DIE,
    lacks=("delayed", "clock skew", "trace"),
    missing=(
        "A worker knows no queue and no time at which a task is due, and does not count runs. Nothing puts a task on a "
        "queue, so that no trace leads to it."
    ),
)
