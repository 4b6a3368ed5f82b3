"""What a wrapper runs in place of the callable inside: the probes around it, in one frame.

On Python 3.11 and later that frame is in no traceback. A coroutine or generator of C code is run by one of Python.
"""

from __future__ import annotations

import _thread
import sys
from types import FunctionType

from autoinst.hook.proxies import innermost
from autoinst.hook.trampoline import kind_of, trampoline, trim
from autoinst.trace.exceptions import PROBE_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from autoinst.hook.native import NativeSite
    from autoinst.hook.probe import Probe

    Reader = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]

# `warnings` and `logging` look past frames of a file called so when they look for who has called a function.
FILE = "<frozen importlib._bootstrap>.autoinst"

# What a wrapper uses before it can tell that a probe is running must not be watched itself.
_get_ident = innermost(_thread.get_ident)
_frame_of = innermost(sys._getframe)
_busy: set[int] = set()  # threads that run a probe: what that calls is not the program's


def around(site: NativeSite, code: Any) -> Callable[..., Any]:
    """Return what the wrapper of `site` calls; `code` is the callable's code object, if it has one (Cython)."""
    kind = "function" if code is None else kind_of(code)
    if kind != "function":
        return _around_body(site, _DRIVERS[kind], code)
    return _around_call(site)


class Step:
    """One probe, with how it reads the values of a call."""

    __slots__ = ("enter", "error", "exit", "probe", "read")

    def __init__(self, probe: Probe, read: Reader) -> None:
        """Take what a call needs."""
        self.probe = probe
        self.read = read
        self.enter, self.exit, self.error = probe.enter, probe.exit, probe.error


class Several:
    """Several probes around one callable, the first outermost, as if they were one."""

    __slots__ = ("_steps",)

    def __init__(self, steps: tuple[Step, ...]) -> None:
        """Run `steps`."""
        self._steps = steps

    def read(self, *call: Any) -> list[tuple[Any, ...]]:
        """Return the values of a call for each."""
        return [step.read(*call) for step in self._steps]

    def enter(self, values: list[tuple[Any, ...]]) -> list[Any] | None:
        """Enter each; return their tokens, None if none has opened anything."""
        tokens = [step.enter(of_step) for step, of_step in zip(self._steps, values)]  # noqa: B905 - as many
        return tokens if any(token is not None for token in tokens) else None

    def exit(self, tokens: list[Any] | None, result: Any) -> None:
        """Leave those entered, the innermost first."""
        for step, token in reversed(tuple(zip(self._steps, tokens or ()))):  # noqa: B905 - none where nothing is open
            step.exit(token, result)

    def error(self, tokens: list[Any] | Literal[False] | None, exception: BaseException) -> None:
        """Leave all, also one that an exception from outside kept from being entered wholly (False)."""
        if tokens is not None:
            for step, token in reversed(tuple(zip(self._steps, tokens or [False] * len(self._steps)))):  # noqa: B905 - as many
                step.error(token, exception)


def _around_call(site: NativeSite) -> Callable[..., Any]:
    busy = _busy

    def call(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        thread = _get_ident()
        step: Any = site.step
        if step is None or thread in busy or (_frame_of(1).f_code.co_filename is FILE and _part_of_another()):
            return wrapped(*args, **kwargs)
        __autoinst_t: Any = False
        try:
            busy.add(thread)
            try:
                __autoinst_t = step.enter(step.read(instance, args, kwargs))
            finally:
                busy.discard(thread)
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            trim(error)
            busy.add(thread)
            try:
                step.error(__autoinst_t, error)
            finally:
                busy.discard(thread)
            raise
        if __autoinst_t is not None:
            busy.add(thread)
            try:
                step.exit(__autoinst_t, result)
            finally:
                busy.discard(thread)
        return result

    call.__code__ = call.__code__.replace(co_filename=FILE)
    return call


def _part_of_another() -> bool:
    """Return whether C code inside a recorded call has made this one: `Connection.execute` its cursor's, on 3.10."""
    token = _frame_of(2).f_locals.get(PROBE_VARIABLE)
    return token is not None and token is not False


async def _await(call: Any, instance: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 - the probe reads it
    return await call(*args, **kwargs)


def _iterate(call: Any, instance: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 - the probe reads it
    return (yield from call(*args, **kwargs))


_DRIVERS: dict[str, Any] = {"coroutine": _await, "generator": _iterate}


class _Body:
    """A step as a trampoline has it: the probe's calls, which read the values of the call inside."""

    __slots__ = ("_step", "error", "exit", "resume", "suspend")

    def __init__(self, step: Step) -> None:
        """Hand everything on to the step's probe."""
        probe = step.probe
        self._step = step
        self.exit, self.error, self.suspend, self.resume = probe.exit, probe.error, probe.suspend, probe.resume

    def enter(self, values: tuple[Any, ...]) -> Any:
        """Enter the probe with the values of a call's instance and arguments."""
        return self._step.enter(self._step.read(*values))


def _around_body(site: NativeSite, driver: Any, original: Any) -> Callable[..., Any]:
    """Return what makes a coroutine or generator that has the probes around its body."""
    made: tuple[Any, Any] = ((), driver)

    def renew(steps: Any) -> Any:
        code = driver.__code__.replace(co_name=original.co_name)
        for step in reversed(steps):
            code = trampoline(code, _Body(step), ("instance", "args", "kwargs"))  # type: ignore[arg-type]
        function = FunctionType(code, driver.__globals__, original.co_name)
        function.__qualname__ = site.qualname
        return function

    def call(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal made
        steps = site.steps
        if made[0] is not steps:
            made = (steps, renew(steps))
        return made[1](wrapped, instance, args, kwargs)

    return call
