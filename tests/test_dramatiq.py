"""The built-in Dramatiq pack with real brokers and worker processes: every run is recorded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import RabbitMQ, Redis
from tests.tested import Library
from tests.workers import Worker, check_records, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

ACTORS = '''
"""Actors that end in every way; each run notes its name and first argument."""
import os, signal, time
import dramatiq
from dramatiq import middleware
from notes import note

url = os.environ["BROKER"]
if url.startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker
    broker = RedisBroker(url=url, maintenance_chance=0)
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=url)
dramatiq.set_broker(broker)

@dramatiq.actor(queue_name="mail")
def add(name, token=None, b=0):
    note(name)

@dramatiq.actor(queue_name="mail", max_retries=0)
def fail(name):
    note(name)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@dramatiq.actor(queue_name="mail", max_retries=1, min_backoff=10, max_backoff=20)
def flaky(name):
    if note(name) == 1:
        raise RuntimeError("try again")

@dramatiq.actor(queue_name="mail", max_retries=1, min_backoff=10, max_backoff=20)
def again(name):
    if note(name) == 1:
        raise dramatiq.errors.Retry("later", delay=10)

@dramatiq.actor(queue_name="mail", max_retries=0, time_limit=300)
def endless(name):
    note(name)
    while True:
        time.sleep(0.01)

@dramatiq.actor(queue_name="mail", actor_name="a-name")
async def later(name):
    note(name)

class Mail(dramatiq.GenericActor):
    class Meta:
        queue_name = "mail"

    def perform(self, name):
        note(name)

@dramatiq.actor(queue_name="mail")
def order(name):
    note(name)
    add.send("child", b=1)

@dramatiq.actor(queue_name="mail")
def orphan(name):
    note(name)
    while not os.path.exists("gone"):
        time.sleep(0.02)

@dramatiq.actor(queue_name="mail")
def die(name):
    note(name)
    os.kill(os.getpid(), signal.SIGKILL)

if hasattr(middleware, "AsyncIO"):  # since 1.17
    broker.add_middleware(middleware.AsyncIO())
'''
SEND = """
import sys
import shop
from dramatiq import Message

for name in sys.argv[1:]:
    if name == "later":
        shop.later.send_with_options(args=(name,), delay=700)
    elif name == "big":
        shop.add.send(name, b="b" * 2_000_000)
    elif name == "mail":
        shop.Mail.send(name)
    elif name == "unknown":
        shop.broker.enqueue(Message("mail", "nobody", ("unknown",), {}, {"max_retries": 0}))
    else:
        actor = getattr(shop, name)
        actor.send(name, "hunter2", b=2) if name == "add" else actor.send(name)
"""


def dramatiq(name: str, function: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run, whose first argument is `name`."""
    actor = fields.pop("actor", function.rpartition(".")[2])
    given = {"parent_span_id": True, "args": [name], "tags": {"actor": actor}}
    return run("dramatiq", name, function, **{**given, **fields})


def sent(actor: str) -> dict[str, Any]:
    return {"name": "enqueue.dramatiq", "title": actor, "body": None, "parent": None}


EXPECTED = {
    "add": [dramatiq("add", "shop.add", args=["add", "[FILTERED]"], kwargs={"b": 2})],
    "fail": [
        dramatiq("fail", "shop.fail", status="error", exception=("ValueError", "bad", [("KeyError", "'key'")], "fail"))
    ],
    "flaky": [
        dramatiq(
            "flaky",
            "shop.flaky",
            status="error",
            exception=("RuntimeError", "try again", [], "flaky"),
            events=[sent("flaky")],
        ),
        dramatiq("flaky", "shop.flaky", attempts=2),
    ],
    "again": [
        dramatiq(
            "again",
            "shop.again",
            status="ignored",
            exception=("dramatiq.errors.Retry", "later", [], "again"),
            events=[sent("again")],
        ),
        dramatiq("again", "shop.again", attempts=2),
    ],
    "endless": [
        dramatiq(
            "endless",
            "shop.endless",
            status="error",
            exception=("dramatiq.middleware.time_limit.TimeLimitExceeded", "", [], "endless"),
        )
    ],
    "later": [dramatiq("later", "shop.later", actor="a-name")],
    "mail": [dramatiq("mail", "shop.Mail.perform", actor="Mail")],
    "order": [dramatiq("order", "shop.order", events=[sent("add")])],
    "child": [dramatiq("child", "shop.add", kwargs={"b": 1})],
}
DEADLY = {
    # A message for an actor that is not there is no run of one.
    "big": [dramatiq("big", "shop.add", kwargs={"b": "b" * 2000 + "... 1998000 more"})],
    "die": [dramatiq("die", "shop.die", status="killed", killed=True)],
}

LIBRARY = Library(
    "Dramatiq",
    pack="dramatiq",
    distribution="dramatiq",
    environment="queues",
    runs="Redis and RabbitMQ, threads and async actors",
    expected=EXPECTED | DEADLY,
    delayed=("later",),
    missing="A run lasts until its message is acknowledged: where the broker has gone, until the process ends.",
)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


@pytest.mark.parametrize("broker", ["redis", "rabbit"])
def test_every_run_is_recorded_once(request: pytest.FixtureRequest, tmp_path: Path, broker: str) -> None:
    server = request.getfixturevalue(broker)
    url = server.url if broker == "redis" else server.url[:-1] + "%2F"  # as pika has it
    files = {"shop.py": ACTORS, "send.py": SEND}
    worker = Worker(tmp_path / "program", "queues", files, {"BROKER": url})
    worker.call("python", "send.py", *[name for name in EXPECTED if name != "child"])
    worker.start("dramatiq", "shop", "--processes", "1", "--threads", "3", "--worker-shutdown-timeout", "5000")
    worker.stop_after(name for name, runs in EXPECTED.items() for _ in runs)
    found = check_records(worker, EXPECTED, key="args")
    (later,) = found["later"]
    assert later["queue_time"] < 60_000


def test_odd_messages_and_a_killed_process(redis: Redis, tmp_path: Path) -> None:
    files = {"shop.py": ACTORS, "send.py": SEND}
    worker = Worker(tmp_path / "program", "queues", files, {"BROKER": redis.database(1)})
    worker.call("python", "send.py", "unknown", "big", "die")
    worker.start("dramatiq", "shop", "--processes", "1", "--threads", "1")
    worker.stop_after(["big", "die"])
    check_records(worker, DEADLY, key="args")


def test_a_broker_that_vanishes_while_a_job_runs(tmp_path: Path) -> None:
    with Redis() as server:
        files = {"shop.py": ACTORS, "send.py": SEND}
        worker = Worker(tmp_path / "program", "queues", files, {"BROKER": server.url})
        worker.call("python", "send.py", "orphan")
        worker.start("dramatiq", "shop", "--processes", "1", "--threads", "1", "--worker-shutdown-timeout", "1000")
        worker.wait_for(["orphan"])
    worker.program.write("gone", "")
    worker.stop_after(["orphan"])
    # Dramatiq tries to acknowledge the message until its process ends, and would process it again.
    check_records(worker, {"orphan": [dramatiq("orphan", "shop.orphan", status="killed", killed=True)]}, key="args")
