"""The page of one action: charts, how long it takes, where the time goes, its slowest and latest jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.store import histogram
from autoinst.store.figures import TOTALS_COLUMNS, to_ms, totals_json
from autoinst.store.query import JobFilter
from autoinst.store.rollups import Cell, merge
from autoinst.web import charts
from autoinst.web.figures import figures
from autoinst.web.incidents import error_rows
from autoinst.web.overview import is_known, statement_rows
from autoinst.web.page import Page, PageError
from autoinst.web.revisions import changes, compare

if TYPE_CHECKING:
    from autoinst.web.page import Context

SAMPLES = 8
LOOKED_AT = 1_000  # newest jobs among which the slowest are looked for


def action(ctx: Context) -> Page:
    """Show the action `name`."""
    name = ctx.get("name", 2_000)
    store, window = ctx.store, ctx.window
    if not name or name not in store.values("action"):
        raise PageError(404, "No such action", f"Nothing named {name!r} has been recorded.")
    cells = store.series(window.since_ns, window.until_ns, step_ns=window.step_ns, action=name)
    before = window.before()
    now, was = merge(cells.values()), Cell()
    if is_known(ctx, before):
        was = merge(store.series(before.since_ns, before.until_ns, step_ns=before.step_ns, action=name).values())
    deploys = store.deploys(window.since_ns)
    latest = list(
        store.jobs(JobFilter(limit=LOOKED_AT, since_ns=window.since_ns, until_ns=window.until_ns, action=name))
    )
    slowest = sorted(latest, key=lambda record: -(record.duration_ns or 0))[:SAMPLES]
    statements = store.statements(window.since_ns, window.until_ns, action=name, limit=500)
    queues = sorted(store.queue_totals(window.since_ns, window.until_ns, name).items(), key=lambda item: -item[1].jobs)
    errors = [error for error in store.errors(since_ns=window.since_ns, limit=200) if error.action == name]
    release = compare(ctx, store.deploys(limit=100), action=name)
    return Page(
        "action.html",
        name,
        {
            "name": name,
            "figures": figures(window, now, was),
            "total": now,
            "throughput": charts.throughput(window, cells, deploys),
            "durations": charts.durations(window, cells, deploys),
            "waits": charts.queue_times(window, cells, deploys),
            "histogram": charts.histogram(now, histogram.middle),
            "split": statement_rows(statements, now.sum_ns),
            "statements": statements[:SAMPLES],
            "queues": queues,
            "latest": latest[:SAMPLES],
            "slowest": slowest,
            "looked_at": len(latest),
            "errors": error_rows(ctx, errors[:SAMPLES]),
            "release": release,
            "changes": changes(*release.cells(name)) if all(cell.jobs for cell in release.cells(name)) else [],
            "deploys": deploys,
        },
        lambda: {
            "action": name,
            "window": window.iso(),
            "totals": totals_json(now),
            "before": totals_json(was),
            "series": [{"at": at // 10**9, **totals_json(cell)} for at, cell in cells.items()],
            "queues": [{"queue": queue, **totals_json(cell)} for queue, cell in queues],
            "events": [
                {"name": row.name, "text": row.text, "count": row.times, "total": to_ms(row.sum_ns)}
                for row in statements
            ],
            "slowest": [record.to_json() for record in slowest],
        },
        ("at", *TOTALS_COLUMNS),
        lambda: [(at // 10**9, *totals_json(cell).values()) for at, cell in cells.items()],
        nav="actions",
    )
