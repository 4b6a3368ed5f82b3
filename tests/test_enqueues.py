"""`enqueues` and `carries` rules: the event inside a job, and the trace that goes with the job put on a queue."""

from __future__ import annotations

import re
import sys
import time
from collections import UserDict
from contextlib import nullcontext
from copy import deepcopy
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.hook import handover
from autoinst.hook.handover import Handover
from autoinst.rules.safe import Unavailable
from autoinst.spool.layout import event_span_id
from autoinst.trace import traceparent
from tests.harness import Program

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-01")

# A queue of the program's own, in a file, with every way in which a job can be handed the trace.
SHOP = """
    import json, sys

    class Message:
        def __init__(self, function, args, options):
            self.function, self.args, self.options = function, args, options

    class Queue:
        def __init__(self):
            self.messages = []

        def put(self, function, *args, **options):
            self.messages.append(make(function, args, options))

        def put_all(self, functions):
            for function in functions:
                self.put(function)

        def save(self):
            with open("queue.json", "w") as file:
                json.dump([vars(message) for message in self.messages], file)

    def make(function, args, options):
        return Message(function, args, options)

    def parent():
        queue.put("child", 1, headers=HEADERS)
        queue.put_all(["child", "child"])

    def child(n=0):
        if n:
            raise ValueError("again")

    def perform(message):
        globals()[message["function"]](*message["args"])

    HEADERS = {"mine": 1}
    queue = Queue()
"""
RULES = """
    version: 1
    jobs:
      - function: shop.perform
        payload:
          class: shop
          method: "${message['function']}"
          enqueued_at: {value: "${message['options']['headers']['sent']}", unit: ms}
          traceparent: "${message['options']['headers']['traceparent']}"
    enqueues:
      - class: shop.Queue
        methods: [put, put_all]
        name: enqueue.shop
        title: "${function}"
        carry: {into: "${options}", key: headers, stamp: sent}
"""
ENQUEUE = """
    import shop
    {before}
    shop.perform({{"function": "parent", "args": [], "options": {{"headers": {headers}}}}})
    shop.queue.put("child")
    assert shop.HEADERS == {{"mine": 1}}
    shop.queue.save()
"""
PERFORM = """
    import json, shop
    for message in json.load(open("queue.json")):
        print(json.dumps(message["options"]))
        try:
            shop.perform(message)
        except ValueError:
            pass
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    found = Program(tmp_path)
    found.write("shop.py", SHOP)
    found.write("rules.yaml", RULES)
    return found


def spans(record: dict[str, Any]) -> list[str]:
    return [event_span_id(bytes.fromhex(record["id"][16:]), at).hex() for at in range(len(record["events"]))]


def test_a_job_and_those_it_enqueues_are_one_trace_across_processes(program: Program) -> None:
    program.write("enqueue.py", ENQUEUE.format(before="", headers="{}"))
    program.write("perform.py", PERFORM)
    before = time.time()
    assert program.run("enqueue.py").stderr == ""
    result = program.run("perform.py")
    assert result.stderr == ""
    parent, first, second, third, outside = result.records
    assert [(event["name"], event["title"]) for event in parent["events"]] == [
        ("enqueue.shop", "child"),
        ("enqueue.shop", None),  # the two puts in it are part of it
    ]
    own = spans(parent)
    assert [r["parent_span_id"] for r in (first, second, third)] == [own[0], own[1], own[1]]
    assert {r["trace_id"] for r in (parent, first, second, third)} == {parent["id"]}
    assert outside["trace_id"] not in (parent["id"], outside["id"])
    assert outside["parent_span_id"] is not None
    for record in (first, second, third, outside):
        assert record["pid"] != parent["pid"]
        assert 0 < record["queue_time"] < (time.time() - before) * 1e3
    assert '"mine": 1' in result.stdout.splitlines()[0]
    shown = program.execute([sys.executable, "-m", "autoinst.cli.main", "show", second["id"]], {}).stdout
    tree = [line.split()[0] for line in shown.partition("one trace\n")[2].splitlines()]
    assert tree == ["shop#parent", "shop#child", "shop#child", "shop#child"]
    assert "this one" in shown


def test_another_tracers_trace_stays_and_is_joined(program: Program) -> None:
    program.write("enqueue.py", ENQUEUE.format(before="", headers="{'traceparent': '" + OTHER + "'}"))
    program.write("perform.py", PERFORM)
    program.run("enqueue.py")
    records = program.run("perform.py").records
    assert [record["trace_id"] == "ab" * 16 for record in records] == [True, True, True, True, False]
    assert records[0]["parent_span_id"] == "cd" * 8
    program.write("rules.yaml", RULES.replace("key: headers, ", ""))
    program.write("one.py", f"import shop\nshop.queue.put('child', traceparent='{OTHER}')\nshop.queue.save()\n")
    program.run("one.py")
    assert f'"traceparent": "{OTHER}"' in program.run("perform.py").stdout


def test_nothing_is_handed_on_where_it_is_turned_off(program: Program) -> None:
    program.write("enqueue.py", ENQUEUE.format(before="", headers="{}"))
    program.write("perform.py", PERFORM)
    program.write("rules.yaml", RULES.replace("version: 1", "version: 1\n    defaults: {carry: false}"))
    program.run("enqueue.py")
    result = program.run("perform.py")
    assert "traceparent" not in result.stdout
    assert [len(record["events"]) for record in result.records] == [2, 0, 0, 0, 0]
    assert {record["parent_span_id"] for record in result.records} == {None}


@pytest.mark.parametrize(
    ("carry", "expected"),
    [
        ("{into: '${result.options}'}", {"traceparent"}),
        ("{into: '${options}', name: trace, form: text, stamp: at}", {"trace", "at"}),
        ("{into: '${result}', key: extra}", set()),  # an attribute of the message, made
    ],
)
def test_what_a_call_returns_can_be_handed_the_trace(program: Program, carry: str, expected: set[str]) -> None:
    rules = f"""
        version: 1
        carries:
          - {{function: shop.make, carry: {carry}}}
    """
    program.write("rules.yaml", rules)
    program.write("one.py", "import shop\nshop.queue.put('child')\nprint(vars(shop.queue.messages[0]))\n")
    result = program.run("one.py")
    message = eval(result.stdout)
    assert set(message["options"]) == expected
    found = message["options"] if expected else message["extra"]
    assert TRACEPARENT.fullmatch(found.get("traceparent") or found["trace"])
    assert type(found.get("at")) in (str, type(None))
    assert result.records == []


def test_what_cannot_be_written_is_counted_and_breaks_nothing(program: Program) -> None:
    program.write("enqueue.py", ENQUEUE.format(before="shop.HEADERS = None", headers="{}").replace("assert", "# "))
    program.write("rules.yaml", RULES.replace('into: "${options}"', 'into: "${function}"'))
    program.write("perform.py", PERFORM)
    assert program.run("enqueue.py").status == 0
    result = program.run("perform.py")
    assert "traceparent" not in result.stdout
    assert len(result.records) == 5
    doctor = program.execute([sys.executable, "-m", "autoinst.cli.main", "doctor"], {}).stdout
    assert "rules.yaml:11: carry unavailable 4 times: 'headers' of a str cannot be set" in doctor


def test_a_call_that_raises_hands_nothing_on(program: Program) -> None:
    rules = """
        version: 1
        jobs: [{function: shop.parent}]
        enqueues:
          - {function: shop.make, name: enqueue.shop, carry: {into: "${result}", stamp: at}}
    """
    program.write("rules.yaml", rules)
    text = "import shop\nshop.Message = None\ntry:\n    shop.parent()\nexcept TypeError as error:\n    print(error)\n"
    program.write("one.py", text)
    result = program.run("one.py")
    assert "not callable" in result.stdout
    assert [event["name"] for event in result.one()["events"]] == ["enqueue.shop"]
    assert result.one()["events"][0]["duration"] is not None


class Slotted:
    __slots__ = ("headers",)


class Property:
    @property
    def headers(self) -> None:
        raise AssertionError("read")

    @headers.setter
    def headers(self, value: object) -> None:
        raise AssertionError("written")


class Picky(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: object, value: object) -> None:
        raise AssertionError("set")


def test_objects_are_written_to_without_running_their_code() -> None:
    hand = Handover("headers", "traceparent", None, "plain")
    slotted = Slotted()
    hand.write(slotted, None, None)
    assert TRACEPARENT.fullmatch(slotted.headers["traceparent"])  # type: ignore[attr-defined]
    plain = SimpleNamespace(headers={"a": 1})
    before = plain.headers
    hand.write(plain, None, None)
    assert before == {"a": 1}
    assert plain.headers.keys() == {"a", "traceparent"}
    assert type(plain.headers) is dict
    values: list[Any] = [Property(), Picky(), MappingProxyType({}), 7, "text", None, int, SimpleNamespace(headers=[1])]
    for wrong in values:
        with pytest.raises(Unavailable):
            hand.write(wrong, None, None)
    assert Picky() == {}


def test_an_sqs_message_gets_an_attribute_while_there_is_room() -> None:
    hand = Handover("MessageAttributes", "traceparent", None, "sqs")
    call: dict[str, Any] = {"QueueUrl": "u", "MessageBody": "b"}
    hand.write(call, None, None)
    attribute = call["MessageAttributes"]["traceparent"]
    assert attribute["DataType"] == "String"
    assert TRACEPARENT.fullmatch(attribute["StringValue"])
    again = {"MessageAttributes": dict(call["MessageAttributes"])}
    hand.write(again, None, None)  # outside a job what is there stays
    assert again["MessageAttributes"]["traceparent"] == attribute
    full = {"MessageAttributes": {str(n): {"DataType": "Number", "StringValue": "1"} for n in range(10)}}
    with pytest.raises(Unavailable, match="10 attributes"):
        hand.write(full, None, None)


@pytest.mark.parametrize("own", [None, "", 7, object(), "00-1-2-3", b"\xff"])
def test_what_the_program_itself_calls_traceparent_stays(own: object) -> None:
    headers = {"traceparent": own}
    message: dict[str, Any] = {"headers": headers}
    with pytest.raises(Unavailable, match="no traceparent"):
        Handover("headers", "traceparent", "sent", "plain").write(message, None, None)
    assert headers == {"traceparent": own}
    assert message["headers"].keys() == {"traceparent", "sent"}
    assert message["headers"]["traceparent"] is own


@pytest.mark.parametrize("own", [None, {}, {"DataType": "Binary", "BinaryValue": b"1"}, {"StringValue": 7}, 7])
def test_a_wrong_sqs_attribute_stays_wrong(own: object) -> None:
    hand = Handover("MessageAttributes", "traceparent", None, "sqs")
    for attributes in ({"traceparent": own}, None):
        call = {"QueueUrl": "u", "MessageBody": "b", "MessageAttributes": attributes}
        with pytest.raises(Unavailable):
            hand.write(call, None, None)
        assert call["MessageAttributes"] is attributes


def test_each_message_of_an_sqs_batch_gets_an_attribute_while_there_is_room() -> None:
    hand = Handover("Entries", "traceparent", None, "sqs_batch")
    own = {"kind": {"DataType": "String", "StringValue": "mail"}}
    full = {str(n): {"DataType": "Binary", "BinaryValue": b"1"} for n in range(10)}
    entries = [{"Id": "1", "MessageBody": "b"}, {"Id": "2", "MessageBody": "b", "MessageAttributes": own}]
    entries.append({"Id": "3", "MessageBody": "b", "MessageAttributes": full})
    before = deepcopy(entries)
    call: dict[str, Any] = {"QueueUrl": "u", "Entries": entries}
    with pytest.raises(Unavailable, match="10 attributes"):  # of one of them
        hand.write(call, None, None)
    assert entries == before  # the program's own are never changed
    found = call["Entries"]
    assert found[2] is entries[2]
    for message, names in ((found[0], {"traceparent"}), (found[1], {"kind", "traceparent"})):
        attributes = message.pop("MessageAttributes")
        assert attributes.keys() == names
        assert TRACEPARENT.fullmatch(attributes["traceparent"]["StringValue"])
    assert [message["Id"] for message in found] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "entries",
    [
        None,
        ({"Id": "1", "MessageBody": "b"},),
        ["b"],
        [{"MessageBody": "b"}, UserDict()],
        [{"MessageBody": 7}],
        [{"MessageBody": "b", "MessageAttributes": {"a": 1}}],
        [{"MessageBody": "x" * 130_000}, {"MessageBody": "\N{EURO SIGN}" * 44_001}],
    ],
)
def test_an_sqs_batch_that_cannot_have_the_trace_stays_itself(entries: Any) -> None:
    call = {"QueueUrl": "u", "Entries": entries}
    with pytest.raises(Unavailable):
        Handover("Entries", "traceparent", None, "sqs_batch").write(call, None, None)
    assert call == {"QueueUrl": "u", "Entries": entries}
    assert call["Entries"] is entries


def test_an_sqs_message_of_the_greatest_size_stays_itself() -> None:
    for size, fits in ((262_144 - 72, True), (262_144 - 71, False), (262_144, False)):
        call = {"QueueUrl": "u", "MessageBody": "x" * size}
        with nullcontext() if fits else pytest.raises(Unavailable, match="no room"):
            Handover("MessageAttributes", "traceparent", None, "sqs").write(call, None, None)
        assert ("MessageAttributes" in call) is fits


def test_the_value_of_an_earlier_call_is_copied_only_if_it_is_a_traceparent() -> None:
    hand = Handover(None, "trace", None, "plain")
    found: dict[str, str] = {}
    hand.copy(found, None)
    with pytest.raises(Unavailable):
        hand.copy(found, "no trace")
    assert found == {}
    hand.copy(found, OTHER.encode())
    assert found == {"trace": OTHER}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OTHER, ("ab" * 16, "cd" * 8)),
        (OTHER.encode(), ("ab" * 16, "cd" * 8)),
        (f" {OTHER}\n", ("ab" * 16, "cd" * 8)),
        (OTHER.replace("00-", "01-") + "-what-comes-later", ("ab" * 16, "cd" * 8)),
        (OTHER + "-more", None),
        (OTHER.replace("00-", "ff-"), None),
        (OTHER.upper(), None),
        (OTHER[:-1], None),
        ("00-" + "0" * 32 + "-" + "cd" * 8 + "-01", None),
        ("00-" + "ab" * 16 + "-" + "0" * 16 + "-01", None),
        ("x" * 10_000, None),
        (b"\xff\xfe", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_a_traceparent_is_read_as_the_recommendation_says(text: object, expected: tuple[str, str] | None) -> None:
    assert traceparent.parse(text) == expected


def test_headers_of_a_class_of_their_own_are_left_alone() -> None:
    from autoinst.trace.transaction import Transaction

    class Headers(dict[str, object]):
        """As some libraries have them, to ignore case."""

    headers = Headers(a=1)
    message = {"headers": headers}
    job = Transaction("background_job", "perform_job.python", None)
    with pytest.raises(Unavailable, match="not a dict"):
        Handover("headers", "traceparent", None, "plain").write(message, job, job)
    assert message["headers"] is headers
    assert headers == {"a": 1}


def test_headers_that_a_program_uses_again_get_the_trace_of_each_job() -> None:
    from autoinst.trace.transaction import Transaction

    hand = Handover(None, "traceparent", None, "plain")
    headers: dict[str, str] = {}
    seen = []
    for _ in range(2):
        job = Transaction("background_job", "perform_job.python", None)
        hand.write(headers, job, job)
        seen.append(traceparent.parse(headers["traceparent"]))
        assert seen[-1] == (job.id, job.id[16:])
    assert seen[0] != seen[1]
    headers["traceparent"] = OTHER
    job = Transaction("background_job", "perform_job.python", None)
    hand.write(headers, job, job)
    assert headers["traceparent"] == OTHER
    assert len(handover._written) <= handover.REMEMBERED
