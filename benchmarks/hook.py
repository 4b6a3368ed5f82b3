"""What the hook itself costs, by each mechanism: `python benchmarks/hook.py [--rounds N] [--no-start]`.

- ns that a probe which does nothing adds to a call, beside the call in plain Python (the thread's CPU time),
- an import that no rule wants, putting probes around one function, what a module of 1,000 lines costs inline,
- what a process with one job adds to its start (its CPU time).

Interleaved, medians of pairs, with the goals of the design beside them. Run it with each Python to be measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from autoinst.hook import finder, monitor  # noqa: E402
from autoinst.hook.inline import Wanted, fill, parts, same_code  # noqa: E402
from autoinst.hook.inline_source import inline  # noqa: E402
from autoinst.hook.rewrite import functions  # noqa: E402
from autoinst.hook.trampoline import trampoline  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 2000
SOURCE = """
def plain(a, b):
    return a

class Class:
    def method(self, a):
        return a

def stars(*args, **kwargs):
    return args

async def coroutine(a):
    return a

def generator(a):
    yield 1
    yield 2
    yield 3

async def async_generator(a):
    yield 1
    yield 2
    yield 3
"""
MECHANISMS = ("trampoline", "inline", *(("monitoring",) if monitor.ALL_LOCAL else ()))


class EmptyProbe:
    """Does nothing."""

    fields = types.SimpleNamespace(at_exit=())
    rule = types.SimpleNamespace(fields={})

    def enter(self, values: tuple[Any, ...]) -> None: ...  # noqa: D102
    def exit(self, token: None, result: object) -> None: ...  # noqa: D102
    def error(self, token: None, exception: BaseException) -> None: ...  # noqa: D102
    def suspend(self, token: None) -> None: ...  # noqa: D102
    def resume(self, token: None) -> None: ...  # noqa: D102
    def first(self, generator: Any) -> Any:  # noqa: D102
        return generator.__anext__()


PROBE: Any = EmptyProbe()


def finish(started: Any) -> None:
    try:
        started.send(None)
    except StopIteration:
        return


async def exhaust(values: Any) -> None:
    async for _ in values:
        pass


KINDS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "plain function": ("plain", lambda f: f(1, 2)),
    "method, self handed on": ("method", lambda f: f(0, 1)),
    "*args, **kwargs": ("stars", lambda f: f(1, 2, x=3)),
    "coroutine": ("coroutine", lambda f: finish(f(1))),
    "generator of 3": ("generator", lambda f: list(f(1))),
    "async generator of 3": ("async_generator", lambda f: finish(exhaust(f(1)))),
}


def module_code() -> tuple[types.CodeType, dict[str, types.CodeType]]:
    """Return the module's code and its functions' by name."""
    code = compile(SOURCE, "<bench>", "exec", dont_inherit=True)
    return code, {inner.co_name: inner for _, inner in functions(code)}


def names_for(name: str) -> tuple[str, ...]:
    return ("self",) if name == "method" else ()


def with_trampolines() -> dict[str, types.CodeType]:
    return {name: trampoline(inner, PROBE, names_for(name)) for name, inner in module_code()[1].items()}


def with_inlining() -> dict[str, types.CodeType]:
    code, _ = module_code()
    wanted, constants = {}, {}
    for number, (qualname, inner) in enumerate(functions(code)):
        one = Wanted(number, inner, (names_for(inner.co_name),), (False,))
        wanted[qualname, inner.co_firstlineno] = one
        constants.update({one.placeholder(0, part): value for part, value in parts(PROBE, inner).items()})
    new, refused = inline(code, SOURCE.encode(), wanted)
    assert not refused
    return {inner.co_name: inner for _, inner in functions(fill(new, constants))}


def with_monitoring() -> dict[str, types.CodeType]:
    inner = module_code()[1]
    found = monitor.get()
    assert found is not None
    for name, code in inner.items():
        found.watch(code, [(PROBE, names_for(name))])
    return inner


MAKERS = {"trampoline": with_trampolines, "inline": with_inlining, "monitoring": with_monitoring}


def timed(call: Callable[[Any], object], function: Any) -> float:
    """Return the ns that one call took, of many."""
    start = time.thread_time_ns()
    for _ in range(CALLS):
        call(function)
    return (time.thread_time_ns() - start) / CALLS


def calls(rounds: int) -> None:
    """Print what an empty probe adds to a call of each kind."""
    plain = module_code()[1]
    probed = {mechanism: MAKERS[mechanism]() for mechanism in MECHANISMS}
    print(f"{'ns of a call':26} {'plain':>7} " + " ".join(f"{'+' + mechanism:>12}" for mechanism in MECHANISMS))
    for kind, (name, call) in KINDS.items():
        bare = types.FunctionType(plain[name], globals())
        twins = {mechanism: types.FunctionType(codes[name], globals()) for mechanism, codes in probed.items()}
        alone: list[float] = []
        added: dict[str, list[float]] = {mechanism: [] for mechanism in MECHANISMS}
        for turn in range(rounds + 2):
            for mechanism, twin in twins.items():
                before, after = timed(call, bare), timed(call, twin)
                if turn > 1:
                    alone.append(before)
                    added[mechanism].append(after - before)
        figures = " ".join(f"{statistics.median(added[mechanism]):12.0f}" for mechanism in MECHANISMS)
        print(f"{kind:26} {statistics.median(alone):7.0f} {figures}")


def each(make: Callable[[], Callable[[], object]], rounds: int) -> float:
    """Return the median us of what `make` returns, made anew for each time."""
    figures = []
    for _ in range(rounds):
        do = make()
        start = time.thread_time_ns()
        do()
        figures.append((time.thread_time_ns() - start) / 1e3)
    return statistics.median(figures)


def loading(rounds: int) -> None:
    """Print what imports and instrumenting cost."""
    print(f"\n{'us':52} {'measured':>9} {'goal':>6}")
    from autoinst import config
    from autoinst.rules.cache import load_cached

    with tempfile.TemporaryDirectory() as home:
        settings = config.Config({"AUTOINST_HOME": home}, home)
        first = finder.Finder(settings, load_cached(settings))

    def look() -> None:
        for _ in range(1000):
            first.find_spec("some.module.that.no.rule.wants")

    print(f"{'an import that no rule wants':52} {each(lambda: look, 30) / 1000:9.2f} {0.6:6}")
    inner = module_code()[1]["plain"]
    again = [f"def f(a, b{i}): return a" for i in range(rounds)]

    def other(i: int = 0) -> types.CodeType:
        again.append(again.pop(0))
        return functions(compile(again[i], "<bench>", "exec"))[0][1]

    def fresh() -> Callable[[], object]:
        code = other()
        return lambda: trampoline(code, PROBE, ())

    for name, make in (
        ("a trampoline, the first with such parameters", fresh),
        ("a trampoline, others", lambda: lambda: trampoline(inner, PROBE, ())),
        ("an inlined function's class", lambda: lambda: parts(PROBE, inner)),
    ):
        print(f"{name:52} {each(make, rounds):9.1f} {150:6}")
    if "monitoring" in MECHANISMS:
        found: Any = monitor.get()

        def watched() -> Callable[[], object]:
            code = other()
            return lambda: found.watch(code, [(PROBE, ())])

        print(f"{'a watched function':52} {each(watched, rounds):9.1f} {150:6}")
    inlining(rounds)


def inlining(rounds: int) -> None:
    """Print what inlining costs for 1,000 lines of the standard library, made and kept."""
    import argparse as module
    import marshal

    file = str(module.__file__)
    source = Path(file).read_bytes()
    thousands = source.count(b"\n") / 1000
    code = compile(source, file, "exec", dont_inherit=True)
    wanted = {
        (qualname, inner.co_firstlineno): Wanted(number, inner, ((),), (False,))
        for number, (qualname, inner) in enumerate(functions(code))
        if qualname in ("ArgumentParser.parse_args", "ArgumentParser.add_subparsers")
    }
    kept = marshal.dumps((code, inline(code, source, wanted)[0]))

    def read() -> None:
        original, _ = marshal.loads(kept)
        assert same_code(original, code)

    made = each(lambda: lambda: inline(code, source, wanted), max(5, rounds // 10))
    print(f"{'inlining in a module of 1,000 lines, the first time':52} {made / thousands:9.0f}")
    print(f"{'the same, kept':52} {each(lambda: read, rounds) / thousands:9.0f}")


def start(rounds: int) -> None:
    """Print what a process with one job adds to its start, by mechanism."""
    from benchmarks.startup import RULES, SCRIPT, TASKS, forms, run

    print(f"\n{'ms of CPU time added to a start with one job':52} {'measured':>9} {'goal':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (("worker.py", SCRIPT), ("tasks.py", TASKS), ("rules.yaml", RULES)):
            (folder / file).write_text(text)
        known = forms(folder)
        command, bare = known["plain"]
        _, environ = known["sitecustomize, default packs, one job"]
        added: dict[str, list[float]] = {mechanism: [] for mechanism in MECHANISMS}
        for turn in range(rounds + 2):
            for mechanism in MECHANISMS:
                plain = run(command, bare, folder)[1]
                probed = run(command, environ | {"AUTOINST_MECHANISM": mechanism}, folder)[1]
                if turn > 1:
                    added[mechanism].append(probed - plain)
        for mechanism, figures in added.items():
            print(f"{mechanism:52} {statistics.median(figures):9.2f} {3:6}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-start", action="store_true", help="leave the starts of processes out")
    options = parser.parse_args()
    print(f"CPython {sys.version.split()[0]}")
    calls(options.rounds)
    loading(options.rounds * 5)
    if not options.no_start:
        start(max(3, options.rounds // 3))


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    try:
        main()
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
