"""The built-in RQ pack with a real Redis server and real workers: every run recorded once, and nothing else changed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import rq.job
import rq.worker

from autoinst.spool.layout import event_span_id
from tests.harness import Program
from tests.servers import Redis
from tests.tested import COLUMNS, Library
from tests.workers import utc

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.service

BIN = Path(sys.executable).parent
DEADLINE = 60.0  # seconds a worker may take on a slow machine

JOBS = '''
"""Jobs that end in every way; each run leaves a line in runs.log."""
import os, signal, time
from rq import Queue, Retry, get_current_job

def note():
    line = get_current_job().id + "\\n"
    descriptor = os.open("runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    with open("runs.log") as log:
        return log.readlines().count(line)

def add(a, token=None, b=0):
    note()
    return a + b

def fail(_):
    note()
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

def flaky(failures):
    if note() <= failures:
        raise RuntimeError("try again")
    return "fine"

def again(times, most, interval=0):
    if note() <= times:
        return Retry(max=most, interval=interval)
    return "fine"

class Mailer:
    def __init__(self, sender):
        self.sender = sender

    def send(self, to, cc=None):
        note()
        return f"{self.sender} to {to}"

async def later(n):
    note()
    return n

def order():
    note()
    queue = Queue("mail", connection=get_current_job().connection)
    first = queue.enqueue(add, 1, job_id="first", meta={"mine": 1})
    assert first.meta == {"mine": 1}
    queue.enqueue(add, 2, job_id="second", depends_on=first)
    queue.enqueue(flaky, 1, job_id="third", retry=Retry(max=1))

def endless():
    note()
    while True:
        time.sleep(0.01)

def leave():
    note()
    raise SystemExit(3)

def kill_itself(a, b=None):
    note()
    os.kill(os.getpid(), signal.SIGKILL)

def vanish():
    note()
    os._exit(0)
'''

ENQUEUE = """
import datetime, os, sys, redis, rq, shop.jobs
from rq import Retry

queue = rq.Queue("mail", connection=redis.Redis.from_url(os.environ["REDIS_URL"]))
add = queue.enqueue
group = sys.argv[1]
if group in ("all", "gentle", "few"):
    add("shop.jobs.add", 1, "hunter2", b=2, job_id="add")
    add(shop.jobs.Mailer("me").send, "you", cc=["x"], job_id="method")
    add("shop.jobs.flaky", 2, job_id="flaky", retry=Retry(max=2))
if group in ("all", "gentle"):
    add("shop.jobs.fail", "x", job_id="fail")
    add("shop.jobs.flaky", 9, job_id="hopeless", retry=Retry(max=2))
    add("shop.jobs.again", 2, 3, job_id="again")
    add("shop.jobs.again", 9, 2, job_id="again-hopeless")
    add("shop.jobs.later", 5, job_id="later")
    add("shop.jobs.endless", job_id="endless", job_timeout=1)
    add("shop.jobs.leave", job_id="leave")
    add("shop.jobs.nothing", 5, job_id="missing")
if group == "all":
    add("shop.jobs.kill_itself", 7, b=[1], job_id="killed")
    add("shop.jobs.kill_itself", 8, job_id="killed-twice", retry=Retry(max=1))
    add("shop.jobs.vanish", job_id="vanished")
if group == "order":
    add("shop.jobs.order", job_id="order")
if group == "scheduled":
    soon = datetime.timedelta(seconds=2)
    queue.enqueue_in(soon, "shop.jobs.add", 1, job_id="in")
    queue.enqueue_at(datetime.datetime.now(datetime.timezone.utc) + soon, "shop.jobs.fail", 1, job_id="at")
    add("shop.jobs.flaky", 1, job_id="slow-flaky", retry=Retry(max=1, interval=2))
    add("shop.jobs.again", 1, 1, 2, job_id="slow-again")
