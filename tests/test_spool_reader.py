"""Reading an arena: what was written comes out, and arbitrary bytes end in records or a SpoolError."""

from __future__ import annotations

import contextlib
import json
import marshal
import math
import os
import random
import socket
import struct
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoinst.errors import SpoolError
from autoinst.spool import layout
from autoinst.spool.header import NewerArenaError
from autoinst.spool.reader import Arena
from autoinst.spool.tail import clean, decode
from tests.arena_builder import ArenaBuilder

EXCEPTION: Any = (
    "builtins.ValueError",
    "bad",
    [("/app/jobs.py", 7, "Mail.perform", 1), ("/lib/x.py", 9, "f", 0)],
    [("builtins.KeyError", "'x'", [("/app/jobs.py", 6, "Mail.find", 1)], [])],
)
EVENTS = [("query.sql", "SELECT", "SELECT 1", 400_000, 1_100_000, -1), ("inner", None, None, 500_000, -1, 0)]


def read(builder: ArenaBuilder) -> Arena:
    return Arena(bytes(builder.data), builder.name)


def one(builder: ArenaBuilder):
    (record,) = read(builder).done().records
    return record


# -- records ---------------------------------------------------------------------------------------------------------


def test_a_plain_record_has_every_fixed_field():
    builder = ArenaBuilder()
    ident = builder.put(
        3, start=1_700_000_000_123_456_789, duration=3_250_000, queue_time=12.5, queue="mail", attempts=2, thread="T-1"
    )
    found = read(builder).done()
    assert found.slots == [3]
    assert found.torn == 0
    record = found.records[0]
    assert record.to_json() == {
        "id": ident,
        "status": "ok",
        "namespace": "background_job",
        "name": "perform_job.python",
        "action": "shop.jobs.Mail#perform",
        "class": "shop.jobs.Mail",
        "method": "perform",
        "queue": "mail",
        "queue_time": 12.5,
        "attempts": 2,
        "job_id": None,
        "enqueued_at": None,
        "started_at": "2023-11-14T22:13:20.123456Z",
        "duration": 3.25,
        "exception": None,
        "events": [],
        "dropped_events": 0,
        "args": None,
        "kwargs": None,
        "tags": {},
        "params": {},
        "env": {},
        "service": "shop",
        "environment": "test",
        "revision": "r1",
        "host": "h1",
        "pid": os.getpid(),
        "thread": "T-1",
        "rule": "rules.yaml:3",
        "trace_id": ident,
        "parent_span_id": None,
    }


def test_unknown_values_are_none():
    builder = ArenaBuilder()
    builder.put(0, action=None, rule=None, thread=None)
    record = one(builder)
    assert (record.action, record.class_name, record.method, record.rule, record.thread) == (None,) * 5
    assert (record.queue, record.queue_time_ms, record.attempts) == (None,) * 3


def test_a_tail_gives_exception_events_and_the_rest():
    builder = ArenaBuilder()
    tail = {
        "exc": EXCEPTION,
        "events": EVENTS,
        "class": "other.Class",
        "method": "go",
        "job_id": "abc",
        "enqueued_at": 1_700_000_000_000_000_000,
        "args": (1, b"x\xff", {"a": (None, 2.5)}),
        "kwargs": {"k": True},
        "tags": {"t": "v"},
        "params": {"p": 1},
        "env": {"LANG": "C"},
        "trace_id": "ab" * 16,
        "parent_span_id": "cd" * 8,
        "dropped": 4,
    }
    builder.put(0, status=layout.ERROR, tail=tail, chain=(1, 2))
    out = one(builder).to_json()
    assert out["status"] == "error"
    assert out["exception"]["class"] == "builtins.ValueError"
    assert out["exception"]["backtrace"][1] == {"file": "/lib/x.py", "line": 9, "function": "f", "in_app": False}
    assert out["exception"]["causes"][0]["message"] == "'x'"
    assert out["events"] == [
        {"name": "query.sql", "title": "SELECT", "body": "SELECT 1", "start": 0.4, "duration": 1.1, "parent": None},
        {"name": "inner", "title": None, "body": None, "start": 0.5, "duration": None, "parent": 0},
    ]
    assert (out["class"], out["method"], out["job_id"]) == ("other.Class", "go", "abc")
    assert out["enqueued_at"] == "2023-11-14T22:13:20.000000Z"
    assert out["args"] == [1, "x\\xff", {"a": [None, 2.5]}]
    assert (out["kwargs"], out["tags"], out["params"], out["env"]) == ({"k": True}, {"t": "v"}, {"p": 1}, {"LANG": "C"})
    assert (out["trace_id"], out["parent_span_id"], out["dropped_events"]) == ("ab" * 16, "cd" * 8, 4)


