"""What a probe that does nothing costs a call: ns over the bare function, CPU time of the thread.

hook.py [ROUNDS]     interleaved, median of pairs; run it with each Python that is to be measured (nothing is imported
                     but autoinst.hook.trampoline)
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import types
from typing import TYPE_CHECKING, Any

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from autoinst.hook.trampoline import trampoline

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 4000


class _EmptyProbe:
    """Does nothing."""

    def enter(self, values: tuple[Any, ...]) -> None: ...
    def exit(self, token: None, result: object) -> None: ...
    def error(self, token: None, exception: BaseException) -> None: ...
    def suspend(self, token: None) -> None: ...
    def resume(self, token: None) -> None: ...
    def first(self, generator: Any) -> Any:
        return generator.__anext__()


def plain(a: int, _b: int) -> int:
    return a


def stars(*args: int, **_kwargs: int) -> tuple[int, ...]:
    return args


async def coroutine(a: int) -> int:
    return a


def generator(_a: int) -> Any:
    yield 1
    yield 2
    yield 3


async def async_generator(_a: int) -> Any:
    yield 1
    yield 2
    yield 3


def finish(started: Any) -> None:
    try:
        started.send(None)
    except StopIteration:
        return


async def exhaust(values: Any) -> None:
    async for _ in values:
        pass


KINDS: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "plain": (plain, lambda f: f(1, 2)),
    "*args, **kwargs": (stars, lambda f: f(1, 2, x=3)),
    "coroutine": (coroutine, lambda f: finish(f(1))),
    "generator of 3": (generator, lambda f: list(f(1))),
    "async generator of 3": (async_generator, lambda f: finish(exhaust(f(1)))),
}


def twin(function: Any) -> Any:
    """Return `function` with an empty probe."""
    return types.FunctionType(trampoline(function.__code__, _EmptyProbe(), ()), globals())  # type: ignore[arg-type]


def timed(call: Callable[[Any], object], function: Any) -> float:
    """Return the ns that one call took, of many."""
    start = time.thread_time_ns()
    for _ in range(CALLS):
        call(function)
    return (time.thread_time_ns() - start) / CALLS


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    print(f"Python {sys.version.split()[0]}")
    for kind, (function, call) in KINDS.items():
        probed = twin(function)
        pairs = [(timed(call, function), timed(call, probed)) for _ in range(rounds + 2)][2:]
        print(f"  {kind:22} {statistics.median(after - before for before, after in pairs):6.0f} ns")


if __name__ == "__main__":
    main()
