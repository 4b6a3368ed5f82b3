"""Run a library's own tests with pytest, and write down each test's outcome: child.py FILE [PYTEST ARGUMENT ...].

One line a test in FILE: the repr of (test, outcome, message); the last one is ("@end", summary, "").
../library_tests.py starts this program, plain and under autoinst, and compares.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Outcomes:
    """A plugin of pytest's that writes each outcome down at once."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._pid = os.getpid()

    def write(self, test: str, outcome: str, message: str = "") -> None:
        """Write one line."""
        if os.getpid() == self._pid:  # a test may fork, and its child come back here
            os.write(self._file, f"{(test, outcome, message[-6000:])!r}\n".encode("utf-8", "backslashreplace"))

    def pytest_collectreport(self, report: Any) -> None:
        """Note a module that cannot be imported."""
        if report.failed:
            self.write(report.nodeid, "error", str(report.longrepr))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note how a test, or what comes before or after it, ended."""
        if report.failed:
            kind = "failure" if report.when == "call" else "error"
            crash = getattr(report.longrepr, "reprcrash", None)
            self.write(report.nodeid, kind, str(report.longrepr) if crash is None else crash.message)
        elif report.skipped:
            self.write(report.nodeid, "expected failure" if hasattr(report, "wasxfail") else "skipped")
        elif report.when == "call":
            self.write(report.nodeid, "ok")


def summary() -> dict[str, Any]:
    """Return how many functions got probes, how often they were called, and what went wrong in autoinst itself."""
    finder: Any = next((found for found in sys.meta_path if type(found).__module__ == "autoinst.hook.finder"), None)
    if finder is None:
        return {}
    from autoinst.trace import faults

    states = finder.registry.states.values()
    return {
        "functions": sum(state.found for state in states),
        "calls": sum(state.calls for state in states),
        "mechanism": finder.registry.choice.name,
        "faults": dict(faults.counts),
    }


def main() -> None:
    """Do what the module's docstring says."""
    path, *arguments = sys.argv[1:]
    sys.path[0] = os.getcwd()  # as for `python -m pytest`
    sys.argv[1:] = arguments
    import pytest

    outcomes = Outcomes(path)
    pytest.main(arguments, plugins=[outcomes])
    outcomes.write("@end", repr(summary()))
    sys.stdout.flush()
    os._exit(0)  # whatever threads the tests left behind


if __name__ == "__main__":
    main()