@pytest.mark.parametrize(
    "tail",
    [
        {"events": [(b"query.sql", "SELECT", "SELECT 1", 4, 5, -1)]},
        {"events": [("query.sql", b"SELECT", b"SELECT 1", 4, 5, -1)]},
        {"exc": ("builtins.ValueError", b"bad", [], [])},
        {"exc": ("builtins.ValueError", "bad", [(b"/app/jobs.py", 7, b"f", 1)], [])},
    ],
    ids=repr,
)
def test_bytes_where_text_should_be_are_not_passed_on(tail):
    builder = ArenaBuilder()
    builder.put(0, tail=tail)
    json.dumps(one(builder).to_json())


def test_the_id_in_the_tail_wins():
    builder = ArenaBuilder()
    builder.put(0, tail={"id": "0f" * 16})
    assert one(builder).id == "0f" * 16


def test_an_id_that_is_none_is_ignored():
    builder = ArenaBuilder()
    ident = builder.put(0, tail={"id": "../../etc/passwd"})
    assert one(builder).id == ident


@pytest.mark.parametrize(("version", "freed"), [(1, [5, 9, 2, 7]), (2, [5])])
def test_a_long_tail_is_read_from_its_chain_which_later_owners_free_themselves(version, freed):
    builder = ArenaBuilder()
    text = "".join(chr(33 + i % 90) for i in range(1200))
    builder.put(5, tail={"args": [text]}, chain=(9, 2, 7))
    arena = read(builder)
    arena.header = arena.header._replace(version=version)
    found = arena.done()
    assert found.records[0].args == [text]
    assert found.slots == freed


@pytest.mark.parametrize("breakage", ["link beyond the slots", "link not a continuation", "too many links", "length"])
def test_a_broken_chain_is_torn(breakage):
    builder = ArenaBuilder()
    builder.put(0, tail={"args": ["x" * 1000]}, chain=(1, 2, 3))
    at = builder.at(0)
    if breakage == "link beyond the slots":
        struct.pack_into("<I", builder.data, at + 64, 99)
    elif breakage == "link not a continuation":
        builder.data[builder.at(2) + 63] = layout.RUNNING
    elif breakage == "too many links":
        struct.pack_into("<H", builder.data, at + 46, 113)
    else:
        struct.pack_into("<I", builder.data, at + 48, 2**32 - 1)
    found = read(builder).done()
    assert (found.records, found.slots, found.torn) == ([], [0], 1)


def test_a_record_with_a_wrong_checksum_is_torn_and_its_slot_is_freed():
    builder = ArenaBuilder()
    builder.put(0, crc=1)
    good = builder.put(1)
    found = read(builder).done()
    assert [record.id for record in found.records] == [good]
    assert found.slots == [0, 1]
    assert found.torn == 1


def test_the_limit_is_kept_and_says_that_there_is_more():
    builder = ArenaBuilder()
    for slot in range(5):
        builder.put(slot)
    found = read(builder).done(3)
    assert (len(found.records), found.slots, found.more) == (3, [0, 1, 2], True)
    assert read(builder).done(5).more is False


