"""Times, sizes and values in words, the same on the command line and on the web page."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import Any

NS = 1_000_000_000
EPOCH_YEAR = 1970
LATEST_NS = 2**63 - 1  # what the store can hold
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


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


def csv_cell(value: Any, encoding: str = "utf-8") -> Any:
    """Return a value as a cell of CSV: nothing for null, JSON for what is no text or number."""
    if value is None or isinstance(value, (int, float)):
        return value
    # Text that no encoding has, from a program's bytes, must not end the export.
    text = value if isinstance(value, str) else to_json(value)
    return text.encode(encoding, "backslashreplace").decode(encoding)
