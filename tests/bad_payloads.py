"""For tests/test_bad_payloads.py: the libraries' programs, and what puts jobs on queues that no library would.

Each `send` puts one good payload on the queue, takes it back, and puts wrong copies of it there; then jobs whose
arguments fight back or are large; then a good one, "last".
"""

from __future__ import annotations

from dataclasses import dataclass

LARGE = 4_000_000  # characters of an argument
# What a program and its sender share.
MANGLE = '''
"""Wrong copies of payloads, and values that note whatever they are asked, and fail."""
import copy, json

LARGE = 4_000_000
JUNK = (None, 7, [1], {"a": "b"}, "\\u00e9")
NAMES = """
    __repr__ __str__ __format__ __bytes__ __eq__ __ne__ __lt__ __gt__ __bool__ __len__ __iter__ __getitem__
    __contains__ __int__ __float__ __index__ __call__
""".split()

def asked(name, error=RuntimeError):
    def method(self, *arguments):
        with open("asked.log", "a") as log:
            log.write(name + "\\n")
        if name in ("__repr__", "__str__"):  # which libraries call for their logs
            return "touchy"
        raise error(name)
    return method

class Touchy:
    vars().update({name: asked(name) for name in NAMES})
    __hash__ = object.__hash__
    secret = property(asked("secret"))
    __getattr__ = asked("__getattr__", AttributeError)

class Text(str):
    vars().update({name: asked(name) for name in ("__len__", "__getitem__", "__iter__", "__bool__", "encode")})

def as_json(value):
    return json.dumps(value).encode()

def wrong(good):
    """Yield what is no payload at all."""
    yield from (b"{no JSON", b"\\xff\\xfe\\x00\\x80", good[: len(good) // 2], b"null", b"[1]", b"{}")

def wrong_inside(value, junk=JUNK):
    """Yield copies of a mapping or list with each of its parts missing, and of a wrong type."""
    for number, key in enumerate(list(value) if isinstance(value, dict) else range(len(value))):
        less = copy.copy(value)
        del less[key]
        yield less
        other = copy.copy(value)
        other[key] = junk[number % len(junk)]
        yield other

def mangled(good, load=json.loads, dump=as_json):
    """Yield wrong copies of a good payload."""
    yield from wrong(good)
    yield from map(dump, wrong_inside(load(good)))
'''
# How each sender begins.
OPENING = """
import json, os
import redis
from mangle import *

client = redis.Redis.from_url(os.environ["REDIS"])
"""


@dataclass(frozen=True)
class Case:
    """How one library's worker is started, in which environment, and with which program."""

    environment: str
    shop: str
    send: str
    start: str
    by: str | None = "SIGTERM"  # the signal that ends it, None where it ends by itself
    done: tuple[str, bytes] | None = (
        None  # the key with the last job's result, and what is in it, if its end can be cut
    )
    unavailable: str | None = None  # what `doctor` says among the values that could not be read
    rules: str | None = None  # the heading in docs/libraries.md that has them
    pack: str | None = None  # one that is on only where it is named, whose records have no arguments


