"""What a program can ask about callables of C code and callable objects; prints the answers as JSON."""

import copy
import functools
import gc
import inspect
import json
import operator
import pickle
import pydoc
import sqlite3
import sys
import time
import types
import warnings
import weakref
from decimal import Decimal

import things

CONNECTION = sqlite3.connect(":memory:")
CURSOR = CONNECTION.cursor()
KINDS = {
    "function": time.sleep,
    "method": sqlite3.Cursor.execute,
    "bound method": CURSOR.execute,
    "class method": Decimal.from_float,
    "partial": things.job,
    "object": things.worker,
}
CALLS = {
    "function": lambda: time.sleep(0),
    "method": lambda: sqlite3.Cursor.execute(CURSOR, "select 1"),
    "bound method": lambda: CURSOR.execute("select 1"),
    "class method": lambda: Decimal.from_float(1.0),
    "partial": things.by_partial,
    "object": things.by_worker,
}


def ask(question):
    try:
        return question()
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition(" at 0x")[0]


def names_of(value):
    return sorted(name for name in dir(value) if not name.startswith("_self_"))


def about(kind, value):
    yield "type", type(value).__name__
    yield "__class__", value.__class__.__name__
    for name in ("isbuiltin", "isroutine", "isfunction", "ismethod", "ismethoddescriptor", "isdatadescriptor"):
        yield name, getattr(inspect, name)(value)
    for name in ("iscoroutinefunction", "isgeneratorfunction", "isclass"):
        yield name, getattr(inspect, name)(value)
    for name in ("BuiltinFunctionType", "MethodDescriptorType", "FunctionType"):
        yield f"isinstance {name}", isinstance(value, getattr(types, name))
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__text_signature__", "args"):
        yield name, ask(lambda name=name: repr(getattr(value, name)))
    for name in ("__self__", "__objclass__"):
        yield name, ask(lambda name=name: str(type(getattr(value, name))))
    yield "__wrapped__", hasattr(value, "__wrapped__")
    yield "dir", names_of(value)
    yield "repr", repr(value).partition(" at 0x")[0]
    yield "str", str(value).partition(" at 0x")[0]
    yield "signature", ask(lambda: str(inspect.signature(value)))
    yield "unwrap", inspect.unwrap(value) is value
    yield "getdoc", inspect.getdoc(value)
    yield "getsource", ask(lambda: inspect.getsource(value))[:20]
    yield "help", ask(lambda: pydoc.render_doc(value)).partition(" at 0x")[0]
    yield "callable", callable(value)
    yield "true", bool(value)
    yield "equal to itself", value == value
    yield "hash", hash(value) == hash(value)
    yield "in a set", value in {value}
    yield "weak reference", ask(lambda: weakref.ref(value)() is value)
    yield "pickle", ask(lambda: pickle.loads(pickle.dumps(value)) is value).__class__.__name__
    yield "copy", ask(lambda: copy.copy(value) is value) is True
    yield "deepcopy", ask(lambda: copy.deepcopy(value) is value) is True
    yield "new attribute", ask(lambda: setattr(value, "autoinst_test", 1))
    yield "partial of it", ask(lambda: functools.partial(value).func is value)
    yield "tracked", gc.is_tracked(value)
    yield "is a descriptor", hasattr(value, "__get__")
    if kind != "method":
        holder = type("Holder", (), {"attribute": value})
        with warnings.catch_warnings(record=True) as seen:  # 3.13 has one of partials
            warnings.simplefilter("always")
            yield "of a class", ask(lambda: holder.attribute == value)
            yield "of an instance", ask(lambda: holder().attribute == value)
        yield "warnings", len(seen)


def hooks(kind, call):
    for install in (sys.settrace, sys.setprofile):
        seen = []

        def note(frame, event, argument, seen=seen):
            if event in ("call", "c_call") and frame.f_code is not call.__code__:
                seen.append((event, frame.f_code.co_name))
            elif event == "c_call":
                seen.append((event, getattr(argument, "__name__", "")))
            return note

        install(note)
        try:
            call()
        finally:
            install(None)
        yield install.__name__, seen


def around():
    yield "class", type(CURSOR) is sqlite3.Cursor
    yield "class dictionary", list(vars(sqlite3.Cursor))
    yield "same object", sqlite3.Cursor.execute is sqlite3.Cursor.execute
    yield "static", type(inspect.getattr_static(sqlite3.Cursor, "execute")).__name__
    yield "classify", [
        (a.name, a.kind) for a in inspect.classify_class_attrs(sqlite3.Cursor) if a.name in ("execute", "fetchone")
    ]
    yield "getmembers", [name for name, _ in inspect.getmembers(sqlite3.Cursor, inspect.ismethoddescriptor)]
    yield "routines", [name for name, _ in inspect.getmembers(sqlite3.Cursor, inspect.isroutine)]
    yield "methodcaller", operator.methodcaller("execute", "select 1")(CURSOR) is CURSOR
    yield "abstract", inspect.isabstract(sqlite3.Cursor)
    yield "overridden", "execute" in vars(type("Sub", (sqlite3.Cursor,), {}))
    depths = []
    CONNECTION.create_function("depth", 0, lambda: depths.append(stack()))
    sqlite3.Cursor.execute(CURSOR, "select depth()").fetchall()
    yield "stack in a callback", depths
    yield "traceback", ask(lambda: files(lambda: CURSOR.execute("nonsense")))
    yield "wrong arguments", ask(lambda: CURSOR.execute())
    yield "no such argument", ask(lambda: time.sleep(x=1))


def stack():
    found = []
    frame = sys._getframe(1)
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


def files(call):
    try:
        call()
    except Exception as error:
        traceback = error.__traceback__
        found = []
        while traceback is not None:
            found.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        return found


def main():
    answers = dict(around())
    for kind, value in KINDS.items():
        answers |= {f"{kind}: {name}": answer for name, answer in (*about(kind, value), *hooks(kind, CALLS[kind]))}
    print(json.dumps(answers, default=repr))


main()