"""

# Before 2.1 a job that returns Retry(...) has just returned something.
RETRIES_RETURNED = hasattr(rq.job.Job, "_handle_retry_result")
HAS_SPAWN_WORKER = hasattr(rq.worker, "SpawnWorker")
# job id -> (status, attempts) of each run, in their order
FEW: dict[str, list[tuple[str, int]]] = {
    "add": [("ok", 1)],
    "method": [("ok", 1)],
    "flaky": [("error", 1), ("error", 2), ("ok", 3)],
}
GENTLE = FEW | {
    "fail": [("error", 1)],
    "hopeless": [("error", 1), ("error", 2), ("error", 3)],
    "again": [("ok", 1), ("ok", 2), ("ok", 3)] if RETRIES_RETURNED else [("ok", 1)],
    "again-hopeless": [("ok", 1), ("ok", 2), ("ok", 3)] if RETRIES_RETURNED else [("ok", 1)],
    "later": [("ok", 1)],
    "endless": [("error", 1)],
    "leave": [("error", 1)],
    "missing": [("error", 1)],
}
DEADLY: dict[str, list[tuple[str, int]]] = {
    "killed": [("killed", 1)],
    "killed-twice": [("killed", 1), ("killed", 2)],
    "vanished": [("killed", 1)],
}
SCHEDULED: dict[str, list[tuple[str, int]]] = {
    "in": [("ok", 1)],
    "at": [("error", 1)],
    "slow-flaky": [("error", 1), ("ok", 2)],
    "slow-again": [("ok", 1), ("ok", 2)] if RETRIES_RETURNED else [("ok", 1)],
}
# job id -> class, method, args, kwargs
CALLS: dict[str, tuple[str, str, list[Any], dict[str, Any]]] = {
    "add": ("shop.jobs", "add", [1, "[FILTERED]"], {"b": 2}),
    "fail": ("shop.jobs", "fail", ["x"], {}),
    "flaky": ("shop.jobs", "flaky", [2], {}),
    "hopeless": ("shop.jobs", "flaky", [9], {}),
    "again": ("shop.jobs", "again", [2, 3], {}),
    "again-hopeless": ("shop.jobs", "again", [9, 2], {}),
    "method": ("shop.jobs.Mailer", "send", ["you"], {"cc": ["x"]}),
    "later": ("shop.jobs", "later", [5], {}),
    "endless": ("shop.jobs", "endless", [], {}),
    "leave": ("shop.jobs", "leave", [], {}),
    "missing": ("shop.jobs", "nothing", ["[FILTERED]"], {}),
    "killed": ("shop.jobs", "kill_itself", [7], {"b": [1]}),
    "killed-twice": ("shop.jobs", "kill_itself", [8], {}),
    "vanished": ("shop.jobs", "vanish", [], {}),
    "in": ("shop.jobs", "add", [1], {}),
    "at": ("shop.jobs", "fail", [1], {}),
    "slow-flaky": ("shop.jobs", "flaky", [1], {}),
    "slow-again": ("shop.jobs", "again", [1, 1, 2], {}),
}
EXCEPTIONS = {
    "fail": ("ValueError", "bad"),
    "at": ("ValueError", "bad"),
    "flaky": ("RuntimeError", "try again"),
    "slow-flaky": ("RuntimeError", "try again"),
    "hopeless": ("RuntimeError", "try again"),
    "endless": ("rq.timeouts.JobTimeoutException", "Task exceeded maximum timeout value (1 seconds)"),
    "leave": ("SystemExit", "3"),
    "missing": ("ValueError", "Invalid attribute name: nothing"),
}


@dataclass
class Run:
    """What a worker left: its exit status and output, its jobs as Redis has them, the runs it made, the records."""

    status: int
    stdout: str
    stderr: str
    outcomes: dict[str, Any]
    log: list[str]
    records: list[dict[str, Any]]
    enqueued: tuple[float, float]  # when enqueueing began and ended, seconds since the epoch

    def by_job(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of each job, oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in self.records:
            found.setdefault(record["job_id"], []).append(record)
        return found


class Worker:
    """A worker process on a queue of its own, with or without autoinst."""

    def __init__(self, folder: Path, server: Redis, database: int, *, instrumented: bool) -> None:
        folder.mkdir()
        self.program = Program(folder)
        self.program.write("shop/__init__.py", "")
        self.program.write("shop/jobs.py", JOBS)
        self.program.write("enqueue.py", ENQUEUE)
        self.url = f"redis://127.0.0.1:{server.port}/{database}"
        self.instrumented = instrumented
        variables = {"REDIS_URL": self.url, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
        self.environ = self.program.environ(variables, instrumented=False)
        self.enqueued = (0.0, 0.0)
        self.process: subprocess.Popen[str] | None = None

    def start(self, jobs: str, *options: str) -> None:
        """Enqueue the group `jobs` and start `rq worker` with `options`."""
        python = [str(BIN / "autoinst"), "run", "python"] if self.instrumented else [sys.executable]
        command = [*python, "enqueue.py", jobs]
        before = time.time()
        subprocess.run(command, cwd=self.program.folder, env=self.environ, check=True, timeout=DEADLINE)
        self.enqueued = (before, time.time())
        worker = ["rq", "worker", "-u", self.url, "-n", "worker", *options, "mail"]
        # A queue's worker finds the jobs in its working directory, which the console script puts on sys.path.
        command = [str(BIN / "autoinst"), "run", *worker] if self.instrumented else [str(BIN / worker[0]), *worker[1:]]
        self.process = subprocess.Popen(
            command,
            cwd=self.program.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop_when(self, jobs: dict[str, list[tuple[str, int]]]) -> None:
        """Ask the worker to end once each of `jobs` has ended all its runs."""
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        wanted = Counter({job: len(runs) for job, runs in jobs.items()})
        with redis.Redis.from_url(self.url) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                states = {client.hget(f"rq:job:{job}", "status") for job in jobs}
                if states <= {b"finished", b"failed"} and Counter(self.log()) == wanted:
                    break
                time.sleep(0.05)
        self.process.send_signal(signal.SIGTERM)

    def log(self) -> list[str]:
        """Return the job ids of the runs that began."""
        path = self.program.folder / "runs.log"
        return path.read_text().split() if path.exists() else []

    def end(self) -> Run:
        """Wait for the worker and return what it left."""
        assert self.process is not None
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        folder = str(self.program.folder)
        return Run(
            self.process.returncode,
            normalised(stdout.replace(folder, "FOLDER")),
            normalised(stderr.replace(folder, "FOLDER")),
            self._outcomes(folder),
            self.log(),
            self.program.records() if self.instrumented else [],
            self.enqueued,
        )

    def _outcomes(self, folder: str) -> dict[str, Any]:
        """Return every job's hash and results as Redis has them, without times and ids that differ in each run."""
        found: dict[str, Any] = {}
        with redis.Redis.from_url(self.url) as client:
            for key in sorted(client.keys("rq:*")):
                name = key.decode()
                kind, _, job = name.removeprefix("rq:").partition(":")
                if kind == "job" and ":" not in job:
                    found[name] = {
                        field.decode(): value
                        for field, value in client.hgetall(key).items()
                        if not field.endswith(b"_at") and field not in (b"last_heartbeat", b"traceparent")
                    }
                elif kind == "results":
                    entries = [entry for _, entry in client.xrange(key)]
                    found[name] = [_result(entry, folder) for entry in entries]
                elif kind in ("failed", "finished", "scheduled", "wip", "queue", "queues", "deferred", "canceled"):
                    found[name] = _members(client, key)
        return found