def test_freeing_changes_the_state_byte_and_nothing_else():
    builder = ArenaBuilder()
    builder.put(4)
    before = bytes(builder.data)
    arena = Arena(builder.data, builder.name)
    arena.free(arena.done().slots)
    changed = [i for i, (old, new) in enumerate(zip(before, builder.data, strict=True)) if old != new]
    assert changed == [builder.at(4) + 63]
    assert builder.data[changed[0]] == layout.FREE


def test_names_interned_after_the_arena_was_opened_are_found():
    builder = ArenaBuilder()
    builder.put(0)
    arena = Arena(builder.data, builder.name)
    assert arena.done().records[0].queue is None
    builder.put(1, queue="late")
    assert [record.queue for record in arena.done().records] == [None, "late"]


def test_a_name_that_is_not_in_the_table_is_none():
    builder = ArenaBuilder()
    builder.put(0)
    struct.pack_into("<I", builder.data, layout.INTERN_OFFSET, 0)
    record = one(builder)
    assert record.action is None
    assert record.name == "perform_job.python"


# -- jobs in flight ----------------------------------------------------------------------------------------------------


def test_a_running_slot_is_a_job_in_flight_with_its_event():
    builder = ArenaBuilder()
    builder.put(0, state=layout.RUNNING, status=layout.UNSET, duration=0, crc=7, event="query.sql", queue="mail")
    (flight,) = read(builder).running()
    assert (flight.record.status, flight.record.queue, flight.record.duration_ns) == ("running", "mail", None)
    assert (flight.last_event, flight.complete, flight.ended) == ("query.sql", False, False)


def test_a_tail_known_at_the_start_is_read_while_running():
    builder = ArenaBuilder()
    builder.put(0, state=layout.RUNNING, status=layout.UNSET, tail={"job_id": "j"})
    assert read(builder).running()[0].record.job_id == "j"


def test_a_running_slot_killed_inside_finish_keeps_the_fixed_fields_only():
    builder = ArenaBuilder()
    builder.put(0, state=layout.RUNNING, status=layout.ERROR, duration=5, tail={"job_id": "j"}, crc=7)
    (flight,) = read(builder).running()
    assert (flight.record.job_id, flight.record.duration_ns, flight.record.action) == (
        None,
        5,
        "shop.jobs.Mail#perform",
    )
    assert (flight.complete, flight.ended) == (False, True)


def test_a_running_slot_that_lacks_only_its_state_is_complete():
    builder = ArenaBuilder()
    builder.put(0, state=layout.RUNNING, status=layout.ERROR, tail={"exc": EXCEPTION})
    (flight,) = read(builder).running()
    assert flight.complete
    assert flight.record.status == "error"
    assert flight.record.exception is not None


def test_a_running_slot_with_a_zeroed_body_still_counts_as_a_job():
    builder = ArenaBuilder()
    builder.data[builder.at(0) + 63] = layout.RUNNING
    (flight,) = read(builder).running()
    assert flight.record.started_ns == builder.header["created"]


# -- other regions -----------------------------------------------------------------------------------------------------


def test_description_status_and_overflow():
    builder = ArenaBuilder(description={"argv": ["worker.py", "a"], "python": "3.11.7"})
    builder.status({"digest": "d", "rules": [["r.yaml:1", "patched", "source", 4, None]]})
    builder.overflow(0, "shop.jobs.Mail#perform", {53: 3, 50: 2}, {53: 2}, 700, 110)
    builder.overflow(63, None, {26: 3}, {}, 30, 10)
    arena = read(builder)
    assert arena.description()["argv"] == ["worker.py", "a"]
    assert arena.status() == {"digest": "d", "rules": [["r.yaml:1", "patched", "source", 4, None]]}
    assert arena.overflow() == [
        ("shop.jobs.Mail#perform", 7, 2, 700, 110, {53: 5, 50: 2}),
        (None, 3, 0, 30, 10, {26: 3}),
    ]


@pytest.mark.parametrize("sequence", [3, 0xFFFFFFFFFFFFFFFF])
def test_a_status_being_written_is_none(sequence):
    builder = ArenaBuilder()
    builder.status({"digest": "d"}, sequence=sequence)
    assert read(builder).status() is None


