"""`autoinst explain`: what each rule decides on a function, why, and what running processes say of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from autoinst.cli.check import counted
from autoinst.cli.output import Column, Output, message
from autoinst.cli.reading import Home
from autoinst.config import from_environ
from autoinst.errors import AutoinstError
from autoinst.rules.explain import ACTS, DOES, LEFT_OUT, SOMETIMES, explain
from autoinst.rules.load import load_files
from autoinst.rules.sources import Sources
from autoinst.store.statuses import RECENT_PROCESSES, rule_statuses

if TYPE_CHECKING:
    import argparse

    from autoinst.config import Config
    from autoinst.rules.explain import Explanation, Verdict
    from autoinst.rules.model import Field, Rule, RuleSet

MARKS = {ACTS: ("✓", "+", "green"), SOMETIMES: ("◐", "~", "yellow"), LEFT_OUT: ("○", "-", "dim")}


def run(options: argparse.Namespace) -> int:
    """Print what the rules decide on each of `options.paths`; returns 0 if one acts on each, else 1.

    None of the program's modules is imported.
    """
    config = from_environ()
    if options.rules:
        config.rules = tuple(map(os.path.abspath, options.rules))
    rules, loader = load_files(config.rules, config.packs)
    for problem in loader.problems:
        message(problem.one_line)
    search = [*map(os.path.abspath, options.path or ["."]), *sys.path]
    sources = Sources(list(dict.fromkeys(search)))
    running = statuses(config, rules)
    out = Output()
    acted = True
    first = True
    for path in options.paths:
        for found in explain(path, rules, sources):
            acted = acted and bool(found.acting)
            if options.json:
                out.data(facts(found, running))
                continue
            if not first:
                out.line()
            first = False
            show(out, found, running)
    return 0 if acted else 1


def statuses(config: Config, rules: RuleSet) -> dict[str, dict[str, Any]]:
    """Return what recent processes that have these very rules say of each, by its place."""
    try:
        with Home(config, local=True) as home:
            processes = [] if home.local is None else home.local.processes(limit=RECENT_PROCESSES)
    except AutoinstError as error:
        message(str(error))
        return {}
    same = [process for process in processes if process.status and process.status.get("digest") == rules.digest]
    return {row["rule"]: row for row in rule_statuses(same, rules) if row["processes"]}


def facts(found: Explanation, running: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return an explanation as plain data."""
    return {
        "path": found.path,
        "problem": found.problem,
        "hint": found.hint,
        "module": found.names[0][0] if found.names else None,
        "qualname": found.names[0][1] if found.names else None,
        "also_known_as": [f"{module}:{qualname}" for module, qualname in found.names[1:]],
        "file": found.file,
        "line": found.line,
        "what": None if found.problem else found.what,
        "rules": [
            {
                "rule": verdict.rule.where,
                "pack": verdict.rule.pack,
                "kind": verdict.rule.kind,
                "decision": verdict.decision,
                "why": verdict.why or None,
                "action": action(found, verdict.rule) if verdict.decision != LEFT_OUT else None,
                "fields": list(verdict.rule.fields),
                "running": running.get(verdict.rule.where),
            }
            for verdict in found.verdicts
        ],
        "elsewhere": found.elsewhere,
    }


def action(found: Explanation, rule: Rule) -> str | None:
    """Return the action of the records that `rule` opens, None where each call decides or there is none."""
    if rule.kind != "job" or rule.wraps is not None or not {"class", "method", "action"}.isdisjoint(rule.fields):
        return None
    return found.action


def show(out: Output, found: Explanation, running: dict[str, dict[str, Any]]) -> None:
    """Write an explanation for people."""
    if found.problem is not None:
        hint = f" ({found.hint})" if found.hint else ""
        out.line(f"{out.style(found.path, 'bold')}: {out.style(found.problem, 'yellow')}{hint}")
        return
    module, qualname = found.names[0]
    place = "" if found.file is None else f"{found.file}:{found.line}" if found.line else found.file
    kind = "" if found.what == "function" else f"{found.what}  "
    out.line(f"{out.style(f'{module}:{qualname}', 'bold')}  {kind}{out.style(place, 'dim')}")
    for other, name in found.names[1:]:
        out.line(out.style(f"  also {other}:{name}", "dim"))
    if found.what == "unknown":
        out.line("  its text does not show what it is: what it is decorated with and based on is not known here")
    rows = [
        (mark(out, verdict), place_of(verdict.rule), verdict.rule.kind, decision(found, verdict))
        for verdict in found.verdicts
    ]
    if rows:
        columns = (Column(""), Column("RULE"), Column("KIND"), Column("DECISION", flexible=True))
        out.table(columns, rows)
    if found.elsewhere:
        text = "no rule means it; " if not rows else ""
        others = "1 other rule names" if found.elsewhere == 1 else f"{found.elsewhere} other rules name"
        out.line(out.style(f"  {text}{others} other modules", "dim"))
    for rule in found.acting:
        row = running.get(rule.where)
        if row is not None:
            out.line(f"  {place_of(rule)} in running programs: {in_words(row)}")


def mark(out: Output, verdict: Verdict) -> str:
    """Return the sign of a decision."""
    glyph, plain, style = MARKS[verdict.decision]
    return out.style(glyph if out.unicode else plain, style)


def place_of(rule: Rule) -> str:
    """Return where a rule stands, with the pack's name for one of a pack."""
    return rule.where if rule.pack is None else f"{rule.where} (pack {rule.pack})"


def decision(found: Explanation, verdict: Verdict) -> str:
    """Return a decision in words."""
    if verdict.decision == LEFT_OUT:
        return verdict.why
    rule = verdict.rule
    name = action(found, rule)
    text = DOES[rule.kind]
    if rule.wraps is not None:
        text = f"opens a transaction for each call of {wrapped(rule.wraps)}"
    if name is not None:
        text += f", {name} in {rule.namespace}"
    elif rule.kind in ("event", "enqueue"):
        text += f", {rule.name}"
    fields = [key for key in rule.fields if key not in ("args.callable", "exception", "into", "value", "wraps")]
    if fields:
        text += f"; with {', '.join(fields)}"
    if verdict.decision == SOMETIMES:
        text += f"; only {verdict.why}"
    return text


def wrapped(wraps: Field) -> str:
    """Return in words what a rule's `wraps` says."""
    return "what it returns" if wraps.at == "exit" else f"its argument {wraps.names[0]}"


def in_words(row: dict[str, Any]) -> str:
    """Return what running programs say of a rule."""
    by = f" by {row['mechanism']}" if row["mechanism"] else ""
    many = "1 process" if row["processes"] == 1 else f"{row['processes']} processes"
    calls = counted(row["calls"], "call")
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"{row['status']}{by} in {many}, {calls}{detail}"
