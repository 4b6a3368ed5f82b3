"""The pages about what records: processes, and the rules in force with what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.record import rfc3339
from autoinst.rules.load import load_files
from autoinst.store.statuses import process_facts, rule_statuses
from autoinst.web.page import Page

if TYPE_CHECKING:
    from autoinst.store.processes import Process
    from autoinst.web.page import Context

LIMIT = 200
RECENT = 50
PROCESS_COLUMNS = (
    *("pid", "host", "service", "environment", "revision", "python", "command", "started_at", "last_seen_at"),
    *("ended_at", "how"),
)
STATUS_COLUMNS = ("rule", "status", "mechanism", "calls", "processes", "detail")


def processes(ctx: Context) -> Page:
    """Show the processes that ran jobs, the last seen first."""
    found: list[Process] = ctx.store.processes(limit=LIMIT)
    running: dict[int | None, int] = {}
    for record in ctx.flying_ones():
        running[record.pid] = running.get(record.pid, 0) + 1
    rows = [
        {
            "process": process,
            "command": " ".join(str(part) for part in process.description.get("argv") or ()),
            "python": process.description.get("python"),
            "running": running.get(process.pid, 0) if process.ended_ns is None else 0,
            "state": state_of(process),
        }
        for process in found
    ]
    table = [
        (
            *(process.pid, process.host, process.service, process.environment, process.revision, row["python"]),
            *(row["command"], rfc3339(process.started_ns), rfc3339(process.last_seen_ns)),
            *(rfc3339(process.ended_ns), process.how),
        )
        for row, process in zip(rows, found, strict=True)
    ]
    return Page(
        "processes.html",
        "Processes",
        {"rows": rows, "living": sum(process.ended_ns is None for process in found)},
        {"processes": [dict(zip(PROCESS_COLUMNS, row, strict=True)) for row in table]},
        PROCESS_COLUMNS,
        table,
        nav="processes",
    )


def state_of(process: Process) -> str:
    """Return in a word how a process is."""
    if process.ended_ns is None:
        return "alive"
    return "ended" if process.how in (None, "gone") else f"ended: {process.how}"


def rules(ctx: Context) -> Page:
    """Show the rules in force, what is wrong in them, and what each found in the processes seen last."""
    config = ctx.config
    loaded, loader = load_files(config.rules, config.packs)
    found: list[Process] = ctx.store.processes(limit=RECENT)
    statuses = rule_statuses(found, loaded)
    facts = [process_facts(process) for process in found]
    unavailable: list[dict[str, Any]] = [{"pid": fact["pid"], **row} for fact in facts for row in fact["unavailable"]]
    problems = [problem.to_json() for problem in loader.problems]
    stored = ctx.store.problems()
    own = len([rule for rule in loaded.rules if rule.pack is None])
    packs = sorted({rule.pack for rule in loaded.rules if rule.pack})
    return Page(
        "rules.html",
        "Rules",
        {
            "files": config.rules,
            "own": own,
            "packs": packs,
            "problems": problems,
            "statuses": statuses,
            "unavailable": unavailable[:LIMIT],
            "stored": stored[:LIMIT],
        },
        {
            "files": list(config.rules),
            "packs": packs,
            "problems": problems,
            "statuses": statuses,
            "unavailable": unavailable,
            "store_problems": [problem._asdict() for problem in stored],
        },
        STATUS_COLUMNS,
        [[status.get(name) for name in STATUS_COLUMNS] for status in statuses],
        nav="rules",
    )
