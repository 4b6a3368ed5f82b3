"""Run libraries' own tests plain and with a job rule on every function of the library, and compare test by test.

library_tests.py [--python 3.13 ...] [--mechanism inline] [--details FILE] [LIBRARY ...]

The tests are those in the library's sdist, which pip fetches in the version and with the hash of the lock
requirements/libraries/suites.txt; they run in an environment made from that lock. A test that passes plain and fails
with probes, twice, makes the exit status 1, unless KNOWN says why.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(ROOT / "scripts"), str(ROOT / "benchmarks")]

import environments  # noqa: E402
import pythons  # noqa: E402
from cpython_tests import FAILED, Run, finish, mechanism_of, new_failures, read, short  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cpython_tests import Outcome

CHILD = ROOT / "benchmarks" / "libraries" / "child.py"
BOOT = ROOT / "sitecustomize_example"
SOURCES = ROOT / ".venvs" / "sdists"
TIMEOUT = 900  # s for one library
RULES = """version: 1
packs: [none]
jobs:
"""
RULE = """  - module: {module}
    functions: ["**", "**.__*", "**.<lambda>"]
"""
# These tests know no other address than Redis's own port, so they get a network of their own.
WITH_REDIS = """
set -e
ip link set lo up
redis-server --save "" --appendonly no --dir "$TMPDIR" > /dev/null &
until redis-cli ping > /dev/null 2>&1; do sleep 0.1; done
exec "$@"
"""


class Suite(NamedTuple):
    """One library's tests: its top-level packages, and what pytest is asked to run in the sdist's folder."""

    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ("tests",)
    redis: bool = False


SUITES = {
    "attrs": Suite(("attr", "attrs")),
    "click": Suite(("click",)),
    "huey": Suite(("huey",), ("huey/tests",), redis=True),
    "jinja2": Suite(("jinja2",)),
    # Its tests of SQS and of the brokers of clouds need clients that are not here, and say so by an error.
    "kombu": Suite(("kombu",), ("t/unit", "-o", "python_classes=test_*", "--continue-on-collection-errors")),
    "rq": Suite(("rq",), redis=True),
    "schedule": Suite(("schedule",), ("test_schedule.py",)),
}
# (library, mechanism, pattern of the test's name, why it differs)
KNOWN: tuple[tuple[str, str, str, str], ...] = ()


def sources(names: Iterable[str]) -> dict[str, Path]:
    """Return the unpacked sdist of each library, fetched now unless it is there in the lock's version.

    Raises CalledProcessError where pip cannot fetch one.
    """
    lock = environments.lock_of("suites").read_text()
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name in names:
        entry = re.search(rf"^{name}==([^ ]+) .*(?:\n    .*)*", lock, re.MULTILINE)
        if entry is None:
            raise KeyError(f"{name} is not in the lock")
        found[name] = SOURCES / f"{name}-{entry[1]}"
        if not found[name].is_dir():
            missing[name] = entry[0]
    if missing:
        python = environments.library("suites")
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder, "requirements.txt")
            wanted.write_text("\n".join(missing.values()) + "\n")
            options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
            command = [python, "-m", "pip", "download", "-qq", *options, "-d", folder, "-r", wanted]
            subprocess.run(command, check=True)
            for archive in Path(folder).glob("*.tar.gz"):
                with tarfile.open(archive) as packed:
                    packed.extractall(SOURCES, filter="data")
    return found


def command_of(suite: Suite, python: str, path: Path) -> list[str]:
    """Return the command that runs a suite's tests and writes their outcomes to `path`."""
    command = [python, str(CHILD), str(path), "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", *suite.arguments]
    if not suite.redis:
        return command
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--user", "--map-root-user"]
    return [*alone, "sh", "-c", WITH_REDIS, "sh", *command]


