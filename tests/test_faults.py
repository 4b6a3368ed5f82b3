"""Where things go wrong inside autoinst, or a time limit strikes there: the program goes on, and so do the records."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from autoinst.hook.carry import Carrier, RunProbe
from autoinst.trace.context import current
from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
jobs:
  - module: jobs
    functions: ["job_*"]
    payload:
      job_id: {value: "${n}", at: exit}
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    program.write("jobs.py", "def job_a(n=1):\n    return n\n\ndef job_b(n=2):\n    return n\n")
    return program


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="from there on `_context` is threading's own name")
def test_a_thread_with_a_context_of_its_own(program: Program) -> None:
    program.write(
        "jobs.py",
        """
        import threading

        class Worker(threading.Thread):
            _context = property(lambda self: print("asked"))

            def run(self):
                print("ran")

        class Other(threading.Thread):
            def __init__(self):
                super().__init__()
                self._context = object()

            def run(self):
                print("ran")

        def job_a(n=1):
            for kind in (Worker, Other):
                thread = kind()
                thread.start()
                thread.join(20)
                assert not thread.is_alive()
        """,
    )
    program.write("worker.py", "import jobs\njobs.job_a()\n")
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "ran\nran\n", "")
    assert len(result.records) == 1


STRIKE = """
    import jobs
    from autoinst.trace import context, transaction

    class Limit(Exception):
        pass

    def strike_once(owner, name):
        real = getattr(owner, name)
        def struck(*args, **kwargs):
            setattr(owner, name, real)
            {before}
            raise Limit
        setattr(owner, name, struck)

    strike_once({where})
    try:
        jobs.job_a()
    except Limit:
        print("limit reached the program")
    for _ in range(3):
        jobs.job_b()
"""


@pytest.mark.parametrize(
    ("where", "before", "records"),
    [
        ("transaction.Transaction, 'amend'", "pass", 4),
        ("transaction.Transaction, '_store'", "pass", 4),
        ("transaction, 'leave'", "pass", 4),
        ("transaction, 'leave'", "real(*args)", 4),
        ("transaction.Transaction, 'open'", "real(*args)", 4),
    ],
)
def test_a_time_limit_that_strikes_inside_passes_and_loses_nothing(
    program: Program, where: str, before: str, records: int
) -> None:
    program.write("worker.py", STRIKE.format(where=where, before=before))
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "limit reached the program\n", "")
    assert [record["action"] for record in result.records] == ["jobs#job_a"] + ["jobs#job_b"] * 3
    assert len(result.records) == records
    assert {record["parent_span_id"] for record in result.records} == {None}
    assert "killed" not in {record["status"] for record in result.records}


def test_a_timeout_in_the_api_is_the_programs(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import autoinst
        from autoinst.trace import transaction

        def handler(*_):
            raise TimeoutError("limit")

        transaction.Transaction.amend = handler
        tx = autoinst.Transaction.create("x")
        try:
            tx.set_action("A#b")
        except TimeoutError:
            print("limit reached the program")
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "limit reached the program\n", "")


FROZEN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Bad(Exception):
    code: int

"""


def test_a_frozen_exception_leaves_a_module_and_a_script_as_it_is(program: Program) -> None:
    program.write("jobs.py", FROZEN + "def job_a(n):\n    pass\n\nraise Bad(3)\n")
    program.write("rules.yaml", RULES + "  - {module: __main__, functions: [job_a]}\n")
    program.write("worker.py", FROZEN + "def job_a(n):\n    pass\n\nraise Bad(4)\n")
    program.write("importer.py", "import jobs\n")
    for script in ("worker.py", "importer.py"):
        plain = program.run(script, instrumented=False)
        instrumented = program.run(script, AUTOINST_PACKS="none")
        assert instrumented.status == plain.status == 1
        if sys.version_info >= (3, 11):
            assert instrumented.stderr == plain.stderr
        else:
            assert instrumented.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


def test_what_cannot_be_marshalled_costs_the_details_not_the_record(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import enum
        import autoinst

        class Name(str, enum.Enum):
            SQL = "query.sql"

        with autoinst.monitor("A#b"):
            with autoinst.instrument(Name.SQL):
                pass
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    assert result.one()["status"] == "ok"
    assert result.one()["action"] == "A#b"


@pytest.mark.parametrize("enabled", ["0", "1"])
def test_a_working_directory_that_is_gone(program: Program, tmp_path: Path, enabled: str) -> None:
    program.write(
        "worker.py",
        """
        import os, subprocess, sys
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        sys.exit(subprocess.call([sys.executable, "-c", "print('ran')"]))
        """,
    )
    rules = str(tmp_path / "rules.yaml")
    result = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_ENABLED=enabled, AUTOINST_RULES=rules)
    assert (result.status, result.stdout, result.stderr) == (0, "ran\n", "")


def test_exceptions_do_not_outlive_the_transaction(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import gc, weakref
        import autoinst

        class Thing:
            pass

        def run():
            thing = Thing()
            seen.append(weakref.ref(thing))
            try:
                with autoinst.monitor("A#b"):
                    raise ValueError(thing)
            except ValueError:
                pass

        seen = []
        gc.disable()
        run()
        assert seen[0]() is None
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")


FAULT = """
    import sys
    import jobs
    from autoinst.trace import context, run, transaction

    # A fault of autoinst's own, right after a slot was claimed.
    source = "def broken(node):\\n    module.set_current = real\\n    return {}['no such key']\\n"
    kept = []
    for module in (run, transaction):
        for job in (jobs.job_a, jobs.plain):
            names = {"__name__": module.__name__, "module": module, "real": module.set_current}
            exec(source, names)
            module.set_current = names["broken"]
            job(1)
            module.set_current = names["real"]
            kept.append(context.current.get())
            job(2)
    print(kept)
"""


def test_a_fault_right_after_the_start_leaves_no_job_open(program: Program) -> None:
    program.write("rules.yaml", RULES + "  - {function: jobs.plain}\nevents:\n  - {function: jobs.step}\n")
    program.write(
        "jobs.py",
        "def job_a(n=1):\n    step()\n    return n\n\ndef plain(n=1):\n    step()\n\ndef step():\n    pass\n",
    )
    program.write("worker.py", FAULT)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "[None, None, None, None]\n", "")
    assert [(record["status"], len(record["events"])) for record in result.records] == [("ok", 1)] * 8


@pytest.mark.parametrize("mechanism", ["inline", "trampoline", "monitoring"])
def test_a_call_no_rule_means_does_not_end_the_job_around_it(program: Program, mechanism: str) -> None:
    program.write("rules.yaml", "version: 1\njobs:\n  - {function: jobs.work, when: '${top}'}\n")
    program.write(
        "jobs.py",
        """
        def work(top):
            if not top:
                raise ValueError("inner")
            try:
                work(False)
            except ValueError:
                step()

        def step():
            pass
        """,
    )
    program.write("worker.py", "import jobs\njobs.work(True)\n")
    result = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_MECHANISM=mechanism)
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert [record["status"] for record in result.records] == ["ok"]


def test_a_time_limit_before_a_thread_takes_the_job_over_leaves_nothing_to_undo() -> None:
    RunProbe(Carrier(), shared=False).error(False, TimeoutError())
    assert current.get() is None
