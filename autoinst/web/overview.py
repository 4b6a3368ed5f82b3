"""The pages about all jobs together: Overview, Actions, Queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.store.figures import SORTS, TOTALS_COLUMNS, failing, to_ms, totals_json
from autoinst.store.rollups import Cell, merge
from autoinst.web import charts
from autoinst.web.figures import Figure, figures
from autoinst.web.incidents import error_rows
from autoinst.web.page import Page

if TYPE_CHECKING:
    from autoinst.store.events import Statement
    from autoinst.web.page import Context
    from autoinst.web.window import Window

TOP = 10
ERRORS = 5
QUERY_WORDS = ("query", "sql", "redis", "cache", "mongo", "elastic")


def overview(ctx: Context) -> Page:
    """Show what happened: the rate, failures, durations, what costs most, open errors."""
    store, window = ctx.store, ctx.window
    cells = store.series(window.since_ns, window.until_ns, step_ns=window.step_ns)
    before = window.before()
    was = Cell()
    if is_known(ctx, before):
        was = merge(store.series(before.since_ns, before.until_ns, step_ns=before.step_ns).values())
    deploys = store.deploys(window.since_ns)
    running = ctx.flying_ones()
    errors = store.errors(since_ns=window.since_ns, limit=ERRORS, state="open")
    states = store.error_states(window.since_ns)
    actions = by_action(ctx)
    now = merge(row["cell"] for row in actions)
    head = figures(window, now, was)
    head.append(Figure("Running", f"{len(running):,}", href=ctx.url("/running")))
    head.append(Figure("Killed", f"{now.killed:,}", href=ctx.url("/running"), alarm=now.killed > 0))
    return Page(
        "overview.html",
        "Overview",
        {
            "figures": head,
            "total": now,
            "throughput": charts.throughput(window, cells, deploys),
            "durations": charts.durations(window, cells, deploys),
            "deploys": deploys,
            "errors": error_rows(ctx, errors),
            "open_errors": states["open"],
            "actions": actions[:TOP],
            "more_actions": len(actions) - TOP,
            "anything": bool(store.last()) or bool(running),
        },
        lambda: {
            "window": window.iso(),
            "totals": totals_json(now),
            "before": totals_json(was),
            "running": len(running),
            "series": [{"at": at // 10**9, **totals_json(cell)} for at, cell in cells.items()],
            "actions": [{"action": row["action"], **totals_json(row["cell"])} for row in actions],
            "errors": [error.to_json() for error in errors],
            "deploys": [deploy._asdict() for deploy in deploys],
        },
        ("action", *TOTALS_COLUMNS),
        lambda: [(row["action"], *totals_json(row["cell"]).values()) for row in actions],
        nav="overview",
    )


def is_known(ctx: Context, window: Window) -> bool:
    """Return whether jobs were recorded from the begin of `window` on, so that it can be compared with."""
    first = ctx.store.first()
    return first is not None and first <= window.since_ns


def actions(ctx: Context) -> Page:
    """Show every action with its totals."""
    sort = ctx.get("sort") if ctx.get("sort") in SORTS else "impact"
    found = by_action(ctx, sort)
    needle = ctx.get("filter", 200).casefold()
    if needle:
        found = [row for row in found if needle in (row["action"] or "").casefold()]
    return Page(
        "actions.html",
        "Actions",
        {"actions": found, "sort": sort, "filter": ctx.get("filter", 200), "anything": bool(ctx.store.last())},
        lambda: {
            "window": ctx.window.iso(),
            "actions": [{"action": row["action"], **totals_json(row["cell"])} for row in found],
        },
        ("action", *TOTALS_COLUMNS),
        lambda: [(row["action"], *totals_json(row["cell"]).values()) for row in found],
        nav="actions",
    )


def by_action(ctx: Context, sort: str = "impact") -> list[dict[str, Any]]:
    """Return each action's totals, its share of all time, and its small chart."""
    window = ctx.window
    cells = ctx.store.totals(window.since_ns, window.until_ns)
    small = charts.coarse(window)
    steps = ctx.store.action_steps(small.since_ns, small.until_ns, step_ns=small.step_ns)
    whole = sum(cell.sum_ns for cell in cells.values()) or 1
    rows: list[dict[str, Any]] = [
        {
            "action": action,
            "cell": cell,
            "rate": cell.jobs / window.minutes,
            "failing": failing(cell),
            "impact": cell.sum_ns / whole,
            "spark": charts.spark(small, steps.get(action, ())),
        }
        for action, cell in cells.items()
        if cell.jobs
    ]
    rows.sort(key=lambda row: (-SORTS[sort](row["cell"]), row["action"] or ""))
    return rows


def queries(ctx: Context) -> Page:
    """Show what the events inside jobs cost: slow ones, and those that look like one for each row."""
    every = ctx.get("kind") == "all"
    action = ctx.get("action") or None
    found = ctx.store.statements(ctx.window.since_ns, ctx.window.until_ns, action=action, limit=500)
    shown = [row for row in found if every or is_query(row.name)]
    whole = sum(row.self_ns for row in shown) or 1
    columns = ("name", "text", "jobs", "count", "total", "self", "mean", "max", "n_plus_one_jobs", "slowest_job")
    rows = [
        (
            *(row.name, row.text, row.jobs, row.times),
            *map(to_ms, (row.sum_ns, row.self_ns, row.mean_ns, row.max_ns)),
            *(row.repeats, row.worst),
        )
        for row in shown
    ]
    return Page(
        "queries.html",
        "Queries",
        {"statements": shown, "whole": whole, "every": every, "action": action, "hidden": len(found) - len(shown)},
        {"window": ctx.window.iso(), "statements": [dict(zip(columns, row, strict=True)) for row in rows]},
        columns,
        rows,
        nav="queries",
    )


def is_query(name: str) -> bool:
    """Return whether an event's name is that of a question to a database."""
    return any(word in name.casefold() for word in QUERY_WORDS)


def statement_rows(statements: list[Statement], whole_ns: int) -> list[dict[str, Any]]:
    """Return how a job's time is spent by the names of events inside it; `whole_ns` is all of the jobs' time."""
    groups: dict[str, dict[str, Any]] = {}
    for row in statements:
        group = groups.setdefault(row.name, {"name": row.name, "self_ns": 0, "times": 0})
        group["self_ns"] += row.self_ns
        group["times"] += row.times
    inside = sum(group["self_ns"] for group in groups.values())
    whole = max(whole_ns, inside, 1)
    out = sorted(groups.values(), key=lambda group: -group["self_ns"])
    out.append({"name": "the job's own code", "self_ns": whole - inside, "times": None})
    for group in out:
        group["share"] = group["self_ns"] / whole
    return out
