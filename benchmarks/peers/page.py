"""Makes docs/benchmarks.md from the figures of stored runs (python -m benchmarks.peers.page).

Nothing of the page is written by hand but the sentences here; a test checks that it is what this makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import curves_page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
OWN = "autoinst"
FLOOR = ("none", "wrapt")  # they record nothing, so nobody is compared with them
EQUAL = 1.05  # a figure this much above another counts as the same on a shared machine


class Column(NamedTuple):
    """A column: its head, its figure, whether plain Python's is taken off, its digits, whether more is better."""

    head: str
    figure: str
    added: bool = False
    digits: int = 0
    more: bool = False


TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "In the job's thread": (
        (
            "us that one call takes more than in plain Python, ten calls at a time with pauses of 2 ms "
            "between: median and 99th percentile. The last two have three threads beside them that compute all "
            "the time."
        ),
        (
            Column("no-op p50", "noop p50", added=True, digits=1),
            Column("p99", "noop p99", added=True, digits=1),
            Column("3 events p50", "events p50", added=True, digits=1),
            Column("p99", "events p99", added=True, digits=1),
            Column("raising p50", "raising p50", added=True, digits=1),
            Column("p99", "raising p99", added=True, digits=1),
            Column("beside threads p50", "beside p50", added=True, digits=1),
            Column("p99", "beside p99", added=True, digits=1),
        ),
    ),
    "The process": (
        (
            "Start-up is what a process with one job takes more than plain Python's, memory is private memory "
            "more than plain Python's, without autoinst's mapped arenas; agents are the processes a product "
            "starts beside the worker. CPU is that of all processes for a job with three events at 1,000 a "
            "second, the agents' own start not counted."
        ),
        (
            Column("start-up, CPU ms", "start CPU ms", added=True),
            Column("start-up, wall ms", "start wall ms", added=True),
            Column("memory idle, MB", "memory idle MB", added=True, digits=1),
            Column("after the burst, MB", "memory after MB", added=True, digits=1),
            Column("agents, MB", "agents' memory MB", digits=1),
            Column("CPU of all, us a job", "CPU of all processes, us a job", added=True),
        ),
    ),
    "What arrives": (
        (
            "Per cent of jobs that are recorded one by one: of a burst in a tight loop with a normal end; of a "
            "few jobs right before a SIGTERM and a SIGKILL; of one job in each of many forks that end by "
            "`os._exit`, as RQ's do. The second column counts also jobs of which only the number arrived. The "
            "last says whether a job killed half way is shown."
        ),
        (
            Column("burst", "burst: recorded %", more=True),
            Column("with counted", "burst: with counted %", more=True),
            Column("SIGTERM", "SIGTERM: recorded %", more=True),
            Column("SIGKILL", "SIGKILL: recorded %", more=True),
            Column("forks", "fork: recorded %", more=True),
            Column("half a job", "killed half way: shown", more=True),
        ),
    ),
    "A server that is not there": (
        (
            "Seconds of a whole process with one job, where the product's server refuses connections, and "
            "where it accepts them and never answers."
        ),
        (
            Column("refuses", "server refuses, s", digits=1, added=True),
            Column("silent", "server silent, s", digits=1, added=True),
        ),
    ),
    "Real jobs": (
        (
            "Workers of Celery (two processes) and RQ (a fork a job); each job writes and reads SQLite, asks "
            "an HTTP server on loopback and computes. Seconds for all, and CPU time of all processes a job, "
            "start-up and agents included. RQ's own command imports what a job needs in each fork, unless the "
            "product has done so in the parent, so that it compares imports; the preloaded worker has imported "
            "its jobs before it forks, as RQ's documentation advises."
        ),
        (
            Column("Celery, s", "celery total s", digits=1),
            Column("CPU ms a job", "celery CPU ms a job", digits=2),
            Column("RQ preloaded, s", "preloaded total s", digits=1),
            Column("CPU ms a job", "preloaded CPU ms a job", digits=2),
            Column("RQ's command, s", "rq total s", digits=1),
            Column("CPU ms a job", "rq CPU ms a job", digits=2),
        ),
    ),
}
ABOUT = """# Benchmarks

What autoinst costs and keeps beside the products a user would pick instead. This page is made from a stored run
(`benchmarks/peers/results.json`); `make bench-peers` makes another on your machine, `make bench` the other figures.
"""
CAVEATS = """
- The machine was shared, so single figures are worth little: all products took turns, and the figures are medians
  of the rounds. Compare within a column.
- Every product sends to a sink on loopback and keeps everything, traces alone. The sink stands in for the agents of
  ddtrace and Scout, whose own memory and CPU are therefore not counted; autoinst's agent and AppSignal's are.
- autoinst stores on this machine by an agent that `autoinst run` starts; the others send elsewhere, and what their
  servers take is not counted.
- ddtrace, New Relic and OpenTelemetry are started by their commands, the others by a call in the program, and all are
  told of the jobs by their own decorators; autoinst by a rules file.
- New Relic's figures are with its wait for registration at the start, which its documentation asks of background jobs.
- wrapt alone records nothing: it is what a wrapper costs at least.
"""


