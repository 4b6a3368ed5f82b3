"""Runs job libraries' own workers, each from its library's environment, with autoinst or without.

Every job of such a test writes its id into runs.log when it begins, so that a test knows without autoinst what ran.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

from autoinst.spool.layout import event_span_id
from tests.harness import ROOT, Program, stable
from tests.libraries import program_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ADDRESS = re.compile(r"\b(0x)?[0-9a-f]{12}\b")  # of an object, in a message
DEADLINE = 90.0  # seconds a worker may take on a slow machine
# For the jobs' own module: `note(job_id)` logs a run and returns how many there were of the job.
NOTE = """
import os

def note(job_id):
    line = f"{job_id}\\n"
    descriptor = os.open("runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    with open("runs.log") as log:
        return log.readlines().count(line)
"""

# Runs the program named on its command line as on a machine whose clock is five minutes ahead.
AHEAD = """
import datetime, runpy, sys, time

seconds = 300
now, now_ns, real = time.time, time.time_ns, datetime.datetime
time.time = lambda: now() + seconds
time.time_ns = lambda: now_ns() + seconds * 1_000_000_000

class Ahead(real):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=seconds)

    @classmethod
    def utcnow(cls):
        return super().utcnow() + datetime.timedelta(seconds=seconds)

Ahead.__module__, Ahead.__qualname__ = "datetime", "datetime"  # for those who pickle one
datetime.datetime = Ahead
del sys.argv[0]
sys.path[0] = ""
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Before a command: its clock is five minutes behind those of the servers, and what waits for seconds waits for seconds.
BEHIND = ("faketime", "-m", "--exclude-monotonic", "-f", "-300")


