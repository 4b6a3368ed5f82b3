"""Run CPython's own test modules plain and with probes around every function, and list the tests that fail only so.

cpython_tests.py [--short] [--python 3.13 ...] [--mechanism inline] [--mode empty record] [--fetch] [--details FILE]
                 [--timeout 240] [MODULE ...]

`empty` probes do nothing, `record` ones are the real ones and write into a home of their own. A new failure that
cpython/known_differences.py does not explain is "unexplained" and makes the exit status 1. The interpreters are those
that scripts/pythons.py finds and that have the `test` package; --fetch gets it from Debian for those in .pythons/.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(ROOT / "scripts"), str(ROOT / "benchmarks" / "cpython")]

import known_differences  # noqa: E402
import pythons  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

CHILD = ROOT / "benchmarks" / "cpython" / "child.py"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
SHORT = ("test_generators", "test_contextlib")
# Alternatives, where a module has moved: the first that the interpreter has is run.
MODULES: tuple[tuple[str, ...], ...] = (
    *(("test_generators",), ("test_asyncgen",), ("test_coroutines",), ("test_contextlib",), ("test_contextlib_async",)),
    *(("test_warnings.__init__", "test_warnings"), ("test_traceback",), ("test_inspect.test_inspect", "test_inspect")),
    *(("test_functools",), ("test_dataclasses.__init__", "test_dataclasses"), ("test_enum",), ("test_typing",)),
    *(("test_pickle",), ("test_copy",), ("test_descr",), ("test_exceptions",), ("test_exception_group",)),
    *(("test_asyncio.test_tasks",), ("test_asyncio.test_taskgroups",), ("test_asyncio.test_futures",)),
    *(("test_asyncio.test_locks",), ("test_asyncio.test_queues",), ("test_asyncio.test_runners",)),
    *(("test_concurrent_futures.test_thread_pool",), ("test_concurrent_futures.test_future",)),
    *(("test_concurrent_futures.test_process_pool",), ("test_logging",), ("test_threading",)),
    *(
        ("test_unittest.test_case", "unittest.test.test_case"),
        ("test_unittest.test_loader", "unittest.test.test_loader"),
    ),
    *(("test_unittest.test_async_case", "unittest.test.test_async_case"),),
    *(("test_unittest.testmock.testmock", "unittest.test.testmock.testmock"),),
    *(("test_unittest.testmock.testasync", "unittest.test.testmock.testasync"),),
    *(("test_json.test_decode",), ("test_json.test_encode_basestring_ascii",), ("test_json.test_recursion",)),
    *(("test_json.test_dump",), ("test_collections",), ("test_super",), ("test_decorators",), ("test_funcattrs",)),
    *(("test_code",), ("test_sys_settrace",), ("test_context",), ("test_weakref",)),
    *(("test_raise",), ("test_with",), ("test_scope",), ("test_keywordonlyarg",), ("test_positional_only_arg",)),
    *(("test_extcall",), ("test_generator_stop",), ("test_pep479",), ("test_yield_from",), ("test_pep380",)),
    *(("test_metaclass",), ("test_types",), ("test_property",), ("test_class",), ("test_reprlib",), ("test_queue",)),
    *(("test_subclassinit",), ("test_abc",), ("test_argparse",), ("test_tempfile",), ("test_operator",)),
    ("test_doctest.test_doctest", "test_doctest"),
)
TIMEOUT = 240  # s for one module
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
FAILED = ("error", "failure", "unexpected success", "missing", "crashed")


class Outcome(NamedTuple):
    """How a test ended: `kind` is unittest's word for it or `missing`, `message` the exception's text."""

    kind: str
    message: str = ""


class Run(NamedTuple):
    """One module's run: the outcomes by test, the child's summary, how it ended, and how long it took."""

    outcomes: dict[str, Outcome]
    summary: dict[str, object]
    end: str
    seconds: float


class Difference(NamedTuple):
    """One test that passes plain and fails with probes; `why` is None where that is not explained."""

    version: str
    module: str
    mode: str
    test: str
    outcome: Outcome
    why: str | None


class Module(NamedTuple):
    """What came of one module on one version."""

    version: str
    name: str
    tests: int
    differences: list[Difference]
    flaky: list[str]
    summaries: dict[str, dict[str, object]]


def run(python: str, mode: str, module: str, mechanism: str, seconds: float = TIMEOUT) -> Run:
    """Run `module` once under `python` in an empty folder of its own."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "outcomes")
        work = os.path.join(folder, "work")
        os.mkdir(work)
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("AUTOINST_", "PYTHON"))}
        environ |= {"AUTOINST_HOME": os.path.join(folder, "home"), "AUTOINST_AGENT": "off", "LC_ALL": "C.UTF-8"}
        environ["AUTOINST_MECHANISM"] = mechanism
        with open(os.path.join(folder, "output"), "w+b") as output:
            # Without site: what .pth files of this machine import would be loaded before autoinst is.
            command = [python, "-S", "-W", "default", str(CHILD), mode, module, path]
            end = finish(command, work, environ, output, seconds)
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
        outcomes, summary = read(path)
    if summary is None:
        end = f"{end}, {said[-1] if said else 'without a word'}"
        return Run(outcomes, {}, end, time.monotonic() - start)
    return Run(outcomes, summary, "", time.monotonic() - start)