def main() -> None:
    PAGE.write_text(made())


def made() -> str:
    """Return the page."""
    return "\n".join((page(json.loads(RESULTS.read_text())), curves_page.section()))


def page(results: dict[str, Any]) -> str:
    """Return the page of these results."""
    machine = results["machine"]
    size = results["size"]
    where = (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores (load {machine['load']} with "
        f"other work), {machine['kernel']}, CPython {machine['python']}; {size['rounds']} rounds, "
        f"{size['burst']:,} jobs a burst, {size['few']:,} before a signal, {size['forks']} forks"
    )
    figures = results["figures"]
    shown = {"celery": "Celery", "preloaded": "RQ preloaded", "rq": "RQ's command"}
    real = [f"{size[kind]:,} real jobs of {title}" for kind, title in shown.items() if f"{kind} total s" in figures]
    where = ", ".join((where, *real)) + "."
    return (
        "\n".join(
            (ABOUT, where, results.get("note", ""), CAVEATS, behind(results), tables(results), probes(results))
        ).rstrip()
        + "\n"
    )


def value(results: dict[str, Any], column: Column, name: str) -> float | None:
    """Return a figure of a product, or None where it has none."""
    by_product = results["figures"].get(column.figure, {})
    if name not in by_product or (column.added and "none" not in by_product):
        return None
    return float(by_product[name] - (by_product["none"] if column.added else 0))


def text(number: float | None, digits: int) -> str:
    """Return a figure as the tables show it."""
    if number is None:
        return "-"
    rounded = round(number, digits) + 0.0  # no minus before a zero
    return f"{rounded:,.{digits}f}"


def ahead(results: dict[str, Any], column: Column) -> list[str]:
    """Return the products that record and have a better figure than autoinst, best first."""
    own = value(results, column, OWN)
    others = {name: value(results, column, name) for name in results["products"] if name not in (*FLOOR, OWN)}
    if own is None:
        return []
    better = {
        name: number
        for name, number in others.items()
        if number is not None and (number > own * EQUAL if column.more else number * EQUAL < own)
    }
    return sorted(better, key=lambda name: better[name], reverse=column.more)


def behind(results: dict[str, Any]) -> str:
    """Say in which figures others are ahead of autoinst."""
    lines = []
    for title, (_, columns) in TABLES.items():
        head = ""
        for column in columns:
            head = column.head if not column.head.startswith("p99") else f"{head.removesuffix(' p50')} p99"
            if names := ahead(results, column):
                one = results["products"]
                shown = ", ".join(
                    f"{one[n]['title']} {text(value(results, column, n), max(column.digits, 1))}" for n in names[:3]
                )
                own = text(value(results, column, OWN), max(column.digits, 1))
                lines.append(f"- {title}, {head}: autoinst {own}; {shown}.")
    if not lines:
        lines = ["Nowhere in this run."]
    return "\n".join(
        ("## Where autoinst is not first", "", f"By more than {EQUAL - 1:.0%} of a figure:", "", *lines, "")
    )


def tables(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for title, (about, columns) in TABLES.items():
        used = [column for column in columns if results["figures"].get(column.figure)]
        if not used:
            continue
        parts += [f"## {title}", "", about, "", "| | " + " | ".join(column.head for column in used) + " |"]
        parts.append("|---|" + "---:|" * len(used))
        for name, product in results["products"].items():
            shown = [None if name == "none" and column.added else value(results, column, name) for column in used]
            if name in FLOOR and not any(shown):
                continue
            cells = [text(number, column.digits) for number, column in zip(shown, used, strict=True)]
            label = f"**{product['title']}**" if name == OWN else product["title"]
            parts.append(f"| {label} {product['version']} | ".replace("  ", " ") + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def probes(results: dict[str, Any]) -> str:
    """Return the table of what a program can see, as Markdown."""
    found = results["transparency"]
    names = [name for name in results["products"] if name in found and name != "none"]
    if not names:
        return ""
    lines = [
        "## What a program can see",
        "",
        "Whether a function that is a job is as in plain Python; the others' decorators are put in place of the",
        "function's name after its module was imported.",
        "",
        "| | " + " | ".join(results["products"][name]["title"] for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for question in found[names[0]]:
        answers = ["yes" if found[name][question] else "no" for name in names]
        lines.append(f"| {question} | {' | '.join(answers)} |")
    return "\n".join((*lines, ""))


if __name__ == "__main__":
    main()
