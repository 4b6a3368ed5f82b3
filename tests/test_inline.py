"""Functions whose bodies stand inside `with` behave as they did, and keep a trampoline where that cannot be said."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import textwrap
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.hook.inline import NotInlined, Wanted, fill, parts
from autoinst.hook.inline_source import inline
from autoinst.hook.rewrite import functions
from autoinst.rules import parsed
from tests.harness import BOOT, ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path


class Recorder:
    """A probe that writes down what it is told."""

    def __init__(self, *, result: bool = False) -> None:
        self.log: list[Any] = []
        readers = [("tags.x", None, types.SimpleNamespace(names=("result",)))] if result else []
        self.fields = types.SimpleNamespace(at_exit=readers)
        self.rule = types.SimpleNamespace(fields={})

    def enter(self, values: tuple[Any, ...]) -> str:
        self.log.append(("enter", values))
        return "node"

    def exit(self, node: str, result: Any) -> None:
        assert node == "node"
        self.log.append(("exit", result))

    def error(self, node: str | bool | None, exception: BaseException) -> None:
        self.log.append(("error", node, type(exception).__name__))

    def suspend(self, node: str) -> None:
        assert node == "node"
        self.log.append("suspend")

    def resume(self, node: str) -> None:
        assert node == "node"
        self.log.append("resume")


def inlined(
    source: str | bytes, names: tuple[str, ...] = (), *, result: bool = False, probes: int = 1
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, str]]:
    """Run a module plain and with all its functions inlined.

    Returns both modules' names, the probes by function, and why functions were refused.
    """
    data = textwrap.dedent(source).encode() if isinstance(source, str) else source
    code = compile(data, "<module>", "exec", dont_inherit=True)
    recorders: dict[str, Any] = {}
    wanted: dict[tuple[str, int], Wanted] = {}
    constants: dict[str, Any] = {}
    for number, (qualname, inner) in enumerate(functions(code)):
        mine = [Recorder(result=result) for _ in range(probes)]
        recorders[qualname] = mine[0] if probes == 1 else mine
        known = tuple(name for name in names if name in (*inner.co_varnames, "args", "kwargs"))
        one = Wanted(number, inner, (known,) * probes, (result,) * probes)
        wanted[qualname, inner.co_firstlineno] = one
        for i, recorder in enumerate(mine):
            for part, value in parts(recorder, inner).items():  # type: ignore[arg-type]  # a probe to all that is asked
                constants[one.placeholder(i, part)] = value
    new, refused = inline(code, data, wanted)
    both: list[dict[str, Any]] = []
    for each in (code, fill(new, constants)):
        namespace: dict[str, Any] = {"__name__": "module"}
        exec(each, namespace)
        both.append(namespace)
    return both[0], both[1], recorders, {qualname: why for (qualname, _), why in refused.items()}


def lines_of(function: Any, *arguments: Any) -> list[Any]:
    """Return the trace events of a call in the function's own file, as coverage and debuggers see them."""
    seen: list[Any] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != "<module>":
            return None
        seen.append((frame.f_code.co_name, event, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(ValueError):
            consume(function(*arguments))
    finally:
        sys.settrace(before)
    return seen


def consume(value: Any) -> None:
    if isinstance(value, types.GeneratorType):
        list(value)
    elif isinstance(value, types.CoroutineType):
        with contextlib.suppress(StopIteration):
            value.send(None)


BRANCHES = '''
    def branches(x):
        """Document."""
        if x > 2:
            for i in range(x):
                if i == 1:
                    continue
                try:
                    y = 1 / (i - 2)
                except ZeroDivisionError:
                    y = 0
                finally:
                    z = y
        elif x == 1:
            return "one"
        else:
            raise ValueError(x)
        with open("/dev/null") as file:
            if x == 3:
                return [
                    x,
                    z,
                ]

    def yields(n):
        for i in range(n):
            got = yield i
            if i == 1:
                print(
                    end=str((yield "two") or "")
                )
        return n

    async def waits(n):
        if n:
            return n

    def nothing():
        pass
'''


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("branches", (n,)) for n in (0, 1, 3, 4)] + [("yields", (3,)), ("waits", (0,)), ("waits", (1,)), ("nothing", ())],
)
def test_no_line_more_is_traced(name: str, arguments: tuple[Any, ...]) -> None:
    plain, probed, recorders, refused = inlined(BRANCHES)
    assert refused == {}
    expected = lines_of(plain[name], *arguments)
    assert len(expected) > 2
    assert lines_of(probed[name], *arguments) == expected
    assert recorders[name].log[0] == ("enter", ())


