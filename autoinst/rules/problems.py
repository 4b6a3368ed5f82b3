"""What is wrong in a rules file, and where: one line for a log, or source line, caret and hint for a person."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SOURCE = 160
MAX_QUOTED = 60
CLOSE = 0.75  # of difflib's ratio: among hundreds of installed modules some are always as like as its usual 0.6


@dataclass(frozen=True)
class Problem:
    """One thing wrong: `line` and `column` count from 1, 0 where the whole file is meant; `source` is its text."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None
    source: str = ""
    severity: str = "error"

    @property
    def one_line(self) -> str:
        """`file:line:col: message (hint)`, the file without its folder, unless the file itself is what is wrong."""
        place = f"{os.path.basename(self.file)}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def render(self) -> str:
        """Return the problem for a person: place and message, the source line, a caret below it with the hint."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        lines = [f"{place}: {self.severity}: {self.message}"]
        if self.line:
            start = max(0, self.column - MAX_SOURCE + 20)
            number = f"{self.line:5} | "
            lines.append(number + printable(self.source[start : start + MAX_SOURCE]))
            caret = " " * (self.column - 1 - start) + "^"
            lines.append(" " * (len(number) - 2) + "| " + caret + (f" {self.hint}" if self.hint else ""))
        elif self.hint:
            lines.append(f"      {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the problem as plain data for `--json`."""
        return {
            "file": self.file,
            "line": self.line or None,
            "column": self.column or None,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
            "source": self.source or None,
        }


def printable(text: str) -> str:
    """Return `text` with tabs as single blanks and without control characters, so that a caret stands right below."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def quote(text: str) -> str:
    """Return a short quoted form of a text from a file, on one line."""
    short = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
    return f"'{printable(short)}'"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return a "did you mean" hint with the closest of `known`, None where none is as like as `cutoff` (of 1)."""
    names = sorted(set(known))
    if len(word) > MAX_SOURCE:
        return None
    for text in (word, word.lower()):
        found = difflib.get_close_matches(text, names, 1, cutoff)
        if found:
            return f"did you mean '{found[0]}'?"
    return None
