"""Sentry's SDK with its tracing, all sampled."""

from __future__ import annotations

from benchmarks.peers.product import EVENT, JOB, Product

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from benchmarks.peers.sink import Ports, Posted, Seen


class Sentry(Product):
    """It has no command: a program calls its init."""

    name = "sentry"
    title = "Sentry"
    package = "sentry-sdk"
    environment = "peer-sentry"
    records = True

    def variables(self, ports: Ports, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Name a project's address."""
        return {"SENTRY_DSN": ports.url.replace("//", "//key@") + "/1"}

    def seen(self, posted: Iterable[Posted], folder: Path) -> Seen:  # noqa: ARG002
        """Count the envelopes' items that are transactions of the job."""
        from benchmarks.peers.sink import Seen

        lines = (line for sent in posted if sent.path.endswith("/envelope/") for line in sent.body.split(b"\n"))
        named = b'"transaction":"%s"' % JOB.encode()
        return Seen(sum(line.startswith(b"{") and b'"spans":' in line and named in line for line in lines))

    def start(self) -> None:
        """Start it with all transactions kept."""
        import sentry_sdk

        sentry_sdk.init(traces_sample_rate=1.0)

    def job(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a transaction, with its exception captured."""
        import functools

        import sentry_sdk

        @functools.wraps(function)
        def job(*args: Any, **kwargs: Any) -> Any:
            with sentry_sdk.start_transaction(op="task", name=JOB) as transaction:
                try:
                    return function(*args, **kwargs)
                except Exception:
                    transaction.set_status("internal_error")
                    sentry_sdk.capture_exception()
                    raise

        return job

    def event(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let each call be a span."""
        import functools

        import sentry_sdk

        @functools.wraps(function)
        def event(*args: Any, **kwargs: Any) -> Any:
            with sentry_sdk.start_span(op="step", name=EVENT):
                return function(*args, **kwargs)

        return event


PRODUCT = Sentry()