ENDINGS = """
    import contextlib
    def fail(x):
        raise x
    def caught(x):
        try:
            fail(x)
        except KeyError:
            y = 1
        except ValueError:
            y = 2
    def nested(x):
        if x:
            try:
                try:
                    fail(x)
                except KeyError:
                    y = 1
            except ValueError as error:
                y = str(error)
            finally:
                z = 1
    def suppressed(x):
        with contextlib.suppress(KeyError):
            fail(x)
    def looped(x):
        for each in (ValueError(), x):
            try:
                fail(each)
            except KeyError:
                y = 1
            except ValueError:
                y = 2
    async def awaited(x):
        try:
            fail(x)
        except KeyError:
            y = 1
    def yielding(x):
        yield 1
        try:
            fail(x)
        except KeyError:
            y = 1
"""


@pytest.mark.parametrize("exception", [KeyError, ValueError])
@pytest.mark.parametrize("name", ["caught", "nested", "suppressed", "looped", "awaited", "yielding"])
def test_a_call_ends_on_a_line(name: str, exception: type[Exception]) -> None:
    """A debugger compares a frame's line as it returns: pdb's `until` fails in the program where that is None."""
    plain, probed, recorders, refused = inlined(ENDINGS)
    assert refused == {}
    expected = lines_of(plain[name], exception())
    found = lines_of(probed[name], exception())
    assert None not in [line for _, _, line in found]
    assert [each for each in found if each[1] == "return"] == [each for each in expected if each[1] == "return"]
    assert set(found) == set(expected)
    assert recorders[name].log[0] == ("enter", ())


PARAMETERS = """
    class Base:
        def __init__(self): self.x = 1
        def method(self, a, /, b=2, *rest, c, **more):
            def inner():
                nonlocal a
                a += 1
                return a, __class__
            return inner(), sorted(locals())
        async def twice(self, __a): return __a * 2
    class Child(Base):
        def method(self, *args, **kwargs):
            return super().method(*args, **kwargs)
"""


def test_parameters_cells_and_super() -> None:
    plain, probed, recorders, refused = inlined(PARAMETERS, ("self", "a", "rest", "c", "args", "kwargs"))
    assert refused == {}
    given = plain["Child"]().method(1, 5, 6, c=7, d=8)
    child = probed["Child"]()
    assert str(child.method(1, 5, 6, c=7, d=8)) == str(given)
    values = (1, 5, 6), {"c": 7, "d": 8}
    assert recorders["Child.method"].log[0] == ("enter", (child, *values))
    assert recorders["Base.method"].log[0] == ("enter", (child, 1, (6,), 7, (1, 5, 6), values[1]))
    assert asyncio.run(probed["Base"]().twice(4)) == 8
    for name, code in functions(probed["Base"].method.__code__):
        assert name.endswith("inner")
        assert code.co_freevars == ("__class__", "a")


RESULTS = """
    def early(x):
        try:
            if x:
                return x
        finally:
            again(x - 1) if x else None

    def again(x):
        return early(x) if x > 0 else None

    def changes():
        try:
            return 1
        finally:
            return 2

    def bare():
        return

    def gives(n):
        yield n
        return n + 1
"""


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_results() -> None:
    plain, probed, recorders, _ = inlined(RESULTS, ("x",), result=True)
    assert probed["early"](3) == plain["early"](3) == 3
    assert [entry for entry in recorders["early"].log if entry[0] == "exit"] == [("exit", 1), ("exit", 2), ("exit", 3)]
    assert probed["changes"]() == 2
    assert recorders["changes"].log[-1] == ("exit", 2)
    assert probed["bare"]() is None
    assert recorders["bare"].log[-1] == ("exit", None)
    assert list(probed["gives"](1)) == [1]
    assert recorders["gives"].log[-1] == ("exit", 2)


def test_exceptions_pass_unchanged() -> None:
    _, probed, recorders, _ = inlined("def f(error):\n    raise error")
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught:
        probed["f"](error)
    assert caught.value is error
    assert error.__context__ is None
    assert [entry.name for entry in caught.traceback][1:] == ["f"]
    assert recorders["f"].log[-1] == ("error", "node", "ValueError")


GENERATORS = """
    def simple(n):
        for i in range(n):
            try:
                got = yield i
            except KeyError as error:
                got = repr(error)
            if got:
                items = [(yield got), (yield "second")]
                yield items

    def closes():
        try:
            yield 1
        except GeneratorExit:
            return "closed"

    async def several(n):
        for i in range(n):
            got = yield i
            if got:
                yield got
"""


