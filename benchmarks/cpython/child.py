"""Run one of CPython's test modules, plain or with probes around every function, and write down each test's outcome.

child.py MODE MODULE FILE     MODE is plain, empty (probes that do nothing) or record (the real probes)

One line a test in FILE: the repr of (test, outcome, message); the last one is ("@end", summary, "").
../cpython_tests.py starts this program and compares; it is of no use by itself.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Without doctest, which finds the module to test by its caller's frame: its tests would be missing.
PACKAGES = (
    *("_collections_abc", "_pydatetime", "_pydecimal", "_py_abc", "_strptime", "_weakrefset", "abc", "argparse", "ast"),
    *("annotationlib", "asyncio", "base64", "bdb", "bisect", "calendar", "cmd", "code", "codecs", "codeop"),
    *(
        "collections",
        "concurrent",
        "configparser",
        "contextlib",
        "contextvars",
        "copy",
        "copyreg",
        "csv",
        "dataclasses",
    ),
    *("datetime", "decimal", "difflib", "dis", "email", "enum", "fnmatch", "functools", "getpass", "gettext"),
    *("glob", "hashlib", "heapq", "html", "http", "importlib.metadata", "importlib.resources", "inspect", "io"),
    *("json", "keyword", "linecache", "locale", "logging", "multiprocessing", "numbers", "opcode", "operator"),
    *("optparse", "pathlib", "pickle", "pickletools", "pkgutil", "platform", "pprint", "queue", "random", "re"),
    *("reprlib", "runpy", "sched", "selectors", "shlex", "shutil", "signal", "socket", "socketserver", "sqlite3"),
    *("sre_compile", "sre_parse", "statistics", "string", "subprocess", "symtable", "tempfile", "textwrap"),
    *(
        "threading",
        "timeit",
        "token",
        "tokenize",
        "trace",
        "traceback",
        "types",
        "typing",
        "unittest",
        "urllib",
        "uuid",
    ),
    *("warnings", "_py_warnings", "weakref", "xml", "zipfile", "test"),
)
EXCLUDED = (
    # Warns its caller, which makes a variable in the module of the frame above: typing, over which doctest is looping.
    "typing._DeprecatedType.__getattribute__",
    # Set the line of a running frame, counted from the first line of `__code__`, which is a trampoline's: the jumps go
    # elsewhere, and some such jumps never end or crash the interpreter (without autoinst too).
    "test.test_sys_settrace.JumpTestCase.**",
)
FUNCTIONS = ("**", "**.__*", "**.<*")


calls = 0  # through probes that do nothing


def empty_probe() -> type:
    """Return a probe that stands in for the real ones, counts the calls and records nothing."""
    from autoinst.hook.probe import Probe

    class EmptyProbe(Probe):
        def enter(self, _values: tuple[Any, ...]) -> Any:
            global calls
            calls += 1
            return 1

        def exit(self, token: Any, result: Any) -> None: ...
        def error(self, token: Any, exception: BaseException) -> None: ...
        def suspend(self, token: Any) -> None: ...
        def resume(self, token: Any) -> None: ...

    return EmptyProbe


def rules(mechanism: str) -> Any:
    """Return rules that want every function: those of test modules are jobs, the standard library's are events."""
    from autoinst.rules.model import Rule, RuleSet

    made: list[Rule] = []
    for kind, packages in (("job", ("test",)), ("event", PACKAGES[:-1])):
        modules = [pattern for name in packages for pattern in (name, f"{name}.**")]
        if kind == "job":
            modules.append("unittest.test.**")  # where 3.10 and 3.11 have unittest's own tests
        targets = tuple((module, function, True) for module in modules for function in FUNCTIONS)
        name = "perform_job.test" if kind == "job" else "call.stdlib"
        made.append(
            Rule(
                index=len(made),
                kind=kind,
                where=f"{kind}.yaml:1",
                pack=None,
                targets=targets,
                exclude=() if mechanism == "monitoring" else EXCLUDED,
                subclass_of=None,
                decorated_by=None,
                requires={},
                name=name,
                namespace="background_job",
                nested="event",
                unsafe=False,
                fields={},
                ignore=(),
            )
        )
    return RuleSet.build("all", {"packs": ()}, [], made)


def instrument(mode: str) -> Any:
    """Install the real finder with rules for everything and return it."""
    from autoinst import config
    from autoinst.hook import finder, mechanism, registry

    if mode == "empty":
        registry.probe_classes.update(dict.fromkeys(("job", "event"), empty_probe()))
    configuration = config.from_environ()
    os.environ.pop("AUTOINST_HOME", None)
    return finder.install(configuration, rules(mechanism.Choice(configuration.mechanism).name))


def summary(mode: str, finder: Any) -> dict[str, Any]:
    """Return how many functions got probes, how often they were called, and what went wrong in autoinst itself."""
    if finder is None:
        return {}
    from autoinst.trace import faults

    states = finder.registry.states.values()
    through = calls if mode == "empty" else sum(state.calls for state in states)
    return {
        "functions": sum(state.found for state in states),
        "calls": through,
        "mechanism": finder.registry.choice.name,
        "faults": dict(faults.counts),
    }


def recorder_of(write: Callable[..., None]) -> Any:
    """Return a unittest result that writes each outcome down at once."""
    import unittest

    def text(error: Any) -> str:
        return f"{error[0].__name__}: {error[1]}"

    class Result(unittest.TestResult):
        def addSuccess(self, test: Any) -> None:  # noqa: N802 - unittest's own names
            write(test.id(), "ok")

        def addError(self, test: Any, err: Any) -> None:  # noqa: N802
            write(test.id(), "error", text(err))

        def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
            write(test.id(), "failure", text(err))

        def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
            write(test.id(), "skipped", reason)

        def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: ARG002, N802
            write(test.id(), "expected failure")

        def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
            write(test.id(), "unexpected success")

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: ARG002, N802
            if err is not None:
                write(subtest.id(), "failure", text(err))

    return Result()


def run(name: str, result: Any) -> None:
    """Run test module `name`, the doctests that only its `test_main` would run included."""
    import _signal
    import importlib
    import unittest

    # A shell's background job ignores it, and tests that interrupt themselves would wait for ever.
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    support: Any = importlib.import_module("test.support")
    support.use_resources = {}
    support.verbose = 0
    module = importlib.import_module(name)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    if not hasattr(module, "load_tests") and hasattr(module, "__test__"):
        import doctest

        suite.addTest(doctest.DocTestSuite(module))
    suite.run(result)


def main() -> None:
    """Do what the module's docstring says."""
    mode, name, path = sys.argv[1:]
    sys.path[0:1] = []
    sys.path.append(ROOT)
    sys.argv[1:] = []
    finder = None if mode == "plain" else instrument(mode)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(test: str, outcome: str, message: str = "") -> None:
        os.write(out, f"{(test, outcome, message[:6000])!r}\n".encode("utf-8", "backslashreplace"))

    import unittest

    try:
        run(name, recorder_of(write))
    except unittest.SkipTest as reason:
        write(name, "skipped", str(reason))
    write("@end", repr(summary(mode, finder)))
    sys.stdout.flush()
    os._exit(0)  # whatever threads the tests left behind


if __name__ == "__main__":
    main()
