"""A function with a probe around its code behaves as the function without, kind by kind."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import subprocess
import sys
import traceback
import types
import weakref
from typing import Any

import pytest

from autoinst.hook.rewrite import functions
from autoinst.hook.trampoline import kind_of, original, trampoline
from tests.harness import ROOT


class Recorder:
    """A probe that writes down what it is told."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def enter(self, values: tuple[Any, ...]) -> str:
        self.log.append(("enter", values))
        return "token"

    def exit(self, token: str, result: Any) -> None:
        assert token == "token"
        self.log.append(("exit", result))

    def error(self, token: str, exception: BaseException) -> None:
        assert token == "token"
        self.log.append(("error", type(exception).__name__))

    def suspend(self, token: str) -> None:
        self.log.append("suspend")

    def resume(self, token: str) -> None:
        self.log.append("resume")

    def first(self, generator: Any) -> Any:
        return generator.__anext__()


def probed(function: Any, names: tuple[str, ...] = ()) -> tuple[Any, Recorder]:
    """Return a twin of `function` with a probe, and the probe."""
    probe = Recorder()
    code = trampoline(function.__code__, probe, names)  # type: ignore[arg-type]
    defaults, closure = function.__defaults__, function.__closure__
    twin = types.FunctionType(code, function.__globals__, function.__name__, defaults, closure)
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__qualname__ = function.__qualname__
    twin.__annotations__ = function.__annotations__
    return twin, probe


def everything(a: int, b: int = 2, /, c: int = 3, *rest: int, d: int = 4, e: int, **more: int) -> Any:
    """Take every kind of parameter."""
    return a, b, c, rest, d, e, more


def test_parameters_of_every_kind() -> None:
    twin, probe = probed(everything, ("a", "args", "kwargs"))
    assert twin(1, e=5) == everything(1, e=5)
    assert twin(1, 9, 8, 7, 6, e=5, d=0, z=1) == everything(1, 9, 8, 7, 6, e=5, d=0, z=1)
    assert probe.log[0] == ("enter", (1, (1, 2, 3), {"d": 4, "e": 5}))
    assert probe.log[2] == ("enter", (1, (1, 9, 8, 7, 6), {"d": 0, "e": 5, "z": 1}))
    assert twin.__doc__ == everything.__doc__
    assert inspect.signature(twin) == inspect.signature(everything)


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3, 4)], ids=str)
def test_wrong_arguments_raise_the_same_and_are_no_run(arguments: tuple[int, ...]) -> None:
    twin, probe = probed(everything)
    with pytest.raises(TypeError) as plain:
        everything(*arguments)  # type: ignore[call-arg]
    with pytest.raises(TypeError) as instrumented:
        twin(*arguments)
    assert str(instrumented.value) == str(plain.value)
    assert probe.log == []


def test_what_describes_the_code_stays() -> None:
    def undocumented(x):
        return x

    for function in (everything, undocumented):
        twin, _ = probed(function)
        for name in ("co_name", "co_filename", "co_firstlineno", "co_freevars", "co_argcount", "co_kwonlyargcount"):
            assert getattr(twin.__code__, name) == getattr(function.__code__, name), name
        assert twin.__doc__ == function.__doc__
        assert inspect.getsource(twin) == inspect.getsource(function)
        if sys.version_info >= (3, 11):
            assert twin.__code__.co_qualname == function.__code__.co_qualname


class Base:
    def perform(self, x: int) -> Any:
        return ("base", x)


class Child(Base):
    def perform(self, x: int) -> Any:
        return super().perform(x), __class__.__name__  # type: ignore[name-defined]


def test_zero_argument_super_and_class_cell() -> None:
    twin, probe = probed(Child.perform, ("self",))
    child = Child()
    assert twin(child, 3) == (("base", 3), "Child")
    assert probe.log[0] == ("enter", (child,))


def test_closures_share_nothing() -> None:
    def make(n):
        def inner(x):
            return x + n

        return inner

    code = trampoline(make(0).__code__, Recorder(), ())  # type: ignore[arg-type]
    functions = [types.FunctionType(code, globals(), "inner", None, make(n).__closure__) for n in range(5)]
    assert [function(10) for function in functions] == [10, 11, 12, 13, 14]


