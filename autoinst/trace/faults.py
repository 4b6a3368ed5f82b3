"""Counts what went wrong inside autoinst in this process, for `doctor`; nothing of it reaches the program."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

MAX_KINDS = 50
# Modules whose errors our own code can run into; an exception of any other is the program's, wherever it surfaces.
OWN_ERROR_MODULES = ("builtins", "struct", "zlib", "autoinst.errors")

counts: dict[str, int] = {}


def note(what: str) -> None:
    """Count one fault of kind `what`."""
    if what in counts or len(counts) < MAX_KINDS:
        counts[what] = counts.get(what, 0) + 1


def is_ours(exception: BaseException) -> bool:
    """Return whether `exception` is a fault of autoinst's own code rather than the program's, come in by a signal.

    A time limit's exception raised by a signal handler, or set from another thread, may surface inside our code and
    must go on into the program.
    """
    if type(exception).__module__ not in OWN_ERROR_MODULES or not isinstance(exception, Exception):
        return False
    if isinstance(exception, (TimeoutError, Warning)):
        return False  # a time limit's, or a warning that -W made an error: none of ours
    traceback = exception.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return str(traceback.tb_frame.f_globals.get("__name__")).startswith("autoinst.")


def absorbed(error: BaseException, where: str) -> bool:
    """Count `error` under `where` if it is a fault of our own; return whether it is. Any other must be raised on."""
    if not is_ours(error):
        return False
    note(f"{where}: {type(error).__name__}: {error}")
    return True


def fail_open(default: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public method return `default(*arguments)` and count the fault where its own code fails."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                if not absorbed(error, method.__qualname__):
                    raise
                result: R = default(*args)
                return result

        guarded.__doc__, guarded.__name__, guarded.__qualname__ = method.__doc__, method.__name__, method.__qualname__
        guarded.__wrapped__ = method  # type: ignore[attr-defined]  # so that signatures are shown
        return guarded

    return decorate


def nothing(*_arguments: Any) -> None:
    """Be the default of a method that returns nothing."""
