"""Functions of __main__: recorded however Python is started, and the program sees what plain Python shows."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Result

RULES = """
version: 1
jobs:
  - {class: __main__.Cleanup, methods: [run, "fail"]}
  - function: __main__.job
"""
# Prints what a program can ask about its own start.
SCRIPT = '''"""The docstring."""
from __future__ import annotations
import atexit, sys

class Cleanup:
    def run(self, n):
        return n

    def fail(self):
        raise ValueError("the job failed")

def job(n=1):
    return n

def look():
    import linecache, pickle, warnings
    main = sys.modules["__main__"]
    print("argv", sys.argv)
    print("path", sys.path)
    print("main", sorted(vars(main)))
    print("name", __name__, globals().get("__file__"), __package__, __doc__)
    print("spec", __spec__ and (__spec__.name, __spec__.origin))
    print("loader", type(__loader__).__name__, sorted(vars(__loader__)))
    print("cached", globals().get("__cached__", "absent"))
    print("hooks", len(sys.path_hooks), sorted(k for k in sys.path_importer_cache if k.endswith(".py")))
    print("runpy", "runpy" in sys.modules, sys.excepthook is sys.__excepthook__)
    print("pickle", pickle.loads(pickle.dumps(job)) is job)
    print("site", "sitecustomize" in sys.modules)
    warnings.simplefilter("always")
    def warn():
        warnings.warn("here", stacklevel=2)
    warn()

atexit.register(lambda: print("at exit", "__file__" in globals(), job(3)))
if __name__ == "__main__":
    look()
    Cleanup().run(1)
    job()
    how = sys.argv[1] if len(sys.argv) > 1 else ""
    if how == "raise":
        Cleanup().fail()
    elif how == "exit":
        sys.exit(3)
    elif how == "interrupt":
        raise KeyboardInterrupt
    elif how == "text":
        sys.exit("a message")
'''


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    program.write("worker.py", SCRIPT)
    return program


def both(program: Program, *arguments: str, stdin: str | None = None) -> tuple[Result, Result]:
    plain = program.run(*arguments, instrumented=False, stdin=stdin)
    return plain, program.run(*arguments, stdin=stdin, AUTOINST_PACKS="none")


def same(plain: Result, instrumented: Result) -> None:
    assert instrumented.stdout == plain.stdout
    assert instrumented.status == plain.status
    if sys.version_info >= (3, 11) or "Traceback" not in plain.stderr:
        assert instrumented.stderr == plain.stderr
    else:  # 3.10 keeps the frame a trampoline adds to a traceback
        assert instrumented.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


@pytest.mark.parametrize("how", ["", "raise", "exit", "interrupt", "text"])
def test_a_script(program: Program, how: str) -> None:
    plain, instrumented = both(program, "worker.py", how)
    same(plain, instrumented)
    actions = [record["action"] for record in instrumented.records]
    assert actions == ["__main__.Cleanup#run", "__main__#job"] + ["__main__.Cleanup#fail"] * (how == "raise") + [
        "__main__#job"
    ]
    if how == "raise":
        assert instrumented.records[2]["exception"]["message"] == "the job failed"


@pytest.mark.parametrize("options", [["-X", "utf8"], ["-W", "ignore"], ["-u"], ["-O"], ["-Wignore", "-u"]], ids=str)
def test_options_before_the_script(program: Program, options: list[str]) -> None:
    plain, instrumented = both(program, *options, "worker.py")
    same(plain, instrumented)
    assert len(instrumented.records) == 3


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is new in 3.11")
def test_safe_path(program: Program) -> None:
    plain, instrumented = both(program, "-P", "worker.py")
    same(plain, instrumented)
    assert len(instrumented.records) == 3


def test_a_symbolic_link_and_another_folder(program: Program, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "run.py").symlink_to("../worker.py")
    for path in ("bin/run.py", str(tmp_path / "worker.py"), os.path.join(".", "bin", "..", "worker.py")):
        plain, instrumented = both(program, path)
        same(plain, instrumented)
    assert len(instrumented.records) == 9


def test_a_module(program: Program) -> None:
    plain, instrumented = both(program, "-m", "worker", "x")
    same(plain, instrumented)
    assert [record["action"] for record in instrumented.records] == ["worker.Cleanup#run", "worker#job", "worker#job"]


def test_a_folder(program: Program, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "worker.py").rename(tmp_path / "folder" / "__main__.py")
    plain, instrumented = both(program, "folder")
    same(plain, instrumented)
    assert len(instrumented.records) == 3


@pytest.mark.parametrize("form", ["-c", "-"])
def test_code_and_standard_input(program: Program, form: str) -> None:
    text = SCRIPT.replace('if __name__ == "__main__":', "if True:").replace('print("pickle"', 'print(""')
    stdin = text if form == "-" else None
    plain, instrumented = both(program, *(["-c", text] if form == "-c" else ["-"]), "raise", stdin=stdin)
    same(plain, instrumented)
    if sys.version_info >= (3, 12):
        assert [(record["action"], record["status"]) for record in instrumented.records] == [
            ("__main__.Cleanup#run", "ok"),
            ("__main__#job", "ok"),
            ("__main__.Cleanup#fail", "error"),
            ("__main__#job", "ok"),
        ]
    else:
        assert instrumented.records == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_every_kind_of_function_by_monitoring(program: Program) -> None:
    program.write("rules.yaml", "version: 1\njobs:\n  - {module: __main__, functions: ['job_*', '**.job_*']}\n")
    text = """
import asyncio
REGISTRY = []
def register(function):
    REGISTRY.append(function)

@register
def job_hidden(n):
    if n < 0:
        raise ValueError(n)
    return n

@register
def job_generator(n):
    try:
        got = yield n
        assert got == "sent"
        yield n + 1
    finally:
        pass

@register
async def job_coroutine(n):
    await asyncio.sleep(0)
    return n

def factory():
    def job_closure():
        return 1
    return job_closure

hidden, generator, coroutine = REGISTRY
for n in (1, -1, 2):
    try:
        hidden(n)
    except ValueError:
        pass
running = generator(1)
next(running)
running.send("sent")
running.close()
assert asyncio.run(coroutine(1)) == 1
factory()()
"""
    result = program.run("-c", text, AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    assert [(record["action"], record["status"]) for record in result.records] == [
        ("__main__#job_hidden", "ok"),
        ("__main__#job_hidden", "error"),
        ("__main__#job_hidden", "ok"),
        ("__main__#job_generator", "ignored"),
        ("__main__#job_coroutine", "ok"),
        ("__main__.factory.<locals>#job_closure", "ok"),
    ]


def test_a_script_that_does_not_compile(program: Program) -> None:
    program.write("worker.py", "def job(:\n")
    plain, instrumented = both(program, "worker.py")
    assert (instrumented.status, instrumented.stderr) == (plain.status, plain.stderr)


def test_a_script_that_is_not_there(program: Program) -> None:
    plain, instrumented = both(program, "missing.py")
    assert (instrumented.status, instrumented.stderr) == (plain.status, plain.stderr)
