"""Tools that look into a program: they show what they show without autoinst, and each job is recorded once."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import BOOT, ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Result

MECHANISMS = ("inline", "trampoline") if sys.version_info < (3, 15) else ("monitoring", "inline", "trampoline")
RULES = """
version: 1
packs: [none]
jobs:
  - {class: work.Mailer, methods: [perform]}
  - {module: work, functions: [numbers, retried]}
  - {module: test_work, functions: ["test_*"]}
"""
WORK = """
class Mailer:
    def perform(self, n):
        total = 0
        for i in range(n):
            if i == 2:
                total += 10
            else:
                total += i
        return total

def numbers(n):
    for i in range(n):
        yield i
    return "end"

def retried(n, log=[]):
    try:
        log.append(10 // n)
    except ZeroDivisionError:
        return "none"
    return log[-1]
"""
WORKER = """
import work

print(work.Mailer().perform(4))
print(list(work.numbers(3)))
print(work.retried(0), work.retried(2))
"""
ACTIONS = ["work.Mailer#perform", "work#numbers", "work#retried", "work#retried"]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("work.py", WORK)
    program.write("worker.py", WORKER)
    program.write("rules.yaml", RULES)
    return program


def both(program: Program, *arguments: str, mechanism: str, stdin: str = "", output: bool = True) -> Result:
    """Return a run under autoinst, after it has shown the same as one without, `output` on stdout included."""
    plain = program.run(*arguments, instrumented=False, stdin=stdin)
    result = program.run(*arguments, stdin=stdin, AUTOINST_MECHANISM=mechanism)
    assert (result.status, result.stderr) == (plain.status, plain.stderr)
    if output:
        assert shown(result.stdout) == shown(plain.stdout)
    return result


def shown(text: str) -> str:
    """Return what a tool printed without times and addresses."""
    return re.sub(r"0x[0-9a-f]+|\d+\.\d+s", "", text)


def actions(result: Result) -> list[str]:
    return [record["action"] for record in result.records]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("branch", [[], ["--branch"]], ids=["lines", "branches"])
def test_coverage(program: Program, mechanism: str, branch: list[str]) -> None:
    measured = []
    for instrumented in (False, True):
        command = ["-m", "coverage", "run", *branch, "--include=work.py", "--data-file=data", "worker.py"]
        result = program.run(*command, instrumented=instrumented, AUTOINST_MECHANISM=mechanism)
        assert (result.status, result.stderr) == (0, "")
        program.run("-m", "coverage", "json", "--data-file=data", "-o", "report.json", instrumented=False)
        report = json.loads((program.folder / "report.json").read_text())
        measured.append(report["files"]["work.py"])
    assert measured[0]["executed_lines"]
    assert measured[1] == measured[0]
    assert actions(result) == ACTIONS


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_pdb(program: Program, mechanism: str) -> None:
    commands = [
        *(
            "next",
            "break work.Mailer.perform",
            "break work:13",
            "continue",
            "where",
            "args",
            "next",
            "next",
            "p total, n",
        ),
        *("until 9", "p total", "up", "list", "down", "return", "retval", "continue", "p i", "where", "clear 2"),
        *("continue", "quit"),
    ]
    if mechanism == "trampoline":  # it is a frame more, and the first line of its code is that of the `def`
        commands = ["next", "break work:5", "continue", "p total, n", "clear 1", "continue", "quit"]
    result = both(program, "-m", "pdb", "worker.py", mechanism=mechanism, stdin="\n".join(commands) + "\n")
    assert "(0, 4)" in result.stdout
    assert actions(result) == ACTIONS


def test_breakpoint_in_a_job(program: Program) -> None:
    program.write("work.py", WORK.replace("        total = 0\n", "        total = 0\n        breakpoint()\n"))
    result = both(program, "worker.py", mechanism=MECHANISMS[0], stdin="where\np total, n\nnext\nnext\ncontinue\n")
    assert "(0, 4)" in result.stdout
    assert actions(result) == ACTIONS


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_pytests_rewritten_assertions(program: Program, mechanism: str) -> None:
    program.write(
        "test_work.py",
        """
        import pytest
        import work

        @pytest.fixture
        def mailer():
            return work.Mailer()

        def test_good(mailer):
            assert mailer.perform(4) == 14

        @pytest.mark.parametrize("n", [1, 2])
        def test_bad(mailer, n):
            assert mailer.perform(n) == [n, {"a": 1}], "not this"

        def test_raises():
            with pytest.raises(ZeroDivisionError, match="division"):
                1 / 0
        """,
    )
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "test_work.py"]
    for _ in range(2):  # the second time from the rewritten bytecode that pytest keeps
        # Before 3.11 a traceback shows the trampoline, so what pytest prints of a failure has its lines too.
        result = both(program, *command, mechanism=mechanism, output=sys.version_info >= (3, 11))
        assert "2 failed, 2 passed" in result.stdout
        assert "assert 0 == [1, {'a': 1}]" in result.stdout
        assert result.status == 1
    assert sorted(actions(result)) == sorted(
        ["test_work#test_good", "test_work#test_bad", "test_work#test_bad", "test_work#test_raises"] * 2
    )
    assert [record["status"] for record in result.records].count("error") == 4


def test_a_second_autoinst_on_the_path(program: Program, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("autoinst", "rules", "sitecustomize_example"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    boot = other / "sitecustomize_example"
    for path in ([boot, BOOT], [BOOT, boot], [other, boot, BOOT], [BOOT, BOOT]):
        shutil.rmtree(program.home, ignore_errors=True)
        program.write(
            "child.py", "import subprocess, sys, worker\nsubprocess.run([sys.executable, 'worker.py'], check=True)\n"
        )
        result = program.run("child.py", PYTHONPATH=os.pathsep.join(map(str, path)))
        assert (result.status, result.stderr) == (0, "")
        assert sorted(actions(result)) == sorted(ACTIONS * 2), path
