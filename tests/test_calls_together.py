"""Calls inside one function, or one statement, that several rules mean, and what is left of them in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import Program
from tests.test_routes import doctor

if TYPE_CHECKING:
    from pathlib import Path

TWO = """
def work(jobs):
    done = []
    for job in jobs:
        task = fetch(job)
        number = len(task)
        done.append(handle(task, number))
        task = number = None
    return done


def inside(jobs):
    found = handle(fetch(jobs), 1), fetch(handle(jobs, 2))
    found += tuple([fetch(handle(job, 3)) if job == "a" else handle(fetch(job), 4) for job in jobs])
    after(found)
    try:
        fetch(handle(fetch(jobs), 5) / 0)
    except TypeError:
        after(found)
    return found


def fetch(job):
    return job * 2


def handle(task, number):
    return task * number


def after(found):
    pass
"""

TWO_RULES = """
version: 1
jobs:
  - {function: loop.work.<calls>.fetch, payload: {job_id: "${job}", args: "${len(done)}"}}
  - {function: loop.work.<calls>.handle, payload: {job_id: "${task}", args: "${number}", queue: "${job}"}}
"""


def run_two(tmp_path: Path, rules: str, function: str) -> list[dict[str, Any]]:
    program = Program(tmp_path)
    program.write("loop.py", TWO)
    program.write("worker.py", f"import loop\nprint(loop.{function}(['a', 'b']))\n")
    program.write("rules.yaml", rules)
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    assert "refused" not in doctor(program)
    return result.records


def test_what_the_statement_of_one_rule_sets_is_there_for_the_rule_of_another(tmp_path: Path) -> None:
    found = [(r["action"], r["job_id"], r["args"], r["queue"]) for r in run_two(tmp_path, TWO_RULES, "work")]
    assert found == [
        ("loop#fetch", "a", 0, None),
        ("loop#handle", "aa", 2, "a"),
        ("loop#fetch", "b", 1, None),
        ("loop#handle", "bb", 2, "b"),
    ]


@pytest.mark.parametrize("order", [("fetch", "handle"), ("handle", "fetch")])
def test_calls_of_several_rules_in_one_statement_end_with_it(tmp_path: Path, order: tuple[str, str]) -> None:
    jobs = "".join(f"  - {{function: loop.inside.<calls>.{name}}}\n" for name in (*order, "after"))
    records = run_two(tmp_path, f"version: 1\njobs:\n{jobs}", "inside")
    found = [(r["action"], r["status"], [event["title"] for event in r["events"]]) for r in records]
    # The first call begins a job and the other one is an event in it. Nothing of a statement is left to the next one.
    assert found == [
        ("loop#fetch", "ok", ["loop#handle"]),
        ("loop#handle", "ok", ["loop#fetch"]),
        ("loop#after", "ok", []),
        ("loop#fetch", "error", ["loop#handle"]),
        ("loop#after", "ok", []),
    ]
    assert len({record["trace_id"] for record in records}) == len(records)


DEEP = """
import sys
import loop

def dive(n):
    return dive(n - 1) if n else loop.work(["a"])

def has_room(n):
    try:
        return dive(n) == ["aaaa"]
    except RecursionError:
        return False

loop.work(["a"])
sys.setrecursionlimit(200)
print([n for n in range(200) if has_room(n)])
"""


def test_a_call_has_room_where_the_program_alone_has(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("loop.py", TWO)
    program.write("worker.py", DEEP)
    program.write("rules.yaml", "version: 1\njobs:\n  - {function: loop.work.<calls>.handle}\n")
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, plain.stdout, "")
    room = plain.stdout.count(",") + 1
    # A few levels are left that have room for the call and none for a record of it.
    assert room > 100
    assert room - 10 < len(result.records) <= room + 1
    assert {record["status"] for record in result.records} == {"ok"}


STOPPED = """
import autoinst, loop

class Stop(BaseException):
    pass

def stop(*_):
    end()
    raise Stop

end = autoinst.subscribe("perform_job.inner", stop)
try:
    loop.inside(["a"])
except Stop:
    print("stopped")
print(loop.work(["a"]))
"""


def test_what_interrupts_the_end_of_one_call_keeps_no_other_open(tmp_path: Path) -> None:
    """As a signal handler may: a listener that raises what is no Exception is as good as one."""
    program = Program(tmp_path)
    program.write("loop.py", TWO)
    program.write("worker.py", STOPPED)
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - {function: loop.inside.<calls>.fetch, name: perform_job.outer}
          - {function: loop.inside.<calls>.handle, name: perform_job.inner, nested: new}
          - {function: loop.work}
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "stopped\n['aaaa']\n", "")
    found = [(record["action"], record["status"]) for record in result.records]
    assert found == [("loop#fetch", "ok"), ("loop#handle", "ok"), ("loop#work", "ok")]
    assert len({record["trace_id"] for record in result.records}) == 2
