"""For tests/test_sqs.py: messages of SQS that no program would send, and a consumer that sends wrong ones.

The sender writes down what each message is, and the consumer notes that when it takes it.
"""

from __future__ import annotations

CLIENT = """
import os
import boto3
from botocore.config import Config

sqs = boto3.client("sqs", endpoint_url=os.environ["SQS"], region_name="eu-west-1", aws_access_key_id="x",
                   aws_secret_access_key="x", config=Config(retries={"max_attempts": 0}))
url, other = (sqs.create_queue(QueueName=os.environ["QUEUE"] + name)["QueueUrl"] for name in ("", "-other"))
"""
SEND = """
from client import *
from mangle import *

def text(value, kind="String"):
    return {"traceparent": {"DataType": kind, "StringValue": value}}

GOOD = text("00-" + "a" * 32 + "-" + "b" * 16 + "-01")

def put(label, body='{"name": "job"}', attributes=GOOD):
    sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
    with open("labels.txt", "a") as labels:
        labels.write(label + "\\n")

put("good")
put("bare", attributes={})
for number, body in enumerate(("{no JSON", '{"na', "null", "[1]", "{}", "\\u00e9\\U0001f600")):
    put(f"body-{number}", body)
for number, junk in enumerate(("7", "00-1-2-3", "\\u00e9", "x" * 20_000)):
    put(f"text-{number}", attributes=text(junk))
put("number", attributes=text("7", "Number"))
put("binary", attributes={"traceparent": {"DataType": "Binary", "BinaryValue": b"\\xff\\xfe"}})
put("large", '{"name": "' + "x" * 200_000 + '"}')
put("copies")
put("send", '{"name": "send"}')
put("last", '{"name": "last"}')
"""
LEFT = """
from client import *

for queue in (url, other):
    while found := sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"]).get("Messages"):
        for message in found:
            attributes = message.get("MessageAttributes", {})
            if attributes.get("traceparent", {}).get("StringValue", "").startswith("00-"):
                del attributes["traceparent"]
            print(queue, attributes, len(message["Body"]), ascii(message["Body"][:50]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
"""
CONSUMER = """
import collections, types
from client import *
from mangle import *
from notes import note

class Own(dict):
    pass

TEXT = {"DataType": "String", "StringValue": "x"}
ATTRIBUTES = (
    None, {}, [], 7, "text", [("a", TEXT)], {"a": None}, {"a": {}}, {"a": {"DataType": "String"}}, {7: TEXT},
    {"a": {**TEXT, "DataType": "Nonsense"}}, {"a": {**TEXT, "StringValue": 7}}, {"a": {**TEXT, "Nonsense": 7}},
    {"a": {"DataType": "Binary", "BinaryValue": object()}}, {"a": {"DataType": "Binary", "BinaryValue": b"\\xff"}},
    {"traceparent": None}, {"traceparent": {}}, {"traceparent": {**TEXT, "StringValue": 7}},
    {"traceparent": {"DataType": "Binary", "BinaryValue": b"x"}}, {"traceparent": 7}, {"traceparent": Touchy()},
    Own(a=TEXT), types.MappingProxyType({"a": TEXT}), collections.UserDict(a=TEXT), Touchy(), {"a": Touchy()},
    {str(n): TEXT for n in range(10)}, {str(n): TEXT for n in range(11)},
)
BODIES = (None, 7, b"x", "", "\\x00", object(), [], Touchy(), Text("abc"), "x" * 262_144, "x" * LARGE)
ONE = {"Id": "1", "MessageBody": "b"}
ENTRIES = (
    None, [], (), (ONE,), ONE, 7, [7], ["text"], [{}], [{"Id": "1"}], [{**ONE, "MessageBody": 7}], Touchy(), [Touchy()],
    [{**ONE, "MessageAttributes": None}], [{**ONE, "Nonsense": 7}], [ONE, ONE], [Own(ONE)], [ONE, {"Id": "2"}],
    [{"Id": str(n), "MessageBody": "x" * 150_000} for n in range(2)], [{**ONE, "Id": str(n)} for n in range(11)],
    [{**ONE, "MessageBody": "x" * LARGE}], [{**ONE, "MessageAttributes": {"a": object()}}], [{7: 8, **ONE}],
)
OTHERS = (
    {"QueueUrl": None}, {"QueueUrl": 7}, {"QueueUrl": other + "x"}, {"DelaySeconds": "soon"}, {"DelaySeconds": 901},
    {"Nonsense": 7}, {"MessageSystemAttributes": 7}, {"MessageGroupId": object()},
)

def tried(what, call, known):
    for number, given in enumerate(known):
        try:
            found = call(given)
            parts = found.keys() - {"MD5OfMessageAttributes"}  # which ours are among
            print(what, number, sorted(parts), sorted(part["Id"] for part in found.get("Failed", ())), flush=True)
        except Exception as error:
            print(what, number, type(error), str(error)[:500], flush=True)
        finally:
            assert TEXT == {"DataType": "String", "StringValue": "x"} and list(ONE) == ["Id", "MessageBody"]

def send():
    known = {"QueueUrl": other, "MessageBody": "b"}
    tried("body", lambda given: sqs.send_message(QueueUrl=other, MessageBody=given), BODIES)
    tried("attributes", lambda given: sqs.send_message(**known, MessageAttributes=given), ATTRIBUTES)
    tried("entries", lambda given: sqs.send_message_batch(QueueUrl=other, Entries=given), ENTRIES)
    tried("other", lambda given: sqs.send_message(**{**known, **given}), OTHERS)
    tried("nothing", lambda given: given(), (sqs.send_message, sqs.send_message_batch))

def handle(message, queue_url):
    note(label)
    name = json.loads(message["Body"])["name"]
    if name == "send":
        send()

def copies(message):  # each with what is missing or another in it
    yield "good-copy", message, url
    parts = [(part + ".", message[part]) for part in ("Attributes", "MessageAttributes")]
    for start, part in (*parts, ("", message)):
        part = dict(sorted(part.items()))
        names = [f"{start}{key}-{how}" for key in part for how in ("less", "other")]
        for name, value in zip(names, wrong_inside(part)):
            yield name, {**message, start[:-1]: value} if start else value, url
    yield "wrong-queue", message, 7
    yield "own-classes", Own(message), Text("abc")

labels = iter(open("labels.txt").read().split())
label = ""
while label != "last":
    wanted = {"AttributeNames": ["SentTimestamp", "ApproximateReceiveCount"], "MessageAttributeNames": ["traceparent"]}
    for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, **wanted).get("Messages", []):
        label = next(labels)
        for label, given, queue_url in copies(message) if label == "copies" else [(label, message, url)]:
            try:
                handle(given, queue_url)
            except Exception as error:
                print(type(error), error, flush=True)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
"""
# What the records of some messages lack: all others' have an id, a queue, a queue time, attempts and the trace given.
MISSING = {
    **{name: {"trace"} for name in ("bare", "number", "binary", "text-0", "text-1", "text-2", "text-3")},
    "Attributes.ApproximateReceiveCount-less": {"attempts"},
    "Attributes.ApproximateReceiveCount-other": {"attempts"},
    "Attributes.SentTimestamp-less": {"queue time"},  # of the other, 7, it is the time since 1970
    "Attributes-less": {"attempts", "queue time"},
    "Attributes-other": {"attempts", "queue time"},
    "MessageAttributes.traceparent-less": {"trace"},
    "MessageAttributes.traceparent-other": {"trace"},
    "MessageAttributes-less": {"trace"},
    "MessageAttributes-other": {"trace"},
    "MessageId-less": {"id"},
    "MessageId-other": {"id"},
    "wrong-queue": {"queue"},
    "own-classes": {"queue"},
}
# What `doctor` says of them.
UNAVAILABLE = (
    "attempts unavailable 4 times: a NoneType is not a built-in mapping or sequence",
    "enqueued_at unavailable 3 times: a NoneType is not a built-in mapping or sequence",
    "job_id unavailable 1 time: no key 'MessageId'",
    "queue unavailable 2 times: ",
    "traceparent unavailable 5 times: no traceparent",
)
