"""The pages about errors by fingerprint, and what a person says of them: open, resolved, ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.store.failures import STATES
from autoinst.store.query import JobFilter
from autoinst.web import charts, sources
from autoinst.web.incidents import by_step, error_rows, hourly
from autoinst.web.page import Page, PageError

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
    rows = error_rows(ctx, found)
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


def error(ctx: Context, fingerprint: str) -> Page:
    """Show one error: when it happened, where it was raised, and its latest jobs."""
    group = find(ctx, fingerprint)
    window = hourly(ctx.window)
    hours = ctx.store.error_hours(group.id, window.since_ns)
    counts = by_step(hours, window)
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
