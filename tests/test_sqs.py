"""The pack `sqs` and the rule of docs/libraries.md for consumers of SQS, with boto3 and the SQS of a moto server."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import bad_sqs
from tests.bad_payloads import MANGLE
from tests.libraries import program_of
from tests.servers import free_port
from tests.sides import Side, both, check_same
from tests.tested import Library
from tests.workers import AHEAD, Worker, check_records, rule, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

CLIENT = """
import os
import boto3

sqs = boto3.client("sqs", endpoint_url=os.environ["SQS"], region_name="eu-west-1",
                   aws_access_key_id="x", aws_secret_access_key="x")
attributes = {"VisibilityTimeout": "1"}
url = sqs.create_queue(QueueName="mail", Attributes=attributes)["QueueUrl"]
"""
SEND = """
import sys
from client import *

OWN = {"kind": {"DataType": "String", "StringValue": "mail"}}
for name in sys.argv[1:]:
    more = {"MessageAttributes": OWN} if name == "own" else {}
    sqs.send_message(QueueUrl=url, MessageBody=name, DelaySeconds=1 if name == "later" else 0, **more)
assert list(OWN) == ["kind"]
"""
CONSUMER = '''
"""Works off a queue: a message that failed comes back when its visibility timeout is over."""
import os, signal
from client import *
from notes import note

def handle(message, queue_url):
    name = message["Body"]
    runs = note(name)
    if name == "fail":
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("bad") from error
    if name == "flaky" and runs == 1:
        raise RuntimeError("try again")
    if name == "order":
        sqs.send_message(QueueUrl=queue_url, MessageBody="child")
        entries = [{"Id": each, "MessageBody": each} for each in ("one", "other")]
        sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
        assert entries == [{"Id": each, "MessageBody": each} for each in ("one", "other")]
    if name == "own":
        assert message["MessageAttributes"]["kind"]["StringValue"] == "mail", message
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)

def receive():
    wanted = {"AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    return sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, **wanted).get("Messages", [])

while True:
    for message in receive():
        try:
            handle(message, url)
        except Exception as error:
            print(type(error).__name__, flush=True)
            if not isinstance(error, RuntimeError):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])  # given up
        else:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            print("done", message["Body"], flush=True)
'''


def sqs(name: str, attempts: int = 1, **fields: Any) -> dict[str, Any]:
    given = {"args": None, "kwargs": None, "rule": "rules.yaml", "parent_span_id": True, "attempts": attempts}
    return run("sqs", name, "__main__.handle") | given | {"tags": {"body": name}} | fields


BAD: tuple[Any, ...] = ("ValueError", "bad", [("KeyError", "'key'")], "handle")
AGAIN: tuple[Any, ...] = ("RuntimeError", "try again", [], "handle")
EXPECTED: dict[str, list[dict[str, Any]]] = {
    "ok": [sqs("ok")],
    "own": [sqs("own")],
    "fail": [sqs("fail", status="error", exception=BAD)],
    "flaky": [sqs("flaky", status="error", exception=AGAIN), sqs("flaky", 2)],
    "order": [sqs("order")],
    "child": [sqs("child")],
    "one": [sqs("one")],
    "other": [sqs("other")],
    "later": [sqs("later")],
    "die": [sqs("die", status="killed", killed=True)],
}
EARLY = {"early": [sqs("early", clock_skew=True)]}
LIBRARY = Library(
    "SQS by boto3",
    pack="sqs",
    distribution="boto3",
    environment="events",
    runs="the SQS of a moto server and a consumer's loop",
    expected=EXPECTED | EARLY,
    delayed=("later",),
    missing=(
        "The pack hands the trace on and is on only where it is named, since not every message is a job: "
        "`packs: [default, sqs]`. A loop has no function for a job that a pack could know: see the "
        "[rule below](#sqs-consumers), which names it."
    ),
)


@contextmanager
def moto(folder: Path, *, ahead: bool = False) -> Iterator[str]:
    """Run a moto server, or one whose clock is ahead, and give its address."""
    port = free_port()
    (folder / "ahead.py").write_text(AHEAD)
    with (folder / "moto.log").open("w") as log:
        python = [program_of("events", "python"), *([str(folder / "ahead.py")] if ahead else [])]
        command = [*python, program_of("events", "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: answers(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def consumer(tmp_path: Path, address: str) -> Worker:
    rules = rule("SQS consumers").replace("consumer.handle", "__main__.handle")
    rules = f"{rules}    tags: {{body: \"${{message['Body']}}\"}}\n"
    files = {"client.py": CLIENT, "send.py": SEND, "consumer.py": CONSUMER, "rules.yaml": rules}
    return Worker(tmp_path / "program", "events", files, {"SQS": address})


def test_every_run_is_recorded_once(tmp_path: Path) -> None:
    with moto(tmp_path) as address:
        worker = consumer(tmp_path, address)
        worker.call("python", "send.py", *[name for name in EXPECTED if name not in ("child", "one", "other", "die")])
        worker.start("python", "consumer.py")
        names = [name for name, runs in EXPECTED.items() for _ in runs if name != "die"]
        worker.wait_for(names)
        log = worker.program.folder / "worker.log"
        wait_until(lambda: log.read_text().count("done") == len(names) - 2)
        worker.call("python", "send.py", "die")
        worker.stop_after([*names, "die"], by=None)
        found = check_records(worker, EXPECTED, key="tags.body")
    assert found["later"][0]["queue_time"] > 900
    assert found["flaky"][1]["queue_time"] > 900  # as long as the visibility timeout
    # One trace: of a job and the one it sends, and of both runs of a message.
    for name in ("child", "one", "other"):
        assert found[name][0]["trace_id"] == found["order"][0]["trace_id"]
    assert found["flaky"][0]["trace_id"] == found["flaky"][1]["trace_id"]


def test_a_queue_whose_clock_is_ahead(tmp_path: Path) -> None:
    with moto(tmp_path, ahead=True) as address:
        worker = consumer(tmp_path, address)
        worker.call("python", "send.py", "early")
        worker.start("python", "consumer.py")
        worker.wait_for(["early"])
        worker.wait_for_records(1)
        worker.stop_after(["early"])
        (record,) = check_records(worker, EARLY, key="tags.body")["early"]
    assert record["queue_time"] == 0


class Consumer(Side):
    """A consumer of bad messages, on a queue of its own."""

    def __init__(self, folder: Path, address: str, *, instrumented: bool) -> None:
        self.queue = "with" if instrumented else "none"
        rules = rule("SQS consumers").replace("consumer.handle", "__main__.handle")
        files = {"client.py": bad_sqs.CLIENT, "mangle.py": MANGLE, "send.py": bad_sqs.SEND, "left.py": bad_sqs.LEFT}
        files |= {"consumer.py": bad_sqs.CONSUMER, "rules.yaml": rules}
        super().__init__(
            folder, "events", files, {"SQS": address, "QUEUE": f"{self.queue}-mail"}, instrumented=instrumented
        )

    def run(self) -> None:
        """Put the messages on the queue, and let the consumer take them."""
        self.call("python", "send.py")
        self.work(["python", "consumer.py"], None, lambda: False)

    def seen(self) -> list[str]:
        """Return what it did and left."""
        left = self.call("python", "left.py").splitlines()
        return [line.replace(f"{self.queue}-mail", "QUEUE") for line in self.did(left)]


def lacks(record: dict[str, Any]) -> set[str]:
    """Return what a record of a message lacks."""
    has = {"id": "job_id", "queue": "queue", "queue time": "queue_time", "attempts": "attempts"}
    missing = {what for what, key in has.items() if record[key] is None}
    return missing if record["trace_id"] == "a" * 32 else missing | {"trace"}


def test_bad_messages(tmp_path: Path) -> None:
    with moto(tmp_path) as address:
        plain = Consumer(tmp_path / "plain", address, instrumented=False)
        side = Consumer(tmp_path / "with", address, instrumented=True)
        both(Consumer.run, plain, side)
        check_same(plain.seen(), side.seen())
    found = {label: lacks(record) for label, record in zip(side.worker.runs(), side.records(), strict=True)}
    assert {label: missing for label, missing in found.items() if missing} == bad_sqs.MISSING
    assert len(found) == 40
    doctor = side.doctor()
    for what in bad_sqs.UNAVAILABLE:
        assert f"\n  rules.yaml:4: {what}" in doctor, doctor
