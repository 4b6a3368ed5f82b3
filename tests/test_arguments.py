"""Positional arguments are filtered by the names of the parameters they are given to."""

from __future__ import annotations

import functools
import gc
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from autoinst.hook.arguments import ALL, KNOWN, secret_of
from autoinst.rules.safe import method_of, without_first
from autoinst.trace.sanitize import FILTERED, Sanitizer
from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

JOBS = """
import functools


def logged(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        return function(*args, **kwargs)

    return run


class Job:
    def perform(self, user, password, note="", *rest, api_key=None):
        pass

    @staticmethod
    def static(cls, token):
        pass

    @classmethod
    def of_class(cls, user, token):
        pass

    @logged
    def decorated(self, user, passwd):
        pass

    def sliced(self, user, password, note):
        pass


def spread(user, *tokens):
    pass


@logged
@logged
def twice(user, iban):
    pass


def given(function, args):
    pass


class Lazy:
    def __init__(self, function, args):
        self._function, self._args = function, args

    @property
    def function(self):
        return self._function

    def run(self):
        if self.function is twice:
            Lazy(spread, [9, 9]).function  # another's is not this job's
        return self.function


async def later(user, password):
    pass
"""
CALLS = """
import asyncio

import jobs

jobs.given(3, [1, "hunter2"])
jobs.Job().perform(1, "hunter2", "n", 4, api_key="hunter2")
jobs.Job().perform(1, password="hunter2")
jobs.Job.static(1, "hunter2")
jobs.Job.of_class(1, "hunter2")
jobs.Job().decorated(1, "hunter2")
jobs.Job().sliced(1, "hunter2", "n")
jobs.spread(1, "hunter2", "hunter2")
jobs.twice(1, "hunter2")
jobs.given(jobs.twice, [1, "hunter2"])
jobs.given(None, [1, "hunter2"])
jobs.Lazy(jobs.twice, [1, "hunter2"]).run()
asyncio.run(jobs.later(1, "hunter2"))
"""
EXPECTED = [
    [FILTERED, FILTERED],
    [1, FILTERED, "n", 4],
    [1, FILTERED, ""],
    [FILTERED],
    [1, FILTERED],
    [1, FILTERED],
    [FILTERED, "n"],
    [1, FILTERED, FILTERED],
    [1, FILTERED],
    [1, FILTERED],
    None,
    [1, FILTERED],
    [1, FILTERED],
]
RULES = """\
version: 1
defaults: {redact: [iban]}
jobs:
  - {class: jobs.Job, methods: [perform, static, of_class, decorated], payload: {args: "${args}", kwargs: "${kwargs}"}}
  - {class: jobs.Job, methods: [sliced], payload: {args: "${args[1:]}"}}
  - {module: jobs, functions: [spread, twice, later], payload: {args: "${args}"}}
  - function: jobs.given
    payload:
      args: {value: "${args}", callable: "${None if function is None else (function if dotted(function) else None)}"}
  - {class: jobs.Lazy, methods: [run]}
enrich:
  - class: jobs.Lazy
    methods: [function]
    payload: {args: {value: "${self._args}", callable: "${result}"}}
"""


def recorded(program: Program, **variables: Any) -> list[Any]:
    program.write("jobs.py", JOBS)
    program.write("worker.py", CALLS)
    result = program.run("worker.py", AUTOINST_PACKS="none", **variables)
    assert (result.status, result.stderr) == (0, "")
    return [record["args"] for record in sorted(result.records, key=lambda record: record["started_at"])]


