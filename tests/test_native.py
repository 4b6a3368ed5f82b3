"""Callables that are not Python code are recorded through wrappers, and the program sees them as they were."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.hook import proxies
from autoinst.hook.native import Signature
from tests.harness import ROOT, Program
from tests.libraries import python_of
from tests.servers import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import Result

RULES = """
version: 1
jobs:
  - function: work.job
events:
  - {class: sqlite3.Cursor, methods: [execute, executemany, executescript], name: query.sqlite, body: "${args[0]}"}
  - class: sqlite3.Connection
    methods: [execute, executemany, executescript, commit]
    name: query.sqlite
    body: ["${args[0]}", COMMIT]
  - {function: time.sleep, name: sleep, title: "${args[0]}"}
  - {function: math.hypot, name: hypot}
  - {class: decimal.Decimal, methods: [sqrt], name: sqrt}
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    return program


def events(program: Program, work: str, worker: str = "import work\nwork.job()\n") -> list[tuple[str, str | None]]:
    """Return name and body of the job's events, after the program printed the same as without autoinst."""
    program.write("work.py", work)
    program.write("worker.py", worker)
    plain = program.run("worker.py", instrumented=False)
    assert (plain.status, plain.stderr) == (0, "")
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, plain.stdout, "")
    return [(event["name"], event["body"]) for event in result.one()["events"]]


def test_sqlite(program: Program) -> None:
    work = """
    import sqlite3, sys
    from contextlib import closing

    class Cursor(sqlite3.Cursor):
        def execute(self, sql, *args):
            return super().execute(sql.replace("%s", "?"), *args)

    class Connection(sqlite3.Connection):
        pass

    def job():
        with closing(sqlite3.connect(":memory:", factory=Connection)) as con:
            assert type(con) is Connection and isinstance(con, sqlite3.Connection)
            con.row_factory = sqlite3.Row
            with con:
                con.execute("create table t (a, b)")
                con.executemany("insert into t values (?, ?)", [(1, 2), (3, 4)])
            cur = con.cursor()
            assert type(cur) is sqlite3.Cursor and cur.connection is con
            assert cur.execute("select a from t") is cur
            print([row["a"] for row in cur], cur.description, cur.rowcount)
            print(con.cursor(Cursor).execute("select b from t where a = %s", (3,)).fetchone()["b"])
            cur.executescript("begin; commit")
            con.commit()
            try:
                cur.execute("nonsense")
            except sqlite3.OperationalError as error:
                print(error, sys.version_info < (3, 11) or error.__traceback__.tb_next)
            for argument in ((), (1,), ("select 1", (), ())):
                try:
                    cur.execute(*argument)
                except (TypeError, ValueError) as error:
                    print(type(error), error)
    """
    assert events(program, work) == [
        ("query.sqlite", "create table t (a, b)"),
        ("query.sqlite", "insert into t values (?)"),
        ("query.sqlite", "select a from t"),
        ("query.sqlite", "select b from t where a = ?"),
        ("query.sqlite", "begin; commit"),
        ("query.sqlite", "COMMIT"),
        ("query.sqlite", "nonsense"),
        ("query.sqlite", None),
        ("query.sqlite", "?"),
        ("query.sqlite", "select ?"),
    ]


def test_what_a_program_can_ask_of_a_wrapped_method(program: Program) -> None:
    work = """
    import copy, inspect, pickle, sqlite3, sys, time, math, warnings, decimal

    def job():
        for function in (time.sleep, math.hypot, sqlite3.Cursor.executescript, decimal.Decimal.sqrt):
            print(repr(function), function.__name__, function.__qualname__, function.__doc__)
            print(function == function, hash(function) == hash(function), callable(function), bool(function))
            print(inspect.isroutine(function), inspect.isbuiltin(function))
            print(getattr(function, "__module__", None), getattr(function, "__text_signature__", None))
            try:
                print(inspect.signature(function))
            except ValueError as error:
                print(error)
            print(pickle.loads(pickle.dumps(function)) == function, copy.deepcopy(function) == function)
        assert pickle.loads(pickle.dumps(time.sleep)) is time.sleep is copy.copy(time.sleep)
        con = sqlite3.connect(":memory:")
        cur = con.cursor()
        print(type(cur), type(con), cur.execute.__self__ is cur, cur.execute == cur.execute)
        print(sorted(vars(sqlite3.Cursor)))
        for thing in (con, cur, cur.execute):
            for work in (pickle.dumps, copy.copy):
                try:
                    work(thing)
                    print("worked")
                except TypeError as error:
                    print(str(error).replace(hex(id(thing)), ""))
        print(sqlite3.Cursor.__abstractmethods__ if hasattr(sqlite3.Cursor, "__abstractmethods__") else "concrete")
        try:
            sqlite3.Cursor.execute = None
        except TypeError as error:
            print(error)
        print("wrapt" in sys.modules, "asyncio" in sys.modules)
        con.close()
    """
    assert events(program, work) == []


