"""Runs a program under autoinst in a home of its own, and returns the jobs it recorded."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoinst.agent.drain import drain_once
from autoinst.testing.jobs import Jobs
from autoinst.testing.recording import stored
from autoinst.testing.rules import as_file, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autoinst.testing.rules import Rules

SECONDS = 60.0


@dataclass
class Run:
    """A program that has ended: its exit status (negative: the signal), what it wrote, and its jobs."""

    returncode: int
    stdout: str
    stderr: str
    jobs: Jobs = field(repr=False)


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    rules: Rules | None = None,
    packs: str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = SECONDS,
) -> Run:
    """Run `command` as `autoinst run` does (`["worker.py"]`, `["-m", "app"]`, `["rq", "worker"]`) and wait for it.

    `rules` are a file or folder, its text, or a mapping; without them `autoinst.yaml` in the working directory is used.
    `env` is its whole environment (default: this process's), but for the AUTOINST_* variables that this sets. The jobs
    of processes it leaves behind are those that had ended by then.

    Raises RulesError for rules with problems, subprocess.TimeoutExpired after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="autoinst-testing-") as folder:
        home = os.path.join(folder, "home")
        environ = dict(os.environ if env is None else env)
        environ |= {"AUTOINST_HOME": home, "AUTOINST_AGENT": "off"}
        if rules is not None:
            load(rules, folder, packs)  # what is wrong in them is this caller's to see
            environ["AUTOINST_RULES"] = as_file(rules, folder)
        if packs is not None:
            environ["AUTOINST_PACKS"] = packs
        done = subprocess.run(
            [sys.executable, "-m", "autoinst.cli.main", "run", *(os.fspath(word) for word in command)],
            cwd=cwd,
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if os.path.isdir(home):
            drain_once(home)
        records = stored(home)
    return Run(done.returncode, done.stdout, done.stderr, Jobs(lambda: records))