def test_the_same_code_with_other_globals() -> None:
    code = next(c for c in compile("def f(): return name", "<x>", "exec").co_consts if isinstance(c, types.CodeType))
    code = trampoline(code, Recorder(), ())  # type: ignore[arg-type]
    results = [types.FunctionType(code, {"name": name})() for name in ("a", "b", "a")]
    assert results == ["a", "b", "a"]


def fails(x: int) -> None:
    if x:
        raise ValueError(x)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps the frame a re-raise adds")
def test_the_traceback_has_no_frame_of_ours() -> None:
    twin, probe = probed(fails)
    with pytest.raises(ValueError, match="7") as plain:
        fails(7)
    with pytest.raises(ValueError, match="7") as instrumented:
        twin(7)
    frames = [
        [(f.name, f.lineno) for f in traceback.extract_tb(caught.value.__traceback__)][1:]
        for caught in (plain, instrumented)
    ]
    assert frames[0] == frames[1]
    assert probe.log[-1] == ("error", "ValueError")


def test_exception_identity_and_context() -> None:
    def raises(error):
        raise error

    twin, _ = probed(raises)
    error = ValueError("x")

    def handle():
        try:
            raise KeyError("outer")
        except KeyError:
            twin(error)

    with pytest.raises(ValueError, match="x") as caught:
        handle()
    assert caught.value is error
    assert isinstance(error.__context__, KeyError)
    error = ValueError("y")
    with pytest.raises(ValueError, match="y"):
        twin(error)
    assert error.__context__ is None


def counting(n: int):
    received = []
    try:
        for i in range(n):
            try:
                received.append((yield i))
            except KeyError as error:
                received.append(("caught", error.__context__))
    except GeneratorExit:
        received.append("closed")
        if n == 99:
            yield "refuses"
        raise
    finally:
        received.append("finally")
    return received


def drive(function: Any, plan: str) -> list[Any]:
    """Run a generator through `plan` and return all that is seen."""
    seen: list[Any] = []
    generator = function(99 if "!" in plan else 3)
    for step in plan:
        try:
            if step == "n":
                seen.append(next(generator))
            elif step == "s":
                seen.append(generator.send("sent"))
            elif step == "t":
                seen.append(generator.throw(KeyError("k")))
            elif step == "u":
                seen.append(generator.throw(OSError("unhandled")))
            elif step == "g":
                seen.append(generator.throw(GeneratorExit))
            elif step == "c":
                seen.append(generator.close())
        except BaseException as error:  # any is compared
            seen.append((type(error).__name__, str(error), getattr(error, "value", None)))
    return seen


@pytest.mark.parametrize(
    "plan",
    ["nnnn", "nsss", "ntnn", "nc", "c", "nu", "t", "ng", "nsc", "nnnnn", "nsnn", "s", "ncn", "!nc", "!ng", "nun"],
)
def test_generators_do_the_same(plan: str) -> None:
    twin, probe = probed(counting)
    assert drive(twin, plan) == drive(counting, plan)
    assert probe.log.count("suspend") - probe.log.count("resume") in (0, 1)


def returns_when_closed():
    try:
        yield 1
    except GeneratorExit:
        return "value"


def test_the_value_of_generator_close() -> None:
    twin, probe = probed(returns_when_closed)
    for function in (returns_when_closed, twin):
        generator = function()
        next(generator)
        assert generator.close() == ("value" if sys.version_info >= (3, 13) else None)
    assert probe.log[-1] == ("exit", "value")


def test_a_dropped_generator_is_closed() -> None:
    twin, probe = probed(counting)
    generator = twin(3)
    next(generator)
    del generator
    gc.collect()
    assert probe.log[-1] == ("error", "GeneratorExit")


def test_a_generator_that_never_runs_is_no_run() -> None:
    twin, probe = probed(counting)
    twin(3).close()
    assert probe.log == []


async def waits(x: int) -> int:
    await asyncio.sleep(0)
    if x < 0:
        raise ValueError(x)
    return x


