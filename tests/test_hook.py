"""The routes to a function: whatever way a module is loaded, the functions that rules mean are recorded."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from autoinst.store.sqlite import Store
from tests.harness import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

JOBS = '''
"""A module of jobs."""
import functools

REGISTRY = {}

def task(function):
    REGISTRY[function.__name__] = function

    @functools.wraps(function)
    def delay(*args, **kwargs):
        return function(*args, **kwargs)

    return delay

class Base:
    def perform(self, n):
        return n

class Mailer(Base):
    @classmethod
    def build(cls, n):
        return n

    @staticmethod
    def check(n):
        return n

    @property
    def size(self):
        return 1

    @functools.lru_cache
    def cached(self, n):
        return n

class Outer:
    class Inner:
        def perform(self, n):
            return n

@task
def decorated(n):
    return n

def plain(n):
    return n

async def coroutine(n):
    return n

def generator(n):
    yield n

async def async_generator(n):
    yield n

def factory(n):
    def job(m):
        return n + m
    return job

alias = plain
double = lambda n: n * 2
'''
RULES = """
version: 1
jobs:
  - {class: pkg.jobs.Base, methods: [perform]}
  - {class: pkg.jobs.Mailer, methods: [build, check, cached]}
  - {class: pkg.jobs.Outer.Inner, methods: [perform]}
  - {function: pkg.jobs.decorated}
  - {function: pkg.jobs.plain}
  - {function: pkg.jobs.coroutine}
  - {function: pkg.jobs.generator}
  - {function: pkg.jobs.async_generator}
  - {function: pkg.jobs.factory.<locals>.job}
"""
CALLS = """
import asyncio

def call(jobs):
    jobs.Mailer().perform(1)
    jobs.Base().perform(1)
    jobs.Mailer.build(1)
    jobs.Mailer.check(1)
    jobs.Mailer().cached(1)
    jobs.Outer.Inner().perform(1)
    jobs.decorated(1)
    jobs.REGISTRY["decorated"](1)
    jobs.alias(1)
    asyncio.run(jobs.coroutine(1))
    list(jobs.generator(1))

    async def collect():
        return [n async for n in jobs.async_generator(1)]

    asyncio.run(collect())
    jobs.factory(1)(1)
    jobs.factory(2)(1)
"""
EXPECTED = [
    "pkg.jobs.Mailer#perform",
    "pkg.jobs.Base#perform",
    "pkg.jobs.Mailer#build",
    "pkg.jobs.Mailer#check",
    "pkg.jobs.Mailer#cached",
    "pkg.jobs.Outer.Inner#perform",
    "pkg.jobs#decorated",
    "pkg.jobs#decorated",
    "pkg.jobs#plain",
    "pkg.jobs#coroutine",
    "pkg.jobs#generator",
    "pkg.jobs#async_generator",
    "pkg.jobs.factory.<locals>#job",
    "pkg.jobs.factory.<locals>#job",
]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("pkg/__init__.py", "")
    program.write("pkg/jobs.py", JOBS)
    program.write("calls.py", CALLS)
    program.write("rules.yaml", RULES)
    return program


def actions(program: Program, *arguments: str, **variables: str | None) -> list[str]:
    result = program.run(*arguments, AUTOINST_PACKS="none", environ=variables)
    assert (result.status, result.stderr) == (0, "")
    assert {record["status"] for record in result.records} <= {"ok"}
    return [record["action"] for record in result.records]


def test_named_before_import(program: Program) -> None:
    program.write("worker.py", "import calls, pkg.jobs\ncalls.call(pkg.jobs)\n")
    assert actions(program, "worker.py") == EXPECTED


def test_bytecode_only(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import compileall, os, calls
        compileall.compile_file("pkg/jobs.py", quiet=1, legacy=True)
        os.remove("pkg/jobs.py")
        import pkg.jobs
        assert pkg.jobs.__file__.endswith(".pyc")
        calls.call(pkg.jobs)
        """,
    )
    assert actions(program, "worker.py") == EXPECTED


