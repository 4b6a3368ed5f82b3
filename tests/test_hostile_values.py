"""Values and exceptions that fight back, and huge ones: the job runs as without autoinst and is recorded."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = '''
"""Objects that raise whatever they are asked, or tell that somebody asked."""
import sys

def refuse(self, *arguments):
    raise RuntimeError("asked")

class Refusing:
    __repr__ = __str__ = __bytes__ = __iter__ = __len__ = __bool__ = __int__ = __float__ = __index__ = refuse
    __eq__ = __lt__ = __gt__ = __hash__ = __format__ = __getattr__ = __getitem__ = __contains__ = __call__ = refuse

class Closed:
    __getattribute__ = refuse

class Meta(type):
    __getattribute__ = refuse

class Odd(metaclass=Meta):
    pass

class Lazy:
    """As Django's and Werkzeug's: to ask for its class loads it."""
    __class__ = property(refuse)
    __dict__ = property(refuse)

class Text(str):
    __str__ = __len__ = __hash__ = __eq__ = __getitem__ = __iter__ = encode = refuse

class Bytes(bytes):
    __len__ = __getitem__ = __buffer__ = decode = refuse

class Int(int):
    __int__ = __index__ = __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __bool__ = bit_length = refuse
    __hash__ = int.__hash__

class Float(float):
    __float__ = __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __bool__ = refuse
    __hash__ = float.__hash__

class Dict(dict):
    __iter__ = __len__ = __getitem__ = __bool__ = items = keys = values = get = refuse

class List(list):
    __iter__ = __len__ = __getitem__ = __bool__ = refuse

class Set(set):
    __iter__ = __len__ = __contains__ = refuse

class FakeUuid:
    __str__ = __repr__ = refuse

FakeUuid.__module__, FakeUuid.__qualname__ = "uuid", "UUID"
VALUES = [
    Refusing(), Closed(), Odd, Odd(), Lazy(), Text("abc"), Bytes(b"abc"), Int(5), Float(2.5), Dict(a=1), List([1, 2]),
    Set({1}), FakeUuid(),
]
'''
EVERYTHING = """
    payload:
      class: "${value}"
      method: "${other}"
      queue: "${value}"
      queue_time: "${value}"
      enqueued_at: "${value}"
      eta: "${other}"
      attempts: "${value}"
      job_id: "${value}"
      args: "${value}"
      kwargs: "${other}"
    tags:
      plain: "${value}"
      attribute: "${value.x}"
      item: "${value['a']}"
      called: "${value.lower()}"
      index: "${value[0]}"
      get: "${get(value, 'a')}"
      length: "${len(value)}"
      text: "${str(value)}"
      whole: "${int(value)}"
      type: "${dotted(type(value))}"
      dotted: "${dotted(value)}"
      sum: "${value + 1}"
      product: "${value * 1000000}"
      equal: "${value == other}"
      more: "${value > 3}"
      inside: "${value in other}"
      truth: "${'yes' if value else 'no'}"
      not: "${not value}"
      either: "${value or 3}"
      greatest: "${max(value, other)}"
      same: "${value is other}"
      interpolated: "a ${value} b"
