"""Times and durations in the many forms job libraries keep them in, made nanoseconds."""

from __future__ import annotations

import sys
import time

from autoinst.rules.safe import Unavailable, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
# An epoch number without a unit: below the first limit it is no time at all, then s, ms, us, ns (years 1973 to 5138).
MAGNITUDES = ((1e8, ""), (1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns"))
MAX_NS = 2**63 - 1
MAX_TEXT = 64
MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
EPOCH_ORDINAL = 719_163  # datetime.date(1970, 1, 1).toordinal()


def time_ns(value: Any, unit: str | None = None, naive: str | None = None) -> int:
    """Return a point in time as nanoseconds since the epoch; raises Unavailable for what is none.

    Takes a datetime, ISO 8601 text, an epoch number (or its text) in `unit` ('s', 'ms', 'us', 'ns'; None = by magnitude),
    or a timedelta, which is how long ago it was. `naive` says whether a datetime or text without a zone is 'utc' (also
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
    raise Unavailable(f"a {name_of(value)} is not a time")


def duration_ns(value: Any, unit: str | None = None) -> int:
    """Return a duration, a number of `unit` (None = ms) or a timedelta, as nanoseconds; may be negative."""
    cls = type(value)
    if cls is str or cls is bytes:
        value = _number(value)
        cls = type(value)
    if cls is int or cls is float:
        if value != value or not -1e18 < value < 1e18:
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
    if value != value or not 0 < value < MAGNITUDES[-1][0]:
        raise Unavailable("the number is no time since the epoch")
    if unit is None:
        unit = next(name for limit, name in MAGNITUDES if value < limit)
        if not unit:
            raise Unavailable("the number is too small for a time since the epoch; say its unit")
    scale = UNITS[unit]
    if type(value) is int:
        return value * scale
    # a float of seconds has about a microsecond of precision: no made-up digits below
    return int(value * (scale // 1_000) + 0.5) * 1_000 if scale >= 1_000 else int(value)


def _from_datetime(value: Any, datetime: Any, naive: str | None) -> int:
    def part(name: str) -> int:
        number: int = getattr(datetime, name).__get__(value)
        return number

    days = datetime.toordinal(value) - EPOCH_ORDINAL
    seconds = days * 86_400 + part("hour") * 3_600 + part("minute") * 60 + part("second")
    nanoseconds = seconds * 1_000_000_000 + part("microsecond") * 1_000
    try:
        offset = datetime.utcoffset(value)
        if offset is not None:
            return nanoseconds - _from_timedelta(offset, type(offset))
        if naive == "local":
            micro = part("microsecond")
            return int(datetime.timestamp(value) - micro / 1e6 + 0.5) * 1_000_000_000 + micro * 1_000
    except Exception as error:  # noqa: BLE001 - a tzinfo may be anybody's code
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
    """Read `YYYY-MM-DD[(T| )hh:mm[:ss[.f]][Z|(+|-)hh[:]mm]]`; raises ValueError for anything else."""
    year, month, day = _digits(text[0:4]), _digits(text[5:7]), _digits(text[8:10])
    if text[4:5] != "-" or text[7:8] != "-" or not 1 <= month <= 12 or not 1 <= day <= MONTHS[month - 1]:
        raise ValueError(text)
    clock, offset = _split_zone(text[11:])
    hour = minute = second = nano = 0
    if len(text) > 10:
        if text[10] not in "Tt " or clock[2:3] != ":":
            raise ValueError(text)
        hour, minute = _digits(clock[0:2]), _digits(clock[3:5])
        if len(clock) > 5:
            if clock[5] != ":":
                raise ValueError(text)
            second = _digits(clock[6:8])
            if len(clock) > 8:
                fraction = clock[9:18]
                if clock[8] not in ".," or not fraction or not clock[9:].isdigit():
                    raise ValueError(text)
                nano = _digits(fraction) * 10 ** (9 - len(fraction))
        if hour > 23 or minute > 59 or second > 60:
            raise ValueError(text)
    if offset is None and naive == "local":
        try:
            return int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1))) * 1_000_000_000 + nano
        except OverflowError:
            raise ValueError(text) from None
    seconds = _days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - (offset or 0)
    return seconds * 1_000_000_000 + nano


def _split_zone(clock: str) -> tuple[str, int | None]:
    """Return the time of day and its offset from UTC in seconds, None without a zone."""
    if clock[-1:] in ("Z", "z"):
        return clock[:-1].rstrip(), 0
    for sign, factor in (("+", 1), ("-", -1)):
        before, found, zone = clock.partition(sign)
        if found:
            digits = zone.replace(":", "")
            if len(digits) not in (2, 4) or not digits.isdigit():
                raise ValueError(clock)
            return before.rstrip(), factor * (_digits(digits[:2]) * 3_600 + (_digits(digits[2:]) if digits[2:] else 0) * 60)
    return clock, None


def _digits(text: str) -> int:
    if not text.isdigit() or not text.isascii():
        raise ValueError(text)
    return int(text)


def _days(year: int, month: int, day: int) -> int:
    # days since the epoch in the proleptic Gregorian calendar, years counted from March
    if month <= 2:
        year, month = year - 1, month + 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
