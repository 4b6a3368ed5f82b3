"""gunicorn and uWSGI: they serve as without autoinst, and their forked workers record each job once."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import Program
from tests.libraries import program_of

pytestmark = [pytest.mark.once, pytest.mark.service]

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

jobs.Mailer().perform(-1)  # in the master, where that loads the application: it has a recorder when it forks

def application(environ, start_response):
    number = int(environ["QUERY_STRING"])
    body = f"{os.getpid()} {jobs.Mailer().perform(number)}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
GUNICORN = ("gunicorn", "--bind", "unix:http.sock", "--workers", "2", "--log-level", "error", "app")
UWSGI = (
    *("pyuwsgi", "--http-socket", "http.sock", "--master", "--processes", "2", "--wsgi-file", "app.py"),
    "--die-on-term",
)
LIMIT = 15  # requests after which a worker is replaced
REPLACED = ("--threads", "2", "--max-requests", str(LIMIT))
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn, preloaded": (*GUNICORN, "--preload"),
    "gunicorn, replaced": (*GUNICORN, *REPLACED),
    "uwsgi": UWSGI,
    "uwsgi, lazy": (*UWSGI, "--lazy-apps"),
    "uwsgi, replaced": (*UWSGI, *REPLACED, "--min-worker-lifetime", "0"),
}
FORKED_LOADED = ("gunicorn, preloaded", "uwsgi", "uwsgi, replaced")  # whose master loads the application


def ask(number: int, deadline: float) -> tuple[int, int]:
    """Return the pid that answered a request and the result; a server that does not listen yet is asked again."""
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(DEADLINE)
                connection.connect("http.sock")
                connection.sendall(f"GET /?{number} HTTP/1.0\r\n\r\n".encode())
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
            continue
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], answer
        pid, result = body.split()
        return int(pid), int(result)


def settled(server: int, answers: list[tuple[int, int]], *, replaced: bool) -> bool:
    """Return whether all the workers there are have answered, and none is about to be replaced.

    uWSGI takes a SIGTERM during a worker's start for that of the application: it waits a minute for such a worker.
    """
    workers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    counts = Counter(pid for pid, _ in answers)
    return len(workers) == 2 and all(0 < counts[int(pid)] < (LIMIT if replaced else 10**6) for pid in workers)


@pytest.mark.parametrize("boot", ["plain", "run", "sitecustomize"])
@pytest.mark.parametrize("name", SERVERS)
def test_jobs_of_workers_are_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, boot: str
) -> None:
    program = Program(tmp_path)
    program.write("jobs.py", JOBS)
    program.write("app.py", APP)
    program.write("rules.yaml", RULES)
    script, *words = SERVERS[name]
    command = [program_of("peers", script), *words]
    if boot == "run":
        command = [program_of("peers", "autoinst"), "run", *command]
    monkeypatch.chdir(tmp_path)  # for a socket's path may not be long
    with open("log", "w") as log:
        server = subprocess.Popen(
            command,
            env=program.environ({}, instrumented=boot == "sitecustomize"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + DEADLINE
            answers: list[tuple[int, int]] = []
            while len(answers) < 2 * LIMIT + 10 or not (
                script == "gunicorn" or settled(server.pid, answers, replaced="replaced" in name)
            ):
                assert time.monotonic() < deadline, Path("log").read_text()
                answers.append(ask(len(answers), deadline))
            server.send_signal(signal.SIGTERM)
            status = server.wait(DEADLINE)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
    said = Path("log").read_text()
    assert status == 0, said
    assert "Traceback" not in said
    assert [result for _, result in answers] == [number * 2 for number in range(len(answers))]
    pids = Counter(pid for pid, _ in answers)
    assert server.pid not in pids
    assert (len(pids) > 2) == ("replaced" in name)
    everything = program.records()
    loaded = Counter(record["pid"] for record in everything if record["job_id"] == "-1")
    records = [record for record in everything if record["job_id"] != "-1"]
    if boot == "plain":
        assert everything == []
        return
    assert set(loaded.values()) == {1}
    assert (set(loaded) == {server.pid}) if name in FORKED_LOADED else (set(pids) <= set(loaded) - {server.pid}), loaded
    assert Counter(record["job_id"] for record in records) == {str(number): 1 for number in range(len(answers))}
    assert Counter(record["pid"] for record in records) == pids
    assert {record["status"] for record in records} == {"ok"}
