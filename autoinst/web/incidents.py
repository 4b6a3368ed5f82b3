"""Errors by fingerprint as rows of a table: how often, and when, in the time a page is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.store.failures import HOUR_NS
from autoinst.store.totals import Step
from autoinst.web import charts
from autoinst.web.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autoinst.store.failures import ErrorGroup
    from autoinst.web.page import Context


def error_rows(ctx: Context, groups: Sequence[ErrorGroup]) -> list[dict[str, Any]]:
    """Return each error with its number in the window of the page, and its small chart."""
    hours = ctx.store.all_error_hours(ctx.window.since_ns) if groups else {}
    small = hourly(charts.coarse(ctx.window))
    rows = []
    for group in groups:
        steps = by_step(hours.get(group.id, {}), small)
        times = [Step(at, count, count) for at, count in steps.items()]
        rows.append({"error": group, "count": sum(steps.values()), "spark": charts.spark(small, times)})
    return rows


def hourly(window: Window) -> Window:
    """Return `window` in steps that are whole hours, which is what errors are counted by."""
    step = -(-window.step_ns // HOUR_NS) * HOUR_NS
    return Window(window.name, window.since_ns // step * step, -(-window.until_ns // step) * step, step)


def by_step(hours: Mapping[int, int], window: Window) -> dict[int, int]:
    """Return numbers by the hour as numbers by the step of `window`."""
    steps: dict[int, int] = {}
    for at, count in hours.items():
        start = at - at % window.step_ns
        steps[start] = steps.get(start, 0) + count
    return steps
