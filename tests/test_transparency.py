"""A program sees no difference between running with every function of a module probed and running plain.

data/transparency/checks.py looks at data/transparency/subject.py in more than 200 ways, and libraries.py at models.py
by attrs, pydantic, cloudpickle and coverage. What a trampoline cannot hide
is in DIFFERENCES, and docs/transparency.md says what it means for a user: a difference more or less fails here.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Program

SOURCES = Path(__file__).parent / "data" / "transparency"
RULES = """
version: 1
jobs:
  - module: subject
    functions: ["**", "**.__*", "**.<lambda>"]
  - module: models
    functions: ["**", "**.__*", "**.<lambda>"]
"""
VERSION = sys.version_info[:2]
MECHANISMS = ("trampoline", "inline") if VERSION < (3, 15) else ("trampoline", "inline", "monitoring")
EVERYWHERE = ((3, 10), (3, 99))
BEFORE_311 = ((3, 10), (3, 10))
BEFORE_314 = ((3, 10), (3, 13))
CLOSUREVARS = inspect.getsource(inspect.getclosurevars)

# What differs -> on which versions, from and to.
TRAMPOLINE = {
    # One frame more between caller and function.
    "warnings stacklevel 2": EVERYWHERE,
    "logging stacklevel 2": EVERYWHERE,
    "caller's frame": EVERYWHERE,
    "inspect.stack": EVERYWHERE,
    "stack size": EVERYWHERE,
    "recursion depth": EVERYWHERE,
    # Hooks see the trampoline and the probe run.
    "settrace": EVERYWHERE,
    "setprofile": EVERYWHERE,
    # What a suspended generator or coroutine shows of itself.
    "generator gi_yieldfrom": EVERYWHERE,
    "generator locals": EVERYWHERE,
    "generator line": EVERYWHERE,
    "coroutine cr_await": EVERYWHERE,
    "async generator ag_await": EVERYWHERE,
    # The function's code object is the trampoline's.
    "code variables": EVERYWHERE,
    "code constants": EVERYWHERE,
    "code cell variables": EVERYWHERE,
    "code lines": EVERYWHERE,
    "code bytes": EVERYWHERE,
    "code marshal": EVERYWHERE,
    # Reads the bytecode since 3.14, and in later releases of 3.13.
    **({"getclosurevars of a function": EVERYWHERE} if "get_instructions" in CLOSUREVARS else {}),
    # The arc from a trampoline's entry to its exit; lines and branches are the same.
    "coverage: raw arcs": EVERYWHERE,
    # The trampoline's variables refer to the arguments too (3.14 lends them to a call).
    "reference count": BEFORE_314,
    # The trampoline's frame stays in tracebacks.
    "traceback": BEFORE_311,
    "traceback of a cause": BEFORE_311,
    "traceback of a method": BEFORE_311,
    "formatted traceback": BEFORE_311,
    "generator throw traceback": BEFORE_311,
    "contextmanager with an exception": BEFORE_311,
    "coroutine exception": BEFORE_311,
    "asynccontextmanager with an exception": BEFORE_311,
}
INLINE = {
    # Hooks see the probe run.
    "settrace": EVERYWHERE,
    "setprofile": EVERYWHERE,
    # The `with` is in the function's own code.
    "code constants": EVERYWHERE,
    "code bytes": EVERYWHERE,
    "code lines": ((3, 11), (3, 11)),  # None is one there
    "code marshal": EVERYWHERE,
    # A generator that delegates by `yield from` has a trampoline.
    "coverage: raw arcs": EVERYWHERE,
    "generator gi_yieldfrom": EVERYWHERE,
    # 3.13 shows a variable that is not set yet, if plain code follows.
    "generator locals": ((3, 13), (3, 13)),
}
DIFFERENCES: dict[str, dict[str, tuple[tuple[int, int], tuple[int, int]]]] = {
    "trampoline": TRAMPOLINE,
    "inline": INLINE,
    "monitoring": {},
}


def look(program: Program, *, instrumented: bool, **variables: str) -> dict[str, Any]:
    """Return what the program sees of itself."""
    seen: dict[str, Any] = {}
    for script in ("checks.py", "libraries.py"):
        result = program.run(script, "processes", instrumented=instrumented, environ=variables, AUTOINST_PACKS="none")
        assert (result.status, result.stderr) == (0, "")
        seen |= json.loads(result.stdout)
    return seen


def program_in(folder: Path) -> Program:
    """Return the program of the checks."""
    program = Program(folder)
    for path in SOURCES.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, program.folder)
    program.write("rules.yaml", RULES)
    return program


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the program sees without autoinst."""
    return look(program_in(tmp_path_factory.mktemp("plain")), instrumented=False)