class Worker:
    """A folder with a program of `files`, notes.py and ahead.py, and its worker process from environment `library`."""

    def __init__(
        self,
        folder: Path,
        library: str,
        files: Mapping[str, str],
        variables: Mapping[str, str | None],
        *,
        instrumented: bool = True,
    ) -> None:
        folder.mkdir(parents=True)
        self.program = Program(folder)
        self.program.write("notes.py", NOTE)
        self.program.write("ahead.py", AHEAD)
        for name, text in files.items():
            self.program.write(name, text)
        self.instrumented = instrumented
        self.bin = Path(program_of(library, "python")).parent
        path = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        self.environ = self.program.environ({**path, **variables}, instrumented=False)
        self.process: subprocess.Popen[str] | None = None
        self.output = ""
        self.deadline = DEADLINE

    def command(self, words: tuple[str, ...]) -> list[str]:
        """Return the command line of console script or `python` `words`, under autoinst if this worker is."""
        return (
            [str(self.bin / "autoinst"), "run", *words] if self.instrumented else [str(self.bin / words[0]), *words[1:]]
        )

    def call(self, *words: str) -> str:
        """Run a command to its end, which must be a good one, and return its output."""
        done = subprocess.run(
            self.command(words),
            cwd=self.program.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.deadline,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, *words: str) -> None:
        """Start the worker, in a process group of its own, which ends with these tests if not before."""
        if self.process is not None:
            self.end()
        with open(self.program.folder / "worker.log", "w") as log:
            self.process = subprocess.Popen(
                self.command(words),
                cwd=self.program.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        atexit.register(self.end)

    def end(self) -> None:
        """Kill what is left of the worker: its main process, and others that it started."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        atexit.unregister(self.end)

    def wait_for(self, runs: Iterable[str]) -> None:
        """Wait until each of `runs` (ids, as often as they run) began, or the worker has ended."""
        assert self.process is not None
        wanted = Counter(runs)
        deadline = time.monotonic() + self.deadline
        while self.process.poll() is None and time.monotonic() < deadline and wanted - Counter(self.runs()):
            time.sleep(0.05)

    def wait_for_records(self, count: int) -> None:
        """Wait until `count` runs are recorded, which is when they have ended, or the worker has ended."""
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < deadline and len(self.program.records()) < count:
            time.sleep(0.1)

    def stop_after(self, runs: Iterable[str], *, by: signal.Signals | None = signal.SIGTERM) -> int:
        """Ask the worker to finish once each of `runs` (ids, as often as they run) began; return its exit status.

        With `by=None` it ends by itself.
        """
        assert self.process is not None
        wanted = Counter(runs)
        self.wait_for(wanted.elements())
        if by is not None:
            self.process.send_signal(by)
        try:
            status = self.process.wait(self.deadline)
        finally:
            self.end()
            self.output = (self.program.folder / "worker.log").read_text()
        assert Counter(self.runs()) == wanted, self.output
        return status

    def runs(self) -> list[str]:
        """Return the ids of the runs that began, in their order."""
        path = self.program.folder / "runs.log"
        return path.read_text().split() if path.exists() else []

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records by job id, oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in sorted(self.program.records(), key=lambda record: record["started_at"]):
            found.setdefault(record["job_id"], []).append(record)
        return found


def rule(title: str) -> str:
    """Return the rules file that docs/libraries.md has under a heading."""
    text = (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {title}\n.*?^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait until a condition holds, such as that a broker has nothing left; fails after DEADLINE."""
    deadline = time.monotonic() + DEADLINE
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def whole(record: dict[str, Any]) -> dict[str, Any]:
    """Return all of a record that is the same in each run: what depends on time is only said to be there."""
    kept = stable(record)
    for name in ("thread", "service", "environment", "revision", "params"):
        kept.pop(name)
    # What a library's own clients do in a job depends on its version; tests/test_events.py is about them.
    kept["events"] = [event for event in kept["events"] if event["name"].startswith(("enqueue.", "perform_job"))]
    kept["rule"] = kept["rule"].partition(":")[0]
    for name in ("queue_time", "parent_span_id"):
        kept[name] = kept[name] is not None
    if kept["exception"] is not None:
        kept["exception"] = _exception(kept["exception"])
    if "killed" in kept:
        kept["killed"] = record["killed"]["pid"] == record["pid"]
    return kept


def check_records(
    worker: Worker, expected: dict[str, list[dict[str, Any]]], *, key: str = "job_id"
) -> dict[str, list[dict[str, Any]]]:
    """Compare what a stopped worker recorded with `expected`, by job, and return the records themselves.

    With `key` "args" a job is known by its first argument, with "class" by its class, with "tags.NAME" by a tag; its
    id is made up then.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(worker.program.records(), key=lambda record: record["started_at"]):
        name = record["job_id"]
        if key == "args":
            name = record["args"][0] if record["args"] else None
        elif key.startswith("tags."):
            name = record["tags"][key[5:]]
        elif key == "class":
            name = record["class"].rpartition(".")[2]
        found.setdefault(name, []).append(record)
    compared = {name: [whole(record) for record in records] for name, records in found.items()}
    if key != "job_id":
        for name, records in compared.items():
            for record in records:
                record["job_id"] = name if record["job_id"] else None
    different = {
        name: (compared.get(name), expected.get(name))
        for name in compared.keys() | expected.keys()
        if compared.get(name) != expected.get(name)
    }
    assert not different, f"{pformat(different, sort_dicts=False)}\n{worker.output}"
    return found


def link(record: dict[str, Any]) -> tuple[str, str]:
    """Return the trace of a record, and the span that it says it is under."""
    return record["trace_id"], record["parent_span_id"]


def utc(text: str) -> float:
    """Return an RFC 3339 time, as a record has it, as seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def put_by(record: dict[str, Any], number: int = 0) -> tuple[str, str]:
    """Return the `link` of a job that the record's enqueue of that number, from 0, put on a queue."""
    enqueues = [at for at, event in enumerate(record["events"]) if event["name"].startswith("enqueue.")]
    return record["trace_id"], event_span_id(bytes.fromhex(record["id"][16:]), enqueues[number]).hex()


def _exception(exception: dict[str, Any]) -> tuple[Any, ...]:
    """Return class, message, causes, and the innermost function of the program."""
    own = [frame["function"] for frame in exception["backtrace"] if frame["in_app"]]
    causes = [(cause["class"], ADDRESS.sub("ADDRESS", cause["message"])) for cause in exception["causes"]]
    message = ADDRESS.sub("ADDRESS", exception["message"])
    return (exception["class"], message, causes, own[-1] if own else None)


def run(library: str, job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    """Return what `whole` gives: a good first run of `function` on queue `mail` but for what `fields` say."""
    class_name, _, method = function.rpartition(".")
    expected = {
        "status": "ok",
        "namespace": "background_job",
        "name": f"perform_job.{library}",
        "action": f"{class_name}#{method}",
        "class": class_name,
        "method": method,
        "queue": "mail",
        "queue_time": True,
        "attempts": 1,
        "job_id": job_id,
        "exception": None,
        "events": [],
        "dropped_events": 0,
        "args": [],
        "kwargs": {},
        "tags": {},
        "rule": f"{library}.yaml",
        "parent_span_id": False,
    }
    return {**expected, **fields}
