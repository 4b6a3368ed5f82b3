"""Text for people on a terminal: aligned tables, colour only where there is one."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from autoinst.wording import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
}
# Status -> glyph, its plain form where the terminal's encoding has none, style.
STATUS_MARKS = {
    "ok": ("✓", "+", "green"),
    "error": ("✗", "x", "red"),
    "ignored": ("○", "o", "dim"),
    "killed": ("☠", "!", "magenta"),
    "running": ("▶", ">", "cyan"),
}
GAP = "  "
LEAST, READABLE = 10, 24  # columns of the screen that a flexible column keeps, and keeps while there are spare ones
COMBINED = 200  # letters without a width of their own that a cut text may have


class Output:
    """Where a command writes: `stream` for data; styled only on a terminal, and not if NO_COLOR is set."""

    def __init__(self, stream: TextIO | None = None, *, color: bool | None = None) -> None:
        """Write to `stream` (default standard output); `color` None means: as the terminal and NO_COLOR say."""
        self.stream = stream or sys.stdout
        terminal = self.stream.isatty()
        self.color = is_steerable(self.stream) and not os.environ.get("NO_COLOR") if color is None else color
        # A terminal may not know its size; 3.10 then says 0.
        self.width = (shutil.get_terminal_size((100, 24)).columns or 100) if terminal else None
        self.unicode = _encodes(self.stream, "✓█▏…")

    def line(self, text: str = "") -> None:
        """Write one line for people: recorded text in it can neither break the line nor steer the terminal."""
        self._write(printable(text))

    def data(self, value: Any) -> None:
        """Write `value` as one line of JSON."""
        self._write(to_json(value))

    def _write(self, text: str) -> None:
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    def style(self, text: str, *names: str) -> str:
        """Return `text` in these STYLES (as `line` understands them), unchanged where there is no colour."""
        if not self.color or not names:
            return text
        return f"{_OPEN}{';'.join(STYLES[name] for name in names)}{_OPENED}{text}{_CLOSE}"

    def status(self, status: str) -> str:
        """Return a status with its glyph and colour."""
        glyph, plain, style = STATUS_MARKS.get(status, ("?", "?", "dim"))
        return self.style(f"{glyph if self.unicode else plain} {status}", style)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str | None]]) -> None:
        """Write rows below their headings; columns without any value are left out, None is shown as nothing.

        On a terminal a table that is too wide loses text of its `flexible` columns, and before that its `spare` ones.
        """
        kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
        wide = {
            index: max(display_width(text or "") for text in (columns[index].title, *(row[index] for row in rows)))
            for index in kept
        }
        if self.width is not None:
            leave_out(kept, columns, wide, self.width)
        cells = [[row[index] or "" for index in kept] for row in rows]
        heads = [columns[index] for index in kept]
        widths = [wide[index] for index in kept]
        if self.width is not None:
            shrink(widths, [head.flexible for head in heads], self.width)
        self.line(self._row([self.style(head.title, "dim") for head in heads], heads, widths))
        for row in cells:
            self.line(self._row(row, heads, widths))

    def _row(self, cells: Sequence[str], heads: Sequence[Column], widths: Sequence[int]) -> str:
        parts = []
        for cell, head, width in zip(cells, heads, widths, strict=True):
            text = self.cut(cell, width)
            space = " " * (width - display_width(text))
            parts.append(space + text if head.right else text + space)
        return GAP.join(parts).rstrip()

    def cut(self, text: str, width: int) -> str:
        """Return `text` in at most `width` columns; what is cut is marked."""
        if display_width(text) <= width:
            return text
        mark = "…" if self.unicode else "~"
        style = _STYLE.match(text)
        plain = _STYLE.sub("", text)
        plain = plain[: 2 * width + COMBINED]
        while plain and display_width(plain) > width - 1:
            plain = plain[:-1]
        return f"{style.group()}{plain}{mark}{_CLOSE}" if style else plain + mark


@dataclass(frozen=True)
class Column:
    """A table's column; where the terminal is narrow `spare` ones are left out, and `flexible` ones may be cut.

    One that is both is left out only where it could not even be cut.
    """

    title: str
    right: bool = False
    flexible: bool = False
    spare: bool = False


def leave_out(kept: list[int], columns: Sequence[Column], widths: dict[int, int], available: int) -> None:
    """Take spare columns out of `kept`, the last first, until the rest can be made to fit `available` (in place)."""
    for is_flexible, enough in ((False, READABLE), (True, LEAST)):
        spare = [index for index in kept if columns[index].spare and columns[index].flexible is is_flexible]
        while spare:
            least = [min(widths[index], enough) if columns[index].flexible else widths[index] for index in kept]
            if sum(least) + len(GAP) * (len(kept) - 1) <= available:
                break
            kept.remove(spare.pop())


def shrink(widths: list[int], flexible: Sequence[bool], available: int, least: int = LEAST) -> None:
    """Take from the widest flexible columns until all fit `available`, leaving each at least `least` (in place)."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - available
    while excess > 0:
        candidates = [index for index, width in enumerate(widths) if flexible[index] and width > least]
        if not candidates:
            return
        widest = max(candidates, key=lambda index: widths[index])
        widths[widest] -= 1
        excess -= 1


# A style within a text, until it is written: noncharacters of Unicode, so that no escape sequence that was recorded can
# pass for one of ours.
_OPEN, _OPENED, _CLOSE = "\ufdd0", "\ufdd1", "\ufdd2"
_STYLE = re.compile(f"{_OPEN}([0-9;]+){_OPENED}|{_CLOSE}")


def display_width(text: str) -> int:
    """Return how many columns `text` takes on a terminal, its styles left out."""
    plain = _STYLE.sub("", text)
    if plain.isascii():
        return len(plain)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in plain)
    return len(plain) + wide - sum(unicodedata.combining(letter) != 0 for letter in plain)


def printable(text: str) -> str:
    """Return `text` with its styles as escape sequences and without any other control character."""
    parts = []
    position = 0
    for style in _STYLE.finditer(text):
        parts += [_plain(text[position : style.start()]), f"\033[{style[1] or 0}m"]
        position = style.end()
    return "".join([*parts, _plain(text[position:])])


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " if letter in "\n\t" else "?" for letter in text)


def is_steerable(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def message(text: str) -> None:
    """Tell a person something on standard error."""
    sys.stderr.write(f"autoinst: {text}\n")


def joined(items: Iterable[str]) -> str:
    """Return items as `a, b and c`."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
