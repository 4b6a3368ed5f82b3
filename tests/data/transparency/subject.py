"""The instrumented module: functions and classes of every kind, written as a program would."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import contextvars
import dataclasses
import enum
import functools
import inspect
import logging
import sys
import threading
import types
import typing
import warnings
import weakref

variable = contextvars.ContextVar("variable", default=0)
REGISTRY = {}


def register(name, *, flag=False):
    def decorate(function):
        REGISTRY[name, flag] = function
        return function

    return decorate


@register("plain", flag=True)
def plain(a, b: int = 2, /, c: str = "c", *rest, d, e=(1, 2), **more) -> dict:
    """Document the plain function.

    In two lines.
    """
    # A comment inside.
    return {"a": a, "b": b, "c": c, "rest": rest, "d": d, "e": e, "more": more}


plain.attribute = "kept"
anonymous = lambda x, y=1: (x, y)  # noqa: E731


def none():
    pass


def undocumented(x):
    return x


def annotated(x: int | None, y: "list[str]" = ()) -> typing.Optional[int]:
    return x


def make_counter(start):
    count = start

    def counter(step=1):
        nonlocal count
        count += step
        return count

    return counter


def fail(message="boom", kind=ValueError):
    raise kind(message)


def fail_from():
    try:
        fail("cause", KeyError)
    except KeyError as error:
        raise RuntimeError("effect") from error


def fail_while():
    try:
        fail("first", KeyError)
    except KeyError:
        fail("second", OSError)


def fail_none():
    try:
        fail("hidden", KeyError)
    except KeyError:
        raise OSError("shown") from None


def reraise(error):
    raise error


def deep(n):
    if n:
        return deep(n - 1)
    raise LookupError("bottom")


def finally_leaves():
    while True:
        try:
            raise ValueError("swallowed")
        except ValueError:
            return "left"
        finally:
            REGISTRY["left"] = repr(sys.exc_info()[1])


def exits(code):
    sys.exit(code)


def current_exception():
    return repr(sys.exc_info()[1])


def depth(n=0):
    try:
        return depth(n + 1)
    except RecursionError:
        return n


def endless():
    endless()


def warn_here():
    warnings.warn("here", UserWarning, stacklevel=1)


def warn_caller():
    warnings.warn("caller", UserWarning, stacklevel=2)


def log_here(logger):
    logger.warning("here")


def log_caller(logger):
    logger.warning("caller", stacklevel=2)


def caller_name():
    return sys._getframe(1).f_code.co_name, sys._getframe(1).f_lineno


def own_frame():
    frame = sys._getframe()
    return frame.f_code.co_name, sorted(frame.f_locals), frame.f_lineno


def stack_names():
    return [entry.function for entry in inspect.stack()[:4]]


def stack_size():
    n, frame = 0, sys._getframe()
    while frame is not None:
        n, frame = n + 1, frame.f_back
    return n


def own_locals(a, b=2):
    c = 3
    return sorted(locals().items())


def uses_eval(x):
    return eval("x + 1"), sorted(vars())


def uses_globals():
    return globals() is sys.modules[__name__].__dict__, __name__, __file__.rpartition("/")[2]


def gives_up(thing):
    reference = weakref.ref(thing)
    del thing
    return reference() is None


def keeps(thing):
    return weakref.ref(thing)() is not None


def rebinds(text, items=()):
    text = text.upper()
    for items in items or [0]:
        pass
    return text, items


def mutable_default(value, seen=[]):  # noqa: B006
    seen.append(value)
    return list(seen)


def reference_count(thing):
    return sys.getrefcount(thing)


def count(n):
    """Yield n numbers and return their sum."""
    total = 0
    for i in range(n):
        got = yield i
        total += i + (got or 0)
    return total


def cleans(log):
    try:
        yield 1
        yield 2
    except GeneratorExit:
        log.append("exit")
        raise
    except KeyError as error:
        log.append(repr(error))
        yield "caught"
    finally:
        log.append("finally")


def returns_on_close():
    try:
        yield 1
    except GeneratorExit:
        return "closed"


def refuses_to_close():
    try:
        yield 1
    except GeneratorExit:
        yield 2


def raises_stop():
    yield 1
    raise StopIteration("inside")


def delegates(*parts):
    results = []
    for part in parts:
        results.append((yield from part))
    return results


def sets_variable(value):
    token = variable.set(value)
    yield variable.get()
    variable.reset(token)
    yield variable.get()


def yields_things():
    yield type("Thing", (), {})()
    yield None


def pulls_itself(box):
    yield next(box[0])


def handles_around_yield():
    try:
        raise KeyError("handled")
    except KeyError:
        yield repr(sys.exc_info()[1])
    yield repr(sys.exc_info()[1])


@types.coroutine
def bare_coroutine(value):
    got = yield value
    return got


@types.coroutine
def delegating_coroutine(awaitable):
    return (yield from awaitable)


async def waits(value, seconds=0):
    """Wait, then return."""
    await asyncio.sleep(seconds)
    return value


async def fails_late(kind=ValueError):
    await asyncio.sleep(0)
    raise kind("late")


async def sets_variable_async(value):
    variable.set(value)
    await asyncio.sleep(0)
    return variable.get()


async def cleans_async(log):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        log.append(("cancelled", error.args))
        raise
    finally:
        log.append("finally")


async def swallows_cancel():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "swallowed"


async def task_name():
    return asyncio.current_task().get_name(), asyncio.current_task().get_coro().__qualname__


async def numbers(n, log=None):
    """Yield n numbers, asynchronously."""
    try:
        for i in range(n):
            await asyncio.sleep(0)
            got = yield i
            if got is not None:
                yield ("got", got)
    except KeyError as error:
        yield repr(error)
    finally:
        await asyncio.sleep(0)
        if log is not None:
            log.append("closed")


async def refuses_aclose():
    try:
        yield 1
    except GeneratorExit:
        yield 2


async def asyncgen_with_stop():
    yield 1
    raise StopAsyncIteration("inside")


@contextlib.contextmanager
def managed(log, swallow=False):
    log.append("enter")
    try:
        yield log
    except ValueError as error:
        log.append(repr(error))
        if not swallow:
            raise
    finally:
        log.append("exit")


@contextlib.asynccontextmanager
async def managed_async(log):
    log.append("enter")
    try:
        yield log
    finally:
        await asyncio.sleep(0)
        log.append("exit")


def wrapping(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return "wrapped", function(*args, **kwargs)

    return wrapper


@wrapping
def wrapped(x: int) -> int:
    """Be wrapped."""
    return x


@functools.lru_cache(maxsize=2)
def cached(x):
    REGISTRY["cached"] = REGISTRY.get("cached", 0) + 1
    return [x]


@functools.singledispatch
def dispatched(x):
    return "object"


@dispatched.register
def _(x: int):
    return "int"


@dispatched.register(list)
def of_list(x):
    return "list"


partially = functools.partial(plain, 1, d=4)


class Meta(type):
    def __new__(mcs, name, bases, namespace, **options):
        kind = super().__new__(mcs, name, bases, namespace)
        kind.options = options
        return kind

    def __init__(cls, name, bases, namespace, **options):
        super().__init__(name, bases, namespace)

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        made.called = cls.__name__
        return made

    def __prepare__(name, bases, **options):
        return {"prepared": name}

    def __contains__(cls, item):
        return item == cls.__name__


class Ordered(type):
    def mro(cls):
        return [*super().mro()]


class OrderedBase(metaclass=Ordered):
    pass


class Described:
    def __set_name__(self, owner, name):
        self.name = (owner.__name__, name)

    def __get__(self, instance, owner=None):
        return self if instance is None else (self.name, type(instance).__name__)


class Base(metaclass=Meta, option=1):
    described = Described()
    children = []

    def __init_subclass__(cls, /, tag=None, **options):
        super().__init_subclass__(**options)
        Base.children.append((cls.__name__, tag))

    def __init__(self, value=0):
        self.value = value

    def method(self, x=1):
        """Add."""
        return self.value + x

    def who(self):
        return __class__.__name__, type(self).__name__

    @classmethod
    def make(cls, value):
        return cls(value)

    @staticmethod
    def static(x):
        return x

    @property
    def half(self):
        """Half of it."""
        return self.value / 2

    @half.setter
    def half(self, new):
        self.value = new * 2

    @functools.cached_property
    def expensive(self):
        REGISTRY["expensive"] = REGISTRY.get("expensive", 0) + 1
        return [self.value]

    async def wait(self):
        await asyncio.sleep(0)
        return self.value

    def __private(self):
        return "private"

    def reach(self, __mangled=3):
        return self.__private(), __mangled

    def __eq__(self, other):
        return isinstance(other, Base) and self.value == other.value

    def __hash__(self):
        return hash(self.value)

    def __repr__(self):
        return f"{type(self).__name__}({self.value})"

    def __getattr__(self, name):
        if name.startswith("dynamic"):
            return name
        raise AttributeError(name)

    def __len__(self):
        return self.value

    def __getitem__(self, i):
        if i >= self.value:
            raise IndexError(i)
        return i

    def __enter__(self):
        return self

    def __exit__(self, *details):
        REGISTRY["exit"] = details[0]
        return details[0] is KeyError

    def __call__(self, *args):
        return args

    def __reduce__(self):
        return Base, (self.value,)

    def __class_getitem__(cls, item):
        return cls.__name__, item


class Child(Base, tag="child", other=2):
    def __init_subclass__(cls, **options):
        raise TypeError("final")

    def method(self, x=1):
        return "child", super().method(x)

    @property
    def half(self):
        return super().half + 1

    @classmethod
    def make(cls, value):
        return super().make(value + 1)


class Deleted:
    log = []

    def __del__(self):
        Deleted.log.append("deleted")


@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: int = 0
    tags: list = dataclasses.field(default_factory=lambda: ["made"])

    def __post_init__(self):
        self.x *= 2

    def norm(self):
        return self.x + self.y


@dataclasses.dataclass(frozen=True, **({"slots": True}))
class Slotted:
    a: int

    def doubled(self):
        return Slotted(self.a * 2), hash(self)


class Slots:
    __slots__ = ("__weakref__", "a")

    def __init__(self, a):
        self.a = a

    def get(self):
        return self.a


class Color(enum.Enum):
    RED = 1
    BLUE = 2

    def _generate_next_value_(name, start, count, last):
        return name

    @property
    def lower(self):
        return self.name.lower()

    def mixed(self):
        return self is Color.RED

    @classmethod
    def _missing_(cls, value):
        return cls.RED if value == "r" else None


class Named(typing.NamedTuple):
    a: int
    b: str = "b"

    def both(self):
        return self.a, self.b


@typing.runtime_checkable
class Quacks(typing.Protocol):
    def quack(self) -> str: ...


class Duck:
    def quack(self) -> str:
        return "quack"


class Abstract(abc.ABC):
    @abc.abstractmethod
    def required(self): ...

    @property
    @abc.abstractmethod
    def also(self): ...


class Generic(typing.Generic[typing.TypeVar("T")]):
    def get(self, x):
        return x


class Worker(threading.Thread):
    result = None

    def run(self):
        self.result = threading.current_thread() is self, variable.get()


class Formatter(logging.Formatter):
    def format(self, record):
        return f"{record.funcName}:{record.getMessage()}"


class Iterates:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return self

    def __next__(self):
        if not self.n:
            raise StopIteration
        self.n -= 1
        return self.n


class Awaits:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "awaited"


def square(x):
    return x * x


def square_or_fail(x):
    if x < 0:
        raise ArithmeticError(x)
    return x * x