def test_a_damaged_status_is_none_and_a_damaged_description_empty():
    builder = ArenaBuilder()
    builder.status({"digest": "d"})
    builder.data[4112] ^= 1
    builder.data[264] ^= 1
    assert read(builder).status() is None
    assert read(builder).description() == {}


# -- files that are no arenas ------------------------------------------------------------------------------------------


def test_open_reads_a_file(tmp_path):
    builder = ArenaBuilder()
    ident = builder.put(0)
    arena = Arena.open(builder.write(tmp_path), writable=True)
    try:
        found = arena.done()
        assert [record.id for record in found.records] == [ident]
        arena.free(found.slots)
        assert arena.done().records == []
    finally:
        arena.close()


def test_a_symbolic_link_is_refused(tmp_path):
    path = ArenaBuilder().write(tmp_path)
    os.symlink(path, tmp_path / "link.arena")
    with pytest.raises(SpoolError, match="symbolic link"):
        Arena.open(str(tmp_path / "link.arena"))


@pytest.mark.parametrize("kind", ["folder", "fifo", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = str(tmp_path / "x.arena")
    if kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.close()
    for writable in (False, True):
        with pytest.raises(SpoolError):
            Arena.open(path, writable=writable)


def test_a_file_of_another_user_is_refused(tmp_path):
    path = ArenaBuilder().write(tmp_path)
    with pytest.raises(SpoolError, match="belongs to user"):
        Arena.open(path, owner=os.geteuid() + 1)


def test_a_missing_file_is_a_spool_error(tmp_path):
    with pytest.raises(SpoolError, match="No such file"):
        Arena.open(str(tmp_path / "none.arena"))


@pytest.mark.parametrize("size", [0, 1, 111, 4096, 10244])
def test_a_short_file_is_refused(tmp_path, size):
    builder = ArenaBuilder()
    del builder.data[size:]
    with pytest.raises(SpoolError):
        Arena.open(builder.write(tmp_path))


def test_a_huge_sparse_file_is_refused(tmp_path):
    path = ArenaBuilder().write(tmp_path)
    os.truncate(path, 2**40)
    with pytest.raises(SpoolError, match="no arena's size"):
        Arena.open(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"magic": b"NOTARENA"},
        {"version": 0},
        {"slot_size": 0},
        {"slot_size": 2**32 - 1},
        {"slots": 0},
        {"slots": 2**32 - 1},
        {"slots_offset": 2**32 - 1},
        {"slots_offset": 0, "intern_size": 0},
        {"intern_size": 2**32 - 1},
        {"pid": 0},
        {"pid": 2**32 - 1},
    ],
)
def test_a_damaged_header_is_refused(fields):
    values = list((ArenaBuilder().header | fields).values())
    builder = ArenaBuilder()
    layout.HEADER.pack_into(builder.data, 0, *values)
    with pytest.raises(SpoolError):
        read(builder)


def test_a_newer_version_is_told_apart():
    with pytest.raises(NewerArenaError, match="version 3"):
        read(ArenaBuilder(version=3))


def test_a_file_cut_short_after_opening_is_noticed(tmp_path):
    arena = Arena.open(ArenaBuilder().write(tmp_path))
    try:
        assert arena.intact()
        os.truncate(arena.path, 8192)
        assert not arena.intact()
    finally:
        arena.close()


# -- the tail's decoder ------------------------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.integers(0, 9)
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=6).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=6)
    ),
    max_leaves=40,
)


@given(plain)
def test_what_marshal_version_2_writes_of_plain_data_comes_back(value):
    assert decode(marshal.dumps(value, 2)) == value


def test_the_writers_codes_are_all_there_are():
    samples = [
        None,
        True,
        False,
        1,
        2**31,
        -(2**40),
        1.5,
        b"b",
        "s",
        sys.intern("interned"),
        (1,),
        [1],
        {"a": 1},
        (),
        {},
    ]
    assert {chr(marshal.dumps(sample, 2)[0]) for sample in samples} == set("NTFilgsu([{")


