"""The oldest versions of the dependencies that autoinst says it works with do; all other tests have the newest."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.libraries import program_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.service]
VERSIONS = """
import importlib.metadata
names = ("importlib-metadata", "PyYAML", "urllib3", "wrapt")
print(*(importlib.metadata.version(name).rpartition(".")[0] for name in names))
"""
WORKER = """
import sqlite3

def job():
    sqlite3.connect(":memory:").cursor().execute("SELECT 1")

job()
print("done")
"""
RULES = """
version: 1
packs: [none]
jobs:
  - function: __main__.job
events:
  - {class: sqlite3.Cursor, methods: [execute], name: query.sqlite}
"""


@pytest.fixture
def posted() -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Serve what answers every post, and list the paths with the sizes of their bodies."""
    found: list[tuple[str, int]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append((self.path, len(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", found
        server.shutdown()
        thread.join()


def test_it_works_with_the_oldest_versions(tmp_path: Path, posted: tuple[str, list[tuple[str, int]]]) -> None:
    address, requests = posted
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "autoinst.yaml").write_text(RULES)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST_", "OTEL_"))} | {
        "AUTOINST_HOME": str(tmp_path / "home"),
        "AUTOINST_AGENT": "off",
        "AUTOINST_EXPORTERS": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
    }

    def call(program: str, *words: str) -> str:
        command = [program_of("lowest", program), *words]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert call("python", "-c", VERSIONS).split() == ["4.6", "5.4", "1.26", "1.14"]
    assert call("autoinst", "check", "autoinst.yaml") == ""
    assert call("autoinst", "run", "worker.py") == "done\n"
    (record,) = (json.loads(line) for line in call("autoinst", "jobs", "--json").splitlines())
    assert record["action"] == "__main__#job"
    assert [event["name"] for event in record["events"]] == ["query.sqlite"]
    call("autoinst", "agent", "--once")
    assert {path for path, size in requests if size} == {"/v1/traces", "/v1/metrics"}
