"""`autoinst doctor`: where things are, which rules are in force, what they matched, and what needs attention."""

from __future__ import annotations

import datetime as dt
import textwrap
import time
from typing import TYPE_CHECKING, Any

from autoinst.cli.check_ins import print_check_ins
from autoinst.cli.diagnosis import diagnose
from autoinst.cli.exporters import print_exporters
from autoinst.cli.output import Column, Output
from autoinst.cli.server import print_server
from autoinst.config import from_environ
from autoinst.wording import ago, bytes_text

if TYPE_CHECKING:
    import argparse

SHOWN_PROCESSES = 8
SHOWN_UNAVAILABLE = 30
LABEL_WIDTH = 10
WIDTH = 100
STATUS_STYLES = {
    "patched": "green",
    "not found": "yellow",
    "refused": "yellow",
    "failed": "red",
    "skipped": "dim",
    "not imported": "dim",
}


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis; returns 1 where something needs attention, else 0."""
    found = diagnose(from_environ())
    out = Output()
    if options.json:
        out.data(found)
    else:
        print_diagnosis(out, found)
    return 1 if found["attention"] else 0


def print_diagnosis(out: Output, found: dict[str, Any]) -> None:
    """Write the diagnosis for people."""
    fact(out, "autoinst", f"{found['autoinst']} on Python {found['python']} ({found['executable']})")
    fact(out, "boot", found["boot"])
    home = found["home"]
    state = "" if home["exists"] else ", not made yet"
    state += "" if home["writable"] else ", not writable"
    fact(out, "home", f"{home['path']} ({home['file_system'] or 'unknown file system'}{state})")
    spool, store = found["spool"], found["store"]
    fact(out, "spool", f"{spool['arenas']} arena file(s), {bytes_text(spool['bytes'])}")
    if store["exists"]:
        jobs = f"{store.get('jobs', 'unknown number of')} jobs, {bytes_text(store['bytes'])}"
        jobs += f"; {found['left_out']} more only counted, as `keep` says" if found["left_out"] else ""
        fact(out, "store", f"{store['path']} ({jobs}), {store.get('running', 0)} running")
    else:
        fact(out, "store", "nothing recorded yet")
    pid = found["agent"]["pid"]
    fact(out, "agent", f"process {pid}" if pid else "none: whoever looks stores what workers recorded")
    out.line()
    rows = [(row["name"], row["value"], row["source"]) for row in found["settings"]]
    out.table((Column("SETTING"), Column("VALUE", flexible=True), Column("FROM")), rows)
    out.line()
    print_rules(out, found)
    print_processes(out, found["processes"])
    began = [nanoseconds(each["started_at"]) if each["started_at"] else None for each in found["check_ins"]]
    print_check_ins(out, found["check_ins"], began)
    print_exporters(out, found["exporters"])
    print_server(out, found["server"])
    if found["counted"]:
        out.line()
        rows = [(row["action"] or "(others)", str(row["jobs"]), str(row["errors"])) for row in found["counted"]]
        out.table((Column("ONLY COUNTED"), Column("JOBS", right=True), Column("ERRORS", right=True)), rows)
    out.line()
    if not found["attention"]:
        out.line(out.style("Nothing needs attention.", "green"))
    for text in found["attention"]:
        out.line(f"{out.style('!', 'yellow', 'bold')} {text}")


def fact(out: Output, label: str, text: str) -> None:
    """Write one labelled line."""
    out.line(f"{out.style(label.ljust(LABEL_WIDTH), 'dim')} {text}")


def print_packs(out: Output, packs: list[dict[str, Any]]) -> None:
    """Write which packs have something to act on, and in a word which do not."""
    here = [pack for pack in packs if pack["on"] and (pack["version"] or not pack["library"])]
    for pack in here:
        state = f"left alone: the pack is for {pack['unfit']}" if pack["unfit"] else "on"
        fact(out, "pack", " ".join(filter(None, (f"{pack['name']}:", pack["library"], pack["version"], state))))
    shown = {pack["name"] for pack in here}
    for label, wanted in (("not here", True), ("off", False)):
        names = dict.fromkeys(pack["name"] for pack in packs if pack["on"] is wanted and pack["name"] not in shown)
        for line in textwrap.wrap(", ".join(names), WIDTH):
            fact(out, label, line)
            label = ""  # noqa: PLW2901 - only the first line bears it


def print_rules(out: Output, found: dict[str, Any]) -> None:
    """Write the rules in force, their problems, the packs, and each rule's status in recent processes."""
    rules = found["rules"]
    files = ", ".join(rules["files"]) or "no rules file of your own"
    fact(out, "rules", f"{rules['own']} of your own ({files}), {rules['from_packs']} from packs")
    for problem in rules["problems"]:
        place = f"{problem['file']}:{problem['line']}:{problem['column']}" if problem["line"] else problem["file"]
        hint = f" ({problem['hint']})" if problem["hint"] else ""
        out.line(f"{' ' * LABEL_WIDTH} {out.style(place, 'yellow')}: {problem['message']}{hint}")
    print_packs(out, rules["packs"])
    if found["rule_statuses"]:
        out.line()
        rows = [
            (
                row["rule"],
                out.style(row["status"], STATUS_STYLES.get(row["status"], "bold")),
                row["mechanism"],
                str(row["calls"]),
                str(row["processes"]),
                row["detail"],
            )
            for row in found["rule_statuses"]
        ]
        columns = (
            Column("RULE"),
            Column("STATUS"),
            Column("BY"),
            Column("CALLS", right=True),
            Column("PROCESSES", right=True),
            Column("FOUND", flexible=True),
        )
        out.table(columns, rows)
    for process in found["processes"]:
        for note in process["notes"]:
            out.line(f"pid {process['pid']}: {note}")
    print_unavailable(out, found["unavailable"])


