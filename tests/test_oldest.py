"""The oldest version of each job library that its pack says it is for: real workers, records as with the newest."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests import test_apscheduler as apscheduler
from tests import test_arq as arq
from tests import test_celery as celery
from tests import test_consumers as consumers
from tests import test_dramatiq as dramatiq
from tests import test_huey as huey
from tests import test_luigi as luigi
from tests import test_saq as saq
from tests import test_schedule as schedule
from tests import test_taskiq as taskiq
from tests.servers import Redis
from tests.workers import Worker, check_records, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

ENVIRONMENT = "oldest"
RQ = """
from rq import get_current_job
from notes import note

def add(a, b=0):
    note(get_current_job().id)
    return a + b

def fail(x):
    note(get_current_job().id)
    raise ValueError("bad")
"""
RQ_SEND = """
import os, redis, rq, sys

queue = rq.Queue("mail", connection=redis.Redis.from_url(os.environ["REDIS"]))
known = {"add": ((1,), {"b": 2}), "fail": (("x",), {})}
for name in sys.argv[1:]:
    queue.enqueue(f"shop.{name}", args=known[name][0], kwargs=known[name][1], job_id=name)
"""
OF_RQ: dict[str, list[dict[str, Any]]] = {
    "add": [run("rq", "add", "shop.add", args=[1], kwargs={"b": 2}, parent_span_id=True)],
    "fail": [
        run(
            "rq",
            "fail",
            "shop.fail",
            args=["x"],
            parent_span_id=True,
            status="error",
            exception=("ValueError", "bad", [], "fail"),
        )
    ],
}


def some(expected: dict[str, list[dict[str, Any]]], *names: str) -> dict[str, list[dict[str, Any]]]:
    """Return the records of some jobs: most tests' others are of what their library's newest version can do."""
    return {name: expected[name] for name in names}


@dataclass
class Case:
    """A program, what sends its jobs, its worker, and the records of them by `key`; SERVER stands for the broker's URL.

    `runs` are what the jobs note, if not their names; the worker ends by `by`, or by itself. `ahead` is what sends the
    job of its last word, for tests/test_clock_skew.py.
    """

    files: dict[str, str]
    expected: dict[str, list[dict[str, Any]]]
    start: str
    send: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    key: str = "job_id"
    by: signal.Signals | None = signal.SIGTERM
    runs: tuple[str, ...] = ()
    ahead: str = ""


CASES = {
    "apscheduler": Case(
        {"shop.py": apscheduler.SHOP, "run.py": apscheduler.RUN},
        apscheduler.JOBS | apscheduler.ORDER,
        "python run.py thread stay 0",
        variables={"PYTHONPATH": "."},
        runs=tuple(
            record["method"] for records in (apscheduler.JOBS | apscheduler.ORDER).values() for record in records
        ),
    ),
    "apscheduler by asyncio": Case(
        {"shop.py": apscheduler.SHOP, "run.py": apscheduler.RUN},
        apscheduler.JOBS | apscheduler.ORDER | apscheduler.ASYNC,
        "python run.py asyncio stay 0",
        variables={"PYTHONPATH": "."},
        runs=tuple(
            record["method"]
            for records in (apscheduler.JOBS | apscheduler.ORDER | apscheduler.ASYNC).values()
            for record in records
        ),
    ),
    "arq": Case(
        {"shop.py": re.sub(r"    cron_jobs = .*\n", "", arq.JOBS), "send.py": arq.SEND},
        some(arq.EXPECTED, "add", "fail", "again", "mail"),
        "arq --burst shop.WorkerSettings",
        ("python send.py add fail again mail",),
        {"REDIS": "SERVER"},
        by=None,
    ),
    "celery": Case(
        {"shop.py": celery.TASKS, "send.py": celery.SEND},
        celery.GENTLE,
        "celery -A shop worker --concurrency=1",
        ("python send.py gentle",),
        {"BROKER": "SERVER", "BACKEND": "SERVER"},
    ),
    "dramatiq": Case(
        {"shop.py": dramatiq.ACTORS, "send.py": dramatiq.SEND},
        some(dramatiq.EXPECTED, "add", "fail", "order", "child"),
        "dramatiq shop --processes 1 --threads 2",
        ("python send.py add fail order",),
        {"BROKER": "SERVER"},
        key="args",
        ahead="send.py add",
    ),
    "huey": Case(
        {"shop.py": huey.TASKS, "send.py": huey.SEND},
        {name: runs for name, runs in huey.EXPECTED.items() if name != "cancelled"},  # which is a retry there
        "huey_consumer shop.queue --workers 2 --scheduler-interval 1",
        (f"python send.py {' '.join(name for name in huey.EXPECTED if name not in ('child', 'cancelled'))}",),
        {"STORAGE": "SERVER"},
        by=signal.SIGINT,
    ),
    "kombu": Case(
        {"shop.py": consumers.CALLBACK, "consumer.py": consumers.KOMBU},
        some(consumers.OF_KOMBU, "add", "child", "fail", "again"),
        "python consumer.py work",
        ("python consumer.py send add fail again",),
        {"BROKER": "SERVER", "AUTOINST_PACKS": "default,kombu"},
        ahead="consumer.py send again",
    ),
    "luigi": Case(
        {"shop.py": luigi.SHOP, "luigi.cfg": luigi.CONFIG},
        luigi.EXPECTED,
        f"luigi --module shop All --names {'+'.join(luigi.EXPECTED)} --local-scheduler --workers 1",
        variables={"PYTHONPATH": "."},
        key="class",
        by=None,
        runs=(*(name for name, records in luigi.EXPECTED.items() for _ in records), "tries", "tries"),
    ),
    "rq": Case(
        {"shop.py": RQ, "send.py": RQ_SEND},
        OF_RQ,
        "rq worker --burst --url SERVER mail",
        ("python send.py add fail",),
        {"REDIS": "SERVER", "PYTHONPATH": "."},
        by=None,
        ahead="send.py add",
    ),
    "saq": Case(
        {"shop.py": saq.JOBS, "send.py": saq.SEND},
        some(saq.EXPECTED, "add", "plain", "fail", "order", "child", "later"),
        "saq shop.settings",
        ("python send.py add plain fail order later",),
        {"REDIS": "SERVER"},
        ahead="send.py add",
    ),
    "schedule": Case({"loop.py": schedule.LOOP}, schedule.EXPECTED, "python loop.py", key="args", by=None),
    "taskiq": Case(
        {"shop.py": taskiq.TASKS, "send.py": taskiq.SEND},
        some(taskiq.EXPECTED, "add", "plain", "fail", "order", "child"),
        "taskiq worker shop:broker --workers 1",
        ("python send.py add plain fail order",),
        {"REDIS": "SERVER"},
        ahead="send.py add",
    ),
}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.mark.parametrize("library", CASES)
def test_a_worker_of_the_oldest_version(redis: Redis, tmp_path: Path, library: str) -> None:
    case = CASES[library]
    url = redis.database(list(CASES).index(library))
    variables: dict[str, str | None] = {name: value.replace("SERVER", url) for name, value in case.variables.items()}
    worker = Worker(tmp_path / "program", ENVIRONMENT, case.files, variables)
    for command in case.send:
        worker.call(*command.split())
    worker.start(*case.start.replace("SERVER", url).split())
    runs = case.runs or tuple(name for name, records in case.expected.items() for _ in records)
    if case.by is not None:
        worker.wait_for_records(sum(map(len, case.expected.values())))
    worker.stop_after(runs, by=case.by)
    check_records(worker, case.expected, key=case.key)
