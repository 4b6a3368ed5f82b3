"""sys.monitoring as the way to watch functions: beside other tools, without a trace in code, and never in the way."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import Program
from tests.test_inline import found_by

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.version_info < (3, 15), reason="unwinding is an event of the whole process there")

JOBS = """
    def job(n):
        if n < 0:
            raise ValueError(n)
        return n + 1

    def numbers(n):
        for i in range(n):
            yield i

    async def waits(n):
        return n

    def recursive(n):
        return recursive(n - 1) if n else "done"
"""
RULES = "version: 1\njobs:\n  - {module: jobs, functions: ['*']}\n"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("jobs.py", JOBS)
    program.write("rules.yaml", RULES)
    return program


def test_no_code_is_changed(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import jobs
        with open("jobs.py") as file:
            code = compile(file.read(), jobs.__file__, "exec", dont_inherit=True)
        inner = [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        print([function.__code__ in inner for function in (jobs.job, jobs.numbers, jobs.waits)], jobs.job(1))
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.stdout, result.stderr) == ("[True, True, True] 2\n", "")
    assert result.one()["action"] == "jobs#job"
    assert found_by(program)["3"] == ("monitoring", "jobs:job, jobs:numbers, jobs:waits")


@pytest.mark.parametrize("taken", [(3,), (4,), (3, 4)], ids=str)
def test_tool_ids_that_others_have_are_theirs(program: Program, taken: tuple[int, ...]) -> None:
    program.write(
        "worker.py",
        f"""
        import sys
        monitoring = sys.monitoring
        seen = []
        for tool in {taken}:
            monitoring.use_tool_id(tool, "theirs")
            monitoring.register_callback(tool, monitoring.events.PY_START, lambda code, _: seen.append(code.co_name))
            monitoring.set_events(tool, monitoring.events.PY_START)
        import jobs
        jobs.job(1)
        print(list(jobs.numbers(2)), seen.count("job") >= {len(taken)}, [monitoring.get_tool(n) for n in {taken}])
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.stdout, result.stderr) == (f"[0, 1] True {['theirs'] * len(taken)}\n", "")
    assert [record["method"] for record in result.records] == ["job", "numbers"]
    mechanism, detail = found_by(program)["3"]
    if len(taken) == 1:
        assert mechanism == "monitoring"
    else:
        assert mechanism == "trampoline"
        assert "both free tool ids of sys.monitoring are taken" in detail


def test_tracers_and_profilers_see_the_program_alone(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import sys, jobs
        seen = []
        def trace(frame, event, argument):
            seen.append((event, frame.f_code.co_name))
            return trace
        for install in (sys.settrace, sys.setprofile):
            install(trace)
            jobs.job(1)
            list(jobs.numbers(1))
            install(None)
        print({name for _, name in seen})
        """,
    )
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert sorted(result.stdout) == sorted(plain.stdout)
    assert "autoinst" not in result.stdout
    assert len(result.records) == 4


def test_watched_code_that_nobody_has_any_longer_goes(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import gc, importlib, weakref, jobs
        from autoinst.hook import monitor
        watched = len(monitor.get().watches)
        old = [weakref.ref(code) for code in (jobs.job.__code__, jobs.numbers.__code__)]
        for _ in range(5):
            importlib.reload(jobs)
            jobs.job(1)
        gc.collect()
        print([reference() for reference in old], len(monitor.get().watches) == watched, monitor.get().calls)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.stdout, result.stderr) == ("[None, None] True {}\n", "")
    assert len(result.records) == 5


def test_calls_of_every_kind_end(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import asyncio, jobs
        from autoinst.hook import monitor
        jobs.job(1)
        try:
            jobs.job(-1)
        except ValueError:
            pass
        generator = jobs.numbers(3)
        next(generator)
        generator.close()
        dropped = jobs.numbers(3)
        next(dropped)
        del dropped
        asyncio.run(jobs.waits(1))
        jobs.recursive(3)
        print(monitor.get().calls)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.stdout, result.stderr) == ("{}\n", "")
    found = [(record["method"], record["status"], len(record["events"])) for record in result.records]
    assert found == [
        ("job", "ok", 0),
        ("job", "error", 0),
        ("numbers", "ignored", 0),
        ("numbers", "ignored", 0),
        ("waits", "ok", 0),
        ("recursive", "ok", 3),
    ]


def test_a_time_limit_that_strikes_in_a_callback_passes_and_ends_the_job(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import signal, sys, jobs
        from autoinst.hook import monitor
        from autoinst.hook.probe import JobProbe as Probe
        class TimeLimit(Exception):
            pass
        def limit(*_):
            raise TimeLimit
        signal.signal(signal.SIGALRM, limit)
        real = Probe.enter, Probe.exit
        def enter(self, values):
            node = real[0](self, values)
            signal.raise_signal(signal.SIGALRM)
            return node
        def leave(self, node, result):
            signal.raise_signal(signal.SIGALRM)
            return real[1](self, node, result)
        def leave_late(self, node, result):
            real[1](self, node, result)
            signal.raise_signal(signal.SIGALRM)
        for name, function in (("enter", enter), ("exit", leave), ("exit", leave_late)):
            setattr(Probe, name, function)
            try:
                print(jobs.job(1))
            except TimeLimit as error:
                print("limit", error.__context__)
            setattr(Probe, name, real[name == "exit"])
        print(jobs.job(5), monitor.get().calls)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.stdout, result.stderr) == ("limit None\nlimit None\nlimit None\n6 {}\n", "")
    assert [record["status"] for record in result.records] == ["error", "error", "ok", "ok"]


DELEGATING = """
    def inner():
        try:
            yield 1
        except KeyboardInterrupt:
            yield "raised inside"
        finally:
            print("closed")

    def outer():
        try:
            yield from inner()
        except KeyboardInterrupt:
            yield "raised at `yield from`"
"""
INTERRUPTED = """
    import _thread, operator, sys
    from functools import partial
    import delegating

    if len(sys.argv) > 1:
        monitoring = sys.monitoring
        resumed = monitoring.events.PY_RESUME
        monitoring.use_tool_id(0, "empty")
        monitoring.register_callback(0, resumed, operator.is_ if sys.argv[1] == "C" else lambda *_: None)
        monitoring.set_local_events(0, delegating.outer.__code__, resumed)
    running = delegating.outer()
    next(running)
    # From C code, so that the signal is there when the generator is resumed, and not before.
    print(list(map(operator.call, [_thread.interrupt_main, partial(running.send, None)]))[1])
    running.close()
"""


def test_a_signal_while_a_delegating_generator_is_resumed_does_what_any_tool_makes_it_do(program: Program) -> None:
    program.write("delegating.py", DELEGATING)
    program.write("worker.py", INTERRUPTED)
    program.write("rules.yaml", "version: 1\njobs:\n  - function: delegating.outer\n")
    inside, at_yield_from = "raised inside\nclosed\n", "closed\nraised at `yield from`\n"
    assert program.run("worker.py", instrumented=False).stdout == inside
    # A callback of Python code is where the interpreter runs signal handlers, whatever it does; one of C code is not.
    assert program.run("worker.py", "Python", instrumented=False).stdout == at_yield_from
    assert program.run("worker.py", "C", instrumented=False).stdout == inside
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, at_yield_from, "")
    assert result.one()["method"] == "outer"
    # A trampoline is no such place.
    by_trampoline = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_MECHANISM="trampoline")
    assert (by_trampoline.status, by_trampoline.stdout, by_trampoline.stderr) == (0, inside, "")