async def steps(n: int):
    try:
        for i in range(n):
            await asyncio.sleep(0)
            got = yield i
            if got:
                yield got
    finally:
        await asyncio.sleep(0)


def test_coroutines() -> None:
    twin, probe = probed(waits, ("x",))
    assert inspect.iscoroutinefunction(twin)
    assert asyncio.run(twin(3)) == 3
    assert probe.log == [("enter", (3,)), ("exit", 3)]
    with pytest.raises(ValueError, match="-1"):
        asyncio.run(twin(-1))
    with pytest.warns(RuntimeWarning, match="coroutine 'waits' was never awaited"):
        drop(twin)


def drop(function: Any) -> None:
    function(1)
    gc.collect()


def test_a_cancelled_coroutine() -> None:
    async def forever():
        await asyncio.sleep(60)

    twin, probe = probed(forever)

    async def main() -> None:
        task = asyncio.ensure_future(twin())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert probe.log[-1] == ("error", "CancelledError")


async def drive_async(function: Any, plan: str) -> list[Any]:
    """Run an async generator through `plan` and return all that is seen."""
    seen: list[Any] = []
    generator = function(3)
    for step in plan:
        try:
            if step == "n":
                seen.append(await generator.__anext__())
            elif step == "s":
                seen.append(await generator.asend("sent"))
            elif step == "t":
                seen.append(await generator.athrow(KeyError("k")))
            elif step == "c":
                seen.append(await generator.aclose())
        except BaseException as error:  # any is compared
            seen.append((type(error).__name__, str(error)))
    return seen


@pytest.mark.parametrize("plan", ["nnnn", "nsnn", "nt", "nc", "c", "nsc", "ncn", "t", "ntn"])
def test_async_generators_do_the_same(plan: str) -> None:
    twin, _ = probed(steps)
    assert inspect.isasyncgenfunction(twin)
    assert asyncio.run(drive_async(twin, plan)) == asyncio.run(drive_async(steps, plan))


def test_an_unfinished_async_generator_is_shut_down_once() -> None:
    closed = []

    async def endless():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(1)

    code = trampoline(endless.__code__, Probe(), ())  # type: ignore[arg-type]
    twin = types.FunctionType(code, globals(), "endless", None, endless.__closure__)

    async def main() -> None:
        kept.append(twin())
        await kept[0].__anext__()

    kept: list[Any] = []
    asyncio.run(main())
    assert closed == [1]


class Probe(Recorder):
    def first(self, generator: Any) -> Any:
        from autoinst.hook.probe import Probe as Real

        return Real.first(self, generator)  # type: ignore[arg-type]


def test_it_pickles_copies_and_caches_as_before() -> None:
    code = waits.__code__
    waits.__code__ = trampoline(code, Recorder(), ())  # type: ignore[arg-type]
    try:
        assert pickle.loads(pickle.dumps(waits)) is waits
        assert copy.deepcopy(waits) is waits
        assert functools.partial(waits, 1).func is waits
        assert kind_of(waits.__code__) == "coroutine"
        assert original(waits.__code__) is code
    finally:
        waits.__code__ = code


def test_nothing_keeps_results_and_exceptions_alive() -> None:
    def gives(fail):
        thing = Thing()
        seen.append(weakref.ref(thing))
        if fail:
            raise ValueError(thing)
        return thing

    seen: list[Any] = []
    code = trampoline(gives.__code__, Quiet(), ())  # type: ignore[arg-type]
    twin = types.FunctionType(code, globals(), "gives", None, gives.__closure__)
    gc.disable()
    try:
        twin(False)
        assert seen[0]() is None
        with pytest.raises(ValueError):
            twin(True)
    finally:
        gc.enable()
    gc.collect()
    assert seen[1]() is None


class Quiet(Recorder):
    def exit(self, token: str, result: Any) -> None:
        del result

    def error(self, token: str, exception: BaseException) -> None:
        del exception


class Thing:
    """Something that a weak reference can watch."""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the caller keeps its arguments there")