def _result(entry: dict[bytes, bytes], folder: str) -> dict[str, Any]:
    text = zlib.decompress(base64.b64decode(entry.get(b"exc_string") or base64.b64encode(zlib.compress(b""))))
    value = entry.get(b"return_value")
    returned = pickle.loads(base64.b64decode(value)) if value else None
    return {
        "type": entry[b"type"],
        "exception": plain_traceback(text.decode().replace(folder, "FOLDER")),
        "value": returned if isinstance(returned, (int, str, float, list, type(None))) else type(returned).__name__,
    }


def _members(client: redis.Redis, key: bytes) -> list[str]:
    kind = client.type(key)
    members: Any = (
        client.zrange(key, 0, -1)
        if kind == b"zset"
        else client.lrange(key, 0, -1)
        if kind == b"list"
        else client.smembers(key)
    )
    return sorted(re.sub(":[0-9a-f]{32}$", "", member.decode()) for member in members)  # without the execution's id


def plain_traceback(text: str) -> str:
    """Return a traceback as it is; on 3.10 without the frame that an instrumented function has there."""
    if sys.version_info >= (3, 11):
        return text
    # Two entries for `perform` there: the probe's line and the function's own.
    return re.sub(r'  File "[^"]*rq/job\.py", line \d+, in perform\n(    .*\n)?', "", text)


