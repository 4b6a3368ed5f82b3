"""`autoinst check`: everything that is wrong in rules files, each with its place, source line and hint."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from autoinst.cli.output import Output, message
from autoinst.config import from_environ
from autoinst.errors import UsageError
from autoinst.rules.check import check_with_notes

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print the problems of `options.files`, else of the rules files in force here; returns 1 if there are any, else 0.

    The program's modules are looked for where Python would: in `options.path`, else the working directory and the
    folders of the files, then on this Python's `sys.path`. None of them is imported.
    """
    files = options.files or [os.path.relpath(file) for file in from_environ().rules]
    if not files:
        raise UsageError("no rules file here: name one, or have `autoinst init` write autoinst.yaml")
    near = options.path or [".", *(os.path.dirname(file) for file in files)]
    search = list(dict.fromkeys([*(os.path.abspath(folder) for folder in near), *sys.path]))
    problems, notes = check_with_notes(files, search)
    out = Output()
    for problem in problems:
        if options.json:
            out.data(problem.to_json())
        else:
            for line in problem.render().split("\n"):
                out.line(line)
            out.line()
    for note in notes:
        message(note)
    if problems:
        message(f"{counted(len(problems), 'problem')}; the other rules would work")
        return 1
    message(f"nothing wrong in {', '.join(files)}")
    return 0


def counted(number: int, noun: str) -> str:
    """Return `1 rule`, `2 rules`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
