"""Runs a program under a product, in a folder of its own, and returns what it said, took and sent."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.peers.sink import Seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.peers.product import Product
    from benchmarks.peers.sink import Ports, Sink

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = HERE / "programs"
NAMES = (
    *("none", "wrapt", "autoinst", "appsignal", "ddtrace", "elastic"),
    *("logfire", "newrelic", "opentelemetry", "scout", "sentry"),
)
LONGEST = 300.0  # seconds of one run
DROPPED = (
    "AUTOINST_",
    "PYTHON",
    "OTEL_",
    "DD_",
    "SENTRY_",
    "NEW_RELIC_",
    "ELASTIC_",
    "SCOUT_",
    "APPSIGNAL_",
    "LOGFIRE_",
)


class RunError(Exception):
    """A program ended as it should not have; the text is what it wrote."""


class Ran(NamedTuple):
    """A run: what the program printed, how it ended, seconds, CPU seconds, MB of its agents, what arrived."""

    said: Any
    status: int
    wall: float
    cpu: float
    all_cpu: float
    agents_memory: float
    seen: Seen


def product(name: str) -> Product:
    """Return a product by its file's name."""
    found: Product = importlib.import_module(f"benchmarks.peers.products.{name}").PRODUCT
    return found


class Bench:
    """Runs programs; `pythons` are the interpreters of the environments by their name."""

    def __init__(self, sink: Sink, pythons: Mapping[str, str]) -> None:
        self.sink = sink
        self.pythons = pythons

    def python(self, product: Product) -> str:
        """Return the interpreter of the product's environment."""
        return self.pythons[product.environment]

    def run(self, product: Product, program: str, *arguments: object, ports: Ports | None = None, ends: int = 0) -> Ran:
        """Run one of programs/ to its end, which has to be status `ends`; without `ports` it sends to the sink."""
        command = [self.python(product), str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
        with self.started(product, command, ports=ports) as process:
            output = process.output()
            figures = process.figures()
            if figures["status"] != ends:
                raise RunError(f"{product.name} {program} {arguments}: status {figures['status']}\n{process.errors()}")
            seen = process.seen() if ports is None else Seen()
        return Ran(json.loads(output) if output else None, seen=seen, **figures)

    @contextlib.contextmanager
    def started(
        self,
        product: Product,
        command: list[str],
        *,
        ports: Ports | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Iterator[Process]:
        """Have `command` run under `product` and the meter, with the variables of `environ` beside the product's."""
        given = dict(environ or {})
        self.sink.clear(product)
        with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            programs = Path(self.python(product)).parent
            words = product.command(command, programs)
            environ = {key: text for key, text in os.environ.items() if not key.startswith(DROPPED)}
            environ |= {"BENCH_PRODUCT": product.name, "BENCH_SINK": self.sink.ports.url, "NO_PROXY": "127.0.0.1"}
            environ["PATH"] = f"{programs}{os.pathsep}{environ['PATH']}"
            environ |= product.variables(ports or self.sink.ports, folder)
            environ |= given
            environ["PYTHONPATH"] = os.pathsep.join((str(PROGRAMS), str(ROOT)))
            if product.warm:
                first = product.command([self.python(product), "-c", "pass"], programs)
                subprocess.run(first, env=environ | {"AUTOINST_AGENT": "off"}, cwd=folder, check=True)
            process = Process(self.sink, product, folder)
            try:
                process.start(words, environ)
                yield process
            finally:
                process.end()


class Process:
    """A command under the meter."""

    def __init__(self, sink: Sink, product: Product, folder: Path) -> None:
        self.sink = sink
        self.product = product
        self.folder = folder
        self._out = folder / "figures.json"

    def start(self, words: list[str], environ: dict[str, str]) -> None:
        """Start it."""
        command = [sys.executable, str(HERE / "meter.py"), str(self._out), *words]
        with open(self.folder / "errors", "wb") as errors, open(self.folder / "output", "wb") as output:
            self._meter = subprocess.Popen(
                command, env=environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )

    @property
    def pid(self) -> int:
        """Return the process id of the command itself, once it is there."""
        file = Path(f"{self._out}.pid")
        deadline = time.monotonic() + 30
        while not (file.exists() and file.read_text()):
            if time.monotonic() > deadline:
                raise RunError("the meter does not start")
            time.sleep(0.01)
        return int(file.read_text())

    def output(self, longest: float = LONGEST) -> str:
        """Wait for its end and that of the meter, `longest` seconds at most; return what it printed."""
        self._meter.wait(longest)
        return (self.folder / "output").read_text()

    def errors(self) -> str:
        """Return the end of what it wrote to stderr."""
        return (self.folder / "errors").read_text(errors="replace")[-3000:]

    def figures(self) -> dict[str, Any]:
        """Return the meter's figures."""
        self._meter.wait(LONGEST)
        if not self._out.exists():
            raise RunError(self.errors())
        found: dict[str, Any] = json.loads(self._out.read_text())
        return found

    def seen(self) -> Seen:
        """Return what arrived of its jobs."""
        return self.product.seen(self.sink.posted(), self.folder)

    def end(self) -> None:
        """Have the meter gone; it has ended unless something went wrong."""
        if self._meter.poll() is None:
            self._meter.terminate()
            self._meter.wait()
