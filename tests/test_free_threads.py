"""CPython without its GIL: autoinst leaves it off, and threads that run at once lose, tear and double nothing."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pythons
import yaml

from autoinst.agent.drain import drain_once
from autoinst.store.sqlite import Store
from tests.harness import BOOT, ROOT, Program

if TYPE_CHECKING:
    from autoinst.store.rollups import Cell
    from tests.harness import Result

THREADS = 8
RULES = """
version: 1
packs: [none]
jobs:
  - {function: "work.*", payload: {args: "${args}"}}
  - {function: bare.job}
events:
  - {class: sqlite3.Cursor, methods: [execute], name: query.sqlite}
"""
WORK = """
import sqlite3

def failing(n):
    raise ValueError(n)

def generated(n):
    yield n

async def awaited(n):
    return n

def queries(n):
    con = sqlite3.connect(":memory:")
    con.cursor().execute("SELECT ?", (n,))
    con.close()
"""
WORKER = """
import sys, threading, warnings
warnings.simplefilter("error")
THREADS, EACH = int(sys.argv[1]), int(sys.argv[2])
together = threading.Barrier(THREADS)
failures = []

def run():
    try:
        together.wait()
        import work, bare  # all at once
        for n in range(EACH):
            bare.job(n)
            if n % 10:
                continue
            try:
                work.failing(n)
            except ValueError:
                pass
            assert list(work.generated(n)) == [n]
            try:
                work.awaited(n).send(None)
            except StopIteration as end:
                assert end.value == n
            work.queries(n)
    except BaseException as error:
        failures.append(repr(error))

threads = [threading.Thread(target=run) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sys._is_gil_enabled(), failures)
"""


@pytest.fixture(scope="module")
def python() -> str:
    found = next(filter(None, map(pythons.find, pythons.FREE_THREADED)), None)
    if found is None:
        pytest.skip("no free-threaded CPython here; `scripts/pythons.py fetch 3.14t` builds one")
    return found


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    program.write("work.py", WORK)
    program.write("bare.py", "def job(n):\n    return n\n")
    program.write("worker.py", WORKER)
    packages = Path(yaml.__file__).parent.parent
    (tmp_path / "packages").mkdir()
    for name in ("yaml", "wrapt"):  # of another Python: their C extensions are not found, and not needed
        (tmp_path / "packages" / name).symlink_to(packages / name)
    return program


def run(program: Program, python: str, each: int, **variables: str) -> Result:
    path = os.pathsep.join(map(str, (BOOT, program.folder / "packages")))
    command = [python, "worker.py", str(THREADS), str(each)]
    return program.execute(command, {"PYTHONPATH": path, **variables}, timeout=300)


def totals(program: Program) -> dict[str | None, Cell]:
    drain_once(str(program.home))
    with Store(str(program.home / "store.sqlite3")) as store:
        return store.totals(0, 2**62)


def test_threads_that_import_and_call_at_once_are_recorded_once_each(program: Program, python: str) -> None:
    each = 1_000
    result = run(program, python, each)
    assert (result.status, result.stderr, result.stdout) == (0, "", "False []\n")
    actions = Counter(record["action"] for record in result.records)
    assert len({record["id"] for record in result.records}) == len(result.records)
    few = THREADS * each // 10
    assert actions == {"bare#job": THREADS * each} | {
        f"work#{name}": few for name in ("failing", "generated", "awaited", "queries")
    }
    args = Counter((record["action"], *record["args"]) for record in result.records if record["args"])
    assert set(args.values()) == {THREADS}
    failed = [record for record in result.records if record["status"] == "error"]
    assert {record["exception"]["class"] for record in failed} == {"ValueError"}
    queries = [record for record in result.records if record["action"] == "work#queries"]
    assert {tuple(event["name"] for event in record["events"]) for record in queries} == {("query.sqlite",)}


def test_threads_that_can_only_count_count_exactly(program: Program, python: str) -> None:
    each = 2_000
    result = run(program, python, each, AUTOINST_SPOOL_MAX="1")
    assert (result.status, result.stdout, result.records) == (0, "False []\n", [])
    cells = totals(program)
    jobs = sum(cell.counted for cell in cells.values())
    assert jobs == THREADS * (each + 4 * each // 10)
    assert sum(cell.counted_errors for cell in cells.values()) == THREADS * each // 10
    assert sum(sum(cell.durations.values()) for cell in cells.values()) == jobs


@pytest.mark.parametrize("size", [10, pytest.param(200, marks=pytest.mark.kill)])
def test_workers_and_drains_killed_at_random_moments(python: str, size: int) -> None:
    command = [python, "-m", "benchmarks.kill_loop", "--workers", str(3 * size), "--agents", str(size)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clean" in done.stdout


def test_no_module_of_the_worker_half_turns_the_gil_on(python: str) -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("startup.py", "hook/*.py", "trace/*.py", "spool/*.py", "rules/*.py")
        for path in (ROOT / "autoinst").glob(folder)
    )
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(sys._is_gil_enabled())"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(yaml.__file__).parent.parent)])}
    command = [python, "-W", "error", "-c", code, *modules]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", ""), done.stderr


def test_the_compiler_warns_of_nothing_in_a_context_that_has_its_own_filters(python: str) -> None:
    code = """
import warnings
from autoinst.hook.warned import NoWarnings

with warnings.catch_warnings():
    warnings.simplefilter("error")
    for _ in range(2):  # with a filter, and with none
        with NoWarnings():
            compile("'no function'()", "module.py", "exec")
        warnings.resetwarnings()
print("quiet")
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("quiet\n", "")
