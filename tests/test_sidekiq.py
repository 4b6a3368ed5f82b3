"""The rule of docs/libraries.md for consumers of Sidekiq's payloads, with a consumer in Python and a real Redis."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as Client

from tests.servers import Redis
from tests.tested import Library
from tests.workers import Worker, check_records, rule, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

CONSUMER = '''
"""A consumer of a queue that a Sidekiq client fills: it pops a payload, performs it, and puts a failed one aside."""
import json, os, signal, sys
import redis
from notes import note

client = redis.Redis.from_url(os.environ["REDIS"])

class HardWorker:
    def perform(self, name, *rest):
        note(name)
        if name == "fail" or rest == ("once",):
            raise ValueError("bad")
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)

def perform(item):
    return {"HardWorker": HardWorker}[item["class"]]().perform(*item["args"])

while True:
    _, payload = client.brpop("queue:mail")
    try:
        perform(json.loads(payload))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
'''


def sidekiq(name: str, **fields: Any) -> dict[str, Any]:
    given = {"args": [name], "kwargs": None, "rule": "rules.yaml"}
    return run("sidekiq", name, "HardWorker.perform") | given | fields


BAD: dict[str, Any] = {"status": "error", "exception": ("ValueError", "bad", [], "perform")}
NOBODY: dict[str, Any] = {"status": "error", "exception": ("KeyError", "'Nobody'", [], "perform")}
EXPECTED = {
    "eight": [sidekiq("eight")],
    "seven": [sidekiq("seven")],
    "later": [sidekiq("later")],
    "early": [sidekiq("early", clock_skew=True)],
    "fail": [sidekiq("fail", **BAD)],
    "second": [sidekiq("second", attempts=2, args=["second", "once"], **BAD)],
    "third": [sidekiq("third", attempts=3)],
    "nobody": [sidekiq("nobody", action="Nobody#perform", **{"class": "Nobody"}, **NOBODY)],
    "bare": [sidekiq("bare", queue=None, queue_time=False)],
    "die": [sidekiq("die", status="killed", killed=True)],
}
LIBRARY = Library(
    "Sidekiq's payloads",
    rule="Sidekiq's payloads",
    versions="5 to 8, by its clients",
    tested="payloads of 7 and 8",
    runs="Redis and a consumer in Python, payloads as Sidekiq's clients push them",
    expected=EXPECTED,
    delayed=("later",),
    lacks=("trace",),
    missing="A payload has no place for a trace that both sides agree on.",
)
WAITED = {"eight": 5e3, "seven": 7e3, "later": 2e3, "second": 1e3, "third": 3e3}  # ms, at least


def payloads() -> list[bytes]:
    """Return payloads as clients of Sidekiq push them: version 8 with whole milliseconds, before with seconds."""
    now = time.time()
    common = {"class": "HardWorker", "queue": "mail", "retry": True}
    some: list[dict[str, Any]] = [
        {**common, "jid": "eight", "enqueued_at": int((now - 5) * 1000)},
        {**common, "jid": "seven", "enqueued_at": now - 7},
        {**common, "jid": "later", "enqueued_at": now - 60, "at": now - 2},
        {**common, "jid": "early", "enqueued_at": now + 300},
        {**common, "jid": "fail", "enqueued_at": now},
        {**common, "jid": "second", "enqueued_at": now - 60, "retry_count": 0, "retried_at": now - 1},
        {**common, "jid": "third", "enqueued_at": int((now - 3) * 1000), "retry_count": 1},
        {**common, "jid": "nobody", "class": "Nobody", "enqueued_at": now},
        {"class": "HardWorker", "jid": "bare"},
        {**common, "jid": "die", "enqueued_at": now},
    ]
    for item in some:
        item["args"] = [item["jid"], *(["once"] if item["jid"] == "second" else [])]
    return [json.dumps(item).encode() for item in some]


def test_every_run_is_recorded_once(tmp_path: Path) -> None:
    with Redis() as redis:
        rules = rule("Sidekiq's payloads").replace("consumer.perform", "__main__.perform")
        files = {"consumer.py": CONSUMER, "rules.yaml": rules}
        worker = Worker(tmp_path / "program", "queues", files, {"REDIS": redis.url})
        with Client.from_url(redis.url) as client:
            client.lpush("queue:mail", b"{no JSON", *payloads())
        worker.start("python", "consumer.py")
        worker.stop_after([name for name in EXPECTED if name != "nobody"])
        found = check_records(worker, EXPECTED)
    assert "JSONDecodeError" in worker.output
    for name, least in WAITED.items():
        assert least <= found[name][0]["queue_time"] < least + 60_000, name