@pytest.mark.parametrize("plan", ["nnnn", "nsnsnn", "nt", "ntnn", "nu", "nc", "c", "nsc", "t"])
@pytest.mark.parametrize("probes", [1, 2])
def test_generators_do_the_same_and_are_told_of(plan: str, probes: int) -> None:
    plain, probed, recorders, refused = inlined(GENERATORS, probes=probes)
    assert refused == {}
    assert drive(probed["simple"](2), plan) == drive(plain["simple"](2), plan)
    gc.collect()
    for recorder in [recorders["simple"]] if probes == 1 else recorders["simple"]:
        log = recorder.log
        if plan[0] not in "ct":
            assert log.count("suspend") == log.count("resume") > 0
            assert log[0] == ("enter", ())
            assert log[-1][0] in ("exit", "error")
            steps = [entry for entry in log if isinstance(entry, str)]
            assert steps == ["suspend", "resume"] * (len(steps) // 2)


def drive(generator: Any, plan: str) -> list[Any]:
    """Run a generator through `plan` and return all that is seen."""
    seen: list[Any] = []
    for step in plan:
        try:
            if step == "n":
                seen.append(next(generator))
            elif step == "s":
                seen.append(generator.send("sent"))
            elif step == "c":
                seen.append(generator.close())
            else:
                seen.append(generator.throw(KeyError("k") if step == "t" else OSError("o")))
        except BaseException as error:  # any is compared
            seen.append((type(error).__name__, str(error)))
    return seen


def test_the_value_of_close_and_a_dropped_generator() -> None:
    plain, probed, recorders, _ = inlined(GENERATORS)
    values = []
    for namespace in (plain, probed):
        generator = namespace["closes"]()
        next(generator)
        values.append(generator.close())
    assert values == ["closed" if sys.version_info >= (3, 13) else None] * 2
    assert recorders["closes"].log[-1][0] == "exit"
    generator = probed["simple"](2)
    next(generator)
    del generator
    gc.collect()
    assert recorders["simple"].log[-1] == ("error", "node", "GeneratorExit")


def test_async_generators() -> None:
    plain, probed, recorders, _ = inlined(GENERATORS)

    async def main(make: Any) -> list[Any]:
        generator = make(3)
        seen = [await generator.__anext__(), await generator.asend("sent"), await generator.__anext__()]
        await generator.aclose()
        return seen

    assert asyncio.run(main(probed["several"])) == asyncio.run(main(plain["several"])) == [0, "sent", 1]
    log = recorders["several"].log
    assert log == [("enter", ()), *["suspend", "resume"] * 3, ("error", "node", "GeneratorExit")]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("yield from x", "it delegates by `yield from`"),
        ("if (yield x): pass", "it yields in the head of `if`"),
        ("while (yield x): pass", "it yields in the head of `while`"),
        ("for _ in (yield x): pass", "it yields in the head of `for`"),
        ("with (yield x): pass", "it yields in the head of `with`"),
        ("def g(a=(yield x)): pass", "it yields where it defines a function or class"),
    ],
)
def test_what_cannot_be_told_to_a_probe_is_refused(body: str, why: str) -> None:
    *_, refused = inlined(f"def f(x):\n    try:\n        {body}\n    finally:\n        pass\ndef g(): pass")
    assert refused["f"] == why
    assert "g" not in refused


@pytest.mark.parametrize(
    "source",
    [
        b"# -*- coding: latin-1 -*-\ndef f(): return '\xe4'\n",
        b"\xef\xbb\xbfdef f(): return '\xc3\xa4'\n",
        b"def f():\r\n    return '\xc3\xa4'\r\n",
        b"from __future__ import annotations\ndef f(x: undefined = 1) -> undefined: return '\xc3\xa4'",
    ],
    ids=["encoding", "mark", "line ends", "future"],
)
def test_sources_of_all_kinds(source: bytes) -> None:
    plain, probed, recorders, refused = inlined(source)
    assert refused == {}
    assert probed["f"]() == plain["f"]() == "\u00e4"
    assert probed["f"].__annotations__ == plain["f"].__annotations__
    assert recorders["f"].log[-1] == ("exit", None)


