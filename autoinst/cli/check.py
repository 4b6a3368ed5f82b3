"""`autoinst check`: everything that is wrong in rules files, each with its place, source line and hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.cli.output import Output, message
from autoinst.rules.load import load_files

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print the problems of `options.files`; returns 1 if there are any, else 0."""
    rules, loader = load_files(options.files, "none")
    out = Output()
    order = {problem.file: place for place, problem in reversed(list(enumerate(loader.problems)))}
    for problem in sorted(loader.problems, key=lambda found: (order[found.file], found.line, found.column)):
        if options.json:
            out.data(problem.to_json())
        else:
            for line in problem.render().split("\n"):
                out.line(line)
            out.line()
    files = {document.file for document, _ in loader.read_files} | {problem.file for problem in loader.problems}
    checked = f"{counted(len(rules.rules), 'rule')} in {counted(len(files), 'file')}"
    if loader.problems:
        message(f"{counted(len(loader.problems), 'problem')}; {checked} would work")
        return 1
    message(f"{checked}, nothing wrong")
    return 0


def counted(number: int, noun: str) -> str:
    """Return `1 rule`, `2 rules`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
