"""Numbers with a meaning in a rules file: shares, milliseconds, ages, sizes, counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from autoinst.config import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

# Shares of the jobs that end well and of the ignored ones, and the ns from which on all are kept.
Keep = tuple[float, float, "int | None"]

NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}")
AGE = re.compile(rf"({NUMBER.pattern}) ?([hdw]?)")
DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0, "": 1.0}
SPAN = re.compile(rf"({NUMBER.pattern}) ?([smhd]?)")
SPAN_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}
URL = re.compile(r"https?://[^\s/?#]+[^\s?#]*", re.IGNORECASE)
WEBHOOK = re.compile(r"https?://[^\s/?#]+[^\s#]*", re.IGNORECASE)
LISTEN = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})|unix:/.+")
MAX_PORT = 65_535
MAX_SECONDS = 3600
MAX_SPAN = 366 * 86_400
MAX_MS = 10**11  # about three years


def number(text: str, what: str) -> float:
    """Return a plain decimal number from 0 on; raises ValueError that says `what` it should be."""
    if not NUMBER.fullmatch(text):
        raise ValueError(what)
    return float(text)


def share(text: str) -> float:
    """Return a share from 0 to 1: `0.05` or `1/20`. Raises ValueError."""
    what = "must be a share from 0 to 1, such as 0.05 or 1/20"
    upper, slash, lower = (part.strip() for part in text.partition("/"))
    found = number(upper, what)
    if slash:
        divisor = number(lower, what)
        found = found / divisor if divisor else 2.0
    if found > 1:
        raise ValueError(what)
    return found


def milliseconds(text: str) -> int:
    """Return milliseconds as ns. Raises ValueError."""
    what = "must be a number of milliseconds"
    found = number(text, what)
    if found > MAX_MS:
        raise ValueError(what)
    return int(found * 1e6)


def age(text: str) -> float:
    """Return an age in days: `30`, `30d`, `36h` or `8w`. Raises ValueError."""
    found = AGE.fullmatch(text)
    if found is None:
        raise ValueError("must be a number of days, or such as 36h, 30d or 8w")
    return float(found[1]) * DAYS[found[3]]


def size(text: str) -> int:
    """Return a size in bytes. Raises ValueError."""
    found = parse_size(text)
    if found is None:
        raise ValueError("must be a size such as 500M or 2G")
    return found


def count(text: str) -> int:
    """Return a whole number. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,6}", text):
        raise ValueError("must be a whole number from 0 on")
    return int(text)


def number_of(text: str) -> int:
    """Return a whole number above 0. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,12}", text) or not int(text):
        raise ValueError("must be a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """Return a time in seconds. Raises ValueError."""
    what = "must be a number of seconds above 0"
    found = number(text, what)
    if not 0 < found <= MAX_SECONDS:
        raise ValueError(what)
    return found


def span(text: str) -> float:
    """Return a time in seconds: `90`, `90s`, `5m`, `2h` or `1d`. Raises ValueError."""
    found = SPAN.fullmatch(text)
    told = float(found[1]) * SPAN_SECONDS[found[3]] if found else 0.0
    if not 0 < told <= MAX_SPAN:
        raise ValueError("must be a time such as 90s, 5m, 2h or 1d")
    return told


def url(text: str) -> str:
    """Return an address with its scheme, no slash at its end. Raises ValueError."""
    found = URL.fullmatch(text)
    if found is None:
        missing = "" if "://" in text else f": write http://{text}"
        raise ValueError(f"must be an address that begins with http:// or https://{missing}")
    return text.rstrip("/")


def webhook(text: str) -> str:
    """Return an address with its scheme, which may have a query. Raises ValueError."""
    if not WEBHOOK.fullmatch(text):
        raise ValueError("must be an address that begins with http:// or https://")
    return text


def listen(text: str) -> str:
    """Return an address to listen at, `host:port` or `unix:/path`. Raises ValueError."""
    found = LISTEN.fullmatch(text)
    if found is None or int(found["port"] or 1) > MAX_PORT:
        raise ValueError("must be an address such as 127.0.0.1:9464, [::1]:9464 or unix:/run/autoinst.sock")
    return text


READ: dict[str, Callable[[str], Any]] = {
    "share": share,
    "milliseconds": milliseconds,
    "age": age,
    "size": size,
    "count": count,
    "number_of": number_of,
    "seconds": seconds,
    "span": span,
    "url": url,
    "listen": listen,
    "webhook": webhook,
}


def in_force(keep: Keep | None) -> Keep | None:
    """Return `keep`, None where it leaves no job out."""
    return None if keep is None or (keep[0] >= 1 and keep[1] >= 1) else keep