"""
RULES = f"version: 1\njobs:\n  - function: jobs.job{EVERYTHING}"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    made.write("hostile.py", HOSTILE)
    (tmp_path / "rules.yaml").write_text(RULES)
    made.write("jobs.py", "def job(value, other=None):\n    return type(value)\n")
    return made


def test_a_value_that_raises_whatever_it_is_asked_is_recorded_by_its_class(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import hostile, jobs
        for value in hostile.VALUES:
            for given in (value, [value], (value,), {"key": value}, {"key": [value]}):
                jobs.job(given, other=value)
        print("done")
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "done\n", "")
    assert [record["status"] for record in result.records] == ["ok"] * 5 * 13
    assert [record["args"] for record in result.records[::5]] == [
        "#<hostile.Refusing>",
        "#<hostile.Closed>",
        "#<hostile.Meta>",
        "#<hostile.Odd>",
        "#<hostile.Lazy>",
        "abc",
        "abc",
        5,
        2.5,
        {"a": 1},
        [1, 2],
        [1],
        "#<uuid.UUID>",
    ]


def test_huge_deep_and_changing_values_are_cut(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import resource, threading, time
        import jobs

        class Stop:
            asked = False

        def change(values):
            n = 0
            while not Stop.asked:
                values[n % 5000] = n
                values.pop((n * 7) % 5000, None)
                n += 1

        itself = []
        itself.append(itself)
        circle = {}
        circle["circle"] = circle
        deep = []
        for _ in range(100_000):
            deep = [deep]
        changing = dict.fromkeys(range(3000))
        thread = threading.Thread(target=change, args=(changing,))
        thread.start()
        values = ["x" * 100_000_000, b"x" * 100_000_000, bytearray(100_000_000), [0] * 1_000_000,
                  set(range(1_000_000)), dict.fromkeys(range(1_000_000)), itself, circle, deep, 1 << 10_000_000]
        jobs.job(0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for value in values:
            jobs.job(value, other=[value])
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print("more memory" if grown > 20_000 else "no more memory")
        for _ in range(300):
            jobs.job(changing, other=[changing])
        Stop.asked = True
        thread.join()
        while deep:  # a list that deep must not be freed in one go
            deep = deep.pop()
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "no more memory\n", "")
    assert len(result.records) == 1 + 10 + 300
    assert {record["status"] for record in result.records} == {"ok"}
    for record in result.records:
        assert len(str(record)) < 150_000
    values = [record["args"] for record in result.records[1:11]]
    assert values[0].startswith("xxx")
    assert values[0].endswith("... 99998000 more")
    assert values[3][-1] == "... 999900 more"
    assert values[6:8] == [["[RECURSIVE VALUE]"], {"circle": "[RECURSIVE VALUE]"}]
    assert values[9] == "#<int of 10000001 bits>"


def test_exceptions_of_every_kind_reach_the_program_unchanged(program: Program) -> None:
    program.write(
        "jobs.py",
        """
        import dataclasses, sys
        from hostile import refuse

        @dataclasses.dataclass(frozen=True)
        class Frozen(Exception):
            code: int

        class Silent(Exception):
            __str__ = __repr__ = refuse

        class Closed(Exception):
            __getattribute__ = __setattr__ = refuse

        class Unequal(Exception):
            __eq__ = refuse
            __hash__ = None

        class Meta(type):
            __getattribute__ = refuse

        class Odd(Exception, metaclass=Meta):
            pass

        class Code:
            __eq__ = __repr__ = refuse

        class Lone(Exception):
            def __str__(self):
                return "a\\udc80b"

        def fail(error, cause=None):
            raise error from cause
        """,
    )
    (program.folder / "rules.yaml").write_text("version: 1\njobs:\n  - function: jobs.fail\n")
    program.write(
        "worker.py",
        """
        import traceback
        import jobs
        from hostile import Refusing
        errors = [jobs.Frozen(7), jobs.Silent("x"), jobs.Closed("x"), jobs.Unequal("x"), jobs.Odd("x"), jobs.Lone(),
                  SystemExit(jobs.Code()), ValueError(Refusing()), ValueError("x" * 50_000_000)]
        for error in errors:
            for cause in (None, *errors[:5]):
                try:
                    jobs.fail(error, cause if cause is not error else None)
                except BaseException as caught:
                    trace = BaseException.__dict__["__traceback__"].__get__(caught)
                    print(type(caught) is type(error), caught is error, len(traceback.extract_tb(trace)))
                    BaseException.with_traceback(caught, None)
        """,
    )
    plain = program.run("worker.py", instrumented=False)
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert plain.stdout.count("True True 2\n") == 9 * 6
    if sys.version_info >= (3, 11):  # on 3.10 a probe's frame stays in a traceback
        assert result.stdout == plain.stdout
    assert (result.status, result.stdout.count("True True"), result.stderr) == (0, 9 * 6, "")
    assert [record["status"] for record in result.records] == ["error"] * 9 * 6
    assert [(r["exception"]["class"], r["exception"]["message"][:30]) for r in result.records[::6]] == [
        ("jobs.Frozen", "7"),
        ("jobs.Silent", "#<jobs.Silent: its __str__ rai"),
        ("jobs.Closed", "x"),
        ("jobs.Unequal", "x"),
        ("jobs.Odd", "x"),
        ("jobs.Lone", "a\\udc80b"),
        ("SystemExit", "#<SystemExit: its __str__ raise"[:30]),
        ("ValueError", "#<ValueError: its __str__ raise"[:30]),
        ("ValueError", "x" * 30),
    ]


def test_lazy_objects_in_a_module_are_not_loaded_by_looking_for_functions(program: Program) -> None:
    program.write(
        "lazy.py",
        """
        import functools
        from hostile import VALUES, Closed, Lazy, Odd
        settings, current, odd, closed = Lazy(), Odd(), Odd, Closed()

        @functools.lru_cache
        def job_cached(n):
            return n
        """,
    )
    (program.folder / "rules.yaml").write_text(
        "version: 1\njobs:\n  - {module: lazy, functions: ['job*', settings, current, odd.x, closed]}\n"
    )
    # `python -c`: the module is loaded already when a rule is looked for, as with an import by a .pth file.
    program.write("worker.py", "import lazy\nprint(lazy.job_cached(3))\n")
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "3\n", "")
    assert [record["action"] for record in result.records] == ["lazy#job_cached"]
    early = program.folder / "early"
    early.mkdir()
    (early / "usercustomize.py").write_text("")
    code = (
        "import lazy, sys; sys.path.insert(0, sys.argv[1]); import autoinst.startup; autoinst.startup.start();"
        "print(lazy.job_cached(4))"
    )
    environ = program.environ({"AUTOINST_PACKS": "none", "PYTHONPATH": str(program.folder)}, instrumented=False)
    command = [sys.executable, "-c", code, str(program.folder.parent)]
    done = subprocess.run(command, cwd=program.folder, env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("4\n", "")
    assert [record["action"] for record in program.records()] == ["lazy#job_cached"] * 2


LATE = """
import functools, sys