@pytest.mark.parametrize("other", [b"def f():\n    return 2\n", b"def f():\n\n    return 1\n", b"def f(:", b"\x00"])
def test_a_source_of_another_code_is_refused(other: bytes) -> None:
    code = compile("def f():\n    return 1\n", "<module>", "exec", dont_inherit=True)
    [(qualname, inner)] = functions(code)
    wanted = {(qualname, 1): Wanted(0, inner, ((),), (False,))}
    with pytest.raises(NotInlined, match="does not match the compiled code"):
        inline(code, other, wanted)


@pytest.mark.parametrize("action", ["always", "error"])
def test_the_compilers_warnings_are_not_given_again(action: str) -> None:
    source = b"def f(x):\n    return x is 'text'\n"
    with pytest.warns(SyntaxWarning, match="is"):
        code = compile(source, "<module>", "exec", dont_inherit=True)
    [(qualname, inner)] = functions(code)
    import warnings

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(action)  # type: ignore[arg-type]
        before = list(warnings.filters)
        inline(code, source, {(qualname, 1): Wanted(0, inner, ((),), (False,))})
        assert list(warnings.filters) == before
    assert seen == []


def test_an_exception_from_outside_while_a_call_opens_is_told_and_passes() -> None:
    class Interrupted(Recorder):
        def enter(self, values: tuple[Any, ...]) -> str:
            super().enter(values)
            raise KeyboardInterrupt

    code = compile("def f(): return 1\ndef g(): yield 1", "<module>", "exec", dont_inherit=True)
    for number, (qualname, inner) in enumerate(functions(code)):
        probe = Interrupted()
        one = Wanted(number, inner, ((),), (False,))
        new, _ = inline(code, b"def f(): return 1\ndef g(): yield 1", {(qualname, inner.co_firstlineno): one})
        made = parts(probe, inner)  # type: ignore[arg-type]
        namespace: dict[str, Any] = {}
        exec(fill(new, {one.placeholder(0, part): value for part, value in made.items()}), namespace)
        with pytest.raises(KeyboardInterrupt):
            consume(namespace[qualname]())
        assert probe.log == [("enter", ()), ("error", False, "KeyboardInterrupt")]


def test_nothing_is_kept() -> None:
    _, probed, _, _ = inlined("def f(x):\n    return [x]\ndef g(x):\n    yield [x]", ("x",), result=True)

    class Thing:
        pass

    gc.disable()
    try:
        for name in ("f", "g"):
            thing = Thing()
            watched = weakref.ref(thing)
            recorder = probed[name](thing)
            consume(recorder)
            del thing, recorder
    finally:
        gc.enable()
    assert watched() is not None  # the recorder's log has the arguments, nothing else has
    assert len(gc.get_referrers(watched())) == 1


MODULE = """
    def job(n):
        return n + 1

    def gen(n):
        yield from range(n)

    short = lambda n: n

    class Mailer:
        def perform(self):
            return 3
"""
RULES = """
    version: 1
    jobs:
      - {function: jobs.job}
      - {function: jobs.gen}
      - {module: jobs, functions: ["<lambda>"]}
      - {class: jobs.Mailer, methods: [perform]}
"""
WORKER = """
    import sys, jobs
    print(jobs.job(1), list(jobs.gen(2)), jobs.short(5), jobs.Mailer().perform())
    print("autoinst.hook.inline_source" in sys.modules)
"""


