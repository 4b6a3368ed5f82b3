"""A library's worker twice, with autoinst and without, each with the same bad payloads: what both did is compared."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import pytest

from tests.bad_payloads import LARGE
from tests.workers import DEADLINE, Worker, wait_until

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

STARTS = 3  # of a worker, which some payloads end
# What differs from run to run, and what takes its place.
VOLATILE = {
    r"x{9999,}": "LARGE",  # first: to look for the others in megabytes takes seconds
    r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(\+00:00|Z)?|\b\d\d:\d\d:\d\d\b": "TIME",
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b|\b[0-9a-f]{32}\b": "ID",
    r"(?<= worker )[0-9a-f]{8}\b|(?<=health:)[0-9a-f]{8}\b": "ID",
    r"(?<=Q Cluster )\S+|(?<=guarding cluster )\S+": "NAME",  # words by chance
    r"(?<= at )\d+$": "NUMBER",
    r"0x[0-9a-f]+": "ADDRESS",
    r"\b(\d+:\d\d:)*\d+\.\d+(e-\d\d)? ?[sM]\b|\b\d+ms\b": "AMOUNT",
    r"(?<!line )\b\d{3,}(\.\d+)?\b": "NUMBER",
    r"\d+ ongoing to cancel": "AMOUNT",
    # A call stack that is logged shows the probe of a thread's start; pyres is told to end while a child of it ends.
    r"(?m)^.*\b_bootstrap_inner\b.*$|^.*Killing child at.*$": "",
}


class Side:
    """One worker and what it did, with autoinst or without; its last job notes "last"."""

    def __init__(
        self,
        folder: Path,
        environment: str,
        files: Mapping[str, str],
        variables: Mapping[str, str | None],
        *,
        instrumented: bool,
    ) -> None:
        self.worker = Worker(folder, environment, files, variables, instrumented=instrumented)
        self.folder = self.worker.program.folder
        self.statuses: list[int] = []
        self.output = ""

    def call(self, *words: str) -> str:
        """Run a command of the environment, without autoinst, and return its output."""
        command = [str(self.worker.bin / words[0]), *words[1:]]
        environ = self.worker.environ
        done = subprocess.run(
            command, cwd=self.folder, env=environ, check=True, stdout=subprocess.PIPE, text=True, timeout=DEADLINE
        )
        return done.stdout

    def work(self, start: Sequence[str], by: signal.Signals | None, is_done: Callable[[], bool]) -> None:
        """Run the worker until the last job ran and `is_done`, and start it again where a payload ended it.

        It is ended by `by`, or ends by itself.
        """
        for _ in range(STARTS):
            self.worker.start(*start)
            self.worker.wait_for(["last"])
            process = self.worker.process
            assert process is not None
            wait_until(lambda: process.poll() is not None or is_done())  # noqa: B023 - within its round
            if process.poll() is None and by is not None:
                process.send_signal(by)
            try:
                self.statuses.append(process.wait(DEADLINE))
            finally:
                self.worker.end()
            self.output += (self.folder / "worker.log").read_text(errors="backslashreplace")
            if "last" in self.worker.runs():
                return
        pytest.fail(f"the last job did not run\n{self.output[-3000:]}")

    def did(self, left: Sequence[str]) -> list[str]:
        """Return all there is to see of it, and what is `left`, in lines, without what differs from run to run."""
        output = self.output.replace(str(self.folder), "FOLDER")
        asked = self.folder / "asked.log"
        lines = [*output.splitlines(), *left, *(f"ran {name}" for name in self.worker.runs())]
        lines += [f"asked {name}" for name in asked.read_text().split()] if asked.exists() else []
        return [*map(str, self.statuses), *sorted(filter(None, map(normalised, lines)))]

    def records(self) -> list[dict[str, Any]]:
        """Return the records, oldest first; fails where large arguments were kept whole."""
        spool = sum(path.stat().st_size for path in (self.worker.program.home / "spool").glob("*.arena"))
        assert spool < LARGE / 4
        return sorted(self.worker.program.records(), key=lambda record: record["started_at"])

    def doctor(self) -> str:
        """Return what `doctor` says, whatever its exit status."""
        return subprocess.run(
            [str(self.worker.bin / "autoinst"), "doctor"],
            cwd=self.folder,
            env=self.worker.environ,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE,
        ).stdout


def normalised(text: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, word in VOLATILE.items():
        text = re.sub(pattern, word, text)
    return text


def both(work: Callable[[Any], object], plain: Side, side: Side) -> None:
    """Let both sides work at the same time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (plain, side)))


def check_same(plain: Sequence[str], side: Sequence[str]) -> None:
    """Compare what both sides did."""
    different = unified_diff(plain, side, "without", "with", n=0, lineterm="")
    text = "\n".join(line[:500] for line in different)
    assert not text, text


def first_argument(record: Mapping[str, Any]) -> str:
    """Return the first argument of a job, which its run notes."""
    named = record["kwargs"] if isinstance(record["kwargs"], dict) else {}
    given = record["args"] or [named.get("name")]
    return str(next(iter(given)) if isinstance(given, (list, dict)) else given)


def check_arguments(side: Side) -> None:
    """Check that each run has its record, by the first argument, and that the start of a large argument was kept."""
    records = side.records()
    assert not Counter(side.worker.runs()) - Counter(map(first_argument, records))
    (large,) = (record for record in records if first_argument(record) == "large")
    value = large["args"][-1] if large["args"] else large["kwargs"]["value"]
    assert value.startswith("xxx")
    assert value.endswith(f"... {LARGE - 2_000} more")
