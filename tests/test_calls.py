"""Rules that mean a call inside a function, where a worker's loop has no function of its own for a job."""

from __future__ import annotations

import py_compile
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.rules.check import check_files
from tests.harness import Program
from tests.test_routes import doctor

if TYPE_CHECKING:
    from pathlib import Path

LOOP = '''
"""A worker's loop."""


def work(jobs, name="mail"):
    """Run jobs until there is none."""
    done = []
    for job in jobs:
        number = job["id"]
        try:
            result = (True, job["f"](number))
            done.append(handle(job["f"], number, extra={"n": number}))
        except ValueError as error:
            done.append(str(error))
    return done


def handle(function, number, extra):
    return function(number)


async def work_async(jobs):
    results = []
    for job in jobs:
        results.append(await job(len(results)))
    return results


def numbers(n):
    for i in range(n):
        x = handle(abs, i, {})
        yield x


def odd(n):
    if n:
        late = 1
    with handle(open, __file__, {}):
        handle(abs, n, late if n else 0)
'''

WORKER = """
import asyncio, sys, traceback
import loop

def good(n):
    return n * 2

def bad(n):
    if n == 2:
        raise ValueError("bad")
    return n

async def late(n):
    await asyncio.sleep(0)
    return n + 1

print(loop.work([{"id": n, "f": f} for n, f in enumerate((good, good, bad, bad))]))
print(asyncio.run(loop.work_async([late, late])))
print(list(loop.numbers(2)))
print(loop.odd(3))
try:
    loop.work([{"id": 1, "f": lambda n: 1 / 0}])
except ZeroDivisionError:
    traceback.print_exc()
"""

RULES = """
version: 1
jobs:
  - function: loop.work.<calls>.handle
    payload: {queue: "${name}", job_id: "${number}", args: "${job['id']}"}
  - function: loop:work_async.<calls>.job
    payload: {method: "${dotted(job).rpartition('.')[2]}"}
  - function: loop.numbers.<calls>.handle
"""


def run(tmp_path: Path, rules: str, mechanism: str | None = None) -> Any:
    program = Program(tmp_path)
    program.write("loop.py", LOOP)
    program.write("rules.yaml", rules)
    program.write("worker.py", WORKER)
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none", AUTOINST_MECHANISM=mechanism)
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    return result


def test_each_such_call_is_a_job(tmp_path: Path) -> None:
    records = run(tmp_path, RULES).records
    found = [(r["action"], r["status"], r["queue"], r["job_id"], r["args"]) for r in records]
    assert found == [
        ("loop#handle", "ok", "mail", "0", 0),
        ("loop#handle", "ok", "mail", "1", 1),
        ("loop#handle", "ok", "mail", "3", 3),
        ("loop#late", "ok", None, None, None),
        ("loop#late", "ok", None, None, None),
        ("loop#handle", "ok", None, None, None),
        ("loop#handle", "ok", None, None, None),
    ]