def test_arguments_live_no_longer_than_in_the_original() -> None:
    def gives_up(one, kept, *, two):
        watched = [weakref.ref(one), weakref.ref(two)]
        del one
        two = None
        return [reference() for reference in watched], kept, two

    def gives_up_with_stars(one, *rest, **more):
        watched = weakref.ref(one)
        del one
        return watched(), rest, more

    async def waits(thing):
        watched = weakref.ref(thing)
        thing = None
        await asyncio.sleep(0)
        return watched(), thing

    result = probed(gives_up)[0](Thing(), 1, two=Thing())  # outside the assert, which keeps what it calls
    assert result == ([None, None], 1, None)
    result = probed(gives_up_with_stars)[0](Thing(), 1, x=2)
    assert result[1:] == ((1,), {"x": 2})
    assert result[0] is None or sys.version_info < (3, 12)  # a call with stars kept its arguments before
    result = asyncio.run(probed(waits)[0](Thing()))
    assert result == (None, None)


def test_a_yielded_value_is_not_kept() -> None:
    def yields():
        yield Thing()
        yield 2

    async def yields_async():
        yield Thing()
        yield 2

    async def main():
        generator = probed(yields_async)[0]()
        return [weakref.ref(await generator.__anext__())(), await generator.__anext__()]

    generator = probed(yields)[0]()
    assert [weakref.ref(next(generator))(), next(generator)] == [None, 2]
    assert asyncio.run(main()) == [None, 2]


@pytest.mark.skipif(
    "get_instructions" in inspect.getsource(inspect.getclosurevars),
    reason="inspect reads the bytecode: 3.14, and later releases of 3.13",
)
def test_the_globals_a_function_uses_can_be_looked_up() -> None:
    def uses_names(x):
        return copy.copy(len(x)), undefined  # type: ignore[name-defined]  # noqa: F821

    twin, _ = probed(uses_names)
    assert inspect.getclosurevars(twin) == inspect.getclosurevars(uses_names)


@pytest.mark.parametrize("source", ["def f(): return 1", "def f():\n yield 1"])
def test_no_builtin_is_needed(source: str) -> None:
    code = next(c for c in compile(source, "<x>", "exec").co_consts if isinstance(c, types.CodeType))
    twin = types.FunctionType(trampoline(code, Recorder(), ()), {"__builtins__": {}})  # type: ignore[arg-type]
    assert list(twin()) == [1] if "yield" in source else twin() == 1


def test_a_generator_based_coroutine_may_delegate_to_a_coroutine_and_no_other() -> None:
    def delegates(coroutine):
        return (yield from coroutine)

    async def awaits(function):
        return await function(waits(3))

    assert asyncio.run(awaits(types.coroutine(probed(delegates)[0]))) == 3
    coroutine = waits(3)
    with pytest.raises(TypeError, match="cannot 'yield from' a coroutine object in a non-coroutine generator"):
        next(probed(delegates)[0](coroutine))
    coroutine.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="they take no parameter that tells them")
def test_functions_that_evaluate_annotations_are_left_alone() -> None:
    code = compile("class A[T: int]:\n def f(self): pass\ntype B[U: (int, str)] = list[U]", "<x>", "exec")
    assert [name for name, _ in functions(code)] == ["A.f"]


FINALIZER = """
import contextvars, gc
from autoinst.trace.context import Node, enter, leave

variables = [contextvars.ContextVar("a"), contextvars.ContextVar("b")]
variables[0].set(0)
reuse = []

class Job:
    def __del__(self):
        node = Node()
        node.parent = None
        for _ in range(2):
            enter(node)
            reuse.append([(1, 2, 3), [4], {5: 6}] * 3)
            leave(node)
        reuse.append([bytearray(n) for n in range(0, 400, 8)])
        del reuse[:-5]

for n in range(300):
    for i in range(300):
        cycle = Job()
        cycle.itself = cycle
        gc.set_threshold(n % 23 + 2)
        variables[1].set(i)
        variables[0].reset(variables[0].set(i))
"""


def test_a_finalizer_changes_no_context_that_is_being_changed() -> None:
    # Before 3.12 the collector runs within ContextVar.set(), and the process died.
    done = subprocess.run([sys.executable, "-c", FINALIZER], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
