"""The stretch of time a page is about, in whole steps of its charts."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoinst.store.rollups import MINUTE_NS
from autoinst.wording import LATEST_NS, NS, local, parse_since

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
MAX_STEPS = 180
DEFAULT = "24h"
# Name in the address -> label, span, step.
RANGES: dict[str, tuple[str, int, int]] = {
    "15m": ("15 minutes", 15 * MINUTE_NS, MINUTE_NS),
    "1h": ("Hour", HOUR_NS, MINUTE_NS),
    "6h": ("6 hours", 6 * HOUR_NS, 5 * MINUTE_NS),
    "24h": ("24 hours", DAY_NS, 10 * MINUTE_NS),
    "7d": ("7 days", 7 * DAY_NS, HOUR_NS),
    "30d": ("30 days", 30 * DAY_NS, 4 * HOUR_NS),
}
_STEPS = [m * MINUTE_NS for m in (1, 5, 10, 30, 60, 240, 720, 1440, 10080, 43200, 525600, 52560000)]


@dataclass(frozen=True)
class Window:
    """A stretch of time from `since_ns` up to `until_ns`, in steps of `step_ns`; `name` is "" for one of dates."""

    name: str
    since_ns: int
    until_ns: int
    step_ns: int

    @property
    def label(self) -> str:
        """What a person calls it."""
        if self.name:
            label = RANGES[self.name][0]
            return f"last {label.lower()}"
        return f"{local(self.since_ns):%Y-%m-%d %H:%M} to {local(self.until_ns):%Y-%m-%d %H:%M}"

    @property
    def span_ns(self) -> int:
        """How long it is."""
        return self.until_ns - self.since_ns

    @property
    def minutes(self) -> float:
        """How long it is, in minutes."""
        return self.span_ns / MINUTE_NS

    def before(self) -> Window:
        """Return the stretch of the same length right before this one."""
        return Window("", max(self.since_ns - self.span_ns, 0), self.since_ns, self.step_ns)

    def steps(self) -> range:
        """Return the starts of the steps; MAX_STEPS at most."""
        return range(self.since_ns, self.until_ns, self.step_ns)

    def labels(self) -> list[str]:
        """Return what stands below a chart: its begin, middle and end."""
        form = "%H:%M" if self.span_ns <= DAY_NS else "%d %b %H:%M" if self.span_ns <= 7 * DAY_NS else "%d %b %Y"
        return [format(local(at), form) for at in (self.since_ns, (self.since_ns + self.until_ns) // 2, self.until_ns)]

    def inputs(self) -> tuple[str, str]:
        """Return both ends as `<input type="datetime-local">` has them."""
        return f"{local(self.since_ns):%Y-%m-%dT%H:%M}", f"{local(self.until_ns):%Y-%m-%dT%H:%M}"

    def iso(self) -> dict[str, str]:
        """Return both ends as RFC 3339 in UTC."""
        return {"since": _iso(self.since_ns), "until": _iso(self.until_ns)}


def of(query: Mapping[str, str], now_ns: int, first_ns: int | None) -> Window:
    """Return what `range`, or `from` and `to`, of an address ask for; whatever they say is brought into bounds.

    `first_ns` is when the first job known started: nothing before it is asked for.
    """
    if query.get("from") or query.get("to"):
        end = now_ns + MINUTE_NS
        since = _moment(query.get("from"), now_ns, 0)
        until = _moment(query.get("to"), now_ns, end)
        since = min(max(since, first_ns if first_ns is not None else now_ns - DAY_NS, 0), now_ns)
        until = min(until, end)
        if until <= since:
            until = since + MINUTE_NS
        step = next((step for step in _STEPS if (until - since) / step <= MAX_STEPS - 1), _STEPS[-1])
        return Window("", since // step * step, -(-until // step) * step, step)
    name = query.get("range", "")
    return _last(name, now_ns) if name in RANGES else default(now_ns, first_ns)


def default(now_ns: int, first_ns: int | None) -> Window:
    """Return the window of who asks for none: a day, or less where nothing older was recorded."""
    shorter = (_last(name, now_ns) for name in ("1h", "6h"))
    known = (window for window in shorter if first_ns is not None and window.since_ns <= first_ns)
    return next(known, _last(DEFAULT, now_ns))


def _last(name: str, now_ns: int) -> Window:
    """Return the window of a range up to now, which ends with the step that has begun."""
    _, span, step = RANGES[name]
    until = (now_ns // step + 1) * step
    return Window(name, max(until - span, 0), until, step)


def _moment(text: str | None, now_ns: int, default: int) -> int:
    if not text:
        return default
    try:
        return min(max(parse_since(text[:64], now_ns), 0), LATEST_NS)
    except ValueError:
        return default


def _iso(ns: int) -> str:
    try:
        return dt.datetime.fromtimestamp(ns / NS, dt.timezone.utc).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return ""
