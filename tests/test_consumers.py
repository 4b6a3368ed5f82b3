"""The packs for plain consumers of messages, which are on where they are named: pika and kombu, with RabbitMQ."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests import bad_messages, quorum_queues
from tests.bad_payloads import MANGLE
from tests.servers import RabbitMQ, Redis
from tests.sides import Side, both, check_same
from tests.tested import Library
from tests.workers import Worker, check_records, link, put_by, run, utc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

CALLBACK = """
import os, signal
from notes import note

def handle(name):
    if note(name) < 3 and name == "flaky":
        raise RuntimeError("try again")
    if name == "fail":
        raise ValueError("bad")
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""
PIKA = """
import os, sys
import pika
from shop import handle

channel = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER"])).channel()
channel.queue_declare("mail", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "wait"})
back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "mail", "x-message-ttl": 1500}
channel.queue_declare("wait", arguments=back)

class Mail:
    def receive(self, channel, method, properties, body):
        if properties.message_id == "die":
            channel.basic_ack(method.delivery_tag)
        try:
            handle(properties.message_id)
        except RuntimeError:
            channel.basic_nack(method.delivery_tag, requeue=False)
            raise
        except ValueError:
            channel.basic_ack(method.delivery_tag)
            raise
        else:
            channel.basic_ack(method.delivery_tag)
        finally:
            if properties.message_id == "add":
                child = pika.BasicProperties(message_id="child")
                channel.basic_publish("", "mail", b"{no JSON", child)

if sys.argv[1] == "send":
    for name in sys.argv[2:]:
        headers = {"retries": 1} if name == "again" else None
        queue = "wait" if name == "later" else "mail"
        channel.basic_publish("", queue, name.encode(), pika.BasicProperties(message_id=name, headers=headers))
else:
    channel.basic_consume("mail", Mail().receive)
    while True:
        try:
            channel.start_consuming()
        except (RuntimeError, ValueError):
            pass
"""
KOMBU = """
import os, sys
from kombu import Connection, Queue
from shop import handle

dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "kombu-wait"}
mail = Queue("kombu", routing_key="kombu", queue_arguments=dead)
back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "kombu", "x-message-ttl": 1500}
wait = Queue("kombu-wait", routing_key="kombu-wait", queue_arguments=back)

def receive(body, message):
    if body["name"] != "flaky":
        message.ack()
    try:
        handle(body["name"])
    except RuntimeError:
        message.requeue() if os.environ["BROKER"].startswith("redis") else message.reject()
        raise
    if body["name"] == "flaky":
        message.ack()
    if body["name"] == "add":
        HEADERS = {"mine": 1}
        with Connection(os.environ["BROKER"]) as other:  # publishing by a consumer's own takes further messages
            other.Producer().publish({"name": "child"}, routing_key="kombu", message_id="child", headers=HEADERS)
        assert HEADERS == {"mine": 1}
    if body["name"] == "child":
        assert message.headers["mine"] == 1

with Connection(os.environ["BROKER"]) as connection:
    if sys.argv[1] == "send":
        producer = connection.Producer()
        for name in sys.argv[2:]:
            headers = {"retries": 1} if name == "again" else {}
            queue = wait if name == "later" else mail
            known = {"declare": [mail, wait], "message_id": name, "headers": headers}
            producer.publish({"name": name}, routing_key=queue.routing_key, **known)
    else:
        with connection.Consumer(mail, callbacks=[receive]):
            while True:
                try:
                    connection.drain_events()
                except (RuntimeError, ValueError):
                    pass
"""
BAD: dict[str, Any] = {"status": "error", "exception": ("ValueError", "bad", [], "handle")}
AGAIN: dict[str, Any] = {"status": "error", "exception": ("RuntimeError", "try again", [], "handle")}
KILLED: dict[str, Any] = {"status": "killed", "killed": True}


def pika(name: str, **fields: Any) -> dict[str, Any]:
    given = {"args": None, "kwargs": None, "tags": {"exchange": ""}, "parent_span_id": True}
    return run("pika", name, "__main__.Mail.receive") | given | fields