def normalised(text: str) -> str:
    """Return a worker's output without what differs from run to run."""
    text = re.sub(r"\b\d\d:\d\d:\d\d\b", "TIME", plain_traceback(text))
    text = re.sub(r"\b0:TIME(\.\d+)?s?|0:\d\d:\d\d(\.\d+)?s", "DURATION", text)
    return re.sub(r"(PID|pid|retpid)(=| )?\d+", r"\1 N", text)


LIBRARY = Library(
    "RQ",
    pack="rq",
    distribution="rq",
    environment="test",
    runs="the forking, the spawning and the simple worker, and the scheduler",
    recorded=COLUMNS,
    ran=("ok", "failing", "retried", "delayed", "killed", "trace"),
    missing="Once an exception is retried it is known that a run is not the first, but not which: RQ keeps no count.",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as redis_server:
        yield redis_server


@pytest.fixture(scope="module")
def pair(server: Redis, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """All jobs with the default worker, which forks a work horse for each: with autoinst, and without."""
    return run_both(server, tmp_path_factory.mktemp("forking"), 0, "all", "--burst")


def run_both(server: Redis, folder: Path, database: int, jobs: str, *options: str) -> tuple[Run, Run]:
    """Run the same jobs with autoinst and without, side by side."""
    workers = [
        Worker(folder / "with", server, database, instrumented=True),
        Worker(folder / "without", server, database + 1, instrumented=False),
    ]
    for worker in workers:
        worker.start(jobs, *options)
    if "--burst" not in options:
        for worker in workers:
            worker.stop_when(SCHEDULED)
    recorded, plain = (worker.end() for worker in workers)
    return recorded, plain


def check_records(run: Run, expected: dict[str, list[tuple[str, int]]]) -> None:
    """Compare the records with the runs that were made: none lost, none doubled, each with all that is known."""
    found = run.by_job()
    assert {job: [(r["status"], r["attempts"]) for r in records] for job, records in found.items()} == expected
    made = Counter(run.log)
    made.update({job: 1 for job in expected if job == "missing"})  # its function, which would note the run, is missing
    assert Counter(record["job_id"] for record in run.records) == made
    assert {
        job: {(r["class"], r["method"], json.dumps(r["args"]), json.dumps(r["kwargs"])) for r in records}
        for job, records in found.items()
    } == {
        job: {(class_name, method, json.dumps(args), json.dumps(kwargs))}
        for job, (class_name, method, args, kwargs) in CALLS.items()
        if job in expected
    }
    for record in run.records:
        assert (record["queue"], record["name"], record["namespace"]) == ("mail", "perform_job.rq", "background_job")
        assert record["action"] == f"{record['class']}#{record['method']}"
        exception = record["exception"]
        assert (exception and (exception["class"], exception["message"])) == (
            EXCEPTIONS[record["job_id"]] if record["status"] == "error" else None
        )
        assert record["queue_time"] == pytest.approx(
            (utc(record["started_at"]) - utc(record["enqueued_at"])) * 1e3, abs=2
        )


def test_every_run_of_a_work_horse_is_recorded_once(pair: tuple[Run, Run]) -> None:
    check_records(pair[0], GENTLE | DEADLY)


def test_outcomes_and_output_are_those_without_autoinst(pair: tuple[Run, Run]) -> None:
    recorded, plain = pair
    assert recorded.status == plain.status == 0
    assert recorded.outcomes == plain.outcomes
    assert sorted(recorded.log) == sorted(plain.log)
    assert recorded.stdout.splitlines() == plain.stdout.splitlines()
    assert recorded.stderr.splitlines() == plain.stderr.splitlines()


def test_an_exception_has_its_backtrace_and_cause(pair: tuple[Run, Run]) -> None:
    exception = pair[0].by_job()["fail"][0]["exception"]
    innermost = exception["backtrace"][-1]
    assert (Path(innermost["file"]).name, innermost["function"], innermost["in_app"]) == ("jobs.py", "fail", True)
    assert [(cause["class"], cause["message"]) for cause in exception["causes"]] == [("KeyError", "'key'")]


def test_a_job_and_those_it_enqueues_are_one_trace(server: Redis, tmp_path: Path) -> None:
    recorded, plain = run_both(server, tmp_path, 8, "order", "--burst")
    assert recorded.outcomes == plain.outcomes
    found = recorded.by_job()
    (order,) = found["order"]
    put_by = [event_span_id(bytes.fromhex(order["id"][16:]), at).hex() for at in range(3)]
    events = [(event["name"], event["title"], event["parent"]) for event in order["events"]]
    assert events == [("enqueue.rq", f"shop.jobs.{name}", None) for name in ("add", "add", "flaky")]
    links = [[record["parent_span_id"] for record in found[job]] for job in ("first", "second", "third")]
    assert links == [[put_by[0]], [put_by[1]], [put_by[2], put_by[2]]]
    assert {record["trace_id"] for record in recorded.records} == {order["trace_id"]}
    assert order["parent_span_id"] is not None  # the process that enqueued it was in no job


def test_a_time_limit_ends_the_job_and_is_recorded(pair: tuple[Run, Run]) -> None:
    record = pair[0].by_job()["endless"][0]
    assert 900 < record["duration"] < 1000 * DEADLINE
    assert pair[0].outcomes["rq:job:endless"]["status"] == b"failed"


def test_a_killed_work_horse_is_told_of_with_its_job(pair: tuple[Run, Run]) -> None:
    for record in pair[0].by_job()["killed-twice"]:
        assert record["killed"]["pid"] == record["pid"]
        assert record["tags"]["retries_left"] in (0, 1)


def test_queue_time_counts_from_when_a_run_was_put_on_the_queue(pair: tuple[Run, Run]) -> None:
    run = pair[0]
    for records in run.by_job().values():
        assert run.enqueued[0] - 0.01 <= utc(records[0]["enqueued_at"]) <= run.enqueued[1]
        for before, after in itertools.pairwise(records):
            # RQ requeues a run after it has ended.
            assert utc(after["enqueued_at"]) >= utc(before["started_at"]) + (before["duration"] or 0) / 1e3 - 0.01


@pytest.mark.parametrize(
    ("worker", "group", "expected", "database"),
    [
        ("rq.SimpleWorker", "gentle", GENTLE, 2),
        pytest.param(
            "rq.worker.SpawnWorker",
            "few",
            FEW,
            4,
            marks=pytest.mark.skipif(not HAS_SPAWN_WORKER, reason="this RQ has no SpawnWorker"),
        ),
    ],
)
def test_the_other_workers_jobs_are_recorded_as_well(
    server: Redis, tmp_path: Path, worker: str, group: str, expected: dict[str, list[tuple[str, int]]], database: int
) -> None:
    recorded, plain = run_both(server, tmp_path, database, group, "--burst", "-w", worker)
    check_records(recorded, expected)
    assert recorded.outcomes == plain.outcomes
    assert recorded.stdout.splitlines() == plain.stdout.splitlines()
    assert recorded.stderr.splitlines() == plain.stderr.splitlines()


def test_scheduled_jobs_wait_from_when_they_were_due(server: Redis, tmp_path: Path) -> None:
    recorded, plain = run_both(server, tmp_path, 6, "scheduled", "--with-scheduler")
    check_records(recorded, SCHEDULED)
    assert recorded.outcomes == plain.outcomes
    found = recorded.by_job()
    # RQ rounds the moment a job is due down to a whole second.
    for job in ("in", "at"):
        assert utc(found[job][0]["enqueued_at"]) >= int(recorded.enqueued[0] + 2)
    for first, second in (found[job] for job in ("slow-flaky", "slow-again") if len(SCHEDULED[job]) > 1):
        assert utc(second["enqueued_at"]) >= int(utc(first["started_at"]) + 2)
