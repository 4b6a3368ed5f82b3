"""The packs for plain consumers of messages, which are on where they are named: pika and kombu, with RabbitMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import RabbitMQ, Redis
from tests.tested import Library
from tests.workers import Worker, check_records, link, put_by, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

CALLBACK = """
import os, signal
from notes import note

def handle(name):
    note(name)
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
channel.queue_declare("mail")

class Mail:
    def receive(self, channel, method, properties, body):
        channel.basic_ack(method.delivery_tag)
        try:
            handle(properties.message_id)
        except ValueError:
            raise
        finally:
            if properties.message_id == "add":
                child = pika.BasicProperties(message_id="child")
                channel.basic_publish("", "mail", b"{no JSON", child)

if sys.argv[1] == "send":
    for name in sys.argv[2:]:
        headers = {"retries": 1} if name == "again" else None
        channel.basic_publish("", "mail", name.encode(), pika.BasicProperties(message_id=name, headers=headers))
else:
    channel.basic_consume("mail", Mail().receive)
    while True:
        try:
            channel.start_consuming()
        except ValueError:
            pass
"""
KOMBU = """
import os, sys
from kombu import Connection, Queue
from shop import handle

mail = Queue("kombu", routing_key="kombu")

def receive(body, message):
    message.ack()
    handle(body["name"])
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
            producer.publish({"name": name}, routing_key="kombu", declare=[mail], message_id=name, headers=headers)
    else:
        with connection.Consumer(mail, callbacks=[receive]):
            while True:
                try:
                    connection.drain_events()
                except ValueError:
                    pass
"""
BAD: dict[str, Any] = {"status": "error", "exception": ("ValueError", "bad", [], "handle")}
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
    "die": [pika("die", **KILLED)],
}
OF_KOMBU = {
    "add": [kombu("add", events=[sent("kombu", "kombu")])],
    "child": [kombu("child")],
    "fail": [kombu("fail", **BAD)],
    "again": [kombu("again", attempts=2)],
    "die": [kombu("die", **KILLED)],
}
OPT_IN = "The pack is on only where it is named, since not every message is a job: `packs: [default, {}]`."
LIBRARIES = (
    Library(
        "pika",
        pack="pika",
        distribution="pika",
        environment="queues",
        runs="RabbitMQ and a blocking channel",
        expected=OF_PIKA,
        missing=f"{OPT_IN.format('pika')} Attempts are what the program's own header `retries` says.",
    ),
    Library(
        "kombu",
        pack="kombu",
        distribution="kombu",
        environment="queues",
        runs="RabbitMQ and Redis",
        expected=OF_KOMBU,
        missing=(f"{OPT_IN.format('kombu')} Attempts are what the program's own header `retries` says."),
    ),
)


def work(
    folder: Path, library: str, program: str, url: str, expected: dict[str, Any], environment: str = "queues"
) -> None:
    files = {"shop.py": CALLBACK, "consumer.py": program}
    variables = {"BROKER": url, "AUTOINST_PACKS": f"default,{library}"}
    worker = Worker(folder / "program", environment, files, variables)
    worker.call("python", "consumer.py", "send", *[name for name in expected if name not in ("child", "die")])
    worker.start("python", "consumer.py", "work")
    worker.wait_for([name for name in expected if name != "die"])
    worker.call("python", "consumer.py", "send", "die")
    worker.stop_after(list(expected))
    found = check_records(worker, expected)
    assert link(found["child"][0]) == put_by(found["add"][0])


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


def test_pika(rabbit: RabbitMQ, tmp_path: Path) -> None:
    work(tmp_path, "pika", PIKA, rabbit.url[:-1] + "%2F", OF_PIKA)


@pytest.mark.parametrize("broker", ["rabbit", "redis"])
def test_kombu(rabbit: RabbitMQ, tmp_path: Path, broker: str) -> None:
    if broker == "rabbit":
        work(tmp_path, "kombu", KOMBU, rabbit.url, OF_KOMBU)
        return
    with Redis() as redis:  # arq wants an older client of Redis than kombu
        work(tmp_path, "kombu", KOMBU, redis.url, OF_KOMBU, "celery")