def late(name):
    print("evaluated", name)

class Descriptor:
    def __get__(self, instance, owner):
        late("descriptor")

class Meta(type):
    def __getattr__(cls, name):
        late(f"metaclass {name}")
        raise AttributeError(name)

    @property
    def size(cls):
        late("property of a class")

class Settings(metaclass=Meta):
    value = Descriptor()

    @functools.cached_property
    def cached(self):
        late("cached property")

    @property
    def plain(self):
        late("property")

    def __getattr__(self, name):
        late(f"attribute {name}")
        raise AttributeError(name)

    def job(self):
        return 1

settings = Settings()

def __getattr__(name):
    late(f"module's {name}")
    raise AttributeError(name)
"""


@pytest.mark.parametrize(
    "functions", ["'**'", "Settings.value, Settings.cached, Settings.plain, settings.cached, absent"]
)
def test_what_a_module_evaluates_late_is_not_evaluated_by_looking_for_functions(
    program: Program, functions: str
) -> None:
    program.write("lates.py", LATE)
    program.write(
        "rules.yaml",
        f"version: 1\njobs:\n  - {{module: lates, functions: [Settings.job, {functions}], exclude: [lates.late]}}\n",
    )
    asks = "import lates; print(lates.Settings().job())"
    result = program.run("-c", asks, AUTOINST_PACKS="none")
    assert (result.status, result.stdout) == (0, "1\n")
    assert [record["action"] for record in result.records] == ["lates.Settings#job"]
    # And where the module is loaded already when the rules come.
    late = "import lates, sys; sys.path.insert(0, sys.argv[1]); import autoinst.startup; autoinst.startup.start();"
    again = program.run("-c", late + asks, str(ROOT), AUTOINST_PACKS="none", PYTHONPATH=str(program.folder))
    assert (again.status, again.stdout) == (0, "1\n")
    assert [record["action"] for record in again.records] == ["lates.Settings#job"] * 2


def test_the_api_takes_hostile_values_as_well(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import autoinst
        from hostile import VALUES
        for value in VALUES:
            with autoinst.instrument("perform_job.api", **{"class": value}, method=value, queue=value, queue_time=value,
                                     attempts=value, job_id=value, args=value, kwargs=value, other=value):
                job = autoinst.Transaction.create()
                with autoinst.instrument("query.sql", title=value, body=value):
                    pass
                job.set_tags({"tag": value})
                job.set_params({"parameter": value})
                job.complete()
        print("done")
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "done\n", "")
    assert len(result.records) == 13
    assert [record["class"] for record in result.records[:4]] == [
        "#<hostile.Refusing>",
        "#<hostile.Closed>",
        "hostile.Odd",
        "#<hostile.Odd>",
    ]


def test_a_listener_that_raises_or_ends_its_subscription_changes_nothing(program: Program) -> None:
    (program.folder / "rules.yaml").write_text("version: 1\njobs:\n  - function: jobs.job\n")
    program.write(
        "worker.py",
        """
        import autoinst, jobs
        heard = []
        def listen(name, start, end, ident, payload):
            heard.append(name)
            payload.clear()
            raise ValueError("listener")
        def once(*_):
            heard.append("once")
            end()
        def nested(*_):
            if len(heard) < 50:
                jobs.job(2)
        class Odd:
            def __call__(self, *_):
                raise KeyError(self)
        autoinst.subscribe("perform_job.*", listen)
        end = autoinst.subscribe("**", once)
        autoinst.subscribe("**", Odd())
        autoinst.subscribe("**", lambda: None)
        autoinst.subscribe("perform_job.*", nested)
        print(jobs.job(1))
        print(heard.count("once"), len(heard) > 2)
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stdout, result.stderr) == (0, "<class 'int'>\n1 True\n", "")
    assert len(result.records) > 2
    assert {(record["status"], record["action"]) for record in result.records} == {("ok", "jobs#job")}
