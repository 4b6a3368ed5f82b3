"""Rules with `wraps`: jobs whose callable is given to a library as an argument, or made by it, rather than named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from autoinst.cli import main as cli
from autoinst.rules.check import check_files
from tests.harness import Program
from tests.test_live_rules import Worker

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = '''
"""A job library: it keeps the callables it is given, and calls them with a context."""
import asyncio, dataclasses, functools, inspect

@dataclasses.dataclass
class Function:
    name: str
    coroutine: object

class Queue:
    def __init__(self):
        self.functions = {}

    def register(self, name, function):
        self.functions[name] = Function(name, function)

    def call(self, name, *args, **kwargs):
        done = self.functions[name].coroutine({"id": name}, *args, **kwargs)
        return asyncio.run(done) if inspect.iscoroutine(done) else done

def ensure_coroutine(function):
    if inspect.iscoroutinefunction(function):
        return function
    @functools.wraps(function)
    async def wrapped(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapped
'''
SHOP = """
import asyncio, functools, sys
import queues

def decorated(function):
    @functools.wraps(function)
    def wrapper(*a, **k):
        return function(*a, **k)
    return wrapper

def plain(ctx, n, size="big"):
    return n

async def later(context, /, n, *, size=1):
    await asyncio.sleep(0)
    return n

def clash(*args, **kwargs):
    return args[1]

@decorated
def first(ctx, n): return n

@decorated
def second(ctx, n): raise KeyError(n)

class Mailer:
    def send(self, ctx, n): return n
    def __call__(self, ctx, n): return n

class Letter(Mailer): pass

@functools.lru_cache
def cached(n): return n

def bound(self, ctx, n): return n

def not_a_job(ctx, n): return n

def named(ctx, n): return n

if __name__ == "__main__":
    q = queues.Queue()
    for name, function in {
        "plain": plain, "later": later, "clash": clash, "first": first, "second": second, "method": Letter().send,
        "object": Letter(), "partial": functools.partial(bound, None), "lambda": lambda ctx, n: n, "native": print,
        "again": plain, "named": named, "nothing": None,
    }.items():
        q.register(name, function)
    assert q.functions["plain"].coroutine is plain
    not_a_job({}, 1)
    for name in q.functions:
        try:
            q.call(name, 7, size=2) if name in ("plain", "later", "clash") else q.call(name, 7)
        except (KeyError, TypeError) as error:
            print(type(error).__name__)
    made = queues.ensure_coroutine(plain)
    asyncio.run(made({"id": "made"}, 8))
    asyncio.run(queues.ensure_coroutine(later)({"id": "late"}, 9))
"""
RULES = """
version: 1
jobs:
  - function: __main__.named
    name: perform_job.own
  - class: queues.Function
    methods: [__init__]
    wraps: argument coroutine
    name: perform_job.queues
    payload: {job_id: "${args[0]['id']}", args: "${args[1:]}", kwargs: "${kwargs}"}
    when: "${wrapped.startswith('__main__.')}"
    tags: {wrapped: "${wrapped}"}
  - function: queues.ensure_coroutine
    wraps: result
    name: perform_job.made
    nested: new
    payload: {job_id: "${args[0]['id']}", args: "${args[1:]}"}
  - module: queues
    functions: ["**"]
    exclude: [queues.Queue.call]
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    found = Program(tmp_path)
    found.write("queues.py", QUEUE)
    found.write("shop.py", SHOP)
    found.write("rules.yaml", RULES)
    return found


def brief(record: dict[str, Any]) -> tuple[Any, ...]:
    name = record["name"].removeprefix("perform_job.")
    return (name, record["job_id"], record["action"], record["status"], record["args"], record["kwargs"])


