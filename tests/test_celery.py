"""The built-in Celery pack with real brokers and workers of every pool: every run is recorded once."""

from __future__ import annotations

import itertools
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.servers import RabbitMQ, Redis
from tests.tested import Library
from tests.workers import DEADLINE, Worker, link, put_by, run, utc, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

TASKS = '''
"""Tasks that end in every way; each run notes its id."""
import os, signal, time
from celery import Celery, Task, current_task
from celery.exceptions import Ignore, Reject
from notes import note as write

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(task_default_queue="mail", worker_prefetch_multiplier=1)

def note():
    return write(current_task.request.id)

@app.task
def add(a, c=0, token=None, b=0):
    note()
    return a + b

@app.task
def fail(x):
    note()
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@app.task(bind=True, max_retries=2)
def flaky(self, failures):
    note()
    if self.request.retries < failures:
        try:
            raise RuntimeError("try again")
        except RuntimeError as error:
            raise self.retry(exc=error, countdown=0)
    return "fine"

@app.task(autoretry_for=(RuntimeError,), max_retries=1, default_retry_delay=0)
def hopeless():
    note()
    raise RuntimeError("no")

@app.task(name="a-name")
def named():
    note()

class Mail(Task):
    name = "mail"

    def run(self, to):
        note()
        return to

mail = app.register_task(Mail())

@app.task
def ignored():
    note()
    raise Ignore()

@app.task
def order():
    note()
    add.apply_async((7,), task_id="child", headers=HEADERS)
    (add.s(8).set(task_id="chained") | add.s(9).set(task_id="last")).apply_async()
    assert HEADERS == {"mine": 1}

HEADERS = {"mine": 1}

@app.task(acks_late=True)
def rejected():
    note()
    raise Reject("not mine", requeue=False)

@app.task
def die():
    note()
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once():
    if note() == 1:
        os.kill(os.getpid(), signal.SIGKILL)

@app.task(time_limit=1)
def endless():
    note()
    while True:
        time.sleep(0.01)

@app.task(soft_time_limit=1)
def slow():
    note()
    while True:
        time.sleep(0.01)
'''

SEND = """
import sys
from shop import *

if sys.argv[1] == "early":
    add.apply_async((6,), task_id="early")
    sys.exit()
add.apply_async((1, 0, "hunter2"), {"b": 2}, task_id="add")
fail.apply_async(("x",), task_id="fail")
flaky.apply_async((2,), task_id="flaky")
hopeless.apply_async(task_id="hopeless")
named.apply_async(task_id="named")
mail.apply_async(("me",), task_id="mail")
ignored.apply_async(task_id="ignored")
rejected.apply_async(task_id="rejected")
add.apply_async((5,), task_id="later", countdown=2)
order.apply_async(task_id="order")
if sys.argv[1] == "deadly":
    die.apply_async(task_id="die")
    die_once.apply_async(task_id="die-once")
    endless.apply_async(task_id="endless")
    slow.apply_async(task_id="slow")
"""


