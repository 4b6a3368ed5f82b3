"""Text for people: aligned tables, colour only on a terminal, times both relative and exact."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import shutil
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

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
NS = 1_000_000_000
EPOCH_YEAR = 1970
LATEST_NS = 2**63 - 1  # what the store can hold
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Output:
    """Where a command writes: `stream` for data; styled only on a terminal, and not if NO_COLOR is set."""

    def __init__(self, stream: TextIO | None = None, *, color: bool | None = None) -> None:
        """Write to `stream` (default standard output); `color` None means: as the terminal and NO_COLOR say."""
        self.stream = stream or sys.stdout
        terminal = self.stream.isatty()
        self.color = terminal and "NO_COLOR" not in os.environ if color is None else color
        self.width = shutil.get_terminal_size((100, 24)).columns if terminal else None
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

        On a terminal a table that is too wide loses text of its `flexible` columns.
        """
        kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
        cells = [[row[index] or "" for index in kept] for row in rows]
        heads = [columns[index] for index in kept]
        widths = [
            max(display_width(head.title), *(display_width(row[index]) for row in cells))
            for index, head in enumerate(heads)
        ]
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
        while plain and display_width(plain) > width - 1:
            plain = plain[:-1]
        return f"{style.group()}{plain}{mark}{_CLOSE}" if style else plain + mark


@dataclass(frozen=True)
class Column:
    """A table's column; `flexible` ones may be cut where the terminal is narrow."""

    title: str
    right: bool = False
    flexible: bool = False


def shrink(widths: list[int], flexible: Sequence[bool], available: int, least: int = 12) -> None:
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


def to_json(value: Any) -> str:
    """Return `value` as JSON on one line; what JSON has no form for becomes text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_json_value(value), ensure_ascii=False, allow_nan=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if value is None or isinstance(value, (str, int, float)) else repr(value)


def duration(ms: float | None) -> str | None:
    """Return milliseconds for people: `0.35 ms`, `12.4 ms`, `3.21 s`, `4m 05s`, `2h 10m`; None stays None."""
    if ms is None:
        return None
    if ms < 10:
        return f"{ms:.2f} ms"
    if ms < 1000:
        return f"{ms:.1f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def bytes_text(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def ago(then_ns: int, now_ns: int) -> str:
    """Return how long ago `then_ns` was (ns since the epoch): `now`, `12s ago`, `3m ago`, `in 5s`."""
    seconds = (now_ns - then_ns) / NS
    for unit, size in _UNITS:
        if abs(seconds) >= size:
            count = int(abs(seconds) // size)
            return f"{count}{unit} ago" if seconds > 0 else f"in {count}{unit}"
    return "now"


def clock(then_ns: int, now_ns: int) -> str:
    """Return the exact local time: the time alone if it is today's, the date as well if not."""
    then, now = local(then_ns), local(now_ns)
    return then.strftime("%H:%M:%S" if then.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def exact(then_ns: int) -> str:
    """Return date, time to the millisecond and time zone."""
    then = local(then_ns)
    return f"{then:%Y-%m-%d %H:%M:%S}.{then.microsecond // 1000:03d} {then:%Z}"


def local(ns: int) -> dt.datetime:
    """Return the local time of ns since the epoch (the nearest a datetime can hold)."""
    limit = 253_402_000_000
    return dt.datetime.fromtimestamp(min(max(ns / NS, -limit // 4), limit), dt.timezone.utc).astimezone()


def parse_since(text: str, now_ns: int) -> int:
    """Return the time a `--since` means, in ns since the epoch: `90s`, `15m`, `2h`, `3d`, or an ISO date or time.

    A time without a zone is local. Raises ValueError.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if found:
        seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]
        return max(0, now_ns - int(min(seconds * NS, LATEST_NS)))
    try:
        moment = dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is neither a span such as 15m, 2h or 3d, nor an ISO time") from None
    try:
        return min(max(0, int(moment.timestamp()) * NS), LATEST_NS)
    except (ValueError, OverflowError, OSError):  # the first and the last days a datetime can name
        return 0 if moment.year < EPOCH_YEAR else LATEST_NS


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
