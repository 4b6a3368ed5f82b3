"""Totals as figures for people and programs: what `actions --json`, pages' `.json` and CSV give of a Cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoinst.store.rollups import Cell


def totals_json(cell: Cell) -> dict[str, Any]:
    """Return totals as JSON; times in milliseconds."""
    return {
        "jobs": cell.jobs,
        "ok": cell.ok,
        "errors": cell.errors,
        "ignored": cell.ignored,
        "killed": cell.killed,
        "only_counted": cell.counted,
        "mean": to_ms(cell.mean_ns),
        "p50": to_ms(cell.percentile_ns(0.5)),
        "p95": to_ms(cell.percentile_ns(0.95)),
        "p99": to_ms(cell.percentile_ns(0.99)),
        "max": to_ms(cell.max_ns) if cell.durations else None,
        "queue_p50": to_ms(cell.queue_percentile_ns(0.5)),
        "queue_p95": to_ms(cell.queue_percentile_ns(0.95)),
        "total": to_ms(cell.sum_ns),
    }


TOTALS_COLUMNS = (
    *("jobs", "ok", "errors", "ignored", "killed", "only_counted", "mean", "p50", "p95", "p99", "max"),
    *("queue_p50", "queue_p95", "total"),
)


def to_ms(ns: float | None) -> float | None:
    """Return nanoseconds as milliseconds, to the microsecond."""
    return None if ns is None else round(ns / 1e6, 3)


def failing(cell: Cell) -> float:
    """Return the share of jobs that failed or were killed, 0..1."""
    return (cell.errors + cell.killed) / cell.jobs if cell.jobs else 0.0


SORTS: dict[str, Callable[[Cell], float]] = {
    "impact": lambda cell: cell.sum_ns,
    "jobs": lambda cell: cell.jobs,
    "failed": lambda cell: cell.errors + cell.killed,
    "rate": failing,
    "mean": lambda cell: cell.mean_ns or 0,
    "p95": lambda cell: cell.percentile_ns(0.95) or 0,
    "max": lambda cell: cell.max_ns,
    "wait": lambda cell: cell.queue_percentile_ns(0.95) or 0,
}