@pytest.mark.parametrize("mechanism", ["trampoline", ""])
def test_every_kind_of_callable(program: Program, mechanism: str) -> None:
    result = program.run("shop.py", AUTOINST_PACKS="none", AUTOINST_MECHANISM=mechanism)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["KeyError", "{'id': 'native'} 7", "TypeError"]
    found = [brief(record) for record in result.records if record["name"] != "perform_job.python"]
    assert found == [
        ("queues", "plain", "__main__#plain", "ok", [7, 2], {}),
        ("queues", "later", "__main__#later", "ok", [7], {"size": 2}),
        ("queues", "clash", "__main__#clash", "ok", [7], {"size": 2}),
        ("queues", "first", "__main__#first", "ok", [7], {}),
        ("queues", "second", "__main__#second", "error", [7], {}),
        ("queues", "method", "__main__.Letter#send", "ok", [7], {}),
        ("queues", "object", "__main__.Letter#__call__", "ok", [7], {}),
        ("queues", "partial", "__main__#bound", "ok", [7], {}),
        ("queues", "lambda", "__main__#<lambda>", "ok", [7], {}),
        ("queues", "again", "__main__#plain", "ok", [7, "big"], {}),
        ("own", None, "__main__#named", "ok", None, None),
        ("made", "made", "__main__#plain", "ok", [8], None),
        ("queues", "late", "__main__#later", "ok", [9], {"size": 1}),
    ]
    given = {record["job_id"]: record["tags"]["wrapped"] for record in result.records if record["tags"]}
    assert (given["plain"], given["first"], given["method"]) == (
        "__main__.plain",
        "__main__.first",
        "__main__.Mailer.send",
    )
    assert {record["parent_span_id"] for record in result.records} == {None}


CALLER = """
import itertools, os, time
import queues, shop

queue = queues.Queue()

def tick():
    pass

def send(ctx, n):
    shop.note("send", n)

queue.register("send", send)
count = itertools.count().__next__
while not os.path.exists("stop"):
    tick()
    queue.call("send", count())
    time.sleep(0.001)
"""
NOTE = """
import os
from autoinst import Transaction

def note(what, n):
    line = f"{what} {n} {getattr(Transaction.current(), 'name', None)}\\n"
    descriptor = os.open(f"log.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)
"""


def test_edited_rules_act_on_what_was_handed_over_before(program: Program) -> None:
    program.write("shop.py", NOTE)
    program.write("worker.py", CALLER)
    file = program.folder / "rules.yaml"
    # Somewhere a job must begin for the rules to be looked at.
    others = "version: 1\njobs:\n  - {function: __main__.tick, name: perform_job.tick}\n"
    rule = others + "  - {class: queues.Function, methods: [__init__], wraps: argument coroutine, name: %s}\n"
    file.write_text(rule % "perform_job.one")
    with Worker(program, "worker.py") as worker:
        worker.wait_for(("send", "perform_job.one"))
        file.write_text(rule % "perform_job.two")
        worker.wait_for(("send", "perform_job.two"))
        since = worker.since("send", lambda: file.write_text(others))
        worker.wait(lambda: "None" in since())
        file.write_text(rule % "perform_job.three")
        worker.wait_for(("send", "perform_job.three"))
        records = worker.stop()
    noted = [name for _, _, name in worker.log().elements() if name != "None"]
    jobs = [record for record in records if record["name"] != "perform_job.tick"]
    assert sorted(record["name"] for record in jobs) == sorted(noted)
    assert {record["action"] for record in jobs} == {"__main__#send"}


@pytest.mark.parametrize(
    ("wraps", "message"),
    [
        ("argument", "4:12: 'wraps' cannot be 'argument' (write 'wraps: argument NAME' or 'wraps: result')"),
        ("[result]", "4:12: 'wraps' must be a text, not a list"),
        ("argument corutine", "4:21: 'Queue.register' has no parameter 'corutine' (it has cls, function, name, self)"),
        ("argument function", None),
        ("result", None),
    ],
)
def test_what_is_wrong_is_told_with_its_place(program: Program, wraps: str, message: str | None) -> None:
    rule = f"  - class: queues.Queue\n    wraps: {wraps}\n    methods: [register]\n    tags: {{x: '${{whatever}}'}}\n"
    path = program.write("wrong.yaml", "version: 1\njobs:\n" + rule)
    found = [
        problem.one_line.removeprefix("wrong.yaml:")
        for problem in check_files([str(path)], [str(program.folder)], "none")
    ]
    assert found == ([] if message is None else [message]), found


def test_wraps_is_for_jobs_alone(program: Program) -> None:
    path = program.write("wrong.yaml", "version: 1\nevents:\n  - {function: queues.a, wraps: result}\n")
    (problem, *_) = check_files([str(path)], [str(program.folder)], "none")
    assert "unknown key 'wraps' in a rule of 'events'" in problem.one_line


def test_explain_says_what_becomes_a_job(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(program.folder)
    monkeypatch.setenv("AUTOINST_HOME", str(program.home))
    monkeypatch.setenv("AUTOINST_PACKS", "none")
    assert cli.main(["explain", "queues:ensure_coroutine", "--rules", "rules.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "opens a transaction for each call of what it returns; with job_id, args" in shown, shown