def run(suite: Suite, source: Path, python: str, mechanism: str | None) -> Run:
    """Run a library's tests once, plain where `mechanism` is None."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "outcomes")
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith(("AUTOINST_", "PYTHON", "PYTEST"))
        }
        environ |= {"TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
        environ["PATH"] = f"{Path(python).parent}{os.pathsep}{environ['PATH']}"
        if mechanism is not None:
            rules = Path(folder, "rules.yaml")
            modules = [pattern for package in suite.packages for pattern in (package, f"{package}.**")]
            rules.write_text(RULES + "".join(RULE.format(module=module) for module in modules))
            environ |= {
                "PYTHONPATH": str(BOOT),
                "AUTOINST_HOME": str(Path(folder, "home")),
                "AUTOINST_AGENT": "off",
                "AUTOINST_RULES": str(rules),
                "AUTOINST_MECHANISM": mechanism,
            }
        with open(Path(folder, "output"), "w+b") as output:
            end = finish(command_of(suite, python, path), source, environ, output, TIMEOUT)
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
        outcomes, summary = read(str(path))
    if summary is None:
        end = f"{end}, {said[-1] if said else 'without a word'}"
        return Run(outcomes, {}, end, time.monotonic() - start)
    return Run(outcomes, summary, "", time.monotonic() - start)


def why(name: str, mechanism: str, test: str) -> str | None:
    """Return why a test of library `name` differs by `mechanism`, None if nobody knows."""
    found = (
        reason
        for library, by, pattern, reason in KNOWN
        if (library, by) == (name, mechanism) and re.search(pattern, test)
    )
    return next(found, None)


def compare(name: str, source: Path, python: str, version: str, options: argparse.Namespace) -> int:
    """Run one library's tests plain and with probes, print what came of it, and return how many differ unexplained."""
    suite = SUITES[name]
    mechanism = options.mechanism or mechanism_of(version)
    plain = run(suite, source, python, None)
    probed = run(suite, source, python, mechanism)
    found = new_failures(plain, probed)
    once: dict[str, Outcome] = {}
    if any(why(name, mechanism, test) is None for test in found):
        again = new_failures(run(suite, source, python, None), run(suite, source, python, mechanism))
        once = {test: outcome for test, outcome in found.items() if test not in again}
        found = {test: outcome for test, outcome in found.items() if test in again}
    passed = sum(outcome.kind == "ok" for outcome in plain.outcomes.values())
    failed = sum(outcome.kind in FAILED for outcome in plain.outcomes.values())
    rest = len(plain.outcomes) - passed - failed
    unexplained = [test for test in found if why(name, mechanism, test) is None]
    summary = probed.summary
    print(
        f"{source.name} on {version}, {summary.get('mechanism', '?')}: "
        f"{passed} tests pass plain, {failed} fail, {rest} are skipped; "
        f"{summary.get('functions', 0)} functions with probes, {summary.get('calls', 0)} calls, "
        f"{plain.seconds:.0f} s plain and {probed.seconds:.0f} s with probes; "
        f"{len(found)} differ, {len(unexplained)} unexplained",
        flush=True,
    )
    if plain.end:
        print(f"  plain, it ends so: {plain.end}")
    if summary.get("faults"):
        print(f"  faults of autoinst itself: {summary['faults']}")
    for test, outcome in found.items():
        print(f"  {why(name, mechanism, test) or 'UNEXPLAINED'}: {test}: {short(outcome)}")
    for test, outcome in once.items():
        print(f"  once only, {test}: {short(outcome)}")
    if options.details:
        with open(options.details, "a", encoding="utf-8") as details:
            for test, outcome in (*found.items(), *once.items()):
                details.write(f"== {version} {mechanism} {name} {test}\n{outcome.kind}: {outcome.message}\n")
    # A suite of which nothing ran compares nothing.
    return len(unexplained) + (passed == 0 or not summary.get("calls"))


def python_for(version: str) -> str | None:
    """Return the Python of the environment for a version, None where that version is not on this machine."""
    if version == "{}.{}".format(*sys.version_info[:2]):
        return str(environments.library("suites"))
    interpreter = pythons.find(version)
    if interpreter is None:
        return None
    return str(
        environments.prepare(environments.VENVS / f"suites-{version}", environments.lock_of("suites"), interpreter)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--python", nargs="+", metavar="VERSION", default=["{}.{}".format(*sys.version_info[:2])])
    parser.add_argument("--mechanism", choices=("trampoline", "inline", "monitoring"), help="(default: autoinst's own)")
    parser.add_argument("--details", metavar="FILE", help="write every new failure's whole message there")
    options = parser.parse_args()
    names = options.libraries or list(SUITES)
    found = sources(names)
    wrong = 0
    for version in options.python:
        python = python_for(version)
        if python is None:
            print(f"Python {version}: not on this machine, left out")
            continue
        wrong += sum(compare(name, found[name], python, version, options) for name in names)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
