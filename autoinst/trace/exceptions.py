"""An exception as a record keeps it: class, message, backtrace, causes; and which exceptions are ignored."""

from __future__ import annotations

import os
import sys

from autoinst.rules.match import matches as pattern_matches
from autoinst.spool import layout
from autoinst.trace.context import class_module, class_mro, class_qualname, describe
from autoinst.trace.sanitize import MARGIN, plain_number

ModuleType = type(sys)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any

    # class, message, frames (file, line, function, in_app) with the innermost last, causes
    Captured = tuple[str, str, list[tuple[str, int, str, int]], list[Any]]

MAX_CAUSES = 10
MAX_FRAMES_HEAD, MAX_FRAMES_TAIL = 30, 70
MAX_CAUSE_FRAMES = 20
MAX_MESSAGE = 4_000
# How a task or greenlet is ended by its own program; by name, for importing asyncio here would cost it 40 ms.
CANCELLATIONS = frozenset(
    {
        ("asyncio.exceptions", "CancelledError"),
        ("concurrent.futures._base", "CancelledError"),
        ("greenlet", "GreenletExit"),
        ("trio", "Cancelled"),
    }
)
PROBE_VARIABLE = "__autoinst_t"  # a local variable that only autoinst's own frames have
# An exception's own fields, also where its class or a metaclass gives the names another meaning.
traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
_cause: Any = BaseException.__dict__["__cause__"].__get__
_context: Any = BaseException.__dict__["__context__"].__get__
_exit_code: Any = SystemExit.__dict__["code"].__get__
_suppressed: Any = BaseException.__dict__["__suppress_context__"].__get__
STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
OWN_PREFIX = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def capture(exception: BaseException, clean: Callable[[str], str]) -> Captured:
    """Return `exception` as plain data, with up to 10 causes (`__cause__`, `__context__`, members of groups).

    `clean` takes out of messages what must not be recorded.
    """
    causes: list[Any] = []
    seen = {id(exception)}
    queue = _causes_of(exception)
    while queue and len(causes) < MAX_CAUSES:
        cause = queue.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        causes.append(
            (describe(type(cause)), message_of(cause, clean), _frames(traceback_of(cause), 0, MAX_CAUSE_FRAMES), [])
        )
        queue.extend(_causes_of(cause))
    frames = _frames(traceback_of(exception), MAX_FRAMES_HEAD, MAX_FRAMES_TAIL)
    return describe(type(exception)), message_of(exception, clean), frames, causes


def _causes_of(exception: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause, context = _cause(exception), _context(exception)
    if cause is not None:
        found.append(cause)
    elif context is not None and not _suppressed(exception):
        found.append(context)
    if sys.version_info >= (3, 11) and issubclass(type(exception), BaseExceptionGroup):  # noqa: F821  # a builtin there
        found.extend(BaseExceptionGroup.exceptions.__get__(exception)[:MAX_CAUSES])  # noqa: F821
    return found


def message_of(exception: BaseException, clean: Callable[[str], str]) -> str:
    """Return str(exception), cleaned and bounded; what its `__str__` raises becomes part of the text."""
    try:
        text = str(exception)
    except Exception as error:  # a user's __str__ may do anything
        return f"#<{describe(type(exception))}: its __str__ raised {describe(type(error))}>"
    if type(text) is not str:
        text = str.__str__(text)
    left = len(text) - MAX_MESSAGE
    text = clean(text[: MAX_MESSAGE + MARGIN])[:MAX_MESSAGE].encode("utf-8", "backslashreplace").decode("utf-8")
    return text if left <= 0 else f"{text}... {left} more"


def _frames(traceback: TracebackType | None, head: int, tail: int) -> list[tuple[str, int, str, int]]:
    entries: list[tuple[str, int, str, int]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if PROBE_VARIABLE not in code.co_varnames:
            entries.append((code.co_filename, traceback.tb_lineno or 0, code.co_name, in_app(code.co_filename)))
        traceback = traceback.tb_next
    if len(entries) > head + tail:
        left_out = len(entries) - head - tail
        entries[head : head + left_out] = [("", 0, f"... {left_out} frames left out", 0)]
    return entries


def in_app(file: str) -> int:
    """Return 1 for a file of the program itself, 0 for the standard library's and installed packages'."""
    if "/site-packages/" in file or "/dist-packages/" in file or file.startswith("<frozen "):
        return 0
    return int(not file.startswith((STANDARD_LIBRARY, OWN_PREFIX)))


def status_of(exception: BaseException) -> int:
    """Return the record's status for a job that ended with `exception`, ignore lists left aside."""
    if issubclass(type(exception), SystemExit):
        code = _exit_code(exception)
        return layout.OK if code is None or plain_number(code) == 0 else layout.ERROR
    if issubclass(type(exception), GeneratorExit) or _is_cancelled(type(exception)):
        return layout.IGNORED
    return layout.ERROR


def _is_cancelled(kind: type) -> bool:
    return any((class_module(base), class_qualname(base)) in CANCELLATIONS for base in class_mro(kind))


def matches(exception: BaseException, patterns: Iterable[str]) -> bool:
    """Return whether one of `patterns` names the exception's class or a base of it.

    A pattern is a dotted path, a glob of one, or a public re-export such as `requests.RequestException`.
    """
    kinds = [kind for kind in class_mro(type(exception)) if kind is not object]
    names = [describe(kind) for kind in kinds]
    for pattern in patterns:
        path = pattern.removeprefix("builtins.")
        if any(pattern_matches(path, name) for name in names):
            return True
        if "*" not in path:
            found = _reexport(path)
            if any(kind is found for kind in kinds):
                return True
    return False


def _reexport(path: str) -> object:
    module, _, name = path.rpartition(".")
    return module_names(module).get(name)


def module_names(module: str) -> dict[str, object]:
    """Return the names of a loaded module, without asking a stand-in that a program may have put there."""
    found = sys.modules.get(module)
    return ModuleType.__getattribute__(found, "__dict__") if issubclass(type(found), ModuleType) else {}
