"""What `autoinst doctor` says of check-ins: when each ran, when it is due, and which was missed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from autoinst.cli.output import Column, message
from autoinst.record import rfc3339
from autoinst.rules.load import load_files
from autoinst.store.check_ins import standing
from autoinst.wording import ago

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.cli.output import Output
    from autoinst.config import Config
    from autoinst.record import Record
    from autoinst.rules.model import RuleSet
    from autoinst.store.sqlite import Store

STYLES = {"ok": "green", "running": "green", "failed": "red", "missed": "red", "late": "yellow", "unseen": "dim"}


def check_ins(
    rules: RuleSet, store: Store | None, flying: Sequence[Record], attention: list[str]
) -> list[dict[str, Any]]:
    """Return how the check-ins of the rules in force stand; missed and failed ones need attention."""
    told = rules.settings.get("check_ins") or {}
    found = standing(told, store.check_ins() if store is not None else {}, flying, time.time_ns())
    out = []
    for each in found:
        began = each.seen.started_ns if each.seen is not None else None
        last = f"it began last at {rfc3339(began)}" if began is not None else "it has never run"
        if each.state == "missed":
            attention.append(f"check-in {each.identifier} was missed: it was due at {rfc3339(each.due_ns)}, and {last}")
        if each.state == "failed" and each.seen is not None:
            attention.append(f"check-in {each.identifier}: its last job ended with status {each.seen.status}")
        out.append(each.to_json())
    return out


def tell_missed(config: Config, store: Store | None, flying: Sequence[Record]) -> None:
    """Say on standard error which check-ins of the rules in force were missed on this machine."""
    if not config.rules:
        return
    told = load_files(config.rules, "none")[0].settings.get("check_ins") or {}
    if not told:
        return
    for each in standing(told, store.check_ins() if store is not None else {}, flying, time.time_ns()):
        if each.state == "missed":
            due = rfc3339(each.due_ns)
            message(f"check-in {each.identifier} was missed: its job was due at {due}; see `autoinst doctor`")


def print_check_ins(out: Output, found: Sequence[dict[str, Any]], began: Sequence[int | None]) -> None:
    """Write the check-ins for people; `began` are the times their last jobs began, ns since the epoch."""
    if not found:
        return
    now = time.time_ns()
    rows = [
        (
            each["identifier"],
            each["type"],
            out.style(each["state"], STYLES[each["state"]]),
            each["schedule"] or "",
            "never" if at is None else ago(at, now),
            each["rule"],
        )
        for each, at in zip(found, began, strict=True)
    ]
    columns = (
        Column("CHECK-IN"),
        Column("TYPE"),
        Column("STATE"),
        Column("DUE"),
        Column("BEGAN"),
        Column("RULE", flexible=True),
    )
    out.line()
    out.table(columns, rows)