@pytest.mark.parametrize(
    "value",
    [{1, 2}, frozenset({1}), 1j, Ellipsis, StopIteration, compile("1", "x", "eval")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_data_is_refused(value):
    for version in range(5):
        with pytest.raises(ValueError, match="type code"):
            decode(marshal.dumps([value], version))


@pytest.mark.parametrize("value", [(1, 2), "ascii", sys.intern("x"), [[]]])
def test_references_and_short_forms_of_later_versions_are_refused(value):
    shared = [value, value]
    with pytest.raises(ValueError, match="type code"):
        decode(marshal.dumps(shared, 4))


HOSTILE = [
    b"(\xff\xff\xff\x7f",
    b"[\xff\xff\xff\x7f",
    b"s\xff\xff\xff\x7f",
    b"u\xff\xff\xff\x7f",
    b"l\xff\xff\xff\x7f",
    b"l\x01\x00\x00\x80",
    b"<\xff\xff\xff\x7f",
    b"(\x00\x00\x00\x40" + b"N" * 100,
    b"(\x01\x00\x00\x00" * 1000,
    b"[\x01\x00\x00\x00" * 33 + b"N",
    b"{" * 10_000,
    b"{0N",
    b"{N0",
    b"0",
    b"",
    b"NN",
    b"{[\x00\x00\x00\x00N0",
    b"(\x05\x00\x00\x00(\x04\x00\x00\x00(\x03\x00\x00\x00" * 200,
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:12]))
def test_hostile_bytes_are_refused_without_allocating(data):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_nesting_is_read_up_to_the_limit_and_no_further():
    def nested(depth):
        value: Any = None
        for _ in range(depth):
            value = [value]
        return marshal.dumps(value, 2)

    assert clean(decode(nested(32))) is not None
    with pytest.raises(ValueError, match="deep"):
        decode(nested(33))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_decoded_or_refused(data):
    decode_or_refuse(data)


@given(
    st.lists(st.sampled_from([bytes((code,)) for code in b"NTFigsu([{0lI\x80z"]) | st.binary(max_size=9), max_size=60)
)
def test_arbitrary_codes_are_decoded_or_refused(parts):
    decode_or_refuse(b"".join(parts))


