"""For tests/test_consumers.py: messages of RabbitMQ that no program would send, and consumers that send wrong ones.

tests/test_bad_payloads.py has kombu's consumer read from Redis.

A consumer notes each message that reaches it by its number, from 1; the sender's output says which these were.
"""

from __future__ import annotations

from tests.bad_payloads import Case

# What puts messages on the queue: whatever RabbitMQ passes on, which decides itself what properties must look like.
SEND = '''
import datetime, decimal, os, struct
import pika
from mangle import *

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
GOOD = {"retries": 1, "traceparent": TRACE, "autoinst_enqueued": 1_700_000_000_000}
TYPES = (*JUNK, True, -1, 2**62, decimal.Decimal("1.5"), b"\\xff", datetime.datetime(2001, 1, 1), "x" * 20_000)
READ = ("retries", "traceparent", "autoinst_enqueued", "x-death", "x-delivery-count")

class Raw(pika.BasicProperties):
    """Properties as bytes: their flags, and one part."""

    def __init__(self, flags, part):
        super().__init__()
        self.pieces = [struct.pack(">H", flags), part]

    def encode(self):
        return self.pieces

channel = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER"])).channel()
queue = os.environ["QUEUE"]
channel.queue_declare(queue)
channel.queue_declare(f"{queue}-other")

def put(label, body=b'{"name": "job"}', properties=None, **known):
    known = {"message_id": label, "content_type": "application/json", "content_encoding": "utf-8", **known}
    channel.basic_publish("", queue, body, properties or pika.BasicProperties(**known))
    print(label)

put("good", headers=GOOD)
put("bare", properties=pika.BasicProperties())
for number, body in enumerate(wrong(b'{"name": "job"}')):
    put(f"body-{number}", body, headers=GOOD)
put("type", headers=GOOD, content_type="application/x-nonsense")
kind = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
put("pickle", b"\\x80\\x04K\\x07.", headers=GOOD, **kind)
put("encoding", headers=GOOD, content_encoding="nonsense")
put("utf-16", headers=GOOD, content_encoding="utf-16")
for number, junk in enumerate(TYPES):
    put(f"headers-{number}", headers=dict.fromkeys(READ, junk))
for number, death in enumerate(JUNK):
    put(f"death-{number}", headers={"x-death": [death, {"count": death, "reason": "rejected"}]})
put("no-id", headers=GOOD, message_id="")
put("id", properties=Raw(pika.BasicProperties.FLAG_MESSAGE_ID, b"\\x02\\xff\\xfe"))
name, value = b"\\x02\\xff\\xfe", b"S\\x00\\x00\\x00\\x02\\xff\\xfe"
table = struct.pack(">I", len(name + value)) + name + value
put("names", properties=Raw(pika.BasicProperties.FLAG_HEADERS, table))
put("time", properties=Raw(pika.BasicProperties.FLAG_TIMESTAMP, struct.pack(">Q", 2**63)))
put("large", as_json({"name": "job", "value": "x" * LARGE}), headers=GOOD)
put("send", b'{"name": "send"}', headers=GOOD)
put("last", b'{"name": "last"}')
'''
# What is left on the queue and on the one that the consumer sends to, without what autoinst adds.
LEFT = """
import os, time
import pika

channel = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER"])).channel()
# RabbitMQ puts what was not acknowledged back when it has seen that the consumer is gone.
while channel.queue_declare(os.environ["QUEUE"], passive=True).method.message_count < int(os.environ["LEFT"]):
    time.sleep(0.05)
for name, queue in (("own", os.environ["QUEUE"]), ("other", os.environ["QUEUE"] + "-other")):
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        headers = properties.headers or {}
        headers.pop("autoinst_enqueued", None)
        if isinstance(headers.get("traceparent"), str):
            del headers["traceparent"]
        properties.headers = headers or None
        print(name, method.redelivered, str(properties)[:500], len(body), body[:50])
"""
# Tries each of what a program may get wrong, and tells how it went.
TRIED = """
import collections, types
from mangle import *

class Own(dict):
    pass

HEADERS = (
    None, {}, {"mine": 1}, Own(mine=1), types.MappingProxyType({"mine": 1}), collections.UserDict(mine=1),
    [1], [("mine", 1)], "text", 7, {7: "a"}, {"a": object()}, {"a": Touchy()}, {"a": {1}}, Touchy(),
    {"a": "x" * 100_000}, {"x" * 300: 1}, {"traceparent": 7}, {"traceparent": None}, {"traceparent": object()},
)

def tried(what, calls):
    for number, call in enumerate(calls):
        try:
            print(what, number, call(), flush=True)
        except Exception as error:
            print(what, number, type(error), str(error)[:300], flush=True)
"""
PIKA = """
import os
import pika
from notes import note
from tried import *

queue = os.environ["QUEUE"]
done = False

def publish(exchange="", key=f"{queue}-other", body=b"{}", properties=None, **more):
    with pika.BlockingConnection(pika.URLParameters(os.environ["BROKER"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, body, properties, **more)

def properties_of(headers):
    properties = pika.BasicProperties(message_id="7", headers=headers)
    publish(properties=properties)
    return headers is None or type(properties.headers)

def send():
    tried("body", [lambda body=body: publish(body=body)
                   for body in (None, 7, "text", bytearray(b"x"), [], object(), Touchy(), Text("abc"), "x" * LARGE)])
    tried("key", [lambda key=key: publish(key=key) for key in (None, 7, b"x", "", "x" * 300, "\\udc80", Touchy())])
    tried("properties", [lambda given=given: publish(properties=given) for given in (7, {"headers": {}}, Touchy())])
    tried("headers", [lambda given=given: properties_of(given) for given in HEADERS])
    tried("more", [lambda: publish(nonsense=7), lambda: publish(exchange="nobody")])

class Mail:
    def receive(self, channel, method, properties, body):
        global done
        note(str(method.delivery_tag))
        channel.basic_ack(method.delivery_tag)
        name = json.loads(body)["name"]
        if name == "send":
            send()
        if name == "last":
            note(name)
            done = True
            channel.stop_consuming()

channel = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER"])).channel()
channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue, Mail().receive)
while not done:
    try:
        channel.start_consuming()
    except Exception as error:
        print(type(error), error, flush=True)
"""
KOMBU = """
import os
from kombu import Connection, Queue
from notes import note
from tried import *

queue = os.environ["QUEUE"]
done = False

def publish(body, key=f"{queue}-other", **more):
    with Connection(os.environ["BROKER"]) as connection:
        connection.Producer().publish(body, routing_key=key, **more)

def with_headers(headers):
    publish({}, headers=headers, message_id="7")
    return type(headers)

def send():
    bodies = (None, 7, "text", b"\\xff", [], {}, {7: {1}}, object(), Touchy(), Text("abc"), {"a": "x" * LARGE})
    tried("body", [lambda body=body: publish(body) for body in bodies])
    tried("key", [lambda key=key: publish({}, key=key) for key in (7, b"x", "", "\\udc80")])
    tried("headers", [lambda given=given: with_headers(given) for given in HEADERS])
    tried("more", [lambda given=given: publish({}, **given) for given in (
        {"serializer": "nonsense"}, {"compression": "nonsense"}, {"content_type": 7, "content_encoding": 7},
        {"priority": "high"}, {"expiration": "soon"}, {"delivery_mode": "nonsense"}, {"declare": [7]}, {"nonsense": 7},
        {"message_id": object()}, {"correlation_id": Touchy()}, {"timestamp": "x"})])

def receive(body, message):
    global done
    note(str(message.delivery_tag) if isinstance(message.delivery_tag, int) else "one")  # which Redis has no numbers of
    message.ack()
    name = body["name"]
    if name == "send":
        send()
    if name == "last":
        note(name)
        done = True

with Connection(os.environ["BROKER"]) as connection:
    mail = Queue(queue, routing_key=queue, durable=False, no_declare=True)
    with connection.Consumer(mail, callbacks=[receive]):
        while not done:
            try:
                connection.drain_events()
            except Exception as error:
                print(type(error), error, flush=True)
"""
# The same for Redis, whose messages are JSON.
KOMBU_ON_REDIS = Case(
    "celery",
    KOMBU,
    """
    import base64

    good = {
        "body": base64.b64encode(b'{"name": "job"}').decode(), "content-encoding": "utf-8",
        "content-type": "application/json", "headers": {"retries": 1},
        "properties": {"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "mail"}, "priority": 0,
                       "body_encoding": "base64", "delivery_tag": "tag", "message_id": "id"},
    }

    def put(value):
        client.lpush("mail", as_json(value))

    for payload in wrong(as_json(good)):
        client.lpush("mail", payload)
    for value in wrong_inside(good):
        put(value)
    for value in wrong_inside(good["properties"]):
        put({**good, "properties": value})
    for body in wrong(b'{"name": "job"}'):
        put({**good, "body": base64.b64encode(body).decode()})
    for junk in (*JUNK, True, -1, 1e308, 10**400, "x" * 5000):
        put({**good, "headers": dict.fromkeys(("retries", "traceparent", "autoinst_enqueued", "x-death"), junk)})
    for value in ({"name": "send", "value": "x" * LARGE}, {"name": "last"}):
        put({**good, "body": base64.b64encode(as_json(value)).decode()})
    """,
    "python shop.py",
    by=None,
    unavailable="kombu.yaml:5: traceparent unavailable ",
    pack="kombu",
)
# Of each message: its attempts, its id, whether it has a queue time, and whether its trace is the one it was given.
GIVEN = ("good", "type", "pickle", "encoding", "utf-16", "no-id", "large", "send", *(f"body-{n}" for n in range(6)))
JUNK_HEADERS = (1, 8, 1, 1, 1, 2, None, None, 1, 1, 1, 1)
JUNK_DEATHS = (1, 8, 1, 1, 1)
RECORDED: dict[str, tuple[int | None, str | None, bool, bool]] = {
    **{label: (2, "" if label == "no-id" else label, True, True) for label in GIVEN},
    # The eighth is a time in 2116, the eleventh one of 2001.
    **{f"headers-{n}": (attempts, f"headers-{n}", n in (7, 10), False) for n, attempts in enumerate(JUNK_HEADERS)},
    **{f"death-{n}": (attempts, f"death-{n}", False, False) for n, attempts in enumerate(JUNK_DEATHS)},
    **dict.fromkeys(("bare", "names", "time"), (1, None, False, False)),
    "id": (1, "\\xff\\xfe", False, False),
    "last": (1, "last", False, False),
}
# kombu gives a consumer's callbacks only what it can decode; what is no text is no id to it.
UNREAD = ("body-0", "body-1", "body-2", "pickle", "names")
BY_KOMBU = {label: known for label, known in RECORDED.items() if label not in UNREAD} | {"id": (1, None, False, False)}
# What `doctor` says of them: of -1 and of 2**62 as a count, and of most of TYPES as times and traces.
UNAVAILABLE = (
    "attempts unavailable 2 times: not a count from 1",
    "enqueued_at unavailable 10 times: the time is not between 1970 and 2262",
    "traceparent unavailable 11 times: no traceparent",
)
