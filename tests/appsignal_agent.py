"""The agent inside PyPI's `appsignal`, pushing to a sink; what it pushed, decoded without its schema."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoinst.export.protobuf import fields
from tests.hostile import wait_for
from tests.libraries import python_of
from tests.servers import Sink, free_port

if TYPE_CHECKING:
    from types import TracebackType

PUSHES = "/2/collect"


class AppSignalAgent:
    """`with AppSignalAgent() as agent: ... agent.environ ... agent.pushed()`."""

    def __init__(self) -> None:
        [found] = Path(python_of("receivers")).parent.parent.glob("lib/python*/site-packages/appsignal/appsignal-agent")
        self._program = str(found)
        self._sink = Sink()
        self._port = free_port()

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables by which an exporter finds it."""
        return {"APPSIGNAL_OPENTELEMETRY_PORT": str(self._port), "APPSIGNAL_PUSH_API_KEY": "00-key", "NO_PROXY": "*"}

    def __enter__(self) -> AppSignalAgent:  # noqa: PYI034 - Self is not in typing before 3.11
        self._sink.__enter__()
        self._folder = tempfile.TemporaryDirectory(prefix="autoinst-appsignal-", ignore_cleanup_errors=True)
        settings = {
            "ACTIVE": "true",
            "APP_NAME": "shop",
            "APP_ENV": "production",
            "PUSH_API_KEY": "00-key",
            "PUSH_API_ENDPOINT": self._sink.url,
            "LOG_FILE_PATH": f"{self._folder.name}/agent.log",
            "WORKING_DIRECTORY_PATH": self._folder.name,
            "BIND_ADDRESS": "127.0.0.1",
            "ENABLE_OPENTELEMETRY_HTTP": "true",
            "OPENTELEMETRY_PORT": str(self._port),
            "ENABLE_STATSD": "false",
            "ENABLE_HOST_METRICS": "false",
            "SEND_ENVIRONMENT_METADATA": "false",
            "SEND_PARAMS": "true",
        }
        environ = {f"_APPSIGNAL_{name}": text for name, text in settings.items()} | {"PATH": os.environ["PATH"]}
        started = subprocess.run([self._program, "start", "--private"], env=environ, check=False, capture_output=True)
        assert started.returncode == 0, started.stdout
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def pushed(self) -> list[Any]:
        """Wait for its push, which comes every 30 seconds, and return all texts of it."""
        wait_for(lambda: self._sink.sent(PUSHES), 90)
        return [
            text
            for path, body in list(self._sink.posted)
            if path.startswith(PUSHES)
            for text in texts(zlib.decompress(body))
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lock = Path(self._folder.name, "agent.lock")  # a daemon: its own parent is gone
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(lock.read_text().split(";")[2]), signal.SIGKILL)
        self._folder.cleanup()
        self._sink.__exit__(kind, error, traceback)


def texts(data: bytes) -> list[str]:
    """Return all texts in a protobuf message of an unknown schema, in its order; what may be a message is one."""
    found: list[str] = []
    for _, value in fields(data):
        if not isinstance(value, bytes):
            continue
        try:
            inner = texts(value)
        except ValueError:
            inner = []
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = ""
        if text.isprintable() and text:
            found.append(text)
        found += inner
    return found