def kombu(name: str, **fields: Any) -> dict[str, Any]:
    given = {"args": None, "kwargs": None, "tags": {"exchange": ""}, "queue": "kombu", "parent_span_id": True}
    return run("kombu", name, "__main__.receive") | given | fields


def sent(library: str, queue: str) -> dict[str, Any]:
    return {"name": f"enqueue.{library}", "title": queue, "body": None, "parent": None}


OF_PIKA = {
    "add": [pika("add", events=[sent("pika", "mail")])],
    "child": [pika("child")],
    "fail": [pika("fail", **BAD)],
    "again": [pika("again", attempts=2)],
    "later": [pika("later")],
    "early": [pika("early", clock_skew=True)],
    "flaky": [pika("flaky", **AGAIN), pika("flaky", attempts=2, **AGAIN), pika("flaky", attempts=3)],
    "die": [pika("die", **KILLED)],
}
OF_KOMBU = {
    "add": [kombu("add", events=[sent("kombu", "kombu")])],
    "child": [kombu("child")],
    "fail": [kombu("fail", **BAD)],
    "again": [kombu("again", attempts=2)],
    "later": [kombu("later")],
    "early": [kombu("early", clock_skew=True)],
    "flaky": [kombu("flaky", **AGAIN), kombu("flaky", attempts=2, **AGAIN), kombu("flaky", attempts=3)],
    "die": [kombu("die", **KILLED)],
}
# Redis has no dead letters: a message that is put back is only known to come again.
ON_REDIS = {
    **{name: records for name, records in OF_KOMBU.items() if name != "later"},
    "flaky": [
        kombu("flaky", **AGAIN),
        kombu("flaky", attempts=None, **AGAIN),
        kombu("flaky", attempts=None),
    ],
}
OPT_IN = "The pack is on only where it is named, since not every message is a job: `packs: [default, {}]`."
DEAD = (
    "Attempts are what the program's own header `retries` says, RabbitMQ's `x-death` where a message that failed comes "
    "back by a dead-letter exchange, or a quorum queue's `x-delivery-count`. A message that comes back by such an "
    "exchange, also one that is delayed by a TTL, waits from when it was dead-lettered, to a whole second; RabbitMQ "
    "tells that of the first time only. A message that is put back on its queue keeps the time it was sent, and its "
    "runs are counted by quorum queues only."
)
LIBRARIES = (
    Library(
        "pika",
        pack="pika",
        distribution="pika",
        environment="queues",
        runs="RabbitMQ and a blocking channel",
        expected=OF_PIKA,
        delayed=("later",),
        missing=f"{OPT_IN.format('pika')} {DEAD}",
        oldest="oldest",
    ),
    Library(
        "kombu",
        pack="kombu",
        distribution="kombu",
        environment="queues",
        runs="RabbitMQ and Redis",
        expected=OF_KOMBU,
        delayed=("later",),
        missing=f"{OPT_IN.format('kombu')} {DEAD} On Redis kombu has no messages for later.",
    ),
)


def work(
    folder: Path, library: str, program: str, url: str, expected: dict[str, Any], environment: str = "queues"
) -> None:
    files = {"shop.py": CALLBACK, "consumer.py": program}
    variables = {"BROKER": url, "AUTOINST_PACKS": f"default,{library}"}
    worker = Worker(folder / "program", environment, files, variables)
    worker.call("python", "consumer.py", "send", *[name for name in expected if name not in ("child", "die", "early")])
    worker.call("python", "ahead.py", "consumer.py", "send", "early")
    worker.start("python", "consumer.py", "work")
    names = [name for name, records in expected.items() for _ in records if name != "die"]
    worker.wait_for(names)
    worker.call("python", "consumer.py", "send", "die")
    worker.stop_after([*names, "die"])
    found = check_records(worker, expected)
    assert link(found["child"][0]) == put_by(found["add"][0])
    if "later" in expected:  # RabbitMQ rounds the moment a message was due down to a whole second
        first, second, _ = found["flaky"]
        assert utc(found["later"][0]["enqueued_at"]) > utc(found["add"][0]["enqueued_at"]) + 0.4
        assert utc(second["enqueued_at"]) > utc(first["started_at"]) + 0.4
    assert len({record["trace_id"] for record in found["flaky"]}) == 1


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