@pytest.mark.parametrize("mechanism", ["trampoline", "monitoring"])
def test_with_every_mechanism(tmp_path: Path, mechanism: str) -> None:
    rules = RULES + "events:\n  - {function: loop.handle}\n"
    records = run(tmp_path, rules, mechanism).records
    assert [len(record["events"]) for record in records] == [1, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("function", "payload", "reason"),
    [
        ("loop:odd.<calls>.handle", "{}", "handle is called in the head of `with`"),
        ("loop:work.<calls>.nothing", "{}", "it does not call nothing"),
        ("loop:work.<calls>.handle", "{queue: '${error}'}", "reads error, which may not be set where handle is called"),
        ("loop:work.<calls>.handle", "{queue: '${result}'}", "its rule reads the result of a call inside a function"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path: Path, function: str, payload: str, reason: str) -> None:
    result = run(tmp_path, f"version: 1\njobs:\n  - function: {function}\n    payload: {payload}\n")
    assert result.records == []
    assert reason in doctor(Program(tmp_path))


def test_without_the_source_it_is_refused(tmp_path: Path) -> None:
    program = Program(tmp_path)
    source = program.write("loop.py", LOOP)
    py_compile.compile(str(source), str(tmp_path / "loop.pyc"))
    source.unlink()
    program.write("rules.yaml", RULES)
    result = program.run("-c", "import loop; print(loop.work([]))", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr, result.records) == (0, "[]\n", "", [])
    assert "its source was not found" in doctor(program)


def test_check_looks_for_the_function(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("loop.py", LOOP)
    rules = program.write("rules.yaml", RULES)
    assert check_files([str(rules)], [str(tmp_path)], "none") == []
    program.write("rules.yaml", RULES.replace("numbers", "nubers"))
    (problem,) = check_files([str(rules)], [str(tmp_path)], "none")
    assert "no function 'nubers'" in str(problem)


def test_variables_that_are_deleted(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write(
        "loop.py",
        """
        def work(jobs):
            job = None
            while jobs:
                again = jobs
                item = jobs.pop()
                item()
                try:
                    item()
                finally:
                    del item, job
                job = None
            else:
                del again
        """,
    )
    program.write("worker.py", "import loop\nloop.work([print, print])\n")
    found: dict[str, int] = {}
    for name in ("item", "jobs", "job", "again"):
        program.write(
            "rules.yaml",
            f"version: 1\njobs: [{{function: loop.work.<calls>.item, payload: {{args: '${{len({name})}}'}}}}]\n",
        )
        result = program.run("worker.py", AUTOINST_PACKS="none")
        assert (result.status, result.stderr) == (0, "")
        found[name] = len(result.records) - sum(found.values())
    # `job` is not there in the second call of `item`, nor may it be in the first, for all that is seen.
    assert found == {"item": 4, "jobs": 4, "job": 0, "again": 4}


@pytest.mark.parametrize("statement", ["return 3 < 2 < job(late)", "assert flag == 0, job(late)"])
def test_a_variable_that_a_statement_may_leave_unread_is_not_read_for_a_rule(tmp_path: Path, statement: str) -> None:
    program = Program(tmp_path)
    program.write(
        "loop.py", f"def work(flag):\n    if flag:\n        late = 1\n    {statement}\n\ndef job(x):\n    return x\n"
    )
    program.write(
        "rules.yaml", "version: 1\njobs:\n  - {function: loop.work.<calls>.job, payload: {job_id: '${late}'}}\n"
    )
    result = program.run("-c", "import loop; print(loop.work(0))", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")


LATE = """
def work(job):
    state = {"id": 0}

    def advance(fails=False):
        state["id"] += 1
        if fails:
            raise ValueError("before the call")
        return state["id"]

    found = [handle(advance())]
    found.append(handle(1, *(advance(),)))
    found.append(handle(n=advance()))
    found.append(handle(**{"n": advance()}))
    found += [handle(
        advance(),
    ) for _ in "ab"]
    false = state["id"] < 0 and handle(advance())
    both = handle(handle(advance()))
    advance()
    nothing = handle()
    try:
        handle(advance(fails=True))
    except ValueError as error:
        found.append(error.__traceback__.tb_lineno)
    return found, false, both, nothing


def handle(*args, n=None):
    return n or args
"""


def test_values_are_read_when_the_call_is_made(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("late.py", LATE)
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - {function: late.work.<calls>.handle, payload: {job_id: "${state['id']}"}}
        events:
          - {function: "late:work.<locals>.advance", name: advance.python}
        """,
    )
    program.write("worker.py", "import late\nprint(late.work(1))\n")
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    found = [(record["job_id"], record["status"], len(record["events"])) for record in result.records]
    # A comprehension is part of its statement, which is one job.
    one_by_one = [(str(n), "ok", 0) for n in (1, 2, 3, 4)]
    assert found == [*one_by_one, ("5", "ok", 1), ("7", "ok", 0), ("8", "ok", 0)]


def test_a_variable_that_is_read_after_the_call_is_not_read_for_a_rule(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write(
        "loop.py",
        """
        def work(flag):
            if flag:
                late = 1
            return job(flag) + late

        def job(flag):
            print("called")
            return 1
        """,
    )
    program.write(
        "rules.yaml", "version: 1\njobs:\n  - {function: loop.work.<calls>.job, payload: {job_id: '${late}'}}\n"
    )
    program.write("worker.py", "import loop\nloop.work(0)\n")
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    assert "late, which may not be set where job is called" in doctor(program)


COMPREHENSIONS = """
import asyncio

def lists(jobs, job="outer", n=0):
    return [handle(job) for job in jobs if job for n in [job]]

def hidden(jobs, job="outer"):
    return [job for _ in jobs for job in handle(jobs)]

def first(jobs, job="outer"):
    return [job for job in handle(jobs)]

def nested(jobs):
    return {name: [handle(job) for job in jobs] for name in "ab"}

async def later(jobs):
    async def each():
        for job in jobs:
            yield job
    return {await late(job) async for job in each()}

def lazy(jobs):
    return (handle(job) for job in jobs)

def none(jobs):
    return [handle(job) for job in jobs if job > 9]

def handle(job):
    return job if isinstance(job, list) else job + 1

async def late(job):
    return job
"""

COMPREHENSION_WORKER = """
import asyncio, loop
print(loop.lists([0, 1, 2]), loop.hidden([3]), loop.first([4]), loop.nested([5, 6]), asyncio.run(loop.later([7, 8])))
print(list(loop.lazy([9])), loop.none([1, 2]))
"""


def test_comprehensions(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("loop.py", COMPREHENSIONS)
    program.write("worker.py", COMPREHENSION_WORKER)
    functions = {
        "lists": "handle",
        "hidden": "handle",
        "first": "handle",
        "nested": "handle",
        "later": "late",
        "lazy": "handle",
        "none": "handle",
    }
    payload = "payload: {job_id: '${job}'}"
    jobs = [f"  - {{function: loop.{name}.<calls>.{called}, {payload}}}\n" for name, called in functions.items()]
    program.write("rules.yaml", f"version: 1\njobs:\n{''.join(jobs)}")
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (plain.status, plain.stdout, plain.stderr)
    assert [record["job_id"] for record in result.records] == ["1", "outer", "5", "7"]
    said = doctor(program)
    # There `job` is the comprehension's own, which is not set yet.
    assert "loop:hidden.<calls>.handle: its rule reads job, which may not be set where handle is called" in said
    assert "loop:lazy.<calls>.handle: handle is called in a generator expression, which may run after its stat" in said


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("with job(()):\n        pass", "job is called in the head of `with`"),
        ("job(1)", "its rule reads late, which may not be set where job is called"),
        ("yield job(1)", "the statement that calls job yields"),
        ("list(job(late) for late in 'a')", "job is called in a generator expression"),
    ],
)
def test_a_function_that_is_refused_is_left_as_it_is(tmp_path: Path, last: str, reason: str) -> None:
    program = Program(tmp_path)
    program.write(
        "loop.py",
        f"def work(late=()):\n    print(job(late))\n    del late\n    {last}\n"
        "from contextlib import nullcontext as job\n",
    )
    program.write(
        "rules.yaml", "version: 1\njobs:\n  - {function: loop.work.<calls>.job, payload: {job_id: '${late}'}}\n"
    )
    program.write("worker.py", "import loop\nprint(list(loop.work() or ()))\n")
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr, result.records) == (plain.status, plain.stderr, []) == (0, "", [])
    assert reason in doctor(program)


def test_several_rules_for_one_call(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write(
        "loop.py",
        """
        def work(jobs):
            for name, job in jobs:
                run(name, job)

        def run(name, job):
            try:
                job.perform(3)
            except ValueError:
                pass
        """,
    )
    call = "loop.run.<calls>.job.perform"
    program.write(
        "rules.yaml",
        f"""
        version: 1
        jobs:
          - {{function: loop.run, payload: {{job_id: "${{name}}"}}}}
        enrich:
          - {{function: {call}, tags: {{of: "${{name}}"}}}}
        exceptions:
          - {{function: {call}, exception: "${{exception}}"}}
        """,
    )
    program.write(
        "worker.py",
        """
        import loop

        class Job:
            def perform(self, n):
                return n

        class Bad:
            def perform(self, n):
                raise ValueError("bad")

        loop.work([("good", Job()), ("bad", Bad())])
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    ended = [(record["job_id"], record["status"], record["tags"]) for record in result.records]
    assert ended == [("good", "ok", {"of": "good"}), ("bad", "error", {"of": "bad"})]