def celery(job_id: str, function: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run, which was put on its queue by another process or run."""
    task = fields.pop("task", function)
    return run("celery", job_id, function, **{"parent_span_id": True, "tags": {"task": task}, **fields})


AGAIN: tuple[Any, ...] = ("RuntimeError", "try again", [], "flaky")
RETRY = ("celery.exceptions.Retry", "Retry in 0s: RuntimeError('try again')", [AGAIN[:2]], "flaky")
NO: tuple[Any, ...] = ("RuntimeError", "no", [], "hopeless")
RETRY_NO = ("celery.exceptions.Retry", "Retry in 0s: RuntimeError('no')", [NO[:2]], None)


def sent(task: str, parent: int | None = None) -> dict[str, Any]:
    """Return the event of a task that is put on a queue."""
    return {"name": "enqueue.celery", "title": task, "body": None, "parent": parent}


AGAIN_SENT, NO_SENT = sent("shop.flaky"), sent("shop.hopeless")
GENTLE = {
    "add": [celery("add", "shop.add", args=[1, 0, "[FILTERED]"], kwargs={"b": 2})],
    "fail": [
        celery(
            "fail",
            "shop.fail",
            args=["x"],
            status="error",
            exception=("ValueError", "bad", [("KeyError", "'key'")], "fail"),
        )
    ],
    "flaky": [
        celery("flaky", "shop.flaky", args=[2], status="ignored", exception=RETRY, events=[AGAIN_SENT]),
        celery("flaky", "shop.flaky", args=[2], status="ignored", exception=RETRY, attempts=2, events=[AGAIN_SENT]),
        celery("flaky", "shop.flaky", args=[2], attempts=3),
    ],
    "hopeless": [
        celery("hopeless", "shop.hopeless", status="ignored", exception=RETRY_NO, events=[NO_SENT]),
        celery("hopeless", "shop.hopeless", status="error", exception=NO, attempts=2),
    ],
    "named": [celery("named", "shop.named", task="a-name")],
    "mail": [celery("mail", "shop.Mail.run", task="mail", args=["me"])],
    "ignored": [
        celery("ignored", "shop.ignored", status="ignored", exception=("celery.exceptions.Ignore", "", [], "ignored"))
    ],
    "rejected": [
        celery(
            "rejected",
            "shop.rejected",
            status="ignored",
            exception=("celery.exceptions.Reject", "('not mine', False)", [], "rejected"),
        )
    ],
    "later": [celery("later", "shop.add", args=[5])],
    "order": [celery("order", "shop.order", events=[sent("shop.add"), sent("shop.add")])],
    "child": [celery("child", "shop.add", args=[7])],
    "chained": [celery("chained", "shop.add", args=[8], events=[sent("shop.add")])],
    "last": [celery("last", "shop.add", args=[8, 9])],
}
DEADLY = {
    "die": [celery("die", "shop.die", status="killed", killed=True)],
    "die-once": [
        celery("die-once", "shop.die_once", status="killed", killed=True),
        celery("die-once", "shop.die_once"),
    ],
    "early": [celery("early", "shop.add", args=[6], clock_skew=True)],
    # Celery asks the child to end before it kills it.
    "endless": [celery("endless", "shop.endless", status="error", exception=("SystemExit", "-241", [], "endless"))],
    "slow": [
        celery(
            "slow",
            "shop.slow",
            status="error",
            exception=("billiard.exceptions.SoftTimeLimitExceeded", "SoftTimeLimitExceeded()", [], "slow"),
        )
    ],
}

LIBRARY = Library(
    "Celery",
    pack="celery",
    distribution="celery",
    environment="celery",
    runs="Redis and RabbitMQ, the pools prefork, threads, solo, gevent and eventlet",
    expected=GENTLE | DEADLY,
    delayed=("later",),
)


@pytest.fixture(scope="module")
def results() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


def work(
    folder: Path, broker: str, backend: str, expected: dict[str, list[Any]], *options: str, instrumented: bool = True
) -> Worker:
    """Send the tasks of `expected` and let a worker with `options` run them all."""
    variables = {"BROKER": broker, "BACKEND": backend}
    worker = Worker(folder, "celery", {"shop.py": TASKS, "send.py": SEND}, variables, instrumented=instrumented)
    worker.call("python", "send.py", "deadly" if "die" in expected else "gentle")
    if "early" in expected:
        worker.call("python", "ahead.py", "send.py", "early")
    worker.start("celery", "-A", "shop", "worker", *options)
    worker.stop_after(job for job, runs in expected.items() for _ in runs)
    return worker


def outcomes(backend: str) -> dict[str, Any]:
    """Return what the tasks came to, as Celery keeps it."""
    found = {}
    with redis.Redis.from_url(backend) as client:
        for key in client.keys("celery-task-meta-*"):
            value = json.loads(re.sub(rb"Job: [0-9]+", b"Job: N", client.get(key) or b""))  # the pool's own count
            found[value["task_id"]] = (value["status"], value["result"], value["children"])
    return found


def check(worker: Worker, expected: dict[str, list[dict[str, Any]]]) -> None:
    found = {job: [whole(record) for record in records] for job, records in worker.records().items()}
    assert found == expected, worker.output


def check_traces(worker: Worker) -> None:
    """Check that a task has the trace of what put it on its queue, and each run of a retried one that of the first."""
    records = worker.records()
    (order,), (child,), (chained,), (last,) = (records[job] for job in ("order", "child", "chained", "last"))
    assert link(child) == put_by(order, 0)
    assert link(chained) == put_by(order, 1)
    assert link(last) == put_by(chained, 0)
    first, second, third = records["flaky"]
    assert link(second) == put_by(first, 0)
    assert link(third) == put_by(second, 0)
    assert len({record["trace_id"] for record in (order, child, chained, last, first, second, third)}) == 2
    for record in (child, first, second, third):
        assert 0 <= record["queue_time"] < DEADLINE * 1e3
    for before, after in itertools.pairwise((first, second, third)):  # it is counted anew, in milliseconds
        assert utc(after["enqueued_at"]) >= utc(before["started_at"]) - 0.002


def test_prefork_with_recycled_children_on_redis(results: Redis, tmp_path: Path) -> None:
    expected = GENTLE | DEADLY
    options = ("--concurrency=2", "--max-tasks-per-child=3")
    with_it = work(tmp_path / "with", results.database(0), results.database(1), expected, *options)
    work(tmp_path / "without", results.database(2), results.database(3), expected, *options, instrumented=False)
    check(with_it, expected)
    assert outcomes(results.database(1)) == outcomes(results.database(3))
    check_traces(with_it)
    (later,) = with_it.records()["later"]
    due = datetime.fromisoformat(later["enqueued_at"].replace("Z", "+00:00"))
    started = datetime.fromisoformat(later["started_at"].replace("Z", "+00:00"))
    assert later["queue_time"] == pytest.approx((started - due).total_seconds() * 1e3, abs=1)


@pytest.mark.parametrize(
    ("pool", "broker", "number"),
    [
        ("prefork", "rabbit", 4),
        ("threads", "redis", 5),
        ("solo", "rabbit", 7),
        ("gevent", "redis", 8),
        ("eventlet", "rabbit", 10),
    ],
)
def test_every_pool(
    results: Redis, request: pytest.FixtureRequest, tmp_path: Path, pool: str, broker: str, number: int
) -> None:
    url = results.database(number + 1) if broker == "redis" else request.getfixturevalue("rabbit").url
    options = ("--pool", pool, "--concurrency=2")
    worker = work(tmp_path / "program", url, results.database(number), GENTLE, *options)
    check(worker, GENTLE)


def test_a_task_called_at_once_is_one_transaction(results: Redis, tmp_path: Path) -> None:
    files = {"shop.py": TASKS, "now.py": "from shop import *\nadd.apply((1, 2), task_id='now')\nadd(3, 4)\n"}
    worker = Worker(tmp_path / "program", "celery", files, {"BROKER": "memory://", "BACKEND": "cache+memory://"})
    worker.call("python", "now.py")
    check(worker, {"now": [celery("now", "shop.add", args=[1, 2], queue=None, queue_time=False, parent_span_id=False)]})
