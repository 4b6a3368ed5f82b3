"""Times of a crontab's line, as crontab(5) has them: five fields, or a word such as `@daily`."""

from __future__ import annotations

import datetime as dt
import zoneinfo

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MONTHS = {
    name: number
    for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)  # noqa: SIM905
}
DAYS = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())}  # noqa: SIM905
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 7, DAYS),
)
SUNDAY = 7  # as well as 0
LOOK_BACK_DAYS = 366 * 9  # the 29th of February may be eight years apart
UTC = "UTC"


class Crontab:
    """One line's schedule in one time zone."""

    def __init__(self, text: str, timezone: str = UTC) -> None:
        """Read `text`; raises ValueError that says what is wrong with it, or with the name of the zone."""
        try:
            # A machine may have no zones at all.
            self._zone = dt.timezone.utc if timezone == UTC else zoneinfo.ZoneInfo(timezone)
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError(f"there is no time zone {timezone!r}") from None
        parts = WORDS.get(text.strip().lower(), text).split()
        if len(parts) != len(FIELDS):
            raise ValueError("must be five fields as in a crontab, such as 30 3 * * *")
        sets = [_field(part, *field) for part, field in zip(parts, FIELDS, strict=True)]
        self._minutes, self._hours, self._days, self._months, weekdays = sets
        self._weekdays = {day % SUNDAY for day in weekdays}
        # crontab(5): where both are restricted, either of them will do.
        self._either = not parts[2].startswith("*") and not parts[4].startswith("*")

    def last(self, now_ns: int) -> int | None:
        """Return the last due time up to `now_ns`, ns since the epoch; None where there was none for years."""
        now = now_ns // 10**9
        day = dt.datetime.fromtimestamp(now, self._zone).date()
        for _ in range(LOOK_BACK_DAYS):
            if self._is_day(day):
                for hour in sorted(self._hours, reverse=True):
                    for minute in sorted(self._minutes, reverse=True):
                        # A time that the clock is put forward over comes at the moment it would have been.
                        due = dt.datetime.combine(day, dt.time(hour, minute), self._zone).timestamp()
                        if due <= now:
                            return int(due) * 10**9
            day -= dt.timedelta(days=1)
        return None

    def _is_day(self, day: dt.date) -> bool:
        if day.month not in self._months:
            return False
        of_month, of_week = day.day in self._days, day.isoweekday() % SUNDAY in self._weekdays
        return of_month or of_week if self._either else of_month and of_week


def _field(text: str, what: str, least: int, most: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = _number(first, what, least, most, names)
            high = _number(last, what, least, most, names) if dash else most if slash else low
        size = _number(step, what, 1, most + 1, {}) if slash else 1
        if low > high:
            raise ValueError(f"has the {what} {part!r}, which ends before it begins")
        found.update(range(low, high + 1, size))
    return found


def _number(text: str, what: str, least: int, most: int, names: dict[str, int]) -> int:
    number = names.get(text.lower(), -1)
    if text.isascii() and text.isdigit():
        number = int(text[:9])
    if not least <= number <= most:
        raise ValueError(f"has {text!r} for the {what}, which is from {least} to {most}")
    return number