def test_a_method_called_by_its_class_or_by_c_code(program: Program) -> None:
    work = """
    import sqlite3, time, decimal, math

    def job():
        con = sqlite3.connect(":memory:")
        cur = con.cursor()
        sqlite3.Cursor.execute(cur, "select 1")
        list(map(cur.execute, ["select 2"]))
        list(map(time.sleep, [0]))
        print(math.hypot(3, 4), decimal.Decimal(4).sqrt(), decimal.Decimal.sqrt(decimal.Decimal(9)))
        print(max([decimal.Decimal(4)], key=decimal.Decimal.sqrt))
        con.close()
    """
    assert [name for name, _ in events(program, work)] == [
        "query.sqlite",
        "query.sqlite",
        "sleep",
        "hypot",
        "sqrt",
        "sqrt",
        "sqrt",
    ]


def test_a_warning_of_a_callback_names_the_program(program: Program) -> None:
    work = """
    import sqlite3, warnings

    class Price:
        def __conform__(self, protocol):
            warnings.warn("old", stacklevel=2)
            return "1"

    def job():
        con = sqlite3.connect(":memory:")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            con.execute("select ?", (Price(),))
        print([(warning.filename, warning.lineno) for warning in caught])
        con.close()
    """
    assert events(program, work) == [("query.sqlite", "select ?")]


def test_a_rule_for_a_subclass_means_its_calls_alone(program: Program) -> None:
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - function: work.job
        events:
          - {class: work.Mine, methods: [execute], name: mine, body: "${args[0]}"}
          - {class: work.Child, methods: [perform], name: child}
          - {class: work.Other, methods: [perform], name: other}
        """,
    )
    work = """
    import sqlite3

    class Mine(sqlite3.Cursor):
        pass

    class Base:
        def perform(self):
            return type(self).__name__

    class Child(Base):
        pass

    class Other(Base):
        pass

    def job():
        con = sqlite3.connect(":memory:")
        con.cursor().execute("select 1")
        con.cursor(Mine).execute("select 2")
        print(Base().perform(), Child().perform(), Other().perform(), "execute" in vars(Mine))
        con.close()
    """
    assert events(program, work) == [("mine", "select 2"), ("child", None), ("other", None)]


def test_jobs_of_c_code_and_callable_objects(program: Program) -> None:
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - {function: math.trunc, payload: {args: "${args}"}}
          - {function: work.partial}
          - {function: work.instance, payload: {kwargs: "${kwargs}"}}
          - {class: work.Holder, methods: [static]}
        """,
    )
    program.write(
        "work.py",
        """
        import functools, math, pickle

        class Job:
            def __call__(self, n, **more):
                if n < 0:
                    raise ValueError(n)
                return n

        def add(a, b):
            return a + b

        partial = functools.partial(add, 1)
        instance = Job()
        instance.colour = "red"

        class Holder:
            static = staticmethod(math.sqrt)
        """,
    )
    program.write(
        "worker.py",
        """
        import functools, math, pickle, work
        print(math.trunc(5), work.partial(2), work.partial.func is work.add, work.partial.args)
        print(work.instance(1, a=2))
        print(isinstance(work.partial, functools.partial), isinstance(work.instance, work.Job), work.instance.colour)
        print(pickle.loads(pickle.dumps(work.instance)).colour, type(pickle.loads(pickle.dumps(work.instance))))
        print(pickle.loads(pickle.dumps(work.partial))(4), work.Holder.static(9))
        try:
            work.instance(-1)
        except ValueError as error:
            print("failed", error)
        """,
    )
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, plain.stdout, "")
    found = [(record["action"], record["status"]) for record in result.records]
    assert found == [
        ("math#trunc", "ok"),
        ("work#partial", "ok"),
        ("work#instance", "ok"),
        ("work.Holder#static", "ok"),
        ("work#instance", "error"),
    ]
    assert result.records[0]["args"] == [5]
    assert result.records[2]["kwargs"] == {"a": 2}
    assert [frame["function"] for frame in result.records[-1]["exception"]["backtrace"]] == ["__call__"]


