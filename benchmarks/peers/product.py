"""What a product compared is: how its worker is started, how it is told of a job, what of its jobs arrived.

The same file is read by the command and inside the worker, so it imports nothing at its top that costs a start-up.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen

JOB = "bench.job"  # the name of every job, which nothing else in what is sent has
EVENT = "bench.step"


class Product:
    """Plain Python, and what the others are made from.

    In the command: `variables`, `command`, `answer` and `seen`. In the worker: `start`, then `job` and `event`, which
    return what is called instead of a function; `work` is called by workers of real job libraries.
    """

    name = "none"  # of its file
    title = "plain Python"
    package = ""  # on the package index; its version is shown
    environment = "celery"  # see scripts/environments.py
    records = False  # whether anything is kept of a job
    warm = False  # whether the first process of a new folder makes something that later ones read

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Return the environment variables with which it sends to `ports` and keeps its files in `folder`."""
        return {}

    def command(self, words: list[str], programs: Path) -> list[str]:  # noqa: ARG002
        """Return the command that runs `words` under the product, whose console scripts lie in `programs`."""
        return words

    def answer(self, path: str) -> bytes:  # noqa: ARG002
        """Return what its server says to a request."""
        return b"{}"

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Return how many jobs arrived in what was sent."""
        from benchmarks.peers.sink import Seen

        return Seen()

    def start(self) -> None:
        """Start the product in a worker, where the command has not."""

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` so that each call is a job."""
        return function

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` so that each call is an event of the job."""
        return function

    def work(self) -> None:
        """Start the product in a worker of Celery or RQ, with all it has for SQL and HTTP."""
        self.start()
