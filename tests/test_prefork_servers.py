"""gunicorn and uWSGI: jobs of forked workers are recorded once each, in whichever order master and workers begin."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.harness import BOOT, Program
from tests.libraries import program_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

DEADLINE = 90.0
RULES = """
version: 1
packs: [none]
jobs:
  - class: jobs.Mailer
    methods: [perform]
    payload: {job_id: "${number}"}
"""
JOBS = """
class Mailer:
    def perform(self, number):
        return number * 2
"""
APP = """
import os
import jobs

def application(environ, start_response):
    number = int(environ["QUERY_STRING"])
    body = f"{os.getpid()} {jobs.Mailer().perform(number)}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
GUNICORN = ("gunicorn", "--bind", "unix:http.sock", "--workers", "2", "--log-level", "error", "app")
UWSGI = (
    "pyuwsgi",
    "--http-socket",
    "http.sock",
    "--master",
    "--processes",
    "2",
    "--wsgi-file",
    "app.py",
    "--die-on-term",
)
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn, the application loaded before the fork": (*GUNICORN, "--preload"),
    "gunicorn, with threads and a new worker every 5 requests": (*GUNICORN, "--threads", "2", "--max-requests", "5"),
    "uWSGI": UWSGI,
    "uWSGI, each worker loading the application": (*UWSGI, "--lazy-apps"),
    "uWSGI, with threads and a new worker every 5 requests": (*UWSGI, "--threads", "2", "--max-requests", "5"),
}


def ask(folder: Path, number: int) -> list[int]:
    """Return the pid and the result of a request; a worker that is just being replaced is asked again."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(DEADLINE)
                connection.connect(os.path.relpath(folder / "http.sock"))
                connection.sendall(f"GET /?{number} HTTP/1.0\r\n\r\n".encode())
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b" 200 " in head.splitlines()[0], answer
            return [int(word) for word in body.split()]
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("boot", ["run", "sitecustomize"])
@pytest.mark.parametrize("name", SERVERS)
def test_jobs_of_workers_are_recorded_once(tmp_path: Path, name: str, boot: str) -> None:
    program = Program(tmp_path)
    program.write("jobs.py", JOBS)
    program.write("app.py", APP)
    program.write("rules.yaml", RULES)
    words = SERVERS[name]
    command = [program_of("peers", words[0]), *words[1:]]
    environ = program.environ({}, instrumented=False)
    if boot == "run":
        command = [program_of("peers", "autoinst"), "run", *command]
    else:
        environ["PYTHONPATH"] = str(BOOT)
    with open(tmp_path / "log", "w+") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
        )
        try:
            answers = [ask(tmp_path, number) for number in range(40)]
            server.send_signal(signal.SIGTERM)
            status = server.wait(DEADLINE)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
        log.seek(0)
        said = log.read()
    assert status == 0, said
    assert "autoinst" not in said.replace(str(BOOT.parent), "").replace(command[0], ""), said
    assert [result for _, result in answers] == [number * 2 for number in range(40)]
    records = program.records()
    assert Counter(record["job_id"] for record in records) == {str(number): 1 for number in range(40)}
    assert Counter(record["pid"] for record in records) == Counter(pid for pid, _ in answers)
    assert server.pid not in {record["pid"] for record in records}
    assert {record["status"] for record in records} == {"ok"}
    if "every 5" in name:
        assert len({record["pid"] for record in records}) > 2
