"""The pages about errors by fingerprint, and what a person says of them: open, resolved, ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.store.failures import HOUR_NS, STATES
from autoinst.store.query import JobFilter
from autoinst.store.totals import Step
from autoinst.web import charts, sources
from autoinst.web.page import Page, PageError
from autoinst.web.window import Window

if TYPE_CHECKING:
    from autoinst.store.failures import ErrorGroup
    from autoinst.web.page import Context

LIMIT = 200
SAMPLES = 20
COLUMNS = ("fingerprint", "state", "reopened", "class", "message", "action", "total", "first", "last", "last_job")


def errors(ctx: Context) -> Page:
    """Show the errors of one state, the latest first."""
    state = ctx.get("state") if ctx.get("state") in (*STATES, "all") else "open"
    found = ctx.store.errors(since_ns=ctx.window.since_ns, limit=LIMIT, state=None if state == "all" else state)
    hours = ctx.store.all_error_hours(ctx.window.since_ns)
    small = _hourly(charts.coarse(ctx.window))
    rows = []
    for group in found:
        steps: dict[int, int] = {}
        for at, count in hours.get(group.id, {}).items():
            start = at - at % small.step_ns
            steps[start] = steps.get(start, 0) + count
        times = [Step(at, count, count) for at, count in steps.items()]
        rows.append({"error": group, "count": sum(steps.values()), "spark": charts.spark(small, times)})
    listed = [group.to_json() for group in found]
    return Page(
        "errors.html",
        "Errors",
        {
            "errors": rows,
            "state": state,
            "states": ctx.store.error_states(ctx.window.since_ns),
            "failures": sum(row["count"] for row in rows),
            "anything": bool(ctx.store.last()),
        },
        {"window": ctx.window.iso(), "state": state, "errors": listed},
        COLUMNS,
        [tuple(row.values()) for row in listed],
        nav="errors",
    )


def _hourly(window: Window) -> Window:
    """Return `window` in steps that are whole hours, which is what errors are counted by."""
    step = -(-window.step_ns // HOUR_NS) * HOUR_NS
    return Window(window.name, window.since_ns // step * step, -(-window.until_ns // step) * step, step)


def error(ctx: Context, fingerprint: str) -> Page:
    """Show one error: when it happened, where it was raised, and its latest jobs."""
    group = find(ctx, fingerprint)
    window = _hourly(ctx.window)
    hours = ctx.store.error_hours(group.id, window.since_ns)
    counts: dict[int, int] = {}
    for at, count in hours.items():
        start = at - at % window.step_ns
        counts[start] = counts.get(start, 0) + count
    samples = list(ctx.store.jobs(JobFilter(limit=SAMPLES, error=group.id)))
    newest = samples[0] if samples else None
    exception = newest.exception if newest is not None else None
    by_action: dict[str, int] = {}
    by_revision: dict[str, int] = {}
    for record in samples:
        for numbers, name in ((by_action, record.action), (by_revision, record.revision)):
            if name:
                numbers[name] = numbers.get(name, 0) + 1
    listed = [record.to_json() for record in samples]
    return Page(
        "error.html",
        group.class_name,
        {
            "error": group,
            "chart": charts.counts(window, counts, "Occurrences an hour"),
            "recent": sum(counts.values()),
            "samples": samples,
            "exception": exception,
            "traces": sources.chain(exception, newest.started_ns if newest else 0) if exception else [],
            "by_action": sorted(by_action.items(), key=lambda item: -item[1]),
            "by_revision": sorted(by_revision.items(), key=lambda item: -item[1]),
            "states": STATES,
        },
        {**group.to_json(), "hours": {at // 10**9: count for at, count in hours.items()}, "jobs": listed},
        ("at", "count"),
        [(at // 10**9, count) for at, count in hours.items()],
        nav="errors",
    )


def find(ctx: Context, fingerprint: str) -> ErrorGroup:
    """Return the error with that fingerprint; raises PageError."""
    group = ctx.store.error(fingerprint)
    if group is None or not group.total:
        raise PageError(404, "No such error", f"No error has the fingerprint {fingerprint[:40]!r}.")
    return group
