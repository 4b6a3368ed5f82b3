"""Whether costs grow with what there is much of: rules, instrumented functions, threads, arenas.

python -m benchmarks.curves [--json] [--quick] [--out benchmarks/curves.json] [--only rules ...]

Sizes take turns, round after round, and the figures are medians of the rounds. A curve that stays level is what is
wanted; what cannot but grow (reading 10,000 rules) is told as it is. `--out` stores the figures, of which
docs/benchmarks.md is made (python -m benchmarks.peers.page). Some minutes, not part of `make bench`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import curves_arenas
from benchmarks.programs import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
PER_MODULE = 100  # functions of a module
SETTLE = "import time\ntime.sleep(0.1)\nimport jobs\njobs.job(1)"

# What every program begins with; `added` is what a job takes beyond a plain call, in us of this thread's CPU time.
COMMON = """
import json, statistics, sys, time
import jobs

def batch(function, calls=50):
    clock = time.thread_time_ns
    began = clock()
    for _ in range(calls):
        function(1)
    return (clock() - began) / calls / 1e3

def added(job, rounds=31):
    for _ in range(300):
        job(1)
    return statistics.median([batch(job) - batch(jobs.plain) for _ in range(rounds)])
"""
JOBS = "def job(n):\n    return n\n\ndef plain(n):\n    return n\n"
RULES_PROGRAM = (
    COMMON
    + """
from autoinst.config import from_environ
from autoinst.rules import cache

finder = next(each for each in sys.meta_path if type(each).__module__ == "autoinst.hook.finder")

def unmatched(head):
    names = [f"{head}{i}" for i in range(500)]
    began = time.thread_time_ns()
    for name in names:
        finder.find_spec(name)
    return (time.thread_time_ns() - began) / len(names) / 1e3

def read():
    config = from_environ()
    began = time.process_time_ns()
    cache.load(config)
    return (time.process_time_ns() - began) / 1e6

print(json.dumps({
    "one job, us": added(jobs.job),
    "an import of a package that no rule names, us": unmatched("elsewhere.module"),
    "an import that no rule matches, in a package that rules name, us": unmatched("shop.other"),
    "reading the compiled rules, ms": statistics.median(read() for _ in range(5)),
}))
"""
)
FUNCTIONS_PROGRAM = (
    COMMON
    + PRIVATE
    + """
import importlib
modules = int(sys.argv[1])
jobs.job(1)
before, began = private()[0], time.process_time_ns()
made = [importlib.import_module(f"{sys.argv[2]}.module{i}") for i in range(modules)]
took = time.process_time_ns() - began
functions = [f for module in made for name, f in vars(module).items() if name.startswith("job")]
memory = private()[0] - before
out = {"import": took / 1e3 / len(functions), "memory": memory * 1024 / len(functions)}
if "plain" not in sys.argv:
    out["one of them, us a job"] = added(functions[-1])
    for function in functions:
        function(1)
    passes = []
    for at in range(0, len(functions), 50):
        part = functions[at : at + 50]
        began = time.thread_time_ns()
        for function in part:
            function(1)
        passes.append((time.thread_time_ns() - began) / len(part) / 1e3)
    out["all in turn, each once, us a job"] = statistics.median(passes)
print(json.dumps(out))
"""
)
THREADS_PROGRAM = (
    COMMON
    + """
