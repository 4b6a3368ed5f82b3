"""Times and durations in the many forms job libraries keep them in, made nanoseconds."""

from __future__ import annotations

import sys
import time

from autoinst.rules.safe import Unavailable, name_of, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
# An epoch number without a unit: below the first limit it is no time at all, then s, ms, us, ns (years 1973 to 5138).
MAGNITUDES = ((1e8, ""), (1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns"))
MAX_NS = 2**63 - 1
MAX_TEXT = 64
DATE_LENGTH = len("YYYY-MM-DD")
EPOCH_ORDINAL = 719_163  # datetime.date(1970, 1, 1).toordinal()


def time_ns(value: Any, unit: str | None = None, naive: str | None = None) -> int:
    """Return a point in time as nanoseconds since the epoch; raises Unavailable for what is none.

    Takes a datetime, ISO 8601 text, an epoch number (or its text) in `unit` ('s', 'ms', 'us', 'ns'; None = by its
    magnitude), or a timedelta, which is how long ago it was.
    `naive` says whether a datetime or text without a zone is 'utc' (also
    None) or 'local' time. Times up to 1970 and after 2262 are Unavailable.
    """
    cls = type(value)
    if cls is int or cls is float:
        return _checked(_epoch(value, unit))
    if cls is str or cls is bytes:
        return _checked(_from_text(value, unit, naive))
    module = sys.modules.get("datetime")
    if module is not None:
        if issubclass(cls, module.datetime):
            return _checked(_from_datetime(value, module.datetime, naive))
        if issubclass(cls, module.timedelta):
            return _checked(time.time_ns() - _from_timedelta(value, module.timedelta))
    known = plain(value)
    if known is not value:
        return time_ns(known, unit, naive)
    raise Unavailable(f"a {name_of(value)} is not a time")


def duration_ns(value: Any, unit: str | None = None) -> int:
    """Return a duration, a number of `unit` (None = ms) or a timedelta, as nanoseconds; may be negative."""
    value = plain(value)
    cls = type(value)
    if cls is str or cls is bytes:
        value = _number(value)
        cls = type(value)
    if cls is int or cls is float:
        if not -MAX_NS < value < MAX_NS:  # NaN is neither
            raise Unavailable("the number is no duration")
        found = int(value * UNITS[unit or "ms"])
    else:
        module = sys.modules.get("datetime")
        if module is None or not issubclass(cls, module.timedelta):
            raise Unavailable(f"a {name_of(value)} is not a duration")
        found = _from_timedelta(value, module.timedelta)
    if not -MAX_NS <= found <= MAX_NS:
        raise Unavailable("the duration is too long")
    return found


def milliseconds(value: Any, unit: str | None = None, naive: str | None = None) -> float:
    """Return a time as milliseconds since the epoch, or a timedelta's own milliseconds: `ms()` of the expressions."""
    for text, known in ((unit, UNITS), (naive, ("utc", "local"))):
        if text is not None and (type(text) is not str or text not in known):
            raise Unavailable("ms() takes a value, a unit and 'utc' or 'local'")
    module = sys.modules.get("datetime")
    if module is not None and issubclass(type(value), module.timedelta):
        return _from_timedelta(value, module.timedelta) / 1e6
    return time_ns(value, unit, naive) / 1e6


def _checked(found: int) -> int:
    if not 0 < found <= MAX_NS:
        raise Unavailable("the time is not between 1970 and 2262")
    return found


def _epoch(value: float, unit: str | None) -> int:
    if not 0 < value < MAGNITUDES[-1][0]:  # NaN is neither
        raise Unavailable("the number is no time since the epoch")
    if unit is None:
        unit = next(name for limit, name in MAGNITUDES if value < limit)
        if not unit:
            raise Unavailable("the number is too small for a time since the epoch; say its unit")
    scale = UNITS[unit]
    if type(value) is int:
        return value * scale
    # a float of seconds has about a microsecond of precision: no made-up digits below
    return int(value * (scale // UNITS["us"]) + 0.5) * UNITS["us"] if scale > 1 else int(value)


def _from_datetime(value: Any, datetime: Any, naive: str | None) -> int:
    def part(name: str) -> int:
        return int(getattr(datetime, name).__get__(value))

    days = int(datetime.toordinal(value)) - EPOCH_ORDINAL
    seconds = days * 86_400 + part("hour") * 3_600 + part("minute") * 60 + part("second")
    nanoseconds = seconds * 1_000_000_000 + part("microsecond") * 1_000
    try:
        offset = datetime.utcoffset(value)
        if offset is not None:
            return nanoseconds - _from_timedelta(offset, type(offset))
        if naive == "local":
            micro = part("microsecond")
            return int(datetime.timestamp(value) - micro / 1e6 + 0.5) * 1_000_000_000 + micro * 1_000
    except Exception as error:  # a tzinfo may be anybody's code
        raise Unavailable(f"the time's zone raised {name_of(error)}") from None
    return nanoseconds


def _from_timedelta(value: Any, timedelta: Any) -> int:
    days, seconds, micro = (getattr(timedelta, name).__get__(value) for name in ("days", "seconds", "microseconds"))
    return int(((days * 86_400 + seconds) * 1_000_000 + micro) * 1_000)


def _number(text: str | bytes) -> float:
    if len(text) > MAX_TEXT:
        raise Unavailable("the text is too long for a number")
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise Unavailable("the text is not a number") from None


def _from_text(text: str | bytes, unit: str | None, naive: str | None) -> int:
    if len(text) > MAX_TEXT:
        raise Unavailable("the text is too long for a time")
    if type(text) is bytes:
        text = text.decode("ascii", "replace")
    plain = str(text).strip()
    try:
        return _from_iso(plain, naive)
    except ValueError:
        pass
    try:
        number = _number(plain)
    except Unavailable:
        raise Unavailable("the text is neither ISO 8601 nor a number") from None
    return _epoch(number, unit)


def _from_iso(text: str, naive: str | None) -> int:
    """Read ISO 8601 with a date in dashes; raises ValueError for anything else."""
    import datetime as dt  # a program that keeps times as texts has it loaded

    if len(text) < DATE_LENGTH or text[4] != "-":
        raise ValueError(text)
    return _from_datetime(dt.datetime.fromisoformat(_plain_iso(text)), dt.datetime, naive)


def _plain_iso(text: str) -> str:
    """Return ISO text as Python 3.10 reads it: no `Z`, an offset with a colon, six digits of a second's fraction."""
    date, clock, zone = text[:DATE_LENGTH], text[DATE_LENGTH + 1 :], ""
    if clock[-1:] in ("Z", "z"):
        clock, zone = clock[:-1], "+00:00"
    for sign in "+-":
        before, found, digits = clock.partition(sign)
        if found:
            digits = digits.replace(":", "").ljust(4, "0")
            clock, zone = before, f"{sign}{digits[:2]}:{digits[2:]}"
    clock, point, fraction = clock.rstrip().replace(",", ".").partition(".")
    if point:
        clock += f".{fraction[:6].ljust(6, '0')}"
    return f"{date}T{clock}{zone}" if clock else date + zone