@pytest.mark.parametrize("environment", ["queues", "oldest"])
def test_pika(rabbit: RabbitMQ, tmp_path: Path, environment: str) -> None:
    work(tmp_path, "pika", PIKA, rabbit.url[:-1] + "%2F", OF_PIKA, environment)


@pytest.mark.parametrize("broker", ["rabbit", "redis"])
def test_kombu(rabbit: RabbitMQ, tmp_path: Path, broker: str) -> None:
    if broker == "rabbit":
        work(tmp_path, "kombu", KOMBU, rabbit.url, OF_KOMBU)
        return
    with Redis() as redis:  # arq wants an older client of Redis than kombu
        work(tmp_path, "kombu", KOMBU, redis.url, ON_REDIS, "celery")


@pytest.mark.parametrize("library", ["pika", "kombu"])
def test_a_quorum_queue_counts_the_runs(rabbit: RabbitMQ, tmp_path: Path, library: str) -> None:
    files = {"queues.py": quorum_queues.QUEUES}
    files["consumer.py"] = {"pika": quorum_queues.PIKA, "kombu": quorum_queues.KOMBU}[library]
    variables = {
        "BROKER": f"{rabbit.url[:-1]}%2F",
        "QUEUE": f"{library}-quorum",
        "AUTOINST_PACKS": f"default,{library}",
    }
    worker = Worker(tmp_path / "program", "queues", files, variables)
    worker.deadline = 40
    worker.call("python", "consumer.py")
    found = {name: [record["attempts"] for record in records] for name, records in worker.records().items()}
    assert found == quorum_queues.ATTEMPTS


class Consumer(Side):
    """A consumer of bad messages, on a queue of its own."""

    def __init__(self, folder: Path, library: str, rabbit: RabbitMQ, *, instrumented: bool) -> None:
        self.queue = f"{library}-{'with' if instrumented else 'none'}"
        consumer = {"pika": bad_messages.PIKA, "kombu": bad_messages.KOMBU}[library]
        files = {"mangle.py": MANGLE, "send.py": bad_messages.SEND, "left.py": bad_messages.LEFT}
        files |= {"tried.py": bad_messages.TRIED, "consumer.py": consumer}
        variables = {"BROKER": f"{rabbit.url[:-1]}%2F", "QUEUE": self.queue, "AUTOINST_PACKS": f"default,{library}"}
        variables["LEFT"] = str(len(bad_messages.UNREAD)) if library == "kombu" else "0"
        super().__init__(folder, "queues", files, variables, instrumented=instrumented)
        self.labels: list[str] = []

    def run(self) -> None:
        """Put the messages on the queue, and let the consumer take them."""
        self.labels = self.call("python", "send.py").split()
        self.work(["python", "consumer.py"], None, lambda: False)

    def seen(self) -> list[str]:
        """Return what it did and left."""
        left = self.call("python", "left.py").splitlines()
        return [line.replace(self.queue, "QUEUE") for line in self.did(left)]

    def by_label(self) -> dict[str, dict[str, Any]]:
        """Return the records by the label of the message they are of."""
        numbers = [int(run) for run in self.worker.runs() if run != "last"]
        return {self.labels[number - 1]: record for number, record in zip(numbers, self.records(), strict=True)}


@pytest.mark.parametrize("library", ["pika", "kombu"])
def test_bad_messages(rabbit: RabbitMQ, tmp_path: Path, library: str) -> None:
    plain = Consumer(tmp_path / "plain", library, rabbit, instrumented=False)
    side = Consumer(tmp_path / "with", library, rabbit, instrumented=True)
    both(Consumer.run, plain, side)
    check_same(plain.seen(), side.seen())
    found = {
        label: (record["attempts"], record["job_id"], record["queue_time"] is not None, record["trace_id"] == "a" * 32)
        for label, record in side.by_label().items()
    }
    assert found == {"pika": bad_messages.RECORDED, "kombu": bad_messages.BY_KOMBU}[library]
    doctor = side.doctor()
    for what in bad_messages.UNAVAILABLE:
        assert f"\n  {library}.yaml:{what}\n" in re.sub(r"(?<=yaml:)\d+: (?!carry)", "", doctor), doctor