def found_by(program: Program) -> dict[str, tuple[str, str]]:
    """Return the mechanism and the detail that `autoinst doctor` shows for each rule."""
    done = subprocess.run(
        [sys.executable, "-m", "autoinst.cli.main", "doctor", "--json"],
        cwd=program.folder,
        env=program.environ({"AUTOINST_PACKS": "none"}, instrumented=False) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(done.stdout)["rule_statuses"]
    return {row["rule"].rpartition(":")[2]: (row["mechanism"], row["detail"]) for row in rows}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("jobs.py", MODULE)
    program.write("worker.py", WORKER)
    program.write("rules.yaml", RULES)
    return program


def run(program: Program, *options: str, **variables: str) -> str:
    environ = {"AUTOINST_PACKS": "none", "AUTOINST_MECHANISM": "inline", **variables}
    result = program.run(*options, "worker.py", environ=environ)
    assert (result.status, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "2 [0, 1] 5 3"
    return lines[1]


def test_each_rule_says_which_mechanism_serves_it_and_why(program: Program) -> None:
    run(program)
    assert found_by(program) == {
        "4": ("inline", "jobs:job"),
        "5": ("trampoline", "jobs:gen (trampoline: it delegates by `yield from`)"),
        "6": ("trampoline", "jobs:<lambda> (trampoline: a lambda)"),
        "7": ("inline", "jobs:Mailer.perform"),
    }


def test_what_was_made_is_kept_and_made_anew_when_the_module_changes(program: Program) -> None:
    assert run(program) == "True"
    assert run(program) == "False"
    assert run(program, "-O") == "True"
    assert run(program, "-O") == "False"
    text = textwrap.dedent(MODULE).replace("return 3", "x = 3\n        return x")
    (program.folder / "jobs.py").write_text(text)
    assert run(program) == "True"
    assert run(program) == "False"


@pytest.mark.parametrize("damage", [b"", b"x" * 40, None], ids=["empty", "other", "cut"])
def test_damage_to_what_was_kept_is_mended(program: Program, damage: bytes | None) -> None:
    run(program)
    [path] = (program.home / "cache").glob("inline-*")
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert run(program) == "True"
    assert run(program) == "False"


def test_what_others_could_have_written_is_not_read(program: Program) -> None:
    run(program)
    [path] = (program.home / "cache").glob("inline-*")
    path.chmod(0o666)
    assert run(program) == "True"


def test_bytecode_without_its_source_gets_trampolines(program: Program) -> None:
    import py_compile

    py_compile.compile(str(program.folder / "jobs.py"), str(program.folder / "jobs.pyc"), doraise=True)
    (program.folder / "jobs.py").unlink()
    assert run(program) == "False"
    assert found_by(program)["4"] == ("trampoline", "jobs:job (trampoline: its source was not found)")


def test_a_source_newer_than_its_bytecode_gets_trampolines(program: Program) -> None:
    import py_compile

    path = program.folder / "jobs.py"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(path), doraise=True, invalidation_mode=unchecked)
    path.write_text(path.read_text().replace("n + 1", "n + 100"))
    run(program)
    assert found_by(program)["4"] == (
        "trampoline",
        "jobs:job (trampoline: the source does not match the compiled code)",
    )


def test_a_long_module_whose_result_cannot_be_kept_gets_trampolines(program: Program) -> None:
    with (program.folder / "jobs.py").open("a") as file:
        file.write("# a comment\n" * 1000)
    nowhere = program.write("file", "")
    run(program, AUTOINST_HOME=str(program.home), TMPDIR=str(nowhere))
    assert found_by(program)["4"][0] == "inline"
    (program.home / "cache").chmod(0o777)  # no folder of the user's own
    for path in (program.home / "cache").glob("inline-*"):
        path.unlink()
    run(program, TMPDIR=str(nowhere))
    assert found_by(program)["4"] == (
        "trampoline",
        "jobs:job (trampoline: its source is long, and what is made of it cannot be kept)",
    )


@pytest.mark.parametrize("forced", ["trampoline", "nonsense"])
def test_the_mechanism_can_be_forced(program: Program, forced: str) -> None:
    run(program, AUTOINST_MECHANISM=forced)
    mechanism, detail = found_by(program)["4"]
    if forced == "trampoline":
        assert (mechanism, detail) == ("trampoline", "jobs:job (trampoline: AUTOINST_MECHANISM)")
    else:
        assert mechanism == ("monitoring" if sys.version_info >= (3, 15) else "inline")


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="there it is possible")
def test_monitoring_cannot_be_forced_before_its_events_are_local(program: Program) -> None:
    run(program, AUTOINST_MECHANISM="monitoring")
    assert found_by(program)["4"] == ("trampoline", "jobs:job (trampoline: monitoring needs Python 3.15)")


def test_a_module_in_a_zip_file_is_inlined(program: Program) -> None:
    import zipfile

    with zipfile.ZipFile(program.folder / "jobs.zip", "w") as archive:
        archive.write(program.folder / "jobs.py", "jobs.py")
    (program.folder / "jobs.py").unlink()
    path = os.pathsep.join((str(BOOT), str(program.folder / "jobs.zip")))
    run(program, PYTHONPATH=path)
    assert found_by(program)["4"] == ("inline", "jobs:job")


def test_a_parser_that_other_threads_confuse_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [SystemError("AST constructor recursion depth mismatch")] * 3

    def confused(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return compile(*arguments)

    monkeypatch.setattr(parsed, "compile", confused, raising=False)
    source = b"def f():\n    return 1\n"
    code, refused = inline(compile(source, "x.py", "exec", 0, True), source, {})
    assert (code.co_filename, refused, failures) == ("x.py", {}, [])
