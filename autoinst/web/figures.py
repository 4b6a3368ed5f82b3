"""The few numbers at the head of a page, each with how it was in the time before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoinst.store.figures import failing
from autoinst.wording import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoinst.store.rollups import Cell
    from autoinst.web.window import Window

UNKNOWN = "\N{EN DASH}"
WHOLE = 100
TINY = 0.001
LEAST_CHANGE = 0.02  # relative; less than that is told as no change


@dataclass(frozen=True)
class Figure:
    """A number with its label; `change` says what it was before, `worse` whether that was better (None: neither)."""

    label: str
    value: str
    change: str = ""
    worse: bool | None = None
    href: str = ""
    alarm: bool = False


def figures(window: Window, now: Cell, before: Cell | None) -> list[Figure]:
    """Return number, rate, failures, durations and waits of `now` beside those of `before`, if that is known."""
    was = before if before is not None and before.jobs else None
    minutes = window.minutes
    out = [
        Figure("Jobs", f"{now.jobs:,}"),
        _figure("A minute", now.jobs / minutes, was.jobs / minutes if was else None, rate),
        _figure("Failed", failing(now), failing(was) if was else None, percent, lower_is_better=True),
    ]
    for label, share in (("Median", 0.5), ("95 % within", 0.95)):
        found = was.percentile_ns(share) if was else None
        out.append(_figure(label, now.percentile_ns(share), found, ns_text, lower_is_better=True))
    found = was.queue_percentile_ns(0.95) if was else None
    out.append(_figure("Wait, 95 % within", now.queue_percentile_ns(0.95), found, ns_text, lower_is_better=True))
    return out


def _figure(
    label: str,
    now: float | None,
    before: float | None,
    form: Callable[[float | None], str],
    *,
    lower_is_better: bool = False,
) -> Figure:
    if now is None or before is None:
        return Figure(label, form(now))
    if abs(now - before) <= LEAST_CHANGE * max(abs(before), abs(now)):
        return Figure(label, form(now), "as before")
    arrow = "▲" if now > before else "▼"
    worse = now > before if lower_is_better else None
    return Figure(label, form(now), f"{arrow} from {form(before)}", worse)


def rate(value: float | None) -> str:
    """Return a number of jobs a minute for people."""
    if value is None:
        return UNKNOWN
    if value >= WHOLE:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: float | None) -> str:
    """Return a share (0..1) for people; what is not nothing is never told as 0."""
    if share is None:
        return UNKNOWN
    if 0 < share < TINY:
        return "<0.1 %"
    return f"{share * 100:.1f} %" if share else "0 %"


def ns_text(ns: float | None) -> str:
    """Return a duration for people."""
    return (duration(None if ns is None else ns / 1e6)) or UNKNOWN
