"""`autoinst init`: a first rules file, made from what the program's text shows."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from autoinst.cli.output import Output, joined, message
from autoinst.errors import UsageError
from autoinst.rules import __file__ as rules_package
from autoinst.rules.candidates import find
from autoinst.rules.check import check_files
from autoinst.rules.packs import OPT_IN, builtin_packs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from autoinst.rules.candidates import Candidate, Findings

NAME = "autoinst.yaml"
WIDTH = 110  # of its lines
QUEUE_NAMES = ("queue", "queue_name")
TIME_NAMES = ("enqueued_at", "created_at", "queued_at")


def run(options: argparse.Namespace) -> int:
    """Write `options.output` for the program in `options.folder`; returns 0, or 1 where there is such a file already.

    Raises UsageError for a folder that is none.
    """
    root = os.path.abspath(options.folder)
    if not os.path.isdir(root):
        raise UsageError(f"{options.folder} is no folder")
    path = options.output or os.path.join(options.folder, NAME)
    if path != "-" and os.path.exists(path) and not options.force:
        message(f"{path} is there already; --force writes it anew, `-o -` only shows what it would be")
        return 1
    found = find(root, job_packs())
    text = "\n".join(lines(found, root, os.path.dirname(os.path.abspath(path)))) + "\n"
    if options.json:
        Output().data(summary(found, root, path))
    elif path == "-":
        sys.stdout.write(text)
    if path == "-":
        return 0
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return verify(path, root) or say(found, path, quiet=options.json)


def job_packs() -> list[str]:
    """Return the names of the packs that record jobs; the others record steps inside them."""
    found = []
    for name, path in builtin_packs().items():
        with open(path, encoding="utf-8") as file:
            if re.search(r"^jobs:", file.read(), re.MULTILINE):
                found.append(name)
    return found


def verify(path: str, root: str) -> int:
    """Say what `autoinst check` finds wrong in the new file; returns 1 if there is anything, else 0."""
    problems = check_files([path], [os.path.join(root, "src"), root, *sys.path])
    for problem in problems:
        message(problem.render())
    return 1 if problems else 0


def say(found: Findings, path: str, *, quiet: bool) -> int:
    """Tell what was written and what to do next; returns 0."""
    if quiet:
        return 0
    likely = sum(candidate.likely for candidate in found.candidates)
    message(f"wrote {path}: {likely} rules in force, {len(found.candidates) - likely} more as comments")
    if found.libraries:
        message(f"jobs of {joined(sorted(found.libraries))} need no rule")
    message("read it, then: autoinst check " + path)
    message("           and: autoinst run worker.py, with the name of your own worker")
    return 0


def summary(found: Findings, root: str, path: str) -> dict[str, object]:
    """Return what was found as JSON."""
    return {
        "file": None if path == "-" else path,
        "modules": found.modules,
        "libraries": sorted(found.libraries),
        "candidates": [
            {
                **dict(candidate.target),
                "file": os.path.relpath(candidate.file, root),
                "line": candidate.line,
                "why": candidate.why,
                "likely": candidate.likely,
            }
            for candidate in found.candidates
        ],
    }


def lines(found: Findings, root: str, folder: str) -> Iterator[str]:
    """Yield the lines of the rules file that is to lie in `folder`."""
    yield f"# yaml-language-server: $schema={schema_path(folder)}"
    yield "# Which calls are background jobs. `autoinst check` says what is wrong here."
    yield "version: 1"
    yield f"service: {quoted(os.path.basename(root) or 'worker')}"
    yield ""
    packs = job_packs()
    yield "# Built-in packs record the jobs of these libraries without any rule (`-rq` turns one off, `none` all):"
    yield from wrapped([pack for pack in packs if pack not in OPT_IN])
    others = [pack for pack in packs if pack in OPT_IN]
    if others:
        yield "# Only where they are named, as they see more than jobs:"
        yield from wrapped(others)
    used = ", ".join(sorted(found.libraries))
    yield f"# Seen in this program: {used or 'none of them'}."
    yield "# packs: [default]"
    yield ""
    likely = [candidate for candidate in found.candidates if candidate.likely]
    yield "jobs:" if likely else "jobs: []"
    for candidate in likely:
        yield from rule(candidate, root, "  ")
    rest = [candidate for candidate in found.candidates if not candidate.likely]
    if rest:
        yield "  # Perhaps these too:" if likely else "# Perhaps these are jobs (then take `[]` away above):"
    for candidate in rest:
        yield from rule(candidate, root, "  # ")
    if not found.candidates:
        yield from EXAMPLE.splitlines()
    yield from CLOSING.splitlines()


def rule(candidate: Candidate, root: str, indent: str) -> Iterator[str]:
    """Yield a rule with the place it was seen at."""
    place = f"{os.path.relpath(candidate.file, root)}:{candidate.line}"
    comment = indent if indent.endswith("# ") else f"{indent}# "
    yield f"{comment}{place}, {candidate.why}"
    lead = "- "
    for key, value in candidate.target:
        shown = f"[{', '.join(value)}]" if isinstance(value, tuple) else value
        yield f"{indent}{lead}{key}: {shown}"
        lead = "  "
    fields = [("queue", name) for name in QUEUE_NAMES if name in candidate.parameters][:1]
    fields += [("enqueued_at", name) for name in TIME_NAMES if name in candidate.parameters][:1]
    if fields:
        yield f"{indent}  payload:"
        for key, name in fields:
            yield f'{indent}    {key}: "${{{name}}}"'


def wrapped(names: list[str]) -> Iterator[str]:
    """Yield names as lines of a comment."""
    line = "#  "
    for name in names:
        if len(line) + len(name) > WIDTH:
            yield line
            line = "#  "
        line += f" {name}"
    yield line


def schema_path(folder: str) -> str:
    """Return where the JSON schema of rules files lies: relative if it is below the file's own folder."""
    path = os.path.join(os.path.dirname(os.path.abspath(rules_package)), "schema.json")
    return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path


def quoted(text: str) -> str:
    """Return `text` as a YAML scalar in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


EXAMPLE = """\
# Nothing here looks like a job. A rule names a class with its methods, or a function:
#   - class: shop.jobs.InvoiceMailer
#     methods: [perform]
#   - function: shop.tasks.send_email
"""

CLOSING = """
# What else a rule may say (docs/rules.md has all keys):
#   - class: shop.jobs.InvoiceMailer
#     methods: [perform]
#     payload:
#       queue: "${self.queue}"                # the call's parameters by name, `self`, `args`, `kwargs`
#       enqueued_at: "${self.enqueued_at}"    # the queue time counts from here
#       attempts: "${self.retries + 1}"
#       args: "${args}"                       # arguments are recorded where they are asked for
#     tags: {customer: "${customer.id}"}
#     ignore_exceptions: [shop.errors.NotYet]
#
# events:                                     # steps inside a job, on its time line
#   - {class: shop.pdf.Renderer, methods: [render], name: render.pdf}
"""