def test_zip_file(program: Program, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.write(tmp_path / "pkg" / "__init__.py", "pkg/__init__.py")
        archive.write(tmp_path / "pkg" / "jobs.py", "pkg/jobs.py")
    for name in ("__init__.py", "jobs.py"):
        (tmp_path / "pkg" / name).unlink()
    (tmp_path / "pkg").rmdir()
    program.write(
        "worker.py", "import sys; sys.path.insert(0, 'code.zip')\nimport calls, pkg.jobs\ncalls.call(pkg.jobs)\n"
    )
    assert actions(program, "worker.py") == EXPECTED


def test_namespace_package(program: Program, tmp_path: Path) -> None:
    (tmp_path / "pkg" / "__init__.py").unlink()
    program.write("worker.py", "import calls, pkg.jobs\ncalls.call(pkg.jobs)\n")
    assert actions(program, "worker.py") == EXPECTED


def test_reload(program: Program) -> None:
    program.write(
        "worker.py",
        "import calls, importlib, pkg.jobs\ncalls.call(pkg.jobs)\nimportlib.reload(pkg.jobs)\ncalls.call(pkg.jobs)\n",
    )
    assert actions(program, "worker.py") == EXPECTED * 2


def test_lazy_loader(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import calls, importlib.util, sys
        import pkg
        spec = importlib.util.find_spec("pkg.jobs")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["pkg.jobs"] = module
        spec.loader.exec_module(module)
        calls.call(module)
        """,
    )
    assert actions(program, "worker.py") == EXPECTED


def test_already_imported(program: Program) -> None:
    # A .pth file's import, or another sitecustomize, may come first: here autoinst is started by hand.
    program.write(
        "worker.py",
        """
        import sys
        import calls, pkg.jobs
        sys.path.insert(0, ROOT)
        import autoinst.startup
        autoinst.startup.start()
        calls.call(pkg.jobs)
        """.replace("ROOT", repr(str(ROOT))),
    )
    found = actions(program, "worker.py", PYTHONPATH=None)
    # What is not reachable by its name any more: the raw decorated function is, by __wrapped__; the closure is not.
    assert found == [action for action in EXPECTED if "<locals>" not in action]


def test_public_reexport(program: Program) -> None:
    program.write("pkg/__init__.py", "from pkg.jobs import Base, plain\n")
    program.write(
        "rules.yaml", "version: 1\njobs:\n  - {class: pkg.Base, methods: [perform]}\n  - function: pkg.plain\n"
    )
    program.write("worker.py", "import pkg\npkg.Base().perform(1)\npkg.plain(1)\n")
    assert actions(program, "worker.py") == ["pkg.jobs.Base#perform", "pkg.jobs#plain"]


def test_globs_and_exclude(program: Program) -> None:
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - class: pkg.*.Ma*
            methods: ["*"]
            exclude: [pkg.jobs.Mailer.check]
          - module: pkg.jobs
            functions: ["pl*", double]
        """,
    )
    program.write("worker.py", "import calls, pkg.jobs\ncalls.call(pkg.jobs)\nassert pkg.jobs.double(2) == 4\n")
    assert actions(program, "worker.py") == [
        "pkg.jobs.Mailer#build",
        "pkg.jobs.Mailer#cached",
        "pkg.jobs#plain",
        "pkg.jobs#double",
    ]


def test_subclasses_are_jobs_wherever_they_are_defined(program: Program) -> None:
    program.write("rules.yaml", "version: 1\njobs:\n  - {subclass_of: pkg.jobs.Base, methods: [perform]}\n")
    program.write(
        "other.py", "from pkg.jobs import Base\nclass Late(Base):\n    def perform(self, n):\n        return n\n"
    )
    program.write(
        "worker.py",
        """
        import other
        import pkg.jobs
        other.Late().perform(1)
        pkg.jobs.Mailer().perform(1)
        class Stranger:
            def perform(self, n):
                return n
        Stranger().perform(1)
        pkg.jobs.Outer.Inner().perform(1)
        """,
    )
    assert actions(program, "worker.py") == ["other.Late#perform", "pkg.jobs.Mailer#perform"]


def test_decorated_by(program: Program) -> None:
    program.write("rules.yaml", "version: 1\njobs:\n  - {decorated_by: task, module: pkg.*}\n")
    program.write("worker.py", "import calls, pkg.jobs\ncalls.call(pkg.jobs)\n")
    assert actions(program, "worker.py") == ["pkg.jobs#decorated", "pkg.jobs#decorated"]


def test_a_failing_import_looks_the_same(program: Program) -> None:
    program.write("pkg/jobs.py", "def plain(n):\n    return n\n\n1 / 0\n")
    program.write("worker.py", "import pkg.jobs\n")
    plain = program.run("worker.py", instrumented=False)
    instrumented = program.run("worker.py", AUTOINST_PACKS="none")
    assert instrumented.status == plain.status == 1
    if sys.version_info >= (3, 11):
        assert instrumented.stderr == plain.stderr
    else:
        assert instrumented.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


def test_loaders_are_left_as_they_were(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import pkg.jobs
        loader = pkg.jobs.__spec__.loader
        assert type(loader).__name__ == "SourceFileLoader", loader
        assert sorted(vars(loader)) == ["name", "path"], vars(loader)
        import inspect, pickle
        assert "def plain" in inspect.getsource(pkg.jobs.plain)
        assert pickle.loads(pickle.dumps(pkg.jobs.plain)) is pkg.jobs.plain
        """,
    )
    assert actions(program, "worker.py") == []


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="plain Python waits for ever there")
def test_threads_that_import_do_not_deadlock(program: Program) -> None:
    program.write(
        "pkg/__init__.py",
        """
        import importlib, threading
        def load():
            importlib.import_module("pkg.jobs")
        thread = threading.Thread(target=load)
        thread.start()
        thread.join(20)
        stuck = thread.is_alive()
        """,
    )
    program.write("worker.py", "import pkg\nassert not pkg.stuck\nimport calls, pkg.jobs\ncalls.call(pkg.jobs)\n")
    assert actions(program, "worker.py") == EXPECTED


def test_a_rule_that_means_any_module_gets_along_with_the_hooks_own_imports(program: Program) -> None:
    program.write("rules.yaml", "version: 1\njobs:\n  - {subclass_of: shop.Base, methods: [perform]}\n")
    program.write("shop.py", "class Base: pass\nclass Mailer(Base):\n    def perform(self): pass\n")
    result = program.run("-c", "import shop; shop.Mailer().perform()")
    assert [record["action"] for record in result.records] == ["shop.Mailer#perform"]
    command = [sys.executable, "-m", "autoinst.cli.main", "doctor", "--json"]
    environ = program.environ({}, instrumented=False)
    done = subprocess.run(command, env=environ, cwd=program.folder, capture_output=True, check=False)
    assert b"shop.Base" in done.stdout or b"rules.yaml" in done.stdout
    assert b"partially initialized" not in done.stdout


def test_the_status_of_a_rule_that_acts_is_shown_however_many_do_not(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("many.py", "def work299(n):\n    return n\n")
    program.write("worker.py", "import many\nmany.work299(1)\n")
    program.write("rules.yaml", "version: 1\njobs:\n" + "".join(f"- function: many.work{i}\n" for i in range(300)))
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.stderr, result.one()["rule"]) == ("", "rules.yaml:302")
    with Store(str(program.home / "store.sqlite3")) as store:
        (process,) = store.processes()
    statuses = {row[0]: row[1] for row in process.status["rules"]}
    assert statuses["rules.yaml:302"] == "patched"
    assert statuses["rules.yaml:3"] == "not found"


def test_of_many_rules_that_act_the_called_ones_are_shown_and_the_others_as_not_told(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("many.py", "".join(f"def work{i}(n):\n    return n\n" for i in range(160)))
    program.write("worker.py", "import many\nfor n in range(5): many.work159(n)\n")
    program.write("rules.yaml", "version: 1\njobs:\n" + "".join(f"- function: many.work{i}\n" for i in range(160)))
    assert len(program.run("worker.py", AUTOINST_PACKS="none").records) == 5
    done = program.execute([sys.executable, "-m", "autoinst.cli.main", "doctor", "--json"], {"AUTOINST_PACKS": "none"})
    statuses = {row["rule"]: row for row in json.loads(done.stdout)["rule_statuses"]}
    assert len(statuses) == 160
    assert (statuses["rules.yaml:162"]["status"], statuses["rules.yaml:162"]["calls"]) == ("patched", 5)
    assert "no room" in statuses["rules.yaml:161"]["detail"]
