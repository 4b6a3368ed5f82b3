"""Backtraces as they are read: source lines where the file can be read here, frames of libraries folded."""

from __future__ import annotations

import linecache
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.record import ExceptionInfo, Frame

AROUND = 2  # lines before and after
MAX_BYTES = 2_000_000
MAX_CAUSES = 20
SUFFIXES = (".py", ".pyw")


@dataclass
class Shown:
    """A frame with its source lines as (number, text, whether it is the one); `changed`: since the job ran."""

    frame: Frame
    lines: list[tuple[int, str, bool]] = field(default_factory=list)
    changed: bool = False


@dataclass
class Stretch:
    """Neighbouring frames that are all the program's own, or all of libraries."""

    in_app: bool
    frames: list[Shown]


def chain(error: ExceptionInfo, started_ns: int) -> list[tuple[ExceptionInfo, list[Stretch]]]:
    """Return an exception and its causes, each with its frames, the innermost first."""
    found = list(_all(error))[:MAX_CAUSES]
    return [(one, stretches(one, started_ns)) for one in found]


def _all(error: ExceptionInfo) -> Iterator[ExceptionInfo]:
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        yield one
        waiting += one.causes


def stretches(error: ExceptionInfo, started_ns: int) -> list[Stretch]:
    """Return the frames, the innermost first, those of libraries together."""
    out: list[Stretch] = []
    for frame in reversed(error.backtrace):
        shown = Shown(frame)
        if frame.in_app:
            shown.lines, shown.changed = source(frame, started_ns)
        if out and out[-1].in_app == frame.in_app:
            out[-1].frames.append(shown)
        else:
            out.append(Stretch(frame.in_app, [shown]))
    return out


def source(frame: Frame, started_ns: int) -> tuple[list[tuple[int, str, bool]], bool]:
    """Return the lines around a frame's, and whether the file has changed since.

    A record may say anything: only what is a Python file of a sensible size is read.
    """
    path = frame.file
    if not os.path.isabs(path) or not path.endswith(SUFFIXES) or "\0" in path:
        return [], False
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return [], False
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES or not os.access(path, os.R_OK):
        return [], False
    linecache.checkcache(path)
    lines = []
    for number in range(max(frame.line - AROUND, 1), frame.line + AROUND + 1):
        text = linecache.getline(path, number)
        if text:
            lines.append((number, text.rstrip("\r\n"), number == frame.line))
    return lines, found.st_mtime_ns > started_ns > 0