FAST = '''
# cython: language_level=3
def work(n, *, loud=False):
    """Works."""
    if n < 0:
        raise ValueError("negative")
    return n * 2

cdef class Mailer:
    cdef public int sent

    def perform(self, order, queue="mail"):
        self.sent += 1
        return order

    @staticmethod
    def check(n):
        return n

    @classmethod
    def build(cls, n):
        return cls()

class Plain:
    def perform(self, n):
        return n

async def waits(n):
    return n

def numbers(n):
    got = yield n
    return got

async def stream(n):
    yield n
'''
FAST_RULES = """
version: 1
jobs:
  - {function: fast.work, payload: {args: ["${n}"], kwargs: "${kwargs}"}}
  - {class: fast.Mailer, methods: [perform, check, build, sent], payload: {queue: "${queue}"}}
  - {class: fast.Plain, methods: ["*"]}
  - {function: fast.waits}
  - {function: fast.numbers}
  - {function: fast.stream}
"""
FAST_WORKER = """
import asyncio, inspect, pickle
import fast
print(fast.work(2), fast.work(n=3, loud=True), fast.work.__doc__, inspect.signature(fast.work), fast.work.__name__)
print(pickle.loads(pickle.dumps(fast.work)) is fast.work, inspect.iscoroutinefunction(fast.waits))
mailer = fast.Mailer()
print(mailer.perform(1), mailer.perform(order=2, queue="post"), mailer.sent)
print(fast.Mailer.check(4), type(fast.Mailer.build(1)))
print(fast.Plain().perform(6), asyncio.run(fast.waits(7)))
running = fast.numbers(8)
print(next(running))
try:
    running.send("sent")
except StopIteration as stop:
    print(stop.value)
async def collect():
    return [n async for n in fast.stream(9)]
print(asyncio.run(collect()))
try:
    fast.work(-1)
except ValueError as error:
    print("failed", error)
"""


