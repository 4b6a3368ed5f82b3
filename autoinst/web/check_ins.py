"""The page about check-ins: which jobs have to run, and whether they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.rules.load import load_files
from autoinst.store.check_ins import standing
from autoinst.web.page import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.config import Config
    from autoinst.store.check_ins import Seen
    from autoinst.web.page import Context

NAV = ("check-ins", "/check-ins", "Check-ins")
COLUMNS = ("identifier", "type", "schedule", "state", "due_at", "started_at", "finished_at", "job", "rule")
# As the job's status that looks like it.
STYLES = {"ok": "ok", "running": "running", "failed": "error", "missed": "killed"}


def of_rules(config: Config) -> dict[str, Any]:
    """Return the check-ins of the rules in force. Nothing is cached: who only looks makes no home."""
    found: dict[str, Any] = load_files(config.rules, config.packs)[0].settings["check_ins"]
    return found


def check_ins(ctx: Context, known: Mapping[str, Seen]) -> Page:
    """Show how the check-ins of the rules in force stand, those that were missed first.

    `known` is what this machine's store knows of them, wherever jobs are read from.
    """
    found = standing(of_rules(ctx.config), known, ctx.flying, ctx.now_ns)
    found.sort(key=lambda each: (each.state != "missed", each.state != "failed", each.identifier))
    told = [each.to_json() for each in found]
    return Page(
        "check_ins.html",
        "Check-ins",
        {"found": found, "styles": STYLES, "missed": sum(each.state == "missed" for each in found)},
        {"check_ins": told},
        COLUMNS,
        [[each[name] for name in COLUMNS] for each in told],
        nav=NAV[0],
    )
