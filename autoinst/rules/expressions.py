"""The worker's half of expressions: runs the source that `translate` made, on the values of one call.

The source is a Python expression of calls to the helpers in `HELPERS` and of parameters written `$name$`, so it can do
nothing the helpers do not do. It is compiled when a function is instrumented, not when rules are read.
"""

from __future__ import annotations

import os
import time

from autoinst.rules import operations, safe, times
from autoinst.rules.safe import Unavailable
from autoinst.rules.times import duration_ns, time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from autoinst.rules.model import Field

__all__ = ["Unavailable", "compile_field", "duration_ns", "time_ns"]

# What may go wrong where a helper did not foresee it; never an exception a signal handler raised for the program.
FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError)
KNOWN_MAX = 1_000


def _missing(name: str) -> Any:
    raise Unavailable(f"the function has no parameter {name!r}")


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        raise Unavailable("a variable of the enclosing function is not set yet") from None


def _failed(error: BaseException) -> Unavailable:
    return Unavailable(f"raised {type(error).__name__}")


def _now() -> float:
    return time.time() * 1_000.0


def _env() -> dict[str, str]:
    return dict(os.environ)


HELPERS: dict[str, Any] = {
    "_attr": safe.attribute,
    "_item": safe.item,
    "_get": operations.get,
    "_uattr": safe.unsafe_attribute,
    "_uitem": safe.unsafe_item,
    "_uget": operations.unsafe_get,
    "_call": operations.call,
    "_op": operations.arithmetic,
    "_sign": operations.sign,
    "_cmp": operations.compare,
    "_is": operations.identical,
    "_truth": safe.truth,
    "_first": operations.first,
    "_join": operations.join,
    "_len": operations.length,
    "_extreme": operations.extreme,
    "_str": operations.text,
    "_number": operations.number,
    "_dotted": safe.dotted,
    "_method_of": safe.method_of,
    "_without_first": safe.without_first,
    "_type": type,
    "_slice": slice,
    "_ms": times.milliseconds,
    "_now": _now,
    "_env": _env,
    "_missing": _missing,
    "_cell": _cell,
    "_FAILURES": FAILURES,
    "_failed": _failed,
    "__builtins__": {},
}

_known: dict[tuple[str, tuple[str, ...], frozenset[str]], Callable[..., Any]] = {}
NO_NAMES: frozenset[str] = frozenset()


def compile_field(field: Field, names: tuple[str, ...], free: frozenset[str] = NO_NAMES) -> Callable[..., Any]:
    """Return a function of the values of `names`, in that order, that gives the field's value.

    Those in `free` are variables of the functions around the call's, whose value is in a cell.

    It raises Unavailable, and nothing else of its own, for what cannot be read; a name of the field that is not among
    `names` is such a case. Exceptions that are raised in it from outside (time limits, KeyboardInterrupt) pass.
    """
    if field.source is None:
        literal = field.literal
        return lambda *_values: literal
    key = (field.source, names, free)
    found = _known.get(key)
    if found is None:
        if len(_known) >= KNOWN_MAX:
            _known.clear()
        found = _known[key] = _compile(field.source, names, free)
    return found


def _compile(source: str, names: tuple[str, ...], free: frozenset[str]) -> Callable[..., Any]:
    pieces = source.split("$")
    for at in range(1, len(pieces), 2):
        name = pieces[at]
        pieces[at] = f"v_{name}" if name in names else f"_missing({name!r})"
        if name in free:
            pieces[at] = f"_cell(v_{name})"
    # a parameter of the function may be called `result`: of two values of a name the first counts
    parameters = ", ".join([f"v_{name}" if names.index(name) == at else f"w_{at}" for at, name in enumerate(names)])
    text = (
        f"def read({parameters}):\n try:\n  return {''.join(pieces)}\n"
        " except _FAILURES as error:\n  failure = error\n raise _failed(failure)"
    )
    made: dict[str, Any] = {}
    exec(compile(text, "<autoinst expression>", "exec"), HELPERS, made)  # noqa: S102 - our own text, see above
    read: Callable[..., Any] = made["read"]
    return read
