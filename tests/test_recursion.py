"""Where no room is left on the stack: a program has as much as without rules, and no job stays open for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

JOBS = """
def result(n):
    return leaf(n)

def leaf(n):
    return n

def numbers(n):
    m = yield leaf(n)
    yield leaf(m)

def after(n):
    return n
"""
WORKER = """
import sys
import jobs

def down(n, function):
    return down(n - 1, function) if n else function()

def generated():
    numbers = jobs.numbers(1)
    return next(numbers), numbers.send(2), next(numbers, None)

def has_room(n, function):
    try:
        return down(n, function) is not None
    except RecursionError:
        return False

functions = (lambda: jobs.result(1), generated)
for function in functions:
    function()
sys.setrecursionlimit(200)
for function in functions:
    print(sum([has_room(n, function) for n in range(200)]))
print(jobs.after(1), file=sys.stderr)
"""
RULES = """
version: 1
jobs:
  - {function: jobs.result, payload: {job_id: "${result}"}}
  - {function: jobs.numbers}
  - {function: jobs.after}
"""


def test_a_stack_without_room_is_the_programs_own(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("jobs.py", JOBS)
    program.write("worker.py", WORKER)
    program.write("rules.yaml", RULES)
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "1\n")
    assert result.stdout == plain.stdout
    actions = [record["action"] for record in result.records if record["status"] == "ok"]
    rooms = [int(room) for room in plain.stdout.split()]
    # On a few levels there is room for the call and none to store its end, which then looks killed.
    assert actions.count("jobs#result") > rooms[0] - 10
    assert actions.count("jobs#numbers") > rooms[1] - 10
    assert actions[-1] == "jobs#after"