@given(plain, st.data())
def test_damaged_data_is_decoded_or_refused(value, data):
    raw = bytearray(marshal.dumps(value, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(raw))


def decode_or_refuse(data):
    with contextlib.suppress(ValueError):
        clean(decode(data))


@given(plain | st.floats())
def test_cleaned_data_is_json(value):
    def check(found):
        if isinstance(found, dict):
            assert all(isinstance(key, str) for key in found)
            for item in found.values():
                check(item)
        elif isinstance(found, list):
            for item in found:
                check(item)
        elif isinstance(found, float):
            assert math.isfinite(found)
        elif isinstance(found, str):
            found.encode()
        else:
            assert found is None or isinstance(found, int)

    check(clean(value))


# -- whole arenas of arbitrary bytes -----------------------------------------------------------------------------------


def full_arena() -> ArenaBuilder:
    builder = ArenaBuilder()
    builder.put(0)
    builder.put(1, status=layout.ERROR, tail={"exc": EXCEPTION, "events": EVENTS, "args": [1]})
    builder.put(2, tail={"args": ["x" * 1000]}, chain=(3, 4, 5))
    builder.put(6, state=layout.RUNNING, status=layout.UNSET, event="query.sql")
    builder.put(7, state=layout.RUNNING, status=layout.OK, tail={"tags": {"a": 1}})
    builder.overflow(0, "a", {0: 1}, {1: 1}, 1, 1)
    builder.status({"digest": "d"})
    return builder


FULL = full_arena()


def exercise(data: bytes | bytearray) -> None:
    try:
        arena = Arena(data, "x.arena")
    except SpoolError:
        return
    found = arena.done()
    for record in found.records:
        record.to_json()
    for flight in arena.running():
        flight.record.to_json()
    arena.description()
    arena.status()
    arena.overflow()
    assert all(0 <= slot < arena.header.slots for slot in found.slots)
    arena.free(found.slots)


@given(st.integers(0, 2**32), st.integers(10_000, 20_000), st.booleans())
def test_arbitrary_arenas_never_crash_the_reader(seed, size, with_header):
    raw = bytearray(random.Random(seed).randbytes(size))
    if with_header:
        raw[: layout.HEADER.size] = FULL.data[: layout.HEADER.size]
        raw.extend(bytes(max(0, len(FULL.data) - len(raw))))
    exercise(raw)


@settings(max_examples=300)
@given(
    st.binary(min_size=56, max_size=56),
    st.binary(max_size=100),
    st.sampled_from([layout.DONE, layout.RUNNING]),
    st.sampled_from([0, 1, 2]),
)
def test_arbitrary_bodies_with_the_right_checksum_never_crash_the_reader(body, tail, state, links):
    builder = full_arena()
    at = builder.at(0)
    raw = bytearray(body)
    struct.pack_into("<HIB", raw, 46, links, len(tail), body[52] % 6)
    struct.pack_into("<2I", builder.data, at + 64, 3, 4)
    builder.data[builder.at(3) + 64 : builder.at(3) + 64 + len(tail)] = tail
    if not links:
        builder.data[at + 64 : at + 64 + len(tail)] = tail
    builder.data[at : at + 56] = raw
    struct.pack_into("<I", builder.data, at + 56, zlib.crc32(tail, zlib.crc32(raw)))
    builder.data[at + 63] = state
    exercise(builder.data)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(FULL.data) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=12)
)
def test_damaged_arenas_never_crash_the_reader(patches):
    raw = bytearray(FULL.data)
    for at, patch in patches:
        raw[at : at + len(patch)] = patch[: len(raw) - at]
    exercise(raw)


# The parts in which single bytes matter most.
FIELDS = [
    *range(layout.HEADER.size),
    *range(256, 264),
    *range(4096, 4112),
    *range(8192, 8224),
    *range(layout.INTERN_OFFSET, layout.INTERN_OFFSET + 40),
    *(FULL.at(slot) + i for slot in (0, 1, 2, 6, 7) for i in range(80)),
]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_fields_never_crash_the_reader(patches):
    raw = bytearray(FULL.data)
    for at, value in patches:
        raw[at] = value
    exercise(raw)


@settings(max_examples=200)
@given(plain)
def test_any_plain_tail_that_its_owner_wrote_is_read(content):
    builder = ArenaBuilder()
    raw = marshal.dumps(content, 2)
    if len(raw) <= layout.TAIL_ROOM:
        builder.put(0, tail=raw)
        assert read(builder).done().torn == 0
        one(builder).to_json()


loose = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3) | st.binary(max_size=3)
shaped = st.fixed_dictionaries(
    {},
    optional={
        "events": st.lists(loose | st.tuples(*[loose] * 6), max_size=4) | loose,
        "exc": st.tuples(*[loose] * 4)
        | st.tuples(st.text(), st.text(), st.lists(st.tuples(*[loose] * 4)), loose)
        | loose,
        "tags": loose,
        "params": st.dictionaries(loose.filter(lambda key: not isinstance(key, list)), loose),
        "dropped": loose,
        "enqueued_at": loose,
        "job_id": loose,
        "trace_id": loose,
        "class": loose,
    },
)


@given(shaped)
def test_a_tail_of_other_shapes_than_agreed_is_read_as_far_as_it_goes(content):
    raw = marshal.dumps(content, 2)
    builder = ArenaBuilder()
    if len(raw) <= layout.TAIL_ROOM:
        builder.put(0, tail=raw)
        record = one(builder)
        record.to_json()
        assert isinstance(record.tags, dict)
        assert all(event.parent is None or event.parent < len(record.events) for event in record.events)