def print_unavailable(out: Output, rows: list[dict[str, Any]]) -> None:
    """Write which values of which rules could not be read, how often and why, and what may be done about it."""
    if not rows:
        return
    out.line()
    out.line("These values could not be read in the last processes, and their jobs were recorded without them:")
    for row in rows[:SHOWN_UNAVAILABLE]:
        counted = f"{row['times']} time{'' if row['times'] == 1 else 's'}"
        inside = f" in {row['processes']} processes" if row["processes"] > 1 else ""
        out.line(f"  {out.style(row['rule'], 'yellow')}: {row['field']} unavailable {counted}{inside}: {row['reason']}")
    if len(rows) > SHOWN_UNAVAILABLE:
        out.line(out.style(f"  ({len(rows) - SHOWN_UNAVAILABLE} more; --json shows them)", "dim"))
    for line in dict.fromkeys(way_out(row["field"], row["reason"]) for row in rows):
        out.line(f"  {line}")


def way_out(field: str, reason: str) -> str:
    """Return what may be done about a value that was unavailable for `reason`."""
    if field == "carry":
        return "Where the trace cannot be handed on, let the rule's `carry` name another mapping, or leave it out."
    if "code" in reason.split():
        return "What would run the program's code is read where the rule says `unsafe: true`; see docs/rules.md."
    return "Where that is usual, give another value after it (`[first, second]`), or read it by `get(x, key, default)`."


def print_processes(out: Output, processes: list[dict[str, Any]]) -> None:
    """Write the processes seen last."""
    if not processes:
        return
    now = time.time_ns()
    rows = []
    for process in processes[:SHOWN_PROCESSES]:
        seen = ago(nanoseconds(process["last_seen_at"]), now) if process["last_seen_at"] else ""
        how = process["how"]
        state = "alive" if process["ended_at"] is None else "ended" if how in (None, "gone") else f"ended ({how})"
        command = " ".join(process["argv"] or ())
        rows.append((str(process["pid"]), process["service"], state, seen, process["python"], command))
    columns = (
        Column("PID", right=True),
        Column("SERVICE"),
        Column("STATE"),
        Column("SEEN"),
        Column("PYTHON"),
        Column("COMMAND", flexible=True),
    )
    out.line()
    out.table(columns, rows)
    if len(processes) > SHOWN_PROCESSES:
        out.line(out.style(f"({len(processes) - SHOWN_PROCESSES} more; --json shows them)", "dim"))


def nanoseconds(text: str) -> int:
    """Return an RFC 3339 time as ns since the epoch."""
    return int(dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e9)
