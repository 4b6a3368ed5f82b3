"""What a rule's payload becomes: alternatives, times, text, secrets, and what cannot be read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

JOBS = """
import datetime as dt
import time


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __eq__ = __hash__ = __repr__

    @property
    def secret(self):
        raise RuntimeError("a property ran")


class Job:
    def __init__(self, **values):
        self.__dict__.update(values)

    def run(self, a=1, *rest, option=None, **more):
        return "result"
"""


def run(tmp_path: Path, payload: str, call: str) -> dict[str, Any]:
    program = Program(tmp_path)
    program.write("jobs.py", JOBS)
    lines = "\n".join(f"      {line.strip()}" for line in payload.strip().splitlines())
    program.write("rules.yaml", f"version: 1\njobs:\n  - class: jobs.Job\n    methods: [run]\n    payload:\n{lines}\n")
    program.write("worker.py", f"from jobs import *\n{call}\n")
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    return result.one()


def test_the_first_alternative_that_can_be_read(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        """
        queue: ["${nowhere}", "${self.absent}", "${self.none}", "${self.queue}", never]
        job_id: ["${self.secret}", "${self.id}"]
        """,
        "Job(none=None, queue='mail', id=17).run()",
    )
    assert (record["queue"], record["job_id"]) == ("mail", "17")


def test_literals_and_interpolation(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        """
        queue: constant
        job_id: "${self.kind}-${self.id}-$${x}"
        class: "${self.kind}"
        method: done
        """,
        "Job(kind='Mail', id=3).run()",
    )
    assert (record["queue"], record["job_id"], record["action"]) == ("constant", "Mail-3-${x}", "Mail#done")


def test_arguments_as_the_function_was_given_them(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        """
        args: "${args}"
        kwargs: "${kwargs}"
        """,
        "Job().run(1, 2, 'three', option={'password': 'x', 'n': [1.5, None]}, more=Hostile())",
    )
    assert record["args"] == [1, 2, "three"]
    assert record["kwargs"] == {"option": {"password": "[FILTERED]", "n": [1.5, None]}, "more": "#<jobs.Hostile>"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enqueued_at: '${self.at}'", "time.time() - 2"),
        ("enqueued_at: '${self.at}'", "int((time.time() - 2) * 1000)"),
        ("enqueued_at: {value: '${self.at}', unit: s}", "time.time() - 2"),
        ("enqueued_at: '${self.at}'", "dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=2)"),
        ("enqueued_at: {value: '${self.at}', naive: utc}", "dt.datetime.utcfromtimestamp(time.time() - 2)"),
        ("enqueued_at: {value: '${self.at}', naive: local}", "dt.datetime.fromtimestamp(time.time() - 2)"),
        ("enqueued_at: '${self.at}'", "(dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=2)).isoformat()"),
        ("queue_time: '${self.at}'", "2000.0"),
        ("queue_time: '${self.at}'", "dt.timedelta(seconds=2)"),
        ("queue_time: {value: '${self.at}', unit: s}", "2"),
    ],
    ids=str,
)
def test_queue_time(tmp_path: Path, field: str, value: str) -> None:
    call = f"import warnings\nwarnings.simplefilter('ignore')\nJob(at={value}).run()"
    record = run(tmp_path, field, call)
    assert 2000 <= record["queue_time"] < 12_000
    assert "clock_skew" not in record


def test_queue_time_counts_from_the_later_of_enqueueing_and_due_time(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        """
        enqueued_at: "${self.at}"
        eta: "${self.due}"
        """,
        "Job(at=time.time() - 100, due=time.time() - 1).run()",
    )
    assert 1000 <= record["queue_time"] < 11_000


def test_a_queue_time_of_its_own_wins(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        """
        queue_time: 5
        enqueued_at: "${self.at}"
        """,
        "Job(at=time.time() - 100).run()",
    )
    assert record["queue_time"] == 5
    assert record["enqueued_at"] is not None


def test_a_time_in_the_future_is_clock_skew(tmp_path: Path) -> None:
    record = run(tmp_path, "enqueued_at: '${self.at}'", "Job(at=time.time() + 100).run()")
    assert record["queue_time"] == 0
    assert record["clock_skew"] is True


def test_read_at_the_end(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        """
        job_id: {value: "${self.id}", at: exit}
        queue: {value: "${result}", at: exit}
        """,
        "Job(id=1).run()",
    )
    assert (record["job_id"], record["queue"]) == ("1", "result")


@pytest.mark.parametrize(
    "value",
    ["Hostile()", "float('nan')", "'x' * 10_000_000", "list(range(10**6))", "{1: {}}", "b'\\xff' * 999", "10**5000"],
    ids=lambda value: value[:20],
)
def test_odd_values_are_bounded_and_run_nothing(tmp_path: Path, value: str) -> None:
    record = run(
        tmp_path,
        """
        args: "${self.value}"
        queue: "${self.value}"
        attempts: "${self.value}"
        enqueued_at: "${self.value}"
        job_id: "${self.value}"
        """,
        f"Job(value={value}).run()",
    )
    assert record["status"] == "ok"
    assert record["attempts"] is None
    assert len(str(record)) < 30_000


def test_a_value_that_contains_itself(tmp_path: Path) -> None:
    record = run(tmp_path, "args: '${self.value}'", "value = [1]\nvalue.append(value)\nJob(value=value).run()")
    assert record["args"] == [1, "[RECURSIVE VALUE]"]


def test_a_nested_function_reads_the_variables_around_it(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write(
        "shop.py",
        """
        def maker(queue):
            def job(amount):
                return queue, amount, late
            job(1) if queue == "early" else None
            late = 5
            return job
        """,
    )
    program.write(
        "main.py", "import shop\nprint(shop.maker('mail')(2))\ntry:\n shop.maker('early')\nexcept NameError: pass"
    )
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - function: shop.maker.<locals>.job
            payload: {queue: "${queue}", attempts: "${amount}", job_id: "${late}"}
        """,
    )
    result = program.run("main.py")
    assert result.stdout == "('mail', 2, 5)\n"
    assert [(r["status"], r["queue"], r["attempts"], r["job_id"]) for r in result.records] == [
        ("ok", "mail", 2, "5"),
        ("error", "early", 1, None),
    ]


def test_what_could_not_be_read_is_told_though_the_process_is_killed_soon_after(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("jobs.py", "def job(item):\n    pass\n")
    (program.folder / "rules.yaml").write_text(
        "version: 1\njobs:\n  - function: jobs.job\n"
        "    payload: {queue: \"${item['queue']}\", job_id: \"${item['id']}\"}\n"
    )
    program.write(
        "worker.py",
        """
        import os, signal
        from jobs import job
        job({"queue": "mail", "id": "1"})
        job({"queue": "mail"})
        job("no mapping")
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert len(program.run("worker.py", AUTOINST_PACKS="none").records) == 3
    doctor = program.execute([sys.executable, "-m", "autoinst.cli.main", "doctor"], {"AUTOINST_PACKS": "none"}).stdout
    assert "  rules.yaml:3: job_id unavailable 2 times: 'id' is not an index\n" in doctor
    assert "  rules.yaml:3: queue unavailable 1 time: 'queue' is not an index\n" in doctor
    assert doctor.count("  Where that is usual, give another value after it (`[first, second]`)") == 1
