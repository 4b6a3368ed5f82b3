"""Look at the instrumented module in every way there is and print what is seen, as JSON: {check: what is seen}."""

import asyncio
import concurrent.futures
import contextvars
import copy
import functools
import gc
import inspect
import io
import json
import logging
import marshal
import multiprocessing
import pickle
import re
import sys
import threading
import traceback
import types
import typing
import unittest.mock
import warnings
import weakref

import subject as s


def outcome(function, *args, **kwargs):
    """Return what a call gives or raises."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        return described(error)


def described(error):
    notes = getattr(error, "__notes__", None)
    return [type(error).__name__, str(error), notes]


def frames(error):
    return [(f.name, f.line) for f in traceback.extract_tb(error.__traceback__)][1:]


def caught(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def chain(error):
    seen = []
    while error is not None:
        seen.append([type(error).__name__, error.__suppress_context__, error.__cause__ is not None])
        error = error.__cause__ or error.__context__
    return seen


def steps(generator, *plan):
    seen = []
    for step in plan:
        if step == "n":
            seen.append(outcome(next, generator))
        elif step == "c":
            seen.append(outcome(generator.close))
        elif step == "d":
            seen.append(inspect.getgeneratorstate(generator))
        elif isinstance(step, BaseException):
            seen.append(outcome(generator.throw, step))
        else:
            seen.append(outcome(generator.send, step))
    return seen


def identity():
    kinds = [s.plain, s.anonymous, s.count, s.waits, s.numbers, s.Base.method, s.Base("1").method, s.cached]
    yield "function types", [type(x).__name__ for x in kinds]
    yield "function is itself", [s.plain is s.REGISTRY["plain", True], s.Base.method is s.Base.__dict__["method"]]
    yield "names", [(f.__name__, f.__qualname__, f.__module__) for f in (s.plain, s.make_counter(0), s.Child.method)]
    yield "lambda's name", [s.anonymous.__name__, s.anonymous.__qualname__]
    yield "docstrings", [s.plain.__doc__, s.none.__doc__, s.count.__doc__, s.Base.method.__doc__, s.waits.__doc__]
    yield "attributes", [vars(s.plain), dir(s.plain)]
    yield "defaults", [s.plain.__defaults__, s.plain.__kwdefaults__, s.none.__defaults__]
    yield "annotations", [repr(s.plain.__annotations__), repr(s.annotated.__annotations__)]
    yield "get_type_hints", repr(typing.get_type_hints(s.annotated))
    yield "globals", [s.plain.__globals__ is vars(s), s.make_counter(0).__globals__ is vars(s)]
    yield "closure", [len(s.make_counter(5).__closure__), s.make_counter(5).__closure__[0].cell_contents]
    yield "builtins", getattr(s.plain, "__builtins__", None) is vars(s).get("__builtins__") or True
    yield "repr", [repr(s.plain).split(" at ")[0], repr(s.Base.method).split(" at ")[0]]
    yield "equality and hash", [s.plain == s.plain, s.plain == s.none, len({s.plain, s.none, s.plain})]
    yield "bound methods", [s.Base(1).method.__func__ is s.Base.method, s.Base(1).method == s.Base(1).method]
    yield "bool and callable", [bool(s.plain), callable(s.plain), isinstance(s.plain, types.FunctionType)]
    yield "type parameters", repr(getattr(s.plain, "__type_params__", None))


def code():
    one = s.plain.__code__
    yield "code name and file", [one.co_name, one.co_filename.rpartition("/")[2], one.co_firstlineno]
    yield "code qualified name", getattr(s.Base.method.__code__, "co_qualname", None)
    yield "code arguments", [one.co_argcount, one.co_posonlyargcount, one.co_kwonlyargcount, one.co_varnames[:7]]
    yield "code free variables", [s.make_counter(1).__code__.co_freevars, s.Child.method.__code__.co_freevars]
    functions = [s.plain, s.count, s.waits, s.numbers, s.bare_coroutine, s.none, s.anonymous]
    yield "code flags", [f.__code__.co_flags & ~0x40 for f in functions]
    yield "code docstring", one.co_consts[0]
    yield "code names hold the globals", "globals" in s.uses_globals.__code__.co_names
    yield "code variables", [s.own_locals.__code__.co_varnames, s.own_locals.__code__.co_nlocals]
    yield "code names", s.warn_here.__code__.co_names
    yield "code constants", len(s.warn_here.__code__.co_consts)
    yield "code cell variables", s.make_counter.__code__.co_cellvars
    yield "code lines", len({line for _, _, line in s.count.__code__.co_lines()})
    yield "code bytes", len(s.plain.__code__.co_code)
    yield "code marshal", outcome(lambda: len(marshal.dumps(s.plain.__code__)) > 0)
    replaced = types.FunctionType(s.undocumented.__code__.replace(co_name="other"), vars(s))
    yield "code replace", [replaced.__name__, replaced(3)]
    twin = types.FunctionType(s.plain.__code__, {"__builtins__": {}}, "twin")
    yield "code in other globals", outcome(twin, 1, 2, 3, d=4, e=5)


def inspection():
    yield "signature", [str(inspect.signature(f)) for f in (s.plain, s.anonymous, s.wrapped, s.Base, s.Base.make)]
    yield "getfullargspec", repr(inspect.getfullargspec(s.plain))
    yield "getcallargs", inspect.getcallargs(s.undocumented, 3)
    functions = [s.plain, s.anonymous, s.count, s.waits, s.Base.method, s.wrapped, s.Base.half.fget, s.Point.norm]
    yield "getsource", [inspect.getsource(f) for f in functions]
    yield "getsourcelines", [inspect.getsourcelines(f)[1] for f in functions]
    yield "getsource of classes", [len(inspect.getsource(c)) for c in (s.Base, s.Child, s.Point)]
    yield "getfile", [inspect.getfile(f).rpartition("/")[2] for f in functions]
    yield "getdoc", [inspect.getdoc(f) for f in functions]
    yield "getcomments", [inspect.getcomments(f) for f in functions]
    yield "getmodule", [inspect.getmodule(f).__name__ for f in functions]
    yield "unwrap", inspect.unwrap(s.wrapped).__name__
    kinds = [
        *(inspect.isfunction, inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction),
        *(inspect.ismethod, inspect.isroutine, inspect.isbuiltin, inspect.isawaitable, asyncio.iscoroutinefunction),
    ]
    things = [s.plain, s.count, s.waits, s.numbers, s.bare_coroutine, s.Base(1).method, s.Base(1).wait, s.managed]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield "predicates", [[kind(thing) for kind in kinds] for thing in things]
    yield "getclosurevars of a function", repr(inspect.getclosurevars(s.uses_globals)).count("'sys': <module")
    yield "getclosurevars of a closure", repr(inspect.getclosurevars(s.make_counter(7)).nonlocals)
    yield "getmembers", [name for name, _ in inspect.getmembers(s.Base, inspect.isfunction)]
    yield "classify_class_attrs", [(a.name, a.kind) for a in inspect.classify_class_attrs(s.Child) if a.name[0] != "_"]
    yield "signature of bound", [str(inspect.signature(s.Base(1).reach)), str(inspect.signature(s.partially))]


def calls():
    yield "arguments", [s.plain(1, d=4), s.plain(1, 2, 3, 4, 5, d=6, z=7), s.anonymous(1)]
    bad = [((), {}), ((1,), {}), ((1,), {"a": 1, "d": 2}), ((1, 2, 3, 4), {"d": 1, "c": 2})]
    yield "wrong arguments", [outcome(s.plain, *args, **kwargs) for args, kwargs in bad]
    yield "wrong arguments of a method", [outcome(s.Base(1).method, 1, 2, 3), outcome(s.Base.method)]
    counters = [s.make_counter(n) for n in (0, 10)]
    yield "closures", [counters[0](), counters[0](5), counters[1](), counters[0]()]
    yield "mutable default", [s.mutable_default(1), s.mutable_default(2)]
    s.none.__defaults__ = None
    s.undocumented.__defaults__ = (9,)
    yield "defaults changed later", s.undocumented()
    yield "locals()", s.own_locals(1)
    yield "eval and vars()", s.uses_eval(4)
    yield "globals()", s.uses_globals()
    yield "own frame", s.own_frame()
    yield "rebinding", s.rebinds("a", [1, 2])
    yield "partial", [s.partially(), s.partially.func is s.plain]
    yield "mapping and sorting", [list(map(s.square, [1, 2, 3])), sorted([3, -1, 2], key=s.square)]
    yield "lru_cache", [s.cached(1) is s.cached(1), s.cached(2), s.cached(3), list(s.cached.cache_info()), s.REGISTRY["cached"]]
    yield "singledispatch", [s.dispatched(1), s.dispatched([]), s.dispatched("")]
    yield "functools.wraps", [s.wrapped(3), s.wrapped.__wrapped__(3), s.wrapped.__name__, s.wrapped.__doc__]
    yield "code can be exchanged", [swap_code()]
    yield "nested probes", s.wrapping(s.wrapping(s.square))(3)


def swap_code():
    def other(x):
        return "other", x

    kept, s.square.__code__ = s.square.__code__, other.__code__
    try:
        return s.square(2)
    finally:
        s.square.__code__ = kept


class Thing:
    pass


class Failure(Exception):
    pass


def lifetimes():
    yield "arguments given up", s.gives_up(Thing())
    yield "arguments kept", s.keeps(Thing())
    thing = Thing()
    yield "reference count", s.reference_count(thing)
    reference = weakref.ref(thing)
    result = s.undocumented(thing)
    del thing, result
    yield "result is not kept", reference() is None
    error = caught(s.fail, "kept", Failure)
    reference = weakref.ref(error)
    del error
    gc.collect()
    yield "exception is not kept", reference() is None
    generator = s.yields_things()
    yield "yielded value is not kept", [weakref.ref(next(generator))() is None, next(generator)]
    made = s.make_counter(0)
    reference = weakref.ref(made)
    yield "weak reference to a function", reference() is made
    del made
    yield "closure is freed", reference() is None
    gc.collect()
    gc.disable()
    s.Deleted()
    yield "__del__", s.Deleted.log
    gc.enable()
    gc.collect()
    left = []
    for _ in range(3):  # what is made once, such as what a look at the rules files needs, is no leak
        before = len(gc.get_objects())
        for _ in range(50):
            s.make_counter(1)(2)
            list(s.count(2))
        gc.collect()
        left.append(len(gc.get_objects()) - before)
    yield "objects left", min(left) < 40


def exceptions():
    error = ValueError("the one")
    yield "identity", caught(s.reraise, error) is error
    yield "context", [chain(caught(f)) for f in (s.fail, s.fail_from, s.fail_while, s.fail_none)]
    yield "context from outside", context_from_outside()
    yield "traceback", [frames(caught(f, *a)) for f, *a in ((s.fail,), (s.fail_from,), (s.deep, 3))]
    yield "traceback of a cause", frames(caught(s.fail_from).__cause__)
    yield "traceback of a method", frames(caught(s.Base(1).__getattr__, "x"))
    formatted = "".join(traceback.format_exception(*exception_info(s.fail_while)))
    yield "formatted traceback", [formatted.count("subject.py"), formatted.count("autoinst")]
    yield "finally", [s.finally_leaves(), s.REGISTRY["left"]]
    yield "SystemExit", [described(caught(s.exits, code)) for code in (0, 3, "text")]
    yield "KeyboardInterrupt", described(caught(s.fail, "key", KeyboardInterrupt))
    yield "exc_info inside", [s.current_exception(), exception_seen_inside()]
    yield "exc_info after", after_exception()
    yield "frame's locals in a traceback", sorted(innermost(caught(s.fail)).tb_frame.f_locals)
    if hasattr(error, "add_note"):
        error.add_note("a note")
        yield "notes", caught(s.reraise, error).__notes__
        group = ExceptionGroup("group", [ValueError(1), KeyError(2)])  # noqa: F821
        again = caught(s.reraise, group)
        yield "groups", [again is group, [type(e).__name__ for e in again.exceptions], repr(again.split(KeyError))]
    else:
        yield "notes", None
        yield "groups", None


def exception_info(function):
    try:
        function()
    except BaseException:
        return sys.exc_info()


def innermost(error):
    tb = error.__traceback__
    while tb.tb_next is not None:
        tb = tb.tb_next
    return tb


def context_from_outside():
    try:
        raise KeyError("outer")
    except KeyError as outer:
        error = caught(s.fail)
        return error.__context__ is outer


def exception_seen_inside():
    try:
        raise KeyError("outer")
    except KeyError:
        return s.current_exception()


def after_exception():
    caught(s.fail)
    return repr(sys.exc_info())


def generators():
    yield "generator values", [list(s.count(3)), steps(s.count(3), "n", 5, 7, "n", "n")]
    yield "generator return value", steps(s.delegates(s.count(2), iter([7])), "n", "n", "n", "n", "n")
    yield "generator close", close_with_log("n", "c", "n")
    yield "generator close before start", close_with_log("c", "n")
    yield "generator close returns", steps(s.returns_on_close(), "n", "c", "n")
    yield "generator refuses to close", steps(s.refuses_to_close(), "n", "c")
    yield "generator throw", close_with_log("n", KeyError("k"), "n")
    yield "generator throw before start", close_with_log(KeyError("k"), "n")
    yield "generator throw unhandled", close_with_log("n", OSError("o"), "n")
    yield "generator throw types", [outcome(primed(s.count(2)).throw, ValueError), outcome(primed(s.count(2)).throw, GeneratorExit)]
    yield "generator send to a fresh one", steps(s.count(2), 1, "n")
    yield "generator raises StopIteration", [described(caught(list, s.raises_stop())), chain(caught(list, s.raises_stop()))]
    yield "generator states", steps(s.count(1), "d", "n", "d", "n", "d")
    yield "generator running itself", pulls_itself()
    yield "generator dropped", dropped()
    yield "generator names", [s.count(1).__name__, s.count(1).__qualname__, s.count(1).gi_code.co_name]
    yield "generator type", [type(s.count(1)).__name__, inspect.isgenerator(s.count(1))]
    yield "generator context variable", [list(s.sets_variable(5)), s.variable.get()]
    yield "generator handling an exception", steps(s.handles_around_yield(), "n", "n", "n")
    yield "generator throw traceback", frames(caught(primed(s.count(2)).throw, OSError("o")))
    yield "generator throw context", throw_context()
    generator = primed(s.delegates(s.count(3)))
    yield "generator gi_yieldfrom", generator.gi_yieldfrom is not None
    yield "generator locals", sorted(inspect.getgeneratorlocals(primed(s.count(3))))
    yield "generator line", primed(s.count(3)).gi_frame.f_lineno - s.count.__code__.co_firstlineno
    yield "iterator", [list(s.Iterates(3)), next(s.Iterates(0), "default")]
    log = []
    with s.managed(log) as got:
        got.append("body")
    yield "contextmanager", log
    yield "contextmanager with an exception", [manage(swallow) for swallow in (False, True)]
    yield "contextmanager as a decorator", [s.managed([])(s.square)(4)]


def primed(generator):
    next(generator)
    return generator


def close_with_log(*plan):
    log = []
    return steps(s.cleans(log), *plan), log


def pulls_itself():
    box = []
    box.append(s.pulls_itself(box))
    return outcome(next, box[0])


def dropped():
    log = []
    generator = primed(s.cleans(log))
    del generator
    gc.collect()
    return log


def throw_context():
    generator = primed(s.count(3))
    try:
        raise KeyError("outer")
    except KeyError:
        return chain(caught(generator.throw, OSError("inner")))


def manage(swallow):
    log = []
    try:
        with s.managed(log, swallow):
            s.fail("inside")
    except ValueError as error:
        log.append(["out", str(error), frames(error)])
    return log


async def coroutines():
    yield "coroutine result", await s.waits(3)
    yield "coroutine type", coroutine_type()
    yield "coroutine exception", [described(await raised(s.fails_late())), [n for n, _ in frames(await raised(s.fails_late()))]]
    yield "coroutine gather", await asyncio.gather(*(s.waits(n) for n in range(5)), return_exceptions=True)
    yield "coroutine wait_for", described(await raised(asyncio.wait_for(s.waits(1, 5), 0.01)))
    yield "coroutine cancel", await cancel(s.cleans_async)
    yield "coroutine swallows cancel", await (await started(s.swallows_cancel(), cancel=True))
    yield "coroutine context variable", [await s.sets_variable_async(5), s.variable.get()]
    yield "coroutine context variable in a task", [await asyncio.create_task(s.sets_variable_async(6)), s.variable.get()]
    yield "coroutine task", await asyncio.create_task(s.task_name(), name="named")
    yield "coroutine method", await s.Base(4).wait()
    yield "coroutine __await__", await s.Awaits()
    yield "coroutine close", close_coroutine()
    yield "coroutine throw", throw_coroutine()
    yield "coroutine never awaited", never_awaited()
    yield "coroutine reused", await reused()
    yield "coroutine frame", coroutine_frame()
    yield "coroutine cr_await", await cr_await()
    yield "coroutine of a generator", [s.bare_coroutine(1).send(None), await s.delegating_coroutine(s.waits(8))]
    yield "async generator values", [[x async for x in s.numbers(3)], await async_steps(s.numbers(2), "n", "send", "n", "n", "n")]
    yield "async generator throw", await async_steps(s.numbers(2), "n", "throw", "n")
    yield "async generator throw before start", await async_steps(s.numbers(2), "throw", "n")
    yield "async generator close", await async_steps(s.numbers(2), "n", "close", "n", "close")
    yield "async generator refuses aclose", await async_steps(s.refuses_aclose(), "n", "close")
    yield "async generator raises StopAsyncIteration", await async_steps(s.asyncgen_with_stop(), "n", "n", "n")
    yield "async generator at once", await concurrent_asyncgen()
    yield "async generator names", [s.numbers(1).__name__, s.numbers(1).__qualname__, type(s.numbers(1)).__name__]
    yield "async generator ag_await", await ag_await()
    log = []
    async with s.managed_async(log) as got:
        got.append("body")
    yield "asynccontextmanager", log
    log = []
    try:
        async with s.managed_async(log):
            s.fail("inside")
    except ValueError as error:
        log.append([str(error), [name for name, _ in frames(error)]])
    yield "asynccontextmanager with an exception", log
    log = []
    async for _ in s.numbers(3, log):
        break
    gc.collect()
    for _ in range(500):  # the loop closes it in a task of its own
        if log:
            break
        await asyncio.sleep(0.01)
    yield "async generator dropped", log
    yield "run in a thread", await asyncio.to_thread(s.square, 5)
    yield "run in an executor", await asyncio.get_running_loop().run_in_executor(None, s.square, 6)


async def raised(awaitable):
    try:
        await awaitable
    except BaseException as error:
        return error
    return None


def coroutine_type():
    made = s.waits(1)
    seen = [type(made).__name__, made.__name__, made.__qualname__, inspect.getcoroutinestate(made), asyncio.iscoroutine(made)]
    made.close()
    return [*seen, inspect.getcoroutinestate(made)]


async def started(coroutine, cancel=False):
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    if cancel:
        task.cancel("message")
    return task


async def cancel(function):
    log = []
    error = await raised(await started(function(log), cancel=True))
    return log, type(error).__name__


def close_coroutine():
    made = s.cleans_async(log := [])
    return [outcome(made.close), log, outcome(made.send, None)]


def throw_coroutine():
    made = s.bare_coroutine(1)
    made.send(None)
    return [outcome(made.throw, KeyError("k")), outcome(made.send, None)]


def never_awaited():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        s.waits(1)
        gc.collect()
    return [str(warning.message) for warning in seen]


async def reused():
    made = s.waits(1)
    return [await made, described(await raised(made))]


def coroutine_frame():
    made = s.waits(1)
    seen = [made.cr_code.co_name, made.cr_frame.f_code.co_name, made.cr_running, made.cr_origin]
    made.close()
    return [*seen, made.cr_frame]


async def cr_await():
    made = s.waits(1, 0.01)
    task = asyncio.ensure_future(made)
    await asyncio.sleep(0)
    name = made.cr_await.__name__
    await task
    return name


async def ag_await():
    generator = s.numbers(1)
    task = asyncio.ensure_future(generator.__anext__())
    await asyncio.sleep(0)
    name = type(generator.ag_await).__name__
    await task
    await generator.aclose()
    return name


async def async_steps(generator, *plan):
    seen = []
    for step in plan:
        try:
            if step == "n":
                seen.append(await generator.__anext__())
            elif step == "send":
                seen.append(await generator.asend("sent"))
            elif step == "throw":
                seen.append(await generator.athrow(KeyError("k")))
            else:
                seen.append(await generator.aclose())
        except BaseException as error:
            seen.append(described(error))
    return seen


async def concurrent_asyncgen():
    generator = s.numbers(2)
    results = await asyncio.gather(generator.__anext__(), generator.__anext__(), return_exceptions=True)
    seen = [described(r) if isinstance(r, BaseException) else r for r in results]
    await generator.aclose()
    return seen


def shutdown_asyncgens():
    log = []
    kept = []

    async def main():
        kept.append(s.numbers(5, log))
        await kept[0].__anext__()

    asyncio.run(main())
    return log


def classes():
    yield "metaclass", [s.Base.options, s.Base.prepared, s.Base(1).called, "Base" in s.Base]
    yield "__init_subclass__", [s.Base.children, described(caught(type(s.Child), "More", (s.Child,), {}))]
    yield "__set_name__", [s.Base.described.name, s.Base(1).described]
    yield "zero-argument super", [s.Child(2).method(3), s.Child(2).half, s.Child.make(1).value]
    yield "__class__ cell", [s.Child(1).who()]
    yield "classmethod and staticmethod", [s.Base.make(3).value, s.Child.make(3).value, s.Base.static(1), s.Base(1).static(2)]
    base = s.Base(4)
    base.half = 5
    yield "property", [base.half, base.value, s.Base.half.__doc__, type(s.Base.half).__name__]
    yield "cached_property", [base.expensive is base.expensive, s.REGISTRY["expensive"]]
    yield "name mangling", [s.Base(1).reach(), s.Base(1)._Base__private()]
    yield "special methods", [s.Base(1) == s.Base(1), hash(s.Base(5)) == hash(5), repr(s.Child(2)), len(s.Base(2)), list(s.Base(3)), s.Base(1)(2)]
    yield "__getattr__", [base.dynamic_name, outcome(getattr, base, "missing"), hasattr(base, "missing")]
    with base:
        raise KeyError("swallowed")
    yield "__exit__", [s.REGISTRY["exit"].__name__, outcome(exit_with, base)]
    yield "__class_getitem__", s.Base[int][0]
    yield "dataclass", [repr(s.Point(1, 2)), s.Point(1) < s.Point(2), s.Point(3).norm(), s.Point.__match_args__]
    yield "dataclass with slots", [repr(s.Slotted(2).doubled()), outcome(setattr, s.Slotted(1), "a", 2)[0]]
    yield "slots", [s.Slots(3).get(), outcome(setattr, s.Slots(1), "b", 1)[0]]
    yield "enum", [list(s.Color.__members__), s.Color.RED.lower, s.Color.RED.mixed(), s.Color("r").name, outcome(s.Color, 9)]
    yield "NamedTuple", [repr(s.Named(1)), s.Named(1).both(), s.Named._fields]
    yield "Protocol", [isinstance(s.Duck(), s.Quacks), isinstance(3, s.Quacks), issubclass(s.Duck, s.Quacks)]
    yield "abstract class", [described(caught(s.Abstract)), sorted(s.Abstract.__abstractmethods__)]
    yield "Generic", [s.Generic[int]().get(3), str(s.Generic[int]).rpartition(".")[2]]
    yield "class attributes", [sorted(vars(s.Base)), sorted(vars(s.Child))]
    yield "mro", [c.__name__ for kind in (s.Child, s.OrderedBase) for c in kind.__mro__]
    s.Base.method, kept = (lambda self: "patched"), s.Base.method
    yield "monkey patching", s.Base(1).method()
    s.Base.method = kept
    yield "monkey patching undone", s.Base(1).method()


def exit_with(base):
    with base:
        raise OSError("not swallowed")


def copies():
    functions = [s.plain, s.anonymous, s.count, s.waits, s.Base.method, s.Base.make, s.cached, s.wrapped, s.Base(2).method]
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        yield f"pickle {protocol}", [outcome(same_pickled, f, protocol) for f in functions]
    yield "pickle of instances", [repr(pickle.loads(pickle.dumps(x))) for x in (s.Base(3), s.Point(1), s.Color.RED, s.Named(1))]
    yield "pickle of partial", pickle.loads(pickle.dumps(s.partially))() == s.partially()
    yield "pickle of a closure", outcome(pickle.dumps, s.make_counter(1))[0]
    yield "copy", [copy.copy(f) is f for f in functions[:4]]
    yield "deepcopy", [copy.deepcopy(f) is f for f in functions[:4]]
    yield "deepcopy of a bound method", repr(copy.deepcopy(s.Base(7).method).__self__)


def same_pickled(function, protocol):
    again = pickle.loads(pickle.dumps(function, protocol))
    return again is function or again == function


def mocks():
    with unittest.mock.patch("subject.square", autospec=True, return_value=7) as mocked:
        yield "mock.patch with autospec", [s.square(2), outcome(s.square), str(inspect.signature(s.square)), mocked.call_count]
    with unittest.mock.patch.object(s.Base, "method", lambda self: "object"):
        yield "mock.patch.object", s.Base(1).method()
    spec = unittest.mock.create_autospec(s.Base)
    yield "mock of a class", [outcome(spec(1).method, 1, 2, 3)[0], isinstance(spec, type(s.Base)) or isinstance(spec(), s.Base)]
    yield "mock of coroutines", type(unittest.mock.create_autospec(s.waits)(1)).__name__ if never_awaited_is_fine() else None
    with unittest.mock.patch("subject.waits", autospec=True) as mocked:
        mocked.return_value = 5
        yield "mock.patch of a coroutine", asyncio.run(s.waits(1))
    wraps = unittest.mock.Mock(wraps=s.square)
    yield "mock that wraps", [wraps(3), wraps.call_args.args]


def never_awaited_is_fine():
    warnings.simplefilter("ignore", RuntimeWarning)
    return True


def callers():
    def warned(function):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            function()
        return [(w.filename.rpartition("/")[2], line_of(w)) for w in seen]

    yield "warnings stacklevel 1", warned(s.warn_here)
    yield "warnings stacklevel 2", warned(s.warn_caller)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(filename)s %(funcName)s %(lineno)d"))
    logger = logging.getLogger("checks")
    logger.propagate = False
    logger.addHandler(handler)
    s.log_here(logger)
    yield "logging findCaller", stream.getvalue()
    stream.truncate(0)
    stream.seek(0)
    s.log_caller(logger)
    yield "logging stacklevel 2", stream.getvalue().split()[:2]
    handler.setFormatter(s.Formatter())
    stream.truncate(0)
    stream.seek(0)
    s.log_here(logger)
    yield "logging own formatter", stream.getvalue()
    yield "caller's frame", s.caller_name()[0]
    yield "inspect.stack", s.stack_names()
    yield "stack size", s.stack_size() - len(inspect.stack())
    yield "recursion depth", s.depth() * 10 // sys.getrecursionlimit()
    yield "traceback of endless recursion", sorted(set(files_of(s.endless)))
    yield "settrace", traced(sys.settrace)
    yield "setprofile", traced(sys.setprofile)


def files_of(function):
    try:
        function()
    except RecursionError as error:
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            yield code.co_filename.rpartition("/")[2], code.co_name
            traceback = traceback.tb_next


def line_of(warning):
    import linecache

    return linecache.getline(warning.filename, warning.lineno).strip()


def traced(install):
    seen = []

    def note(frame, event, argument):
        if event == "call":
            seen.append(frame.f_code.co_name)
        return note

    install(note)
    try:
        s.square(3)
    finally:
        install(None)
    return seen


def threads():
    worker = s.Worker()
    worker.start()
    worker.join()
    yield "thread", worker.result
    results = []
    many = [threading.Thread(target=lambda n=n: results.append(s.square(n))) for n in range(8)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    yield "many threads", sorted(results)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        yield "thread pool", list(pool.map(s.square, range(6)))
        yield "thread pool exception", described(pool.submit(s.square_or_fail, -1).exception())
        yield "thread pool context", pool.submit(contextvars.copy_context().run, s.variable.get).result()
    context = contextvars.copy_context()
    yield "contextvars run", [list(context.run(s.sets_variable, 9)), s.variable.get()]
    local = threading.local()
    local.x = s.square(2)
    yield "thread local", local.x


def processes():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with context.Pool(1) as pool:
                yield f"{method} pool", [pool.map(s.square, [1, 2]), outcome(pool.apply, s.square_or_fail, (-1,))[:2]]
    process = multiprocessing.get_context("fork").Process(target=s.exits, args=(3,))
    process.start()
    process.join()
    yield "process exit status", process.exitcode
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield "process pool executor", [list(pool.map(s.square, range(3))), described(pool.submit(s.square_or_fail, -2).exception())[:2]]
        yield "process pool method", pool.submit(s.Base(3).method, 4).result()
        yield "process pool partial", pool.submit(functools.partial(s.square, 5)).result()


def main():
    seen = {}

    def note(name, value):
        if name in seen:
            raise KeyError(name)
        seen[name] = json.loads(json.dumps(value, default=repr))

    async def asynchronous():
        async for name, value in coroutines():
            note(name, value)

    for group in (identity, code, inspection, calls, lifetimes, exceptions, generators, classes, copies, mocks, callers, threads):
        for name, value in group():
            note(name, value)
    asyncio.run(asynchronous())
    note("async generators shut down", shutdown_asyncgens())
    if "processes" in sys.argv:
        for name, value in processes():
            note(name, value)
    note("modules' attributes", sorted(name for name in vars(s) if not name.startswith("__")))
    note("nothing of ours to see", sorted(name for name in vars(s) if "autoinst" in name))
    print(re.sub("0x[0-9a-f]+", "0x", json.dumps(seen, indent=1)))


if __name__ == "__main__":
    main()
