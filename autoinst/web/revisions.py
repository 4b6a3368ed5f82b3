"""Two revisions side by side: what a deploy made slower, faster, or fail more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoinst.store.figures import TOTALS_COLUMNS, failing, totals_json
from autoinst.store.rollups import Cell, merge
from autoinst.web.figures import UNKNOWN, ns_text, percent
from autoinst.web.page import Page

if TYPE_CHECKING:
    from autoinst.store.totals import Deploy
    from autoinst.web.page import Context

DAY_NS = 86_400 * 10**9
LOOKED_BACK_NS = 30 * DAY_NS
WORSE = 1.2  # times as long, or failing as often, is told of
LEAST_FAILING = 0.005  # of all jobs; less of a difference is chance
FEW = 5  # jobs, of which nothing can be said


@dataclass(frozen=True)
class Change:
    """A number of the later revision beside that of the earlier; `worse` None: about the same, or too few jobs."""

    label: str
    old: str
    new: str
    worse: bool | None = None


@dataclass
class Comparison:
    """Totals per action of an earlier and a later revision."""

    old: str
    new: str
    sides: tuple[dict[str | None, Cell], dict[str | None, Cell]]

    def cells(self, action: str | None) -> tuple[Cell, Cell]:
        """Return the totals of an action under either."""
        return self.sides[0].get(action, Cell()), self.sides[1].get(action, Cell())


def compare(
    ctx: Context, deploys: list[Deploy], old: str = "", new: str = "", *, action: str | None = None
) -> Comparison:
    """Return `old` beside `new`, by default the last two that were deployed; of an action or of all."""
    names = list(dict.fromkeys(deploy.revision for deploy in deploys))
    new = new or (names[0] if names else "")
    old = old or next((name for name in names if name != new), "")
    first = min((deploy.first_ns for deploy in deploys if deploy.revision in (old, new)), default=ctx.window.since_ns)
    first = max(first, ctx.now_ns - LOOKED_BACK_NS)
    found = [ctx.store.release(name, first, ctx.now_ns, action) if name else {} for name in (old, new)]
    return Comparison(old, new, (found[0], found[1]))


def changes(old: Cell, new: Cell) -> list[Change]:
    """Return what differs between an action's totals before and after."""
    out = [Change("Jobs", f"{old.jobs:,}", f"{new.jobs:,}")]
    enough = min(old.jobs, new.jobs) >= FEW
    shares = [failing(cell) if cell.jobs else None for cell in (old, new)]
    worse = None
    if enough and shares[0] is not None and shares[1] is not None and abs(shares[1] - shares[0]) > LEAST_FAILING:
        worse = _is_worse(shares[0], shares[1])
    out.append(Change("Failed", percent(shares[0]), percent(shares[1]), worse))
    for label, share in (("Median", 0.5), ("95 % within", 0.95)):
        before, after = old.percentile_ns(share), new.percentile_ns(share)
        worse = _is_worse(before, after) if enough and before is not None and after is not None else None
        out.append(Change(label, ns_text(before), ns_text(after), worse))
    return out


def _is_worse(before: float, after: float) -> bool | None:
    if after > before * WORSE:
        return True
    return False if before > after * WORSE else None


def revisions(ctx: Context) -> Page:
    """Show two revisions side by side, by default the last two."""
    deploys = ctx.store.deploys(limit=100)
    names = list(dict.fromkeys(deploy.revision for deploy in deploys))
    found = compare(ctx, deploys, ctx.get("a"), ctx.get("b"))
    whole = [merge(side.values()) for side in found.sides]
    rows: list[dict[str, Any]] = [
        {"action": action, "cells": found.cells(action), "changes": changes(*found.cells(action))}
        for action in {**found.sides[0], **found.sides[1]}
    ]
    rows.sort(key=lambda row: (-sum(cell.sum_ns for cell in row["cells"]), row["action"] or ""))

    def pairs() -> list[tuple[str | None, dict[str, Any], dict[str, Any]]]:
        return [(row["action"], totals_json(row["cells"][0]), totals_json(row["cells"][1])) for row in rows]

    return Page(
        "revisions.html",
        "Revisions",
        {
            "deploys": deploys,
            "names": names,
            "old": found.old,
            "new": found.new,
            "whole": changes(whole[0], whole[1]),
            "actions": rows,
            "unknown": UNKNOWN,
        },
        lambda: {
            "deploys": [deploy._asdict() for deploy in deploys],
            "a": {"revision": found.old, **totals_json(whole[0])},
            "b": {"revision": found.new, **totals_json(whole[1])},
            "actions": [{"action": action, "a": a, "b": b} for action, a, b in pairs()],
        },
        ("action", *(f"a_{name}" for name in TOTALS_COLUMNS), *(f"b_{name}" for name in TOTALS_COLUMNS)),
        lambda: [(action, *a.values(), *b.values()) for action, a, b in pairs()],
        nav="overview",
    )
