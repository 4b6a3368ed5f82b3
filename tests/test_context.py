"""Which transaction is current where: nested jobs, tasks, threads, executors, generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
jobs:
  - {module: jobs, functions: ["job_*"]}
  - {module: jobs, functions: ["new_*"], name: perform_job.other, nested: new}
events:
  - {module: jobs, functions: ["event_*"], name: step.jobs}
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    return program


def run(program: Program, jobs: str, calls: str) -> list[dict[str, Any]]:
    program.write("jobs.py", jobs)
    program.write("worker.py", calls)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    return result.records


def tree(record: dict[str, Any]) -> list[tuple[str, str | None, int | None]]:
    return [(event["name"], event["title"], event["parent"]) for event in record["events"]]


def test_a_job_inside_a_job_is_an_event_of_it(program: Program) -> None:
    (record,) = run(
        program,
        """
        def event_a(): event_b()
        def event_b(): pass
        def job_inner(): event_b()
        def job_outer():
            event_a()
            job_inner()
        """,
        "import jobs\njobs.job_outer()\njobs.event_a()\n",
    )
    assert record["action"] == "jobs#job_outer"
    assert tree(record) == [
        ("step.jobs", None, None),
        ("step.jobs", None, 0),
        ("perform_job.python", "jobs#job_inner", None),
        ("step.jobs", None, 2),
    ]


def test_nested_new_is_a_transaction_of_its_own_with_a_parent(program: Program) -> None:
    records = run(
        program,
        """
        def new_inner(): new_same()
        def new_same(): pass
        def job_outer(): new_inner()
        """,
        "import jobs\njobs.job_outer()\n",
    )
    by_action = {record["action"]: record for record in records}
    outer, inner = by_action["jobs#job_outer"], by_action["jobs#new_inner"]
    assert set(by_action) == {"jobs#job_outer", "jobs#new_inner"}
    assert inner["trace_id"] == outer["trace_id"] == outer["id"]
    assert inner["parent_span_id"] == outer["id"][16:]
    assert tree(inner) == [("perform_job.other", "jobs#new_same", None)]


def test_a_failing_event_and_a_handled_exception_are_no_error(program: Program) -> None:
    (record,) = run(
        program,
        """
        def event_a(): raise ValueError
        def job_outer():
            try:
                event_a()
            except ValueError:
                pass
        """,
        "import jobs\njobs.job_outer()\n",
    )
    assert record["status"] == "ok"
    assert record["exception"] is None
    assert record["events"][0]["duration"] is not None


def test_tasks_threads_and_executors_belong_to_the_job(program: Program) -> None:
    (record,) = run(
        program,
        """
        import asyncio, threading
        from concurrent.futures import ThreadPoolExecutor

        def event_thread(): pass
        def event_pool(): pass
        async def event_task(): await asyncio.sleep(0)

        def job_outer(pool):
            thread = threading.Thread(target=event_thread)
            thread.start()
            thread.join()
            pool.submit(event_pool).result()
            async def main():
                await asyncio.gather(event_task(), event_task())
            asyncio.run(main())
        """,
        """
        import jobs
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        jobs.job_outer(pool)
        pool.submit(jobs.event_pool).result()
        pool.shutdown()
        """,
    )
    assert record["dropped_events"] == 0
    assert len(record["events"]) == 4


def test_a_job_in_a_thread_after_its_parent_ended_has_a_parent_span(program: Program) -> None:
    records = run(
        program,
        """
        import threading
        ended = threading.Event()
        threads = []

        def job_late():
            pass

        def wait():
            ended.wait(20)
            job_late()

        def job_outer():
            thread = threading.Thread(target=wait)
            thread.start()
            threads.append(thread)
        """,
        "import jobs\njobs.job_outer()\njobs.ended.set()\njobs.threads[0].join()\n",
    )
    outer, late = records
    assert (outer["action"], late["action"]) == ("jobs#job_outer", "jobs#job_late")
    assert late["parent_span_id"] == outer["id"][16:]
    assert late["trace_id"] == outer["id"]


def test_concurrent_tasks_keep_their_transactions_apart(program: Program) -> None:
    records = run(
        program,
        """
        import asyncio
        async def event_step(n): await asyncio.sleep(0.001)
        async def job_task(n):
            for _ in range(n):
                await event_step(n)
        """,
        """
        import asyncio, jobs
        async def main():
            await asyncio.gather(*(jobs.job_task(n) for n in range(5)))
        asyncio.run(main())
        """,
    )
    assert sorted(len(record["events"]) for record in records) == [0, 1, 2, 3, 4]


def test_a_generator_job_is_current_only_while_its_body_runs(program: Program) -> None:
    records = run(
        program,
        """
        def event_inside(): pass
        def event_outside(): pass
        def job_generator():
            event_inside()
            yield 1
            event_inside()
            yield 2
        async def job_async():
            event_inside()
            yield 1
            event_inside()
        """,
        """
        import asyncio, jobs
        one, two = jobs.job_generator(), jobs.job_generator()
        for _ in zip(one, two):
            jobs.event_outside()
        one.close()
        two.close()
        async def main():
            async for _ in jobs.job_async():
                jobs.event_outside()
        asyncio.run(main())
        """,
    )
    assert [(record["action"], len(record["events"])) for record in records] == [
        ("jobs#job_generator", 2),
        ("jobs#job_generator", 2),
        ("jobs#job_async", 2),
    ]
    assert [record["status"] for record in records] == ["ok", "ignored", "ok"]


def test_an_interrupted_generator_restores_the_event_inside_it(program: Program) -> None:
    (record,) = run(
        program,
        """
        import autoinst
        def event_after(): pass
        def job_generator():
            with autoinst.instrument("outer.block"):
                yield 1
                event_after()
        """,
        "import jobs\nassert list(jobs.job_generator()) == [1]\n",
    )
    assert tree(record) == [("outer.block", None, None), ("step.jobs", None, 0)]


def test_statuses(program: Program) -> None:
    program.write(
        "rules.yaml",
        """
        version: 1
        ignore_exceptions: [jobs.Everywhere, "lib.**"]
        jobs:
          - module: jobs
            functions: ["job_*"]
            ignore_exceptions: [jobs.Base, "jobs.*Skip", json.JSONDecodeError]
        """,
    )
    program.write("lib.py", "class Error(Exception): pass\n")
    records = run(
        program,
        """
        import asyncio, json, lib, sys
        class Everywhere(Exception): pass
        class Base(Exception): pass
        class Derived(Base): pass
        class PleaseSkip(Exception): pass
        class Mine(BaseException): pass
        def job_raise(error): raise error
        """,
        """
        import asyncio, json, jobs, lib
        for error in (
            ValueError(), jobs.Everywhere(), jobs.Derived(), jobs.PleaseSkip(), lib.Error(),
            json.JSONDecodeError("m", "d", 0), SystemExit(), SystemExit(0), SystemExit(2), SystemExit("text"),
            KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), jobs.Mine(),
        ):
            try:
                jobs.job_raise(error)
            except BaseException as caught:
                assert caught is error
        """,
    )
    assert [record["status"] for record in records] == [
        "error", "ignored", "ignored", "ignored", "ignored",
        "ignored", "ok", "ok", "error", "error",
        "error", "ignored", "ignored", "error",
    ]  # fmt: skip
    assert records[2]["exception"]["class"] == "jobs.Derived"


def test_exceptions_in_full(program: Program) -> None:
    (record,) = run(
        program,
        """
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        def deep(n):
            if n:
                return deep(n - 1)
            try:
                try:
                    raise Odd()
                except Odd as odd:
                    raise KeyError("k") from odd
            except KeyError:
                raise ValueError("v" * 9000)

        def job_fail():
            deep(150)
        """,
        "import jobs\ntry:\n    jobs.job_fail()\nexcept ValueError:\n    pass\n",
    )
    exception = record["exception"]
    assert exception["class"] == "ValueError"
    assert len(exception["message"]) < 4100
    assert exception["message"].endswith("... 5000 more")
    assert [cause["class"] for cause in exception["causes"]] == ["KeyError", "jobs.Odd"]
    assert exception["causes"][1]["message"] == "#<jobs.Odd: its __str__ raised RuntimeError>"
    functions = [frame["function"] for frame in exception["backtrace"]]
    assert functions[0] == "job_fail"
    assert functions[-1] == "deep"
    assert "... 52 frames left out" in functions
    assert all(frame["in_app"] for frame in exception["backtrace"] if frame["file"])