def finish(command: list[str], folder: str | Path, environ: dict[str, str], output: IO[bytes], seconds: float) -> str:
    """Run `command` in `folder` for so many seconds at most and return how it ended."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        return f"exit status {process.wait(seconds)}"
    except subprocess.TimeoutExpired:
        return f"no end after {seconds} s"
    finally:  # with all that the tests left running
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read(path: str) -> tuple[dict[str, Outcome], dict[str, object] | None]:
    """Return the outcomes in the child's file, a test's failure before its other outcomes, and its summary."""
    outcomes: dict[str, Outcome] = {}
    summary = None
    if not os.path.exists(path):
        return outcomes, summary
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            test, kind, message = ast.literal_eval(line)
            test = ADDRESS.sub("", test)  # a subtest may be named by its function
            if test == "@end":
                summary = ast.literal_eval(kind)
            elif outcomes.get(test, Outcome("ok")).kind not in FAILED:
                outcomes[test] = Outcome(kind, message)
    return outcomes, summary


def new_failures(plain: Run, probed: Run) -> dict[str, Outcome]:
    """Return what fails in `probed` and did not in `plain`."""
    found = {
        test: outcome
        for test, outcome in probed.outcomes.items()
        if outcome.kind in FAILED and plain.outcomes.get(test, Outcome("ok")).kind not in FAILED
    }
    for test, outcome in plain.outcomes.items():
        # A failing test function is listed by its failing parts (subTest) only.
        part = any(other.startswith(f"{test} ") and other in found for other in probed.outcomes)
        if outcome.kind not in FAILED and test not in probed.outcomes and not part:
            failed = any(other.startswith(f"{test} ") for other in probed.outcomes)
            if not failed and not probed.end:
                found[test] = Outcome("missing")
    if probed.end and not plain.end:
        found["(the module)"] = Outcome("crashed", probed.end)
    return found


def compare(version: str, python: str, module: str, options: argparse.Namespace) -> Module:
    """Run `module` plain and in each mode; a failure counts only if it comes again, unless it shall run once."""
    mechanism = options.mechanism or mechanism_of(version)
    plain = run(python, "plain", module, mechanism, options.timeout)
    differences: list[Difference] = []
    flaky: list[str] = []
    summaries: dict[str, dict[str, object]] = {}
    for mode in options.mode:
        probed = run(python, mode, module, mechanism, options.timeout)
        summaries[mode] = probed.summary
        found = new_failures(plain, probed)
        if not options.once and any(
            known_differences.why(mechanism, version, module, test, outcome.message) is None
            for test, outcome in found.items()
        ):
            again = new_failures(
                run(python, "plain", module, mechanism, options.timeout),
                run(python, mode, module, mechanism, options.timeout),
            )
            flaky += [f"{mode} {test}: {short(outcome)}" for test, outcome in found.items() if test not in again]
            found = {test: outcome for test, outcome in found.items() if test in again}
        for test, outcome in found.items():
            why = known_differences.why(mechanism, version, module, test, outcome.message)
            differences.append(Difference(version, module, mode, test, outcome, why))
    return Module(version, module, len(plain.outcomes), differences, flaky, summaries)


def mechanism_of(version: str) -> str:
    """Return the mechanism that autoinst chooses on a version of Python."""
    return "inline" if tuple(map(int, version.split("."))) < (3, 15) else "monitoring"


def short(outcome: Outcome) -> str:
    """Return what a failure says in one line: for a doctest its last line, else the first."""
    lines = [line.strip() for line in outcome.message.strip().splitlines() if line.strip()]
    if not lines:
        return outcome.kind
    return (lines[-1] if "Failed doctest" in lines[0] else lines[0])[:160]


def available(python: str) -> list[str]:
    """Return the modules of `MODULES` that the interpreter has."""
    probe = (
        "import importlib.util as u, sys\n"
        "def has(n):\n"
        "    try: return u.find_spec(n) is not None\n"
        "    except ModuleNotFoundError: return False\n"
        "for names in eval(sys.argv[1]):\n"
        "    found = [n for n in names if has(n)]\n"
        "    if found: print(found[0])\n"
    )
    qualified = [
        tuple(name if name.startswith("unittest.") else f"test.{name}".removesuffix(".__init__") for name in names)
        for names in MODULES
    ]
    done = subprocess.run([python, "-c", probe, repr(qualified)], capture_output=True, text=True, check=True)
    return list(dict.fromkeys(done.stdout.split()))


def has_tests(python: str) -> bool:
    """Whether the interpreter came with CPython's tests."""
    command = [python, "-c", "import test.test_generators"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fetch_tests(version: str) -> None:
    """Unpack Debian's package of the tests of a `version` that scripts/pythons.py fetched."""
    apt = ["apt-get", "-qq", "-c", str(pythons.FETCHED / ".apt" / "apt.conf")]
    package = f"libpython{version}-testsuite"
    subprocess.run([*apt, "install", "-y", "--no-install-recommends", "--download-only", package], check=True)
    for archive in (pythons.FETCHED / ".apt" / "cache" / "archives").glob(f"{package}_*.deb"):
        pythons.unpack(archive)


def interpreters(versions: Sequence[str], *, fetch: bool) -> dict[str, str]:
    """Return version -> path of those that have tests, and say which have not."""
    found: dict[str, str] = {}
    for version in versions:
        path = pythons.find(version)
        if path is None:
            print(f"Python {version}: not on this machine, left out", flush=True)
            continue
        if fetch and not has_tests(path) and path.startswith(str(pythons.FETCHED)):
            fetch_tests(version)
        if has_tests(path):
            found[version] = path
        else:
            print(f"Python {version}: it has no `test` package (--fetch?), left out", flush=True)
    return found


def report(version: str, results: list[Module], modes: Sequence[str]) -> int:
    """Print one version's outcome and return how many differences are unexplained."""
    differences = [difference for result in results for difference in result.differences]
    unexplained = [difference for difference in differences if difference.why is None]
    print(f"\nPython {version}: {len(results)} modules, {sum(result.tests for result in results)} tests")
    for mode in modes:
        mine = [difference for difference in differences if difference.mode == mode]
        open_ = [difference for difference in mine if difference.why is None]
        most = max((int(str(result.summaries[mode].get("functions", 0))) for result in results), default=0)
        calls = sum(int(str(result.summaries[mode].get("calls", 0))) for result in results)
        by = ", ".join(sorted({str(result.summaries[mode].get("mechanism", "?")) for result in results}))
        print(f"  {mode}, {by}: up to {most} functions with probes, {calls} calls through them")
        print(f"  {mode}: {len(mine)} new failures, {len(mine) - len(open_)} explained, {len(open_)} unexplained")
        reasons = [difference.why for difference in mine if difference.why is not None]
        for why in sorted(set(reasons)):
            print(f"    {reasons.count(why):4} {why}")
        for result in results:
            if result.summaries[mode].get("faults"):
                print(f"    faults of autoinst itself in {result.name}: {result.summaries[mode]['faults']}")
    for difference in unexplained:
        print(f"  UNEXPLAINED {difference.mode} {difference.test}: {short(difference.outcome)}")
    for result in results:
        for line in result.flaky:
            print(f"  once only, {line}")
    sys.stdout.flush()
    return len(unexplained)


def write_details(path: str, differences: list[Difference]) -> None:
    """Append whole messages to a file."""
    with open(path, "a", encoding="utf-8") as details:
        for difference in differences:
            details.write(f"== {difference.version} {difference.mode} {difference.test} [{difference.why}]\n")
            details.write(f"{difference.outcome.kind}: {difference.outcome.message}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as test_generators (default: all)")
    parser.add_argument("--python", nargs="+", metavar="VERSION", default=list(VERSIONS))
    parser.add_argument("--mode", nargs="+", choices=("empty", "record"), default=["empty", "record"])
    parser.add_argument("--mechanism", choices=("trampoline", "inline", "monitoring"), help="(default: autoinst's own)")
    parser.add_argument("--short", action="store_true", help=f"only {' and '.join(SHORT)}")
    parser.add_argument("--fetch", action="store_true", help="get the tests of fetched interpreters too")
    parser.add_argument("--once", action="store_true", help="do not run a module again that has unexplained failures")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="(default: %(default)s)")
    parser.add_argument("--details", metavar="FILE", help="write every new failure's whole message there")
    options = parser.parse_args()
    chosen = SHORT if options.short else options.modules
    results: dict[str, list[Module]] = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(compare, version, python, module, options)
            for version, python in interpreters(options.python, fetch=options.fetch).items()
            for module in available(python)
            if not chosen or module.removeprefix("test.") in chosen
        ]
        for future in waiting:
            done = future.result()
            results.setdefault(done.version, []).append(done)
            if options.details:
                write_details(options.details, done.differences)
            open_ = sum(difference.why is None for difference in done.differences)
            print(
                f"{done.version} {done.name}: {done.tests} tests, {len(done.differences)} differ, {open_} unexplained",
                file=sys.stderr,
                flush=True,
            )
    unexplained = sum(report(version, modules, options.mode) for version, modules in results.items())
    if not results:
        print("No interpreter with CPython's tests was found")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
