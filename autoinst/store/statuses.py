"""What processes said of themselves and of their rules, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoinst.record import rfc3339

if TYPE_CHECKING:
    from autoinst.rules.model import RuleSet
    from autoinst.store.processes import Process

RECENT_PROCESSES = 50  # whose word on the rules counts
# What a module that was not imported may have been instead.
NO_ROOM = "or not told: a process has no room for the statuses of so many rules"
NEVER_SEEN = "not reachable this way if exec() or a file's path made it"


def process_facts(process: Process) -> dict[str, Any]:
    """Return one process with what it said of its rules."""
    status = process.status or {}
    return {
        "pid": process.pid,
        "host": process.host,
        "service": process.service,
        "argv": process.description.get("argv"),
        "python": process.description.get("python"),
        "started_at": rfc3339(process.started_ns),
        "last_seen_at": rfc3339(process.last_seen_ns),
        "ended_at": rfc3339(process.ended_ns),
        "how": process.how,
        "digest": status.get("digest"),
        "stale": status.get("stale"),
        "rules": [
            dict(zip(("rule", "status", "mechanism", "calls", "detail"), row, strict=False))
            for row in status.get("rules", ())
        ],
        "unavailable": [
            dict(zip(("rule", "field", "reason", "times"), row, strict=False)) for row in status.get("unavailable", ())
        ],
        "notes": list(status.get("notes", ())),
    }


def unavailable_values(processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what rules could not read over `processes` (as `process_facts` has them, the newest first), most first.

    Only of processes that had the same rules as the latest one: another's lines may be of other rules. Each has its
    `rule`, `field`, `times` and `processes` (counts), and the newest `reason`.
    """
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    digest = next((process["digest"] for process in processes if process["digest"] is not None), None)
    for process in processes:
        if process["digest"] != digest:
            continue
        for row in process["unavailable"]:
            key = (row["rule"], row["field"])
            known = merged.setdefault(key, {**row, "times": 0, "processes": 0})
            known["times"] += row["times"]
            known["processes"] += 1
    return sorted(merged.values(), key=lambda row: -row["times"])


def rule_statuses(processes: list[Process], rules: RuleSet) -> list[dict[str, Any]]:
    """Return each rule's status over recent processes that had the same rules as the latest one.

    `patched` in one of them is enough, since not every process imports everything; `calls` are added up. A process
    tells nothing of rules whose modules it did not import: the user's own are added, if they are still the same.
    """
    told = [process.status for process in processes if process.status]
    if not told:
        return []
    digest = told[0].get("digest")
    merged: dict[str, dict[str, Any]] = {}
    detail = NEVER_SEEN
    for status in told:
        if status.get("digest") != digest:
            continue
        if status.get("left_out"):
            detail = NO_ROOM
        for where, state, mechanism, calls, more in status.get("rules", ()):
            row = {"rule": where, "status": state, "mechanism": mechanism, "calls": calls, "detail": more}
            known = merged.get(where)
            if known is None:
                merged[where] = row | {"processes": 1}
                continue
            if state == "patched" and known["status"] != "patched":
                known |= row | {"calls": known["calls"]}
            known["calls"] += calls
            known["processes"] += 1
    for rule in rules.rules:
        if rule.pack is None and digest == rules.digest and rule.where not in merged:
            row = {"rule": rule.where, "status": "not imported", "mechanism": None, "calls": 0, "detail": detail}
            merged[rule.where] = row | {"processes": 0}
    return list(merged.values())