def test_a_functions_own_parameters_tell(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    assert recorded(program) == EXPECTED
    doctor = program.execute([sys.executable, "-m", "autoinst.cli.main", "doctor"], {"AUTOINST_PACKS": "none"}).stdout
    assert "args.callable unavailable 1 time:" in doctor
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def test_the_same_by_a_trampoline(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", RULES)
    assert recorded(program, AUTOINST_MECHANISM="trampoline") == EXPECTED


class Job:
    def perform(self, user: int, password: str, note: str) -> None: ...

    @classmethod
    def of_class(cls, user: int, password: str) -> None: ...

    @staticmethod
    def static(user: int, password: str) -> None: ...

    def __call__(self, user: int, password: str) -> None: ...


class Made:
    def __init__(self, user: int, password: str) -> None: ...


class New:
    def __new__(cls, user: int, password: str) -> Any:
        return object.__new__(cls)


class Pair(NamedTuple):
    user: int
    password: str


class Meta(type):
    def __call__(cls, user: int, password: str) -> None: ...


class OfMeta(metaclass=Meta): ...


class StaticCall:
    @staticmethod
    def __call__(user: int, password: str) -> None: ...


class CachedCall:
    @functools.lru_cache  # noqa: B019 - never called
    def __call__(self, user: int, password: str) -> None: ...


def plain(user: int, password: str) -> None: ...


def spread(user: int, *tokens: str) -> None: ...


def spread_all(*tokens: str) -> None: ...


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    ("function", "places", "rest"),
    [
        (plain, {1}, None),
        (spread, set(), 1),
        (Job.perform, {2}, None),  # called with its `self`
        (Job().perform, {1}, None),
        (Job.of_class, {1}, None),
        (Job.static, {1}, None),
        (Job.__dict__["static"], {1}, None),
        (Job.__dict__["of_class"], {1}, None),
        (Job(), {1}, None),
        (Made, {1}, None),
        (New, {1}, None),
        (Pair, {1}, None),
        (OfMeta, {1}, None),
        (StaticCall(), {1}, None),
        (CachedCall(), {1}, None),
        (functools.wraps(spread_all)(lambda user, *tokens: None), set(), 0),
        (wrapped(wrapped(plain)), {1}, None),
        (wrapped(Job().perform), {1}, None),
        (functools.partial(plain, 1), {0}, None),
        (functools.partial(Job().perform, 1), {0}, None),
        (functools.partial(spread, 1, "x"), set(), 0),
        (functools.lru_cache(plain), {1}, None),
        (method_of(Job(), "perform"), {1}, None),
        (method_of(Job(), "static"), {1}, None),
        (method_of(Job, "static"), {1}, None),
        (method_of(Job, "of_class"), {1}, None),
        (method_of(Job, "perform"), {2}, None),
        (without_first(plain), {0}, None),
        (without_first(wrapped(plain)), {0}, None),
        (without_first(Job().perform), {0}, None),
        ("shop.jobs.gone", set(), 0),  # a name: the function was not found, so nothing is known
        (7, set(), 0),
    ],
)
def test_which_arguments_of_a_callable_are_secret(function: Any, places: set[int], rest: int | None) -> None:
    found = secret_of(function, Sanitizer())
    assert found is not None
    assert (found.places, found.rest) == (places, rest)
    values = list(range(4))
    expected = [FILTERED if at in places or (rest is not None and at >= rest) else at for at in values]
    assert found.masked(values) == found.masked(tuple(values)) == expected
    assert found.masked({"user": 1}) == {"user": 1}


@pytest.mark.skipif(not hasattr(functools, "Placeholder"), reason="since 3.14")
def test_all_are_secret_of_a_partial_function_with_places_left_open() -> None:
    places = functools.partial(plain, functools.Placeholder, "x")  # type: ignore[attr-defined]
    assert secret_of(places, Sanitizer()) is ALL


@pytest.mark.parametrize("function", [print, len, dict, object(), Job.__init__, [].append, functools.wraps(plain)])
def test_of_what_tells_no_names_nothing_is_known(function: Any) -> None:
    found = secret_of(function, Sanitizer())
    assert found is None or (not callable(function) and found.rest == 0)


def closure(inner: Any) -> Any:
    """Return a function whose code is the same for each `inner`."""

    @functools.wraps(inner)
    def outer(*args: Any) -> Any:
        return inner(*args)

    return outer


def test_functions_of_one_code_may_have_wrapped_different_ones() -> None:
    sanitizer = Sanitizer()
    for _ in range(2):
        found = [secret_of(closure(inner), sanitizer) for inner in (plain, lambda token, a: 0, lambda a: 0)]
        assert [secret and secret.places for secret in found] == [{1}, {0}, None]


def test_another_list_of_names_counts_at_once() -> None:
    def function(a: int, colour: int) -> None:
        pass

    for names, places in ((["colour"], {1}), (["a"], {0}), (["colour"], {1})):
        found = secret_of(function, Sanitizer(names))
        assert found is not None
        assert found.places == places


def test_what_is_known_of_a_function_goes_with_it() -> None:
    sanitizer = Sanitizer()
    gc.collect()
    before = len(KNOWN)
    functions = []
    for number in range(50):
        names: dict[str, Any] = {}
        exec(f"def function(a, token_{number}):\n    return a\n", names)  # a code object of its own
        functions.append(names["function"])
        for given in range(100):
            found = secret_of(functools.partial(functions[-1], *range(given)), sanitizer)
            assert (found.places if found else None) == {0: {1}, 1: {0}}.get(given)
        assert len(KNOWN[id(functions[-1].__code__)].secrets) == 3
    assert len(KNOWN) == before + 50
    functions.clear()
    names.clear()
    gc.collect()
    assert len(KNOWN) == before
