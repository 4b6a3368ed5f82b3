"""Run the tests, and once more those that failed.

unsteady.py [argument of pytest ...]

Thousands of tests start real workers, brokers and agents on machines that are busy with other things, and now and then
one of them is unlucky. A test that fails twice has failed. One that passes the second time, with no other test of its
Python's beside it, is called unsteady and named in the last lines: it is to be mended, yet says nothing of the change
that it ran with.
Where more than MOST fail there is more than bad luck, and none is run again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parent.parent
MOST = 5  # failed tests that are run again
FAILED = 1  # pytest's status where tests failed; others say that it could not run them
BROKEN = 3  # its status after an error of its own, of which pytest-xdist tells, but may end with 0
SUMMARY = re.compile(r"^=* ?(?:\d+ failed, )?(\d+) passed(.*?)=*$", re.MULTILINE)


def main() -> int:
    """Return pytest's status, 0 where what failed passed when it was run again."""
    arguments = [*sys.argv[1:], "--color=yes"] if sys.stdout.isatty() else sys.argv[1:]
    # One more than there are cores: for much of their time tests wait for processes to start and to end.
    parallel = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile"]
    status, summary = run(sys.executable, arguments, sys.stdout.write, parallel)
    if summary and status == 0:
        print(f"{'=' * 10} {summary} {'=' * 10}")  # of all, below what the second run said of its few
    return status


def run(
    python: str, arguments: list[str], say: Callable[[str], object], parallel: Iterable[str] = ()
) -> tuple[int, str]:
    """Run pytest with `python`, and again for what failed; return the status and a summary.

    `say` gets what both runs print, `parallel` are arguments of the first alone. The summary is empty where pytest's
    own is the last thing said.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "pytest", "-o", f"cache_dir={folder}"]
        status, output = tell([*command, *parallel, *arguments], say)
        if status == 0 and "INTERNALERROR>" in output:
            return BROKEN, ""
        failed = failures(Path(folder)) if status == FAILED else []
        if not 0 < len(failed) <= MOST:
            return status, ""
        say(f"\nOnce more, and alone: {' '.join(failed)}\n")
        again, _ = tell([*command, *arguments, "-q", "--last-failed"], say)
    if again:
        return again, ""
    for name in failed:
        say(f"unsteady: {name}\n")
    return 0, counted(output, len(failed))


def tell(command: list[str], say: Callable[[str], object]) -> tuple[int, str]:
    """Run a command in the project's folder, `say` its lines as they come; return its status and output."""
    lines = []
    # Tests that fail may show bytes that are no text.
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            say(line)
    return process.returncode, "".join(lines)


def failures(cache: Path) -> list[str]:
    """Return the names of the tests that failed, as pytest's cache has them; none where more than tests failed."""
    file = cache / "v" / "cache" / "lastfailed"
    found = sorted(json.loads(file.read_text())) if file.exists() else []
    return found if all("::" in name for name in found) else []


def counted(output: str, unsteady: int) -> str:
    """Return the first run's summary with its failed tests counted as passed."""
    found = SUMMARY.findall(re.sub(r"\x1b\[[0-9;]*m", "", output))
    if not found:
        return ""
    passed, rest = found[-1]
    return f"{int(passed) + unsteady} passed, {unsteady} of them unsteady{rest.rstrip(' =')}"


if __name__ == "__main__":
    sys.exit(main())
