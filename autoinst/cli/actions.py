"""`autoinst actions`: totals of each action over a stretch of time, those that cost most first."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from autoinst.cli import filters
from autoinst.cli.output import Column, Output, message
from autoinst.cli.reading import Home
from autoinst.config import from_environ
from autoinst.store.figures import SORTS, failing, totals_json
from autoinst.store.query import glob
from autoinst.store.rollups import MINUTE_NS
from autoinst.wording import duration

if TYPE_CHECKING:
    import argparse

    from autoinst.store.interface import Readable
    from autoinst.store.rollups import Cell
    from autoinst.store.totals import Step

LEVELS = ("▁▂▃▄▅▆▇█", ".:-=+*#@")  # of a sparkline, and where the terminal's encoding has none
STEPS = 16
COLUMNS = (
    Column("ACTION", flexible=True),
    Column("TREND", spare=True),
    Column("JOBS", right=True),
    Column("FAILED", right=True),
    Column("RATE", right=True),
    Column("MEAN", right=True, spare=True),
    Column("P95", right=True),
    Column("MAX", right=True, spare=True),
    Column("WAIT P95", right=True, spare=True),
    Column("TOTAL", right=True),
)


def run(options: argparse.Namespace) -> int:
    """Print totals by action since `options.since`; returns 0. Raises UsageError."""
    now = time.time_ns()
    since = filters.since(options.since, now) or 0
    with Home(from_environ()) as home:
        if home.store is None:
            message(f"no job is recorded in {home.path} yet. Try `autoinst demo`, or see `autoinst doctor`.")
            return 0
        found = chosen(home.store.totals(since, now), options)
        out = Output()
        if options.json:
            for action, cell in found:
                out.data({"action": action, **totals_json(cell)})
        elif found:
            print_table(out, found, trends(home.store, out, since, now))
        else:
            message(f"no job of such an action started since {options.since}; --since 7d looks further back")
    return 0


def chosen(totals: dict[str | None, Cell], options: argparse.Namespace) -> list[tuple[str | None, Cell]]:
    """Return the actions that `options` ask for, in the order and number it asks for."""
    pattern = None if options.action is None else glob(options.action)
    found = [(name, cell) for name, cell in totals.items() if pattern is None or fnmatchcase(name or "", pattern)]
    found.sort(key=lambda item: (-SORTS[options.sort](item[1]), item[0] or ""))
    return found[: options.limit or None]


def print_table(out: Output, found: list[tuple[str | None, Cell]], trend: dict[str | None, str]) -> None:
    """Write one row for each action."""
    rows = []
    for action, cell in found:
        failed = cell.errors + cell.killed
        rows.append(
            (
                action or "(no name)",
                out.style(trend.get(action, ""), "cyan"),
                f"{cell.jobs:,}",
                out.style(f"{failed:,}", "red") if failed else None,
                out.style(f"{failing(cell):.1%}", "red") if failed else None,
                _time(cell.mean_ns),
                _time(cell.percentile_ns(0.95)),
                _time(cell.max_ns) if cell.durations else None,
                _time(cell.queue_percentile_ns(0.95)),
                _time(cell.sum_ns or None),
            )
        )
    out.table(COLUMNS, rows)


def _time(ns: float | None) -> str | None:
    return None if ns is None else duration(ns / 1e6)


def trends(store: Readable, out: Output, since_ns: int, until_ns: int) -> dict[str | None, str]:
    """Return each action's number of jobs over the time asked for as a line of small bars."""
    step = max(MINUTE_NS, -(-(until_ns - since_ns) // (STEPS * MINUTE_NS)) * MINUTE_NS)
    first = since_ns // step
    levels = LEVELS[0] if out.unicode else LEVELS[1]
    found = store.action_steps(since_ns, until_ns, step_ns=step)
    return {
        action: sparkline(steps, first, until_ns // step - first + 1, step, levels) for action, steps in found.items()
    }


def sparkline(steps: list[Step], first: int, count: int, step_ns: int, levels: str) -> str:
    """Return `count` bars, one for each step of `step_ns` from the `first` one on; a step without jobs is a blank."""
    heights = [0] * count
    for step in steps:
        index = step.at_ns // step_ns - first
        if 0 <= index < count:
            heights[index] += step.jobs
    most = max(heights, default=0)
    return "".join(levels[(height * len(levels) - 1) // most] if height else " " for height in heights)
