"""What is measured of each product: rounds in which all take their turn, so that a busy machine burdens all alike."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.peers.bench import LONGEST, PROGRAMS, RunError
from benchmarks.peers.sink import Silent, refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.peers.bench import Bench
    from benchmarks.peers.product import Product
    from benchmarks.peers.sink import Seen

Figures = dict[str, dict[str, float]]  # by figure, then by product


class Size(NamedTuple):
    """How much is run."""

    rounds: int = 3
    calls: int = 2000
    burst: int = 50_000
    few: int = 1000
    forks: int = 50
    paced: int = 4000
    rate: int = 1000
    silent: bool = True
    celery: int = 10_000
    rq: int = 200
    preloaded: int = 10_000


class Comparison:
    """Collects samples of each figure by product; `say` is told what is being run."""

    def __init__(self, bench: Bench, products: list[Product], size: Size, say: Callable[[str], None]) -> None:
        self.bench = bench
        self.products = products
        self.size = size
        self.say = say
        self.samples: dict[str, dict[str, list[float]]] = {}
        self.failures: list[str] = []

    def note(self, figure: str, product: Product, value: float) -> None:
        """Add one sample."""
        self.samples.setdefault(figure, {}).setdefault(product.name, []).append(value)

    def medians(self) -> Figures:
        """Return the median of each figure by product."""
        return {
            figure: {name: statistics.median(values) for name, values in by_product.items()}
            for figure, by_product in self.samples.items()
        }

    def each(self, what: str, rounds: int = 1) -> Iterator[Product]:
        """Give every product its turn, `rounds` times over."""
        for turn in range(rounds):
            for product in self.products:
                self.say(f"{what}, round {turn + 1} of {rounds}: {product.title}")
                yield product

    def run(self, product: Product, program: str, *arguments: object, **options: Any) -> Any:
        """Run a program, or note that it failed and return None: the others are still compared."""
        try:
            return self.bench.run(product, program, *arguments, **options)
        except (RunError, subprocess.TimeoutExpired) as error:
            self.failures.append(str(error))
            self.say(str(error))
            return None

    def calls(self) -> None:
        """Time single calls in their thread."""
        for product in self.each("calls", self.size.rounds):
            ran = self.run(product, "calls", self.size.calls)
            for kind, figures in ran.said.items() if ran else ():
                figures.sort()
                self.note(f"{kind} p50", product, figures[len(figures) // 2] / 1e3)
                self.note(f"{kind} p99", product, figures[int(len(figures) * 0.99)] / 1e3)

    def starts(self) -> None:
        """Time processes that run one job; the first of each is not counted, as it fills caches."""
        for product in self.products:
            self.run(product, "start")
        for product in self.each("start", self.size.rounds + 1):
            ran = self.run(product, "start")
            if ran:
                self.note("start wall ms", product, ran.wall * 1e3)
                self.note("start CPU ms", product, ran.cpu * 1e3)

    def cpu(self) -> None:
        """Add up the CPU time of all processes for jobs at a steady pace."""
        count = self.size.paced
        for product in self.each("paced", self.size.rounds):
            ran = self.run(product, "paced", count, self.size.rate)
            few = self.run(product, "paced", 1, self.size.rate)
            if ran and few:
                self.note("CPU of all processes, us a job", product, (ran.all_cpu - few.all_cpu) / count * 1e6)
                self.note("agents' memory MB", product, ran.agents_memory)

    def bursts(self) -> None:
        """Count what arrives of a burst, and note what memory it takes."""
        for product in self.each("burst"):
            ran = self.run(product, "burst", self.size.burst, "exit")
            if not ran:
                continue
            self.note("memory idle MB", product, ran.said["idle"])
            self.note("memory after MB", product, ran.said["after"])
            self.note("burst us", product, ran.said["us"])
            if product.records:
                self.arrived("burst", product, ran.seen, self.size.burst)

    def ends(self) -> None:
        """Count what arrives of jobs before an end of each kind."""
        few = self.size.few
        ends = (
            ("SIGTERM", few, "term", -signal.SIGTERM),
            ("SIGKILL", few, "kill", -signal.SIGKILL),
            ("fork", self.size.forks, "fork", 0),
            ("half", 10, "half", -signal.SIGKILL),
        )
        for what, count, how, status in ends:
            for product in self.each(what):
                ran = self.run(product, "burst", count, how, ends=status) if product.records else None
                if ran and how == "half":
                    self.note("killed half way: shown", product, min(ran.seen.unfinished, 1))
                elif ran:
                    self.arrived(what, product, ran.seen, count)

    def arrived(self, what: str, product: Product, seen: Seen, count: int) -> None:
        """Note which part of `count` jobs arrived one by one, and which with those that are only counted."""
        self.note(f"{what}: recorded %", product, seen.recorded / count * 100)
        self.note(f"{what}: with counted %", product, (seen.recorded + seen.counted) / count * 100)

    def endpoints(self) -> None:
        """Time a program with a few jobs whose server refuses or is silent; its CPU time shows what is waiting."""
        for product in self.each("server refuses"):
            ran = self.run(product, "start", ports=refusing())
            if ran:
                self.note("server refuses, s", product, ran.wall)
        for product in self.each("server silent") if self.size.silent else ():
            with Silent() as ports:
                ran = self.run(product, "start", ports=ports)
            if ran:
                self.note("server silent, s", product, ran.wall)

    def transparency(self) -> dict[str, dict[str, bool]]:
        """Ask each question of each product."""
        found = {}
        for product in self.each("transparency"):
            ran = self.run(product, "probes")
            if ran:
                found[product.name] = ran.said
        return found

    def work(self, redis: str, kind: str, count: int) -> None:
        """Have a worker of Celery or RQ do `count` real jobs; `redis` is a server's address.

        RQ's command imports what a job needs anew in each fork, a `preloaded` worker once before it forks.
        """
        commands = {
            "celery": ["celery", "-A", "work", "worker", "-c", "2", "-l", "CRITICAL", "--without-mingle"],
            "rq": ["rq", "worker", "--burst", "--quiet", "--url", redis, "orders"],
            "preloaded": ["python", str(PROGRAMS / "preloaded.py")],
        }
        environ = {"BENCH_REDIS": redis}
        for product in self.each(f"{kind}, {count} jobs"):
            try:
                self.worked(product, kind, count, commands[kind], environ)
            except (RunError, subprocess.SubprocessError) as error:
                self.failures.append(str(error))
                self.say(str(error))

    def worked(self, product: Product, kind: str, count: int, words: list[str], environ: dict[str, str]) -> None:
        """Enqueue the jobs, start the worker, wait until all are done, end it."""
        python = self.bench.python(product)
        command = [python, str(PROGRAMS / "work.py"), "enqueue", kind, str(count)]
        root = str(PROGRAMS.parent.parent.parent)
        own = os.environ | environ | {"PRODUCT_OFF": "1", "PYTHONPATH": root, "BENCH_SINK": "", "AUTOINST_ENABLED": "0"}
        subprocess.run([python, "-c", FLUSH], env=own, check=True)
        subprocess.run(command, env=own, check=True)
        words = [os.path.join(os.path.dirname(python), words[0]), *words[1:]]
        longest = max(LONGEST, count * LONGEST_JOB)
        with self.bench.started(product, words, environ=environ) as process:
            began = time.perf_counter()
            if kind == "celery":
                subprocess.run([python, "-c", WAIT, str(count)], env=own, check=True, timeout=longest)
                spent = time.perf_counter() - began
                os.kill(process.pid, signal.SIGTERM)
            process.output(longest)
            if kind != "celery":  # these end by themselves
                spent = time.perf_counter() - began
            figures = process.figures()
            if figures["status"] != 0:
                raise RunError(f"{product.name} {kind}: status {figures['status']}\n{process.errors()}")
            done = subprocess.run([python, "-c", DONE], env=own, check=True, capture_output=True, text=True)
            if int(done.stdout) != count:
                raise RunError(f"{product.name} {kind}: {done.stdout.strip()} of {count} jobs done\n{process.errors()}")
            self.note(f"{kind} total s", product, spent)
            self.note(f"{kind} CPU ms a job", product, figures["all_cpu"] / count * 1e3)


LONGEST_JOB = 0.4  # seconds that a real job may take before a run of many is given up
CONNECT = "import os, redis, sys, time; r = redis.Redis.from_url(os.environ['BENCH_REDIS']); "
FLUSH = CONNECT + "r.flushall()"
DONE = CONNECT + "print(int(r.get('done') or 0))"
WAIT = CONNECT + "\nwhile int(r.get('done') or 0) < int(sys.argv[1]): time.sleep(0.05)"