CELERY = Case(
    "celery",
    """
    import os
    from celery import Celery
    from notes import note

    app = Celery("shop", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
    app.conf.update(task_default_queue="mail", accept_content=["json", "pickle"], worker_prefetch_multiplier=1)

    @app.task(name="job")
    def job(name, *values):
        note(name)
    """,
    """
    import base64
    from shop import job

    def put(value):
        client.lpush("mail", as_json(value))

    client.lpush("mail", b"{no JSON")  # which ends the worker
    for serializer in ("json", "pickle"):
        job.apply_async((serializer,), task_id=serializer, serializer=serializer)
        value = json.loads(client.lpop("mail"))
        for number, part in enumerate(("retries", "eta", "root_id", "traceparent", "autoinst_enqueued")):
            headers = {name: given for name, given in value["headers"].items() if name != part}
            put({**value, "headers": headers})
            put({**value, "headers": headers | {part: JUNK[number % len(JUNK)]}})
        for body in list(wrong(base64.b64decode(value["body"])))[:3]:  # the others end the worker, too
            put({**value, "body": base64.b64encode(body).decode()})
    for body in ([7, {}, {}], [{"a": "b"}, {}, {}], [["json"], [1], {}], [["json"], {}, {"chain": 7, "errbacks": 7}]):
        put({**value, "content-type": "application/json", "body": base64.b64encode(as_json(body)).decode()})
    job.apply_async(("large", "x" * LARGE), task_id="large")
    hidden = {"serializer": "pickle", "argsrepr": "-", "kwargsrepr": "-"}
    job.apply_async(("touchy", Touchy(), Text("abc")), task_id="touchy", **hidden)
    job.apply_async(("last",), task_id="last")
    """,
    "celery -A shop worker --pool solo",
    done=("celery-task-meta-last", b""),
)
DRAMATIQ = Case(
    "queues",
    """
    import os, sys
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from notes import note

    broker = RedisBroker(url=os.environ["REDIS"], maintenance_chance=0)
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name="mail", max_retries=0, actor_name="job")
    def job(name, *values):
        note(name)
    """,
    """
    from shop import job

    def put(payload):
        name = f"bad{client.incr('number')}"
        client.hset("dramatiq:mail.msgs", name, payload.replace(own, name.encode()))
        client.rpush("dramatiq:mail", name)

    job.send("mangled")
    own = client.lpop("dramatiq:mail")
    good = client.hget("dramatiq:mail.msgs", own)
    client.hdel("dramatiq:mail.msgs", own)
    put(b"{no JSON")  # after which the consumer waits for 3 s
    value = json.loads(good)
    for part in ("actor_name", "args", "kwargs", "message_id", "message_timestamp"):
        for junk in JUNK:
            put(as_json({**value, part: junk}))
    for junk in JUNK:
        options = dict.fromkeys(("retries", "traceparent", "autoinst_enqueued", "requeue_timestamp"), junk)
        put(as_json({**value, "options": {"redis_message_id": own.decode(), **options}}))
    job.send("large", "x" * LARGE)
    job.send("last")
    """,
    "dramatiq shop --processes 1 --threads 1",
)
TASKIQ = Case(
    "taskiq",
    """
    import os
    from taskiq_redis import ListQueueBroker
    from notes import note

    broker = ListQueueBroker(os.environ["REDIS"], queue_name="mail")

    @broker.task(task_name="job")
    def job(name, *values):
        note(name)
    """,
    """
    import asyncio
    from shop import broker, job

    def put(payload):
        client.lpush("mail", payload)

    async def send():
        await broker.startup()
        await job.kiq("mangled")
        good = client.lpop("mail")
        for payload in mangled(good):
            put(payload)
        value = json.loads(good)
        for junk in JUNK:
            labels = dict.fromkeys(("_retries", "traceparent", "autoinst_enqueued", "queue_name"), junk)
            put(as_json({**value, "labels": labels}))
        await job.kiq("large", "x" * LARGE)
        await job.kiq("last")
        await broker.shutdown()

    asyncio.run(send())
    """,
    "taskiq worker shop:broker --workers 1 --max-async-tasks 1",
)
SAQ = Case(
    "queues",
    """
    import os
    from saq import Queue
    from notes import note

    queue = Queue.from_url(os.environ["REDIS"], name="mail")

    async def job(ctx, name=None, value=None):
        note(name)

    async def upkeep(*_arguments):  # which jobs SAQ's own finds half done is a matter of time
        return []

    queue.sweep = queue.schedule = upkeep
    settings = {"queue": queue, "functions": [job], "concurrency": 1}
    """,
    """
    import asyncio
    from shop import queue

    def put(payload):
        key = f"saq:job:mail:bad{client.incr('number')}"
        client.set(key, payload.replace(b"mangled\\", \\"queued", key.rpartition(":")[2].encode() + b"\\", \\"queued"))
        client.rpush("saq:mail:queued", key)

    async def send():
        await queue.enqueue("job", name="mangled", key="mangled")
        good = client.get("saq:job:mail:mangled")
        client.delete("saq:mail:queued", "saq:mail:incomplete", "saq:job:mail:mangled")
        for payload in mangled(good):
            put(payload)
        value = json.loads(good)
        for junk in JUNK:
            meta = dict.fromkeys(("traceparent", "autoinst_enqueued"), junk)
            put(as_json({**value, "meta": meta}))
            put(as_json({**value, "attempts": junk, "scheduled": junk}))
        await queue.enqueue("job", name="large", value="x" * LARGE, key="large")
        await queue.enqueue("job", name="last", key="last")
        await queue.disconnect()

    asyncio.run(send())
    """,
    "saq shop.settings",
    done=("saq:job:mail:last", b"complete"),
)
PYRES = Case(
    "queues",
    """
    from notes import note

    class Add:
        queue = "mail"

        @staticmethod
        def perform(name, *values):
            note(name)
    """,
    """
    from pyres import ResQ
    from shop import Add

    def put(payload):
        client.rpush("resque:queue:mail", payload)

    queue = ResQ(os.environ["REDIS"].partition("//")[2].rpartition("/")[0])
    client.sadd("resque:queues", "mail")
    good = as_json({"class": "shop.Add", "args": ["mangled"], "enqueue_timestamp": 1700000000.5})
    put(b"{no JSON")  # which ends the worker
    for junk in JUNK[1:4]:
        put(as_json({**json.loads(good), "traceparent": junk, "enqueue_timestamp": junk}))
        put(as_json({**json.loads(good), "args": junk}))
    put(as_json({**json.loads(good), "class": 7}))
    put(as_json({"class": "shop.Add", "args": ["large", "x" * LARGE]}))
    put(as_json({"class": "shop.Add", "args": ["last"]}))
    """,
    "pyres_worker mail --host 127.0.0.1 --port PORT --interval 1",
    by="SIGQUIT",  # SIGTERM kills the child, which may be ending its job
    unavailable="pyres.yaml:8: traceparent unavailable 3 times in 3 processes: no traceparent\n",
)
SIDEKIQ = Case(
    "queues",
    """
    import json, os
    import redis
    from notes import note

    client = redis.Redis.from_url(os.environ["REDIS"])

    def perform(item):
        note(item["args"][0])

    while True:
        _, payload = client.brpop("queue:mail")
        try:
            perform(json.loads(payload))
        except Exception as error:
            print(type(error).__name__, error, flush=True)
    """,
    """
    def put(payload):
        client.lpush("queue:mail", payload)

    good = as_json({"class": "HardWorker", "args": ["mangled"], "queue": "mail", "jid": "7", "retry": True,
                    "enqueued_at": 1700000000000, "retry_count": 1, "retried_at": 1700000000.5, "at": 1700000000})
    for payload in mangled(good):
        put(payload)
    for junk in (*JUNK, -1, 1e308, 10**400, "x" * 5000, True):
        put(as_json(dict.fromkeys(json.loads(good), junk) | {"args": ["mangled"]}))
    put(as_json({"class": "HardWorker", "args": ["large", "x" * LARGE]}))
    put(as_json({"class": "HardWorker", "args": ["last"]}))
    """,
    "python shop.py",
    unavailable="rules.yaml:3: eta unavailable ",
    rules="Sidekiq's payloads",
)
CASES = {"celery": CELERY, "dramatiq": DRAMATIQ, "pyres": PYRES, "saq": SAQ, "sidekiq": SIDEKIQ, "taskiq": TASKIQ}
