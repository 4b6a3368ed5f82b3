"""The section of docs/benchmarks.md on whether costs grow, made from the figures that benchmarks.curves has stored."""

from __future__ import annotations

import json
from pathlib import Path

STORED = Path(__file__).resolve().parent / "curves.json"
TITLES = {
    "rules": (
        "rules",
        "One rule in ten has a wildcard; all but one are of a package that is not imported.",
    ),
    "functions": ("instrumented functions", "In modules of 100; all are jobs."),
    "threads": ("threads", "All run jobs at the same time, 25 at a go with pauses of 2 ms."),
    "arenas": (
        "arenas",
        "Each is a forked worker's that ran one job; the living sleep. Those `in use` had jobs in the last 2 s.",
    ),
}
ABOUT = """## Whether costs grow

Made by `python -m benchmarks.curves` ({cpu}, {cores} cores, load {load} with other work, CPython {python}, {date}); the
sizes took turns; medians of the rounds. Compare within a line. What still grows, and why: to read the compiled
rules is to read and check one file, of 0.27 MB for a thousand; the first module of a package unpacks the index of that
package's rules, which the import of a module that no rule matches pays for here. Not in the table: the import of the
package `shop` itself looks at every rule for a dotted path that begins with `shop.`, 9 us each, as the rest of the path
might be a class in it. Of jobs of more than some 300 functions in one process the arena's table of names has no room
for all, so their records spell them out, which costs what `each once` shows. A look at all arenas, which an agent takes
once a second, asks the kernel for each whether its owner lives; commands open each to see the jobs in progress, and
without an agent store what is in it first.
"""


def section(stored_in: Path = STORED) -> str:
    """Return the section as Markdown."""
    stored = json.loads(stored_in.read_text())
    parts = [ABOUT.format(**stored["machine"])]
    for name, (what, about) in TITLES.items():
        if name not in stored["curves"]:
            continue
        curve = stored["curves"][name]
        times = "once" if curve["rounds"] == 1 else f"in {curve['rounds']} rounds"
        parts.append(f"{about} Measured {times}.\n")
        parts.append(f"| {what} | " + " | ".join(f"{size:,}" for size in curve["sizes"]) + " |")
        parts.append("|---|" + "---:|" * len(curve["sizes"]))
        parts += [
            f"| {figure} | " + " | ".join(map(text, values)) + " |" for figure, values in curve["figures"].items()
        ]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def text(value: float) -> str:
    """Return a figure as the tables show it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