import threading
threads = int(sys.argv[1])
rounds = max(6, 384 // threads)
ready = threading.Barrier(threads + 1)
done = []

def work(function):
    for _ in range(5):
        function(1)
    ready.wait()
    took = []
    for _ in range(rounds):
        took.append(batch(function, 25))
        time.sleep(0.002)
    ready.wait()
    done.append(statistics.median(took))
    ready.wait()

def all_of(function):
    done.clear()
    each = [threading.Thread(target=work, args=(function,)) for _ in range(threads)]
    for thread in each:
        thread.start()
    ready.wait()
    began = time.process_time_ns()
    ready.wait()
    took = time.process_time_ns() - began
    ready.wait()
    for thread in each:
        thread.join()
    return statistics.median(done), took / 1e3 / (threads * rounds * 25)

added(jobs.job)
plain, job = all_of(jobs.plain), all_of(jobs.job)
print(json.dumps({
    "one job, us of the thread's CPU time": job[0] - plain[0],
    "one job, us of the process's CPU time": job[1] - plain[1],
}))
"""
)


class Bench:
    """A folder with programs, rules and homes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "jobs.py").write_text(JOBS)

    def environ(self, rules: Path | None, home: Path | None = None) -> dict[str, str]:
        """Return the environment of a worker under `rules`; plain Python's where there are none."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST_", "PYTHON"))}
        if rules is None:
            return bare | {"PYTHONPATH": str(self.folder)}
        return bare | {
            "AUTOINST_HOME": str(home or self.folder / "home"),
            "AUTOINST_RULES": str(rules),
            "AUTOINST_PACKS": "none",
            "AUTOINST_AGENT": "off",
            "PYTHONPATH": f"{ROOT / 'sitecustomize_example'}{os.pathsep}{self.folder}",
        }

    def run(self, program: str, *arguments: object, rules: Path | None) -> tuple[dict[str, float], float]:
        """Return what a program printed as JSON, and the ms of CPU time of its whole process."""
        path = self.folder / "program.py"
        path.write_text(program)
        command = [sys.executable, str(path), *map(str, arguments)]
        process = subprocess.Popen(command, env=self.environ(rules), cwd=self.folder, stdout=subprocess.PIPE, text=True)
        with process.stdout:  # type: ignore[union-attr]  # a pipe
            printed = process.stdout.read()  # type: ignore[union-attr]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, program
        subprocess.run(["rm", "-rf", str(self.folder / "home" / "spool")], check=True)
        return json.loads(printed or "{}"), (usage.ru_utime + usage.ru_stime) * 1e3


class Curve(NamedTuple):
    """What grows, how much of it there is, and how to measure it."""

    sizes: tuple[int, ...]
    prepare: Callable[[Bench, int], Any]
    measure: Callable[[Bench, int, Any], dict[str, float]]


def write_rules(bench: Bench, size: int) -> Path:
    """Write so many rules, of which one in ten has a wildcard, and have them compiled."""
    lines = ["version: 1", "jobs:", "  - function: jobs.job"]
    for i in range(size - 1):
        if i % 10:
            lines.append(f"  - function: shop.part{i // 100}.tasks{i}.send")
        else:
            lines.append(f"  - {{module: shop.part{i // 100}.sub{i}.*, functions: [run_*]}}")
    path = bench.folder / f"rules{size}.yaml"
    path.write_text("\n".join(lines) + "\n")
    os.utime(path, (1e9, 1e9))
    for _ in range(2):  # rules changed in this very moment are not kept
        bench.run(SETTLE, rules=path)
    return path


def of_rules(bench: Bench, _size: int, rules: Path) -> dict[str, float]:
    plain = bench.run("import jobs\njobs.job(1)", rules=None)[1]
    start = bench.run("import jobs\njobs.job(1)", rules=rules)[1]
    return {"start-up with one job, CPU ms": start - plain, **bench.run(RULES_PROGRAM, rules=rules)[0]}


def write_functions(bench: Bench, size: int) -> tuple[Path, Path, int, str]:
    """Write modules with so many functions, one rule for all of them, and a rule for each."""
    package = f"many{size}"
    folder = bench.folder / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    per_module = min(size, PER_MODULE)
    modules = size // per_module
    each = ["version: 1", "jobs:", "  - function: jobs.job"]
    for i in range(modules):
        text = [f"def job{j}(n):\n    return n\n" for j in range(per_module)]
        (folder / f"module{i}.py").write_text("\n".join(text))
        each += [f"  - function: {package}.module{i}.job{j}" for j in range(per_module)]
    one, many = bench.folder / f"one{size}.yaml", bench.folder / f"each{size}.yaml"
    one.write_text(f"version: 1\njobs:\n  - function: jobs.job\n  - {{module: {package}.*, functions: [job*]}}\n")
    many.write_text("\n".join(each) + "\n")
    bench.run(FUNCTIONS_PROGRAM, modules, package, "plain", rules=None)  # the modules are compiled
    for path in (one, many):
        os.utime(path, (1e9, 1e9))
        for _ in range(2):
            bench.run(SETTLE, rules=path)
        bench.run(FUNCTIONS_PROGRAM, modules, package, rules=path)
    return one, many, modules, package


def of_functions(bench: Bench, _size: int, made: tuple[Path, Path, int, str]) -> dict[str, float]:
    one, many, modules, package = made
    plain = bench.run(FUNCTIONS_PROGRAM, modules, package, "plain", rules=None)[0]
    found = bench.run(FUNCTIONS_PROGRAM, modules, package, rules=one)[0]
    other = bench.run(FUNCTIONS_PROGRAM, modules, package, rules=many)[0]
    return {
        "instrumenting one, under a rule for all, us": found.pop("import") - plain["import"],
        "instrumenting one, under a rule of its own, us": other["import"] - plain["import"],
        "memory of one, bytes": found.pop("memory") - plain["memory"],
        "the same, with a rule of its own": other["memory"] - plain["memory"],
        **found,
    }


def of_threads(bench: Bench, size: int, rules: Path) -> dict[str, float]:
    return bench.run(THREADS_PROGRAM, size, rules=rules)[0]


def one_rule(bench: Bench, _size: int) -> Path:
    return write_rules(bench, 1)


def of_arenas(bench: Bench, size: int, rules: Path) -> dict[str, float]:
    return curves_arenas.measure(bench.folder, bench.environ(rules), size)


CURVES = {
    "rules": Curve((10, 1_000, 10_000), write_rules, of_rules),
    "functions": Curve((10, 1_000, 10_000), write_functions, of_functions),
    "threads": Curve((1, 4, 16, 64), one_rule, of_threads),
    "arenas": Curve((1, 100, 1_000), one_rule, of_arenas),
}


def measured(curve: Curve, rounds: int) -> dict[str, list[float]]:
    """Return each figure's medians, one for each size."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        made = [curve.prepare(bench, size) for size in curve.sizes]
        found: dict[str, list[list[float]]] = {}
        for _ in range(rounds):
            for at, size in enumerate(curve.sizes):
                for what, value in curve.measure(bench, size, made[at]).items():
                    found.setdefault(what, [[] for _ in curve.sizes])[at].append(value)
    return {what: [round(statistics.median(each), 2) for each in values] for what, values in found.items()}


def machine() -> dict[str, Any]:
    """Return where this runs."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    return {
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once: that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=CURVES, default=list(CURVES))
    parser.add_argument("--out", type=Path, help="file to store the figures in; those not measured now stay")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "curves": {}}
    rounds = 1 if options.quick else options.rounds
    for name in options.only:
        curve = CURVES[name]
        if options.quick:
            curve = curve._replace(sizes=curve.sizes[:1])
        figures = measured(curve, rounds)
        results["curves"][name] = {"sizes": list(curve.sizes), "rounds": rounds, "figures": figures}
        if not options.json:
            show(name, curve.sizes, figures)
    if options.json:
        print(json.dumps(results, indent=1))
    if options.out is not None:
        if options.out.exists():
            results["curves"] = json.loads(options.out.read_text())["curves"] | results["curves"]
        options.out.write_text(json.dumps(results, indent=1) + "\n")


def show(name: str, sizes: tuple[int, ...], figures: dict[str, list[float]]) -> None:
    print(f"{name:70}" + "".join(f"{size:12,}" for size in sizes))
    for what, values in figures.items():
        print(f"  {what:68}" + "".join(f"{value:12,.2f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