@pytest.fixture(scope="session")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with a compiled extension module."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("cython")
    (folder / "fast.pyx").write_text(FAST)
    command = [python_of("native"), "-m", "Cython.Build.Cythonize", "-i", "-q", "fast.pyx"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"it does not compile: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.mark.once
def test_cython(program: Program, fast: Path) -> None:
    for path in fast.glob("fast*.so"):
        shutil.copy(path, program.folder)
    program.write("rules.yaml", FAST_RULES)
    program.write("worker.py", FAST_WORKER)
    result = beside(program)
    assert [(record["action"], record["status"], record["queue"]) for record in result.records] == [
        ("fast#work", "ok", None),
        ("fast#work", "ok", None),
        ("fast.Mailer#perform", "ok", None),
        ("fast.Mailer#perform", "ok", "post"),
        ("fast.Mailer#check", "ok", None),
        ("fast.Mailer#build", "ok", None),
        ("fast.Plain#perform", "ok", None),
        ("fast#waits", "ok", None),
        ("fast#numbers", "ok", None),
        ("fast#work", "error", None),
    ]
    assert result.records[1]["kwargs"] == {"n": 3, "loud": True}
    doctor = said(program, "doctor")
    assert "fast:Mailer.sent is a getset_descriptor, not a function" in doctor
    assert "fast:stream is an async generator of C code, whose end nothing tells" in doctor
    assert "wrapper" in doctor


def beside(program: Program) -> Result:
    """Run the worker in the environment that has these libraries; it has to print the same as without autoinst."""
    command = [python_of("native"), "worker.py"]
    plain = program.execute(command, {}, instrumented=False)
    assert (plain.status, plain.stderr) == (0, "")
    result = program.execute(command, {"AUTOINST_PACKS": "none"})
    assert (result.status, result.stdout, result.stderr) == (0, plain.stdout, "")
    return result


def queries(program: Program, work: str) -> list[str]:
    """Return the queries of the one job that calls `work`'s `job`."""
    program.write("work.py", work)
    program.write("worker.py", "import work\nwork.job()\n")
    return [event["body"] for event in beside(program).one()["events"]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.once
@pytest.mark.service
def test_psycopg2(program: Program, postgres: Postgres) -> None:
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - function: work.job
        events:
          - class: psycopg2.extensions.cursor
            methods: [execute, executemany, callproc, copy_expert]
            name: query.postgresql
            body: "${args[0]}"
          - {class: psycopg2.extensions.connection, methods: [commit, rollback], name: query.postgresql, body: END}
        """,
    )
    work = """
    import io, psycopg2, psycopg2.errors, psycopg2.extensions, psycopg2.extras

    class Cursor(psycopg2.extensions.cursor):
        def execute(self, query, *args):
            return super().execute(query + " -- mine", *args)

    def job():
        con = psycopg2.connect(DSN)
        assert type(con) is psycopg2.extensions.connection
        with con, con.cursor() as cur:
            assert type(cur) is psycopg2.extensions.cursor
            cur.execute("create temp table t (a int)")
            cur.executemany("insert into t values (%s)", [(1,), (2,)])
            psycopg2.extras.execute_values(cur, "insert into t values %s", [(3,)])
            cur.execute("select a from t order by a")
            print(cur.fetchall(), cur.rowcount, cur.query, cur.connection is con)
            cur.copy_expert("copy t to stdout", io.StringIO())
        with con.cursor(cursor_factory=psycopg2.extras.DictCursor) as cur:
            cur.execute("select 4 as a")
            print(cur.fetchone()["a"])
        with con.cursor(cursor_factory=Cursor) as cur:
            cur.execute("select 5")
            try:
                cur.execute("nonsense")
            except psycopg2.errors.SyntaxError as error:
                print(error.pgcode, error.cursor is cur)
        con.rollback()
        con.close()
    """.replace("DSN", repr(postgres.dsn))
    assert queries(program, work) == [
        "create temp table t (a int)",
        "insert into t values (%s)",
        "insert into t values (?)",
        "select a from t order by a",
        "copy t to stdout",
        "END",
        "select ? as a",
        "select ?",
        "nonsense",
        "END",
    ]


@pytest.mark.once
@pytest.mark.service
@pytest.mark.parametrize("implementation", ["python", "binary"])
def test_psycopg(program: Program, postgres: Postgres, implementation: str) -> None:
    program.write(
        "rules.yaml",
        """
        version: 1
        jobs:
          - function: work.job
        events:
          - class: psycopg.Cursor
            methods: [execute, executemany]
            name: query.postgresql
            body: "${query}"
          - class: psycopg.AsyncCursor
            methods: [execute]
            name: query.postgresql
            body: "${query}"
        """,
    )
    work = """
    import asyncio, psycopg

    async def later():
        async with await psycopg.AsyncConnection.connect(DSN) as con:
            cur = await con.execute("select 4")
            return await cur.fetchone()

    def job():
        print(psycopg.pq.__impl__)
        with psycopg.connect(DSN) as con:
            with con.cursor() as cur:
                cur.execute("create temp table t (a int)")
                cur.executemany("insert into t values (%s)", [(1,), (2,)])
                print(cur.execute("select a from t order by a").fetchall(), type(cur) is psycopg.Cursor)
            print(con.execute("select 3").fetchone())
            try:
                con.execute("nonsense")
            except psycopg.errors.SyntaxError as error:
                print(error.sqlstate)
        print(asyncio.run(later()))
    """.replace("DSN", repr(postgres.dsn)).replace(
        "import asyncio", f"import os; os.environ['PSYCOPG_IMPL'] = {implementation!r}\n    import asyncio"
    )
    if implementation == "python":
        check = "import os; os.environ['PSYCOPG_IMPL'] = 'python'; import psycopg"
        if subprocess.run([python_of("native"), "-c", check], capture_output=True, check=False).returncode:
            pytest.skip("there is no libpq for psycopg's Python implementation")
    assert queries(program, work) == [
        "create temp table t (a int)",
        "insert into t values (%s)",
        "select a from t order by a",
        "select ?",
        "nonsense",
        "select ?",
    ]


@pytest.mark.once
def test_sqlalchemy_and_django_on_sqlite(program: Program) -> None:
    work = """
    import django
    from django.conf import settings
    from sqlalchemy import create_engine, text

    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
    django.setup()

    def job():
        with create_engine("sqlite://").begin() as con:
            print(con.execute(text("select :a"), {"a": 1}).scalar())
        from django.db import connection
        with connection.cursor() as cur:
            cur.execute("select %s", [2])
            print(cur.fetchone(), type(connection.connection), type(cur.cursor))
    """
    found = queries(program, work)
    assert "select ?" in found
    assert [query for query in found if query.startswith("select ?")] == ["select ?", "select ?"]


def said(program: Program, *arguments: str) -> str:
    environ = program.environ({"AUTOINST_PACKS": "none", "COLUMNS": "1000"}, instrumented=False)
    command = [sys.executable, "-m", "autoinst.cli.main", *arguments]
    done = subprocess.run(
        command,
        cwd=program.folder,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_check_tells_that_a_wrapper_watches(program: Program) -> None:
    text = said(program, "check", "rules.yaml")
    assert "rules.yaml:6:13: 'sqlite3.Cursor' is C code: it is watched by a wrapper" in text
    assert "rules.yaml:11:16: 'time.sleep' is C code: it is watched by a wrapper" in text


def test_wrapt_is_not_imported_and_still_the_programs_own() -> None:
    script = """
import sys
sys.path.insert(0, ROOT)
before = set(sys.modules)
from autoinst.hook import proxies
made = proxies.wrapper_class()
assert not {name for name in sys.modules if "wrapt" in name or name == "asyncio"}, sys.modules
import wrapt
assert not issubclass(made, wrapt.FunctionWrapper)
assert wrapt.FunctionWrapper(len, lambda wrapped, instance, args, kwargs: 5)([]) == 5
assert made(len, lambda wrapped, instance, args, kwargs: 6)([]) == 6
"""
    code = script.replace("ROOT", repr(str(ROOT)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "positional", "names"),
    [
        ("($self, sql, parameters=<unrepresentable>, /)", ["sql", "parameters"], {"self", "sql", "parameters"}),
        ("($self, a, b=(1, 2), /, *, key={1: 2}, **more)", ["a", "b"], {"self", "a", "b", "key"}),
        ("($self, /, *args)", [], {"self"}),
        (None, [], {"self"}),
    ],
)
def test_the_parameters_of_c_code(text: str | None, positional: list[str], names: set[str]) -> None:
    kind: Any = type("method_descriptor", (), {"__text_signature__": text})
    found = Signature(kind(), "self")
    assert found.positional == positional
    assert found.names == names


def test_a_parameter_that_is_left_out_is_none() -> None:
    kind: Any = type("method_descriptor", (), {"__text_signature__": "($self, a, b=1, *, c=2)"})
    read = Signature(kind(), "self").reader(("self", "a", "b", "c", "args", "kwargs"))
    assert read("me", (1,), {"c": 3}) == ("me", 1, None, 3, (1,), {"c": 3})
    assert read("me", (), {"b": 2}) == ("me", None, 2, None, (), {"b": 2})


def test_a_wrapper_of_what_has_no_name_pickles_as_what_is_inside() -> None:
    import pickle

    wrapper = proxies.wrapper_class()
    inside = wrapper(len, lambda wrapped, _instance, args, kwargs: wrapped(*args, **kwargs))
    assert pickle.loads(pickle.dumps(inside)) is len