@pytest.fixture(scope="module", params=MECHANISMS)
def probed(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Program]:
    """Return a mechanism, what the program sees with probes by it, and the program."""
    program = program_in(tmp_path_factory.mktemp(request.param))
    return request.param, look(program, instrumented=True, AUTOINST_MECHANISM=request.param), program


def test_the_same_checks_are_made(plain: Any, probed: Any) -> None:
    mechanism, seen, _ = probed
    assert list(plain) == list(seen)
    assert len(plain) >= 230
    assert DIFFERENCES[mechanism].keys() <= plain.keys()


def test_only_the_inherent_differences_are_seen(plain: Any, probed: Any) -> None:
    mechanism, seen, _ = probed
    differing = {name: (plain[name], seen[name]) for name in plain if plain[name] != seen[name]}
    expected = {name for name, (first, last) in DIFFERENCES[mechanism].items() if first <= VERSION <= last}
    assert {name: both for name, both in differing.items() if name not in expected} == {}
    assert expected - differing.keys() == set()


def test_the_functions_were_probed(probed: Any) -> None:
    _, _, program = probed
    methods = {record["method"] for record in program.records() if record["status"] == "ok"}
    assert {
        *("plain", "count", "waits", "numbers", "<lambda>", "method", "__init__", "square", "counter", "mro"),
        *("delegating_coroutine", "delegates", "managed", "cached", "wrapper"),
    } <= methods


@pytest.mark.skipif(find_spec("test.test_generators") is None, reason="Debian's Pythons come without CPython's tests")
@pytest.mark.timeout(900)
def test_cpythons_own_tests_of_generators_and_context_managers() -> None:
    version = "{}.{}".format(*VERSION)
    command = [sys.executable, "benchmarks/cpython_tests.py", "--short", "--python", version]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Python {version}: 2 modules" in done.stdout


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the caller keeps its arguments there")
def test_a_recorded_argument_lives_no_longer(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write(
        "jobs.py",
        """
        import weakref

        class Big(list):
            pass

        def job(big):
            seen = weakref.ref(big)
            del big
            return seen() is None
        """,
    )
    program.write("worker.py", "import jobs\nprint(jobs.job(jobs.Big([1, 2])))")
    program.write("rules.yaml", "version: 1\njobs:\n  - function: jobs.job\n    payload:\n      args: ${args}\n")
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert result.stdout == "True\n", result.stderr
    assert result.one()["args"] == [[1, 2]]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_function_of_the_main_script_is_pickled_by_value_without_its_probe(tmp_path: Path, mechanism: str) -> None:
    program = Program(tmp_path)
    program.write(
        "worker.py",
        """
        import cloudpickle

        def job(number):
            def nested(more):
                return number + more
            return nested

        if __name__ == "__main__":
            with open("pickled", "wb") as file:
                cloudpickle.dump([job, job(1)], file)
            print(job(2)(3))
        """,
    )
    # Elsewhere there is neither autoinst nor the script.
    load = "import pickle, sys; job, nested = pickle.load(open('pickled', 'rb')); print(job(2)(3), nested(4), end=' ')"
    load += "; print([name for name in sys.modules if name.startswith('autoinst')])"
    program.write("rules.yaml", "version: 1\njobs:\n  - {module: __main__, functions: ['**']}\n")
    result = program.run("worker.py", AUTOINST_MECHANISM=mechanism, AUTOINST_PACKS="none")
    assert (result.stdout, result.stderr) == ("5\n", "")
    assert [record["method"] for record in result.records].count("job") == 2
    elsewhere = program.run("-c", load, instrumented=False)
    assert (elsewhere.stdout, elsewhere.stderr) == ("5 5 []\n", "")
    # Where there is autoinst it is none of the rules' functions either.
    shutil.rmtree(program.home)
    beside = program.run("-c", load.partition("; print([")[0], AUTOINST_MECHANISM=mechanism, AUTOINST_PACKS="none")
    assert (beside.stdout, beside.stderr, beside.records) == ("5 5 ", "", [])
