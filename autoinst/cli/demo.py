"""`autoinst demo`: run a small real worker under `autoinst run` and show what was recorded."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from autoinst.cli import jobs
from autoinst.cli.output import Output, message
from autoinst.cli.reading import Home, short_id
from autoinst.config import from_environ, make_private
from autoinst.store.query import JobFilter

if TYPE_CHECKING:
    import argparse

    from autoinst.record import Record

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "demo")
PROGRAM = ("worker.py", "jobs.py", "rules.yaml")


def run(options: argparse.Namespace) -> int:
    """Run the demo's worker in a home of its own; returns 0, or 1 where the worker failed or nothing was recorded."""
    home = os.environ.get("AUTOINST_HOME")
    if not home:
        home = tempfile.mkdtemp(prefix="autoinst-demo-")
        os.environ["AUTOINST_HOME"] = home
    started = time.time_ns()
    # Beside its rules the demo needs nothing; AUTOINST_* variables of the caller would change what it shows.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOINST_")}
    environment = kept | {"AUTOINST_HOME": os.path.abspath(home), "AUTOINST_AGENT": "off"}
    rules, worker = copy_program(home)
    out = Output()
    if not options.json:
        out.line(out.style(f"$ autoinst run --rules {shlex.quote(rules)} {shlex.quote(worker)}", "bold"))
        sys.stdout.flush()
    command = [sys.executable, "-m", "autoinst.cli.main", "run", "--rules", rules, worker]
    where = sys.stderr if options.json else None
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=where, check=False)
    if done.returncode:
        message(f"the demo's worker ended with status {done.returncode}")
        return 1
    with Home(from_environ()) as found:
        records = list(found.jobs(JobFilter(limit=0, since_ns=started)))
    if not records:
        message(f"the worker ran, but nothing was recorded in {home}; `AUTOINST_HOME={home} autoinst doctor` says why")
        return 1
    if options.json:
        for record in records:
            out.data(record.to_json())
        return 0
    out.line()
    jobs.print_table(out, records)
    say_where_to_look(out, home, records)
    out.line()
    out.line(f"The worker and its rules, to look at or to change: {os.path.dirname(worker)}")
    return 0


def copy_program(home: str) -> tuple[str, str]:
    """Copy the program into `home`, where it is a program of the user's own; returns its rules and its worker."""
    folder = os.path.join(make_private(home), "demo")
    os.makedirs(folder, exist_ok=True)
    for name in PROGRAM:
        shutil.copyfile(os.path.join(FOLDER, name), os.path.join(folder, name))
    return os.path.join(folder, "rules.yaml"), os.path.join(folder, "worker.py")


def own_command() -> str:
    """Return what to type for this autoinst: its name if PATH leads to it, else its path."""
    beside = os.path.join(os.path.dirname(sys.executable), "autoinst")
    if not os.path.isfile(beside) or shutil.which("autoinst") == beside:
        return "autoinst"
    return os.path.relpath(beside) if beside.startswith(os.getcwd() + os.sep) else beside


def say_where_to_look(out: Output, home: str, records: list[Record]) -> None:
    """Write the commands that show more of these records."""
    prefix = f"AUTOINST_HOME={shlex.quote(home)} {shlex.quote(own_command())}"
    commands = [(f"{prefix} jobs --status error,killed", "what went wrong")]
    for status, about in (("error", "its backtrace and what happened inside"), ("killed", "what a killed job left")):
        record = next((record for record in records if record.status == status), None)
        if record is not None:
            commands.append((f"{prefix} show {short_id(record.id)}", about))
    commands.append((f"{prefix} actions", "totals by action"))
    commands.append((f"{prefix} errors", "what failed, each kind once"))
    commands.append((f"{prefix} jobs --json", "the same for programs"))
    commands.append((f"{prefix} ui", "all of it on a web page"))
    commands.append((f"{prefix} doctor", "settings, rules and what they matched"))
    out.line()
    out.line("Look further:")
    width = max(len(command) for command, _ in commands)
    for command, about in commands:
        out.line(f"  {command.ljust(width)}  {out.style('# ' + about, 'dim')}")
