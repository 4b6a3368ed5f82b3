"""Compare autoinst with what a user would pick instead: python -m benchmarks.peers [--only ddtrace sentry] [--quick].

Makes an environment for each product, runs the same jobs under each against a sink of ours on loopback, prints the
table, and stores it as benchmarks/peers/results.json, from which docs/benchmarks.md is made.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import environments  # noqa: E402

from benchmarks.peers import bench, page  # noqa: E402
from benchmarks.peers.compare import Comparison, Size  # noqa: E402
from benchmarks.peers.sink import Sink  # noqa: E402
from tests.servers import Redis  # noqa: E402

QUICK = Size(1, 200, 500, 100, 5, 200, 500, silent=False, celery=20, rq=3, preloaded=5)
VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
WORKERS = ("celery", "rq", "preloaded")
PARTS = ("calls", "starts", "cpu", "bursts", "ends", "endpoints", "transparency", *WORKERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=bench.NAMES, help="these products, beside plain Python")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="tiny counts, which show only that all of it runs")
    parser.add_argument("--rounds", type=int, default=Size().rounds)
    parser.add_argument("--burst", type=int, default=Size().burst, help="jobs of a burst")
    parser.add_argument("--celery", type=int, default=Size().celery, help="real jobs of Celery")
    parser.add_argument("--rq", type=int, default=Size().rq, help="real jobs of RQ, which imports them in each fork")
    parser.add_argument("--preloaded", type=int, default=Size().preloaded, help="the same, imported before it forks")
    parser.add_argument("--out", type=Path, default=page.RESULTS, help="where the figures are stored")
    options = parser.parse_args()
    counts = {name: getattr(options, name) for name in ("rounds", "burst", "celery", "rq", "preloaded")}
    size = QUICK if options.quick else Size(**counts)
    products = [bench.product(name) for name in bench.NAMES if not options.only or name in {"none", *options.only}]
    pythons = {name: str(environments.library(name)) for name in sorted({product.environment for product in products})}
    load = round(os.getloadavg()[2], 1)  # of other work, as nothing is measured yet
    with Sink() as sink:
        comparison = Comparison(bench.Bench(sink, pythons), products, size, lambda text: print(text, flush=True))
        probes = measure(comparison, options.parts)
    results = {
        "machine": machine() | {"load": load},
        "size": size._asdict(),
        "products": {
            product.name: {"title": product.title, "version": version(pythons[product.environment], product.package)}
            for product in products
        },
        "figures": comparison.medians(),
        "samples": comparison.samples,
        "transparency": probes,
        "failures": comparison.failures,
    }
    if options.out.exists() and set(options.parts) != set(PARTS):
        results = merged(json.loads(options.out.read_text()), results)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(page.tables(results))


def measure(comparison: Comparison, parts: list[str]) -> dict[str, dict[str, bool]]:
    """Run the parts asked for; return what the questions about transparency gave."""
    probes: dict[str, dict[str, bool]] = {}
    for part in parts:
        if part == "transparency":
            probes = comparison.transparency()
        elif part in WORKERS:
            with Redis() as redis:
                comparison.work(redis.url, part, getattr(comparison.size, part))
        else:
            getattr(comparison, part)()
    return probes


def merged(old: dict[str, object], new: dict[str, object]) -> dict[str, object]:
    """Return the results of an earlier run with those parts renewed that `new` has."""
    found = old | new
    for name in ("figures", "samples", "transparency"):
        found[name] = old[name] | new[name]  # type: ignore[operator]
    return found


def machine() -> dict[str, object]:
    """Return what kind of machine this is, without a name."""
    models = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]  # noqa: SIM115
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }


def version(python: str, package: str) -> str:
    """Return the version of a product, empty for plain Python."""
    if not package:
        return ""
    done = subprocess.run([python, "-c", VERSION, package], check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
