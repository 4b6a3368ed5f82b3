"""Runs a program under autoinst in a process and a home of its own and reads what was recorded, as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoinst.agent.drain import drain_once
from autoinst.testing.recording import stored

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
BOOT = ROOT / "sitecustomize_example"
# What differs from run to run.
VOLATILE = frozenset({"id", "started_at", "duration", "enqueued_at", "pid", "host", "trace_id", "env"})


@dataclass
class Result:
    """What a finished program left."""

    status: int
    pid: int
    stdout: str
    stderr: str
    records: list[dict[str, Any]] = field(default_factory=list)

    def one(self) -> dict[str, Any]:
        """Return the only record."""
        assert len(self.records) == 1, self.records
        return self.records[0]

    def stable(self) -> list[dict[str, Any]]:
        """Return the records without what differs from run to run, event times included."""
        return [stable(record) for record in self.records]


def stable(record: dict[str, Any]) -> dict[str, Any]:
    """Return `record` without what differs from run to run."""
    kept = {key: value for key, value in record.items() if key not in VOLATILE}
    kept["events"] = [
        {key: value for key, value in event.items() if key not in ("start", "duration")} for event in record["events"]
    ]
    return kept


class Program:
    """A folder with a program's files, its rules and its AUTOINST_HOME."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"

    def write(self, name: str, text: str) -> Path:
        """Write file `name`, its indentation removed."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def environ(self, variables: Mapping[str, str | None], *, instrumented: bool = True) -> dict[str, str]:
        """Return the environment of a run; None takes a variable out."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("AUTOINST_")}
        environ.pop("PYTHONPATH", None)
        environ["AUTOINST_HOME"] = str(self.home)
        environ["AUTOINST_AGENT"] = "off"
        if (self.folder / "rules.yaml").exists():
            environ["AUTOINST_RULES"] = "rules.yaml"
        if instrumented:
            environ["PYTHONPATH"] = str(BOOT)
        for key, value in variables.items():
            if value is None:
                environ.pop(key, None)
            else:
                environ[key] = value
        return environ

    def run(
        self,
        *arguments: str,
        instrumented: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
        environ: Mapping[str, str | None] | None = None,
        **variables: str | None,
    ) -> Result:
        """Run Python with `arguments` in the folder, drain the home, and return everything."""
        command = [sys.executable, *arguments]
        given = {**(environ or {}), **variables}
        return self.execute(command, given, instrumented=instrumented, stdin=stdin, timeout=timeout)

    def execute(
        self,
        command: list[str],
        variables: Mapping[str, str | None],
        *,
        instrumented: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
    ) -> Result:
        """Run `command` likewise, as another environment's Python or a console script."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environ(variables, instrumented=instrumented),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stdout, stderr = process.communicate(stdin, timeout=timeout)
        return Result(process.returncode, process.pid, stdout, stderr, self.records() if instrumented else [])

    def records(self) -> list[dict[str, Any]]:
        """Drain the home and return all its records as JSON objects, oldest first."""
        if not (self.home / "spool").exists():
            return []
        drain_once(str(self.home))
        return [record.to_json() for record in stored(str(self.home))]
