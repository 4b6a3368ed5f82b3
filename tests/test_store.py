"""The store: what goes in comes out, once; totals stay exact; damage and newer versions are told apart."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoinst.errors import StoreError
from autoinst.record import Event, ExceptionInfo, Frame, Killed, Record
from autoinst.spool.counted import Counted
from autoinst.spool.layout import record_id
from autoinst.store import details, histogram, schema
from autoinst.store.failures import fingerprint
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.reader import CorruptStoreError
from autoinst.store.records import pack_job_id, unpack_job_id
from autoinst.store.rollups import Cell
from autoinst.store.sqlite import Store, open_repaired

UID = bytes(range(8))
MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = 1_700_000_000 * 10**9 // DAY * DAY + 12 * HOUR


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "store.sqlite3")) as opened:
        yield opened


def job(n, status="ok", *, start=None, duration=3_250_000, action="shop.jobs.Mail#perform", queue=None, **fields):
    class_name, _, method = (action or "").rpartition("#")
    record = Record(record_id(UID, n), status, NOON + n if start is None else start, action=action, queue=queue)
    record.class_name, record.method = class_name or None, method or None
    record.duration_ns = duration
    for key, value in fields.items():
        setattr(record, key, value)
    return record


def failing(n, class_name="builtins.ValueError", message="bad", function="Mail.perform", **fields):
    frames = [Frame("/lib/x.py", 3, "call", in_app=False), Frame("/app/shop/jobs.py", 7, function, in_app=True)]
    return job(n, "error", exception=ExceptionInfo(class_name, message, frames), **fields)


def put(store, *records):
    with store.transaction():
        return store.insert(records)


def stored(store, **wanted):
    return list(store.jobs(JobFilter(**wanted)))


def total(store, since=0, until=2**62) -> Cell:
    cells = list(store.totals(since, until).values())
    out = Cell()
    for cell in cells:
        out.add(cell)
    return out


# -- records in and out ------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
frames = st.builds(Frame, text, integers, text, st.booleans())
exceptions = st.recursive(
    st.builds(ExceptionInfo, text, text, st.lists(frames, max_size=3), st.just([])),
    lambda inner: st.builds(ExceptionInfo, text, text, st.lists(frames, max_size=3), st.lists(inner, max_size=2)),
    max_leaves=3,
)
events = st.builds(
    Event, text, st.none() | text, st.none() | text, integers, st.none() | integers, st.none() | st.integers(0, 9)
)
records = st.builds(
    Record,
    id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    status=st.sampled_from(["ok", "error", "ignored", "killed", "running"]),
    started_ns=integers,
    namespace=text,
    name=text,
    action=st.none() | text,
    class_name=st.none() | text,
    method=st.none() | text,
    queue=st.none() | text,
    queue_time_ms=st.none() | st.integers(0, 10**13).map(lambda ns: ns / 1e6),
    attempts=st.none() | st.integers(0, 65535),
    job_id=st.none() | text | st.uuids().map(str),
    enqueued_ns=st.none() | st.integers(1, 2**63 - 1),
    duration_ns=st.none() | st.integers(0, 2**63 - 1),
    exception=st.none() | exceptions,
    events=st.lists(events, max_size=3),
    dropped_events=st.integers(0, 2**31),
    args=json_data,
    kwargs=json_data,
    tags=st.dictionaries(text, json_data, max_size=3),
    params=st.dictionaries(text, json_data, max_size=3),
    env=st.dictionaries(text, text, max_size=3),
    service=st.none() | text,
    environment=st.none() | text,
    revision=st.none() | text,
    host=st.none() | text,
    pid=st.none() | st.integers(1, 2**31 - 1),
    thread=st.none() | text,
    rule=st.none() | text,
    trace_id=st.none() | st.text("0123456789abcdef", min_size=1),
    parent_span_id=st.none() | st.text("0123456789abcdef", min_size=1),
    clock_skew=st.booleans(),
    truncated=st.booleans(),
    killed=st.none() | st.builds(Killed, st.integers(1, 2**31 - 1), st.none() | text, st.none() | text),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(records, max_size=4, unique_by=lambda record: record.id))
def test_any_record_comes_out_as_it_went_in(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("store")
    with Store(str(folder / "s.sqlite3")) as store:
        put(store, *wanted)
        assert {record.id: record for record in stored(store, limit=0)} == {record.id: record for record in wanted}
        for record in wanted:
            assert store.job(record.id) == record


def test_a_record_survives_reopening(tmp_path):
    path = str(tmp_path / "s.sqlite3")
    record = failing(1, args=[1], tags={"a": "b"}, service="shop", host="h", pid=4)
    with Store(path) as store:
        put(store, record)
    with Store(path, readonly=True) as store:
        assert store.job(record.id) == record


def test_a_plain_job_has_no_details_and_takes_little_room(store):
    with store.transaction():
        process = store.enter_process(ProcessInfo(UID, 1, NOON, {"service": "shop"}))
        store.insert([job(n, start=NOON + n * 10**6, queue="q", queue_time_ms=1.5) for n in range(20_000)], process)
    store.checkpoint()
    assert details.of_record(job(1)) is None
    assert os.path.getsize(store.path) / 20_000 < 200


def test_unknown_details_are_an_error():
    with pytest.raises(ValueError, match="unknown kind"):
        details.unpack(b"\x09abc")
    with pytest.raises(ValueError, match="details"):
        details.unpack(b"\x01\xff\xff")


UUID = "0190a6e2-4f2c-7cc1-8b3a-2f2d1e0c9b8a"


@pytest.mark.parametrize("job_id", [None, "", "7", UUID, UUID.upper(), "x" * 36])
def test_job_ids_are_kept(job_id):
    assert unpack_job_id(pack_job_id(job_id)) == job_id


# -- once, and the better record wins ----------------------------------------------------------------------------------


def test_inserting_again_changes_nothing(store):
    batch = [job(1), failing(2), job(3, "killed", killed=Killed(4))]
    assert put(store, *batch) == (3, 0, 0)
    before = (stored(store), total(store), store.errors())
    assert put(store, *batch) == (0, 0, 3)
    assert put(store, batch[1], job(4), batch[0], job(4)) == (1, 0, 3)
    assert [record.id for record in stored(store)] == [record_id(UID, n) for n in (4, 3, 2, 1)]
    assert total(store).jobs == 4
    assert (stored(store)[1:], store.errors()) == (before[0], before[2])


RANK = {"running": 0, "killed": 1, "ok": 2, "error": 2, "ignored": 2}


@pytest.mark.parametrize("first", RANK)
@pytest.mark.parametrize("second", RANK)
@pytest.mark.parametrize("together", [False, True])
def test_what_was_seen_replaces_what_was_inferred(store, first, second, together):
    def make(status, duration):
        return failing(1, duration=duration) if status == "error" else job(1, status, duration=duration)

    old, new = make(first, 1000), make(second, 2000)
    if together:
        put(store, old, new)
    else:
        put(store, old)
        put(store, new)
    wanted = new if RANK[second] > RANK[first] else old
    assert stored(store) == [wanted]
    cell = total(store)
    counted = {name: getattr(cell, name) for name in ("ok", "error", "ignored", "killed")}
    assert counted == {name: int(name == wanted.status) for name in counted}
    timed = wanted.status in ("ok", "error", "ignored")
    assert cell.sum_ns == (wanted.duration_ns if timed else 0)
    assert sum(cell.durations.values()) == timed
    assert [group.total for group in store.errors()] == [1] * (wanted.status == "error")


def test_a_replaced_job_is_new_to_an_exporter(store):
    put(store, job(1, "killed"), job(2))
    cursor = store.jobs_after(0)[-1][0]
    put(store, job(1))
    ((n, record),) = store.jobs_after(cursor)
    assert n > cursor
    assert (record.id, record.status) == (record_id(UID, 1), "ok")


def test_cursor_numbers_are_never_used_twice(store):
    put(store, job(1, "killed"))
    (first, _), *_ = store.jobs_after(0)
    put(store, job(1))
    assert store.jobs_after(0)[0][0] > first
    assert store.jobs_after(first)[0][1].status == "ok"


def test_a_batch_and_its_token_are_kept_until_it_is_sent(store):
    put(store, *(job(number) for number in range(1, 6)))
    assert store.feed("otlp/traces") is None
    with store.transaction():
        feed = store.add_feed("otlp/traces", 0)
        batch = store.fix_batch(feed, store.cursor_after(0, 3))
    assert (batch.after, batch.upto) == (0, 3)
    assert store.feed("otlp/traces").batch == batch
    with store.transaction():
        store.tell_of_feed(feed, "waiting", "refused")
    assert store.feed("otlp/traces").batch == batch
    with store.transaction():
        store.finish_batch(feed, jobs=3, posts=1, size=100)
    again = store.feed("otlp/traces")
    assert (again.n, again.batch, again.jobs, again.bytes, again.state, again.detail) == (3, None, 3, 100, "ok", None)
    assert again.since_ns == batch.at_ns
    with store.transaction():
        assert store.fix_batch(again, 5).token != batch.token


def test_a_parked_job_is_passed_and_shown(store):
    put(store, job(1), job(2))
    with store.transaction():
        feed = store.add_feed("otlp/traces", 0)
        store.fix_batch(feed, 1)
        store.park(feed, "400: no")
    assert (store.feed("otlp/traces").n, store.feed("otlp/traces").parked) == (1, 1)
    (parked,) = store.parked()
    assert (parked.feed, parked.job, parked.reason) == ("otlp/traces", record_id(UID, 1), "400: no")


def test_jobs_left_out_and_jobs_that_are_gone_are_told_apart(store):
    put(store, job(1, "killed"), job(2))
    put(store, job(1))  # takes the place of the first
    with store.transaction():
        feed = store.add_feed("otlp/traces", 0)
        store.leave_out(feed, 2, 1)
    assert (feed.left_out, feed.missing, feed.n) == (1, 1, 2)


def test_a_failed_transaction_leaves_nothing_behind(store):
    put(store, job(1))
    before = total(store)

    class StopError(Exception):
        pass

    with pytest.raises(StopError), store.transaction():  # noqa: PT012 - it has to be raised inside
        store.insert([job(2, action="new.Action#run", queue="new"), failing(3)])
        store.set_counted(UID, [Counted("a", 5, 1, 10)])
        raise StopError
    assert [record.id for record in stored(store)] == [record_id(UID, 1)]
    assert total(store) == before
    assert store.errors() == []
    # Nothing remembered from it is used either.
    put(store, job(2, action="new.Action#run", queue="new"), failing(3))
    assert stored(store, action="new.Action#run")[0].queue == "new"
    assert [group.total for group in store.errors()] == [1]
    assert total(store).jobs == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(sorted(RANK))), max_size=6), max_size=8))
def test_totals_always_equal_what_is_stored(tmp_path_factory, batches):
    with Store(str(tmp_path_factory.mktemp("store") / "s.sqlite3")) as store:
        for batch in batches:
            put(store, *(failing(n) if status == "error" else job(n, status) for n, status in batch))
        rows = stored(store, limit=0)
        cell = total(store)
        for status in ("ok", "error", "ignored", "killed"):
            assert getattr(cell, status) == sum(row.status == status for row in rows)
        assert sum(group.total for group in store.errors()) == cell.error
        assert sum(sum(store.error_hours(group.id, 0).values()) for group in store.errors()) == cell.error


# -- questions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(store):
    put(
        store,
        job(1, start=NOON, queue="mail", job_id="a"),
        failing(2, start=NOON + 2 * HOUR, queue="mail", job_id=str(uuid.UUID(int=7))),
        job(3, "killed", start=NOON + HOUR, action="shop.tasks#send", name="perform_job.rq", service="web"),
        job(4, "ignored", start=NOON + 3 * HOUR, queue="slow"),
        job(5, start=NOON + 4 * HOUR, action=None),
    )
    return store


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [5, 4, 2, 3, 1]),
        ({"limit": 2}, [5, 4]),
        ({"limit": 0}, [5, 4, 2, 3, 1]),
        ({"status": frozenset({"error"})}, [2]),
        ({"status": frozenset({"error", "killed", "ok"})}, [5, 2, 3, 1]),
        ({"status": frozenset({"ok", "killed"}), "limit": 2}, [5, 3]),
        ({"status": frozenset({"nonsense"})}, []),
        ({"since_ns": NOON + 2 * HOUR}, [5, 4, 2]),
        ({"until_ns": NOON + 2 * HOUR}, [3, 1]),
        ({"action": "shop.jobs.Mail#perform"}, [4, 2, 1]),
        ({"action": "nobody"}, []),
        ({"queue": "mail"}, [2, 1]),
        ({"queue": "mail", "status": frozenset({"ok"})}, [1]),
        ({"name": "perform_job.rq"}, [3]),
        ({"service": "web"}, [3]),
        ({"job_id": "a"}, [1]),
        ({"job_id": str(uuid.UUID(int=7))}, [2]),
        ({"id_prefix": record_id(UID, 3)}, [3]),
        ({"id_prefix": record_id(UID, 3)[:19]}, [3]),
        ({"id_prefix": record_id(UID, 3)[:16]}, [5, 4, 2, 3, 1]),
        ({"id_prefix": record_id(UID, 3)[:20].upper()}, [3]),
        ({"id_prefix": "zz"}, []),
        ({"id_prefix": "a" * 33}, []),
        ({"id_prefix": ""}, [5, 4, 2, 3, 1]),
    ],
)
def test_jobs_newest_first(shop, wanted, found):
    assert [record.id for record in stored(shop, **wanted)] == [record_id(UID, n) for n in found]


@pytest.mark.parametrize(
    "wanted",
    [
        {"status": frozenset({"killed"})},
        {"queue": "mail"},
        {"since_ns": NOON + HOUR, "until_ns": NOON + 3 * HOUR},
        {"action": "shop.jobs.Mail#perform"},
        {"name": "perform_job.rq"},
        {"service": "web"},
        {"job_id": "a"},
        {"id_prefix": record_id(UID, 3)[:20]},
    ],
)
def test_a_filter_says_of_a_record_what_the_store_says(shop, wanted):
    chosen = JobFilter(**wanted)
    assert [r for r in stored(shop) if chosen.matches(r)] == stored(shop, **wanted)


@pytest.mark.parametrize(("first", "last"), [("", ""), (16, ""), (16, 4), (16, 5), (17, ""), (0, 32), (3, 29)])
def test_ids_are_found_by_their_digits_in_the_index_alone(shop, first, last):
    every = [record_id(UID, n) for n in range(1, 6)]
    wanted = every[2][: first or 0].upper(), every[2][32 - (last or 0) :]
    asked: list[str] = []
    shop._con.set_trace_callback(asked.append)
    found = shop.ids_like(*wanted, limit=10)
    shop._con.set_trace_callback(None)
    assert sorted(found) == sorted(i for i in every if i.startswith(wanted[0].lower()) and i.endswith(wanted[1]))
    assert len(shop.ids_like(*wanted, limit=1)) == 1
    plan = " ".join(row[3] for row in shop._con.execute("EXPLAIN QUERY PLAN " + asked[0]))
    assert "COVERING INDEX job_by_id" in plan


def test_recent_ids_are_found_by_their_last_digits(shop):
    newest = max(range(1, 6), key=lambda n: next(c for c, r in shop.jobs_after(0) if r.id == record_id(UID, n)))
    for last in (record_id(UID, newest)[-9:], record_id(UID, newest)[-8:]):
        assert shop.recent_ids(last, newest=1, limit=10) == [record_id(UID, newest)]
    oldest = shop.jobs_after(0, 1)[0][1].id
    assert shop.recent_ids(oldest[-8:], newest=1, limit=10) == []
    assert shop.recent_ids(oldest[-8:].upper(), newest=5, limit=10) == [oldest]
    assert shop.recent_ids("f" * 40, newest=5, limit=10) == []


def test_one_job(shop):
    assert shop.job(record_id(UID, 2)).status == "error"
    assert shop.job(record_id(UID, 9)) is None
    assert shop.job("ab") is None
    assert shop.job("") is None


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (JobFilter(), "job_by_start"),
        (JobFilter(action="shop.jobs.Mail#perform"), "job_by_action"),
        (JobFilter(status=frozenset({"error"})), "job_not_ok"),
        (JobFilter(id_prefix="ab"), "job_by_id"),
        (JobFilter(job_id="a"), "job_by_job_id"),
        (JobFilter(error=1), "job_by_error"),
    ],
)
def test_common_questions_use_an_index(shop, wanted, index):
    asked: list[str] = []
    shop._con.set_trace_callback(asked.append)
    list(shop.jobs(wanted))
    shop._con.set_trace_callback(None)
    (question,) = [sql for sql in asked if "FROM job" in sql]
    plan = " ".join(row[3] for row in shop._con.execute("EXPLAIN QUERY PLAN " + question))
    assert index in plan


# -- totals ------------------------------------------------------------------------------------------------------------


def test_totals_are_exact_to_the_minute(store):
    chance = random.Random(3)
    made = [job(n, start=NOON + chance.randrange(3 * DAY)) for n in range(3000)]
    put(store, *made)
    for _ in range(60):
        since = NOON // MINUTE * MINUTE + chance.randrange(3 * 24 * 60) * MINUTE
        until = since + chance.choice([1, 59, 60, 61, 119, 121, 1440, 4000]) * MINUTE
        assert total(store, since, until).jobs == sum(since <= record.started_ns < until for record in made)


def test_totals_by_action_queue_and_step(shop):
    assert {action: cell.jobs for action, cell in shop.totals(NOON, NOON + DAY).items()} == {
        "shop.jobs.Mail#perform": 3,
        "shop.tasks#send": 1,
        None: 1,
    }
    assert {queue: cell.jobs for queue, cell in shop.queue_totals(NOON, NOON + DAY).items()} == {
        "mail": 2,
        "slow": 1,
        None: 2,
    }
    series = shop.series(NOON, NOON + DAY, step_ns=HOUR)
    assert {(at - NOON) // HOUR: cell.jobs for at, cell in series.items()} == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}
    by_minute = shop.series(NOON, NOON + DAY, step_ns=10 * MINUTE, action="shop.tasks#send")
    assert {(at - NOON) // MINUTE: cell.killed for at, cell in by_minute.items()} == {60: 1}


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_five_percent(store, seed):
    chance = random.Random(seed)
    durations = [max(1, int(chance.lognormvariate(chance.choice([8, 14, 20]), 2))) for _ in range(2000)]
    put(store, *(job(n, duration=d, queue_time_ms=d / 1e6) for n, d in enumerate(durations)))
    cell = total(store)
    durations.sort()
    assert cell.sum_ns == sum(durations)
    assert cell.max_ns == durations[-1]
    assert cell.mean_ns == sum(durations) / 2000
    for share in (0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0):
        exact = durations[max(-(-int(share * 2000) // 1), 1) - 1]
        assert cell.percentile_ns(share) == pytest.approx(exact, rel=0.05)
        assert cell.queue_percentile_ns(share) == pytest.approx(exact, rel=0.05)


@given(st.integers(1, 2**63 - 1))
def test_a_bucket_stands_for_its_durations_within_five_percent(duration):
    assert histogram.middle(histogram.bucket(duration)) == pytest.approx(duration, rel=0.05)


@given(st.dictionaries(st.integers(0, 510), st.integers(1, 2**62)))
def test_histograms_are_packed_without_loss(counts):
    assert histogram.unpack(histogram.pack(counts)) == counts


def test_nothing_has_no_percentile(store):
    assert total(store).percentile_ns(0.5) is None
    assert total(store).mean_ns is None


def test_what_was_only_counted_is_added_once(store):
    rows = [Counted("a#run", 7, 2, 700), Counted(None, 3, 0, 30)]
    for _ in range(2):
        with store.transaction():
            store.set_counted(UID, rows)
    assert (total(store).counted, total(store).counted_errors, total(store).sum_ns) == (10, 2, 730)
    with store.transaction():
        added = store.set_counted(UID, [Counted("a#run", 9, 2, 900)])
    assert added == 2
    with store.transaction():  # a number seen while it is being stored may look smaller
        assert store.set_counted(UID, [Counted("a#run", 0, 0, 0)]) == 0
        assert store.set_counted(b"another!", [Counted("a#run", 1, 0, 5)]) == 1
    assert {action: cell.jobs for action, cell in store.totals(0, 2**62).items()} == {"a#run": 10, None: 3}
    assert total(store).errors == 2


# -- errors ------------------------------------------------------------------------------------------------------------


def info(class_name="E", message="m", files=(("/srv/app/a.py", "f", True),)):
    return ExceptionInfo(class_name, message, [Frame(file, 1, name, in_app) for file, name, in_app in files])


SAME = [
    (info(message="a"), info(message="b")),
    (info(files=[("/srv/releases/17/app/a.py", "f", True)]), info(files=[("/srv/releases/18/app/a.py", "f", True)])),
    (info(files=[("/lib/x.py", "g", False), ("/srv/app/a.py", "f", True)]), info()),
    (info(files=[("/srv/app/a.py", "f", True)] * 3), info()),
    (info(message="user 17 not found", files=[]), info(message="user 18 not found", files=[])),
    (info(message="no 'a'", files=[]), info(message="no 'b'", files=[])),
    (info(files=[("C:\\app\\shop\\a.py", "f", True)]), info(files=[("D:/app/shop/a.py", "f", True)])),
]
DIFFERENT = [
    (info("E"), info("F")),
    (info(), info(files=[("/srv/app/b.py", "f", True)])),
    (info(), info(files=[("/srv/app/a.py", "g", True)])),
    (info(message="user not found", files=[]), info(message="order not found", files=[])),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_error_has_one_fingerprint(one, other):
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_errors_have_different_fingerprints(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_errors_are_grouped_with_the_latest_message(store):
    put(store, failing(1, start=NOON + HOUR, message="late"), failing(2, start=NOON, message="early"))
    put(store, failing(3, start=NOON + 2 * HOUR, message="last", function="Mail.other"))
    newest, older = store.errors()
    assert (newest.message, newest.total, newest.class_name) == ("last", 1, "builtins.ValueError")
    assert (older.message, older.total, older.first_ns, older.last_ns) == ("late", 2, NOON, NOON + HOUR)
    assert older.last_job == record_id(UID, 1)
    assert older.action == "shop.jobs.Mail#perform"
    assert older.frames == [["/app/shop/jobs.py", 7, "Mail.perform", 1]]
    assert [record.id for record in stored(store, error=older.id)] == [record_id(UID, n) for n in (1, 2)]
    assert store.error_hours(older.id, 0) == {NOON: 1, NOON + HOUR: 1}
    assert [group.id for group in store.errors(since_ns=NOON + 2 * HOUR)] == [newest.id]
    assert len(store.errors(limit=1)) == 1


def test_an_ignored_exception_makes_no_error(store):
    put(store, job(1, "ignored", exception=info()))
    assert store.errors() == []
    assert stored(store)[0].exception == info()


# -- processes ---------------------------------------------------------------------------------------------------------


def test_processes(store):
    said = {"service": "shop", "host": "h", "environment": "e", "revision": "r", "argv": ["worker.py"]}
    with store.transaction():
        process = store.enter_process(ProcessInfo(UID, 17, NOON, said))
        assert store.enter_process(ProcessInfo(UID, 17, NOON, said)) == process
        store.insert([job(1)], process)
        store.process_seen(process, NOON + HOUR)
        store.process_seen(process, NOON)
        store.process_status(process, {"digest": "d", "rules": []})
    record = stored(store)[0]
    assert (record.pid, record.host, record.service, record.environment, record.revision) == (17, "h", "shop", "e", "r")
    (found,) = store.processes(living=True)
    assert (found.uid, found.description, found.status) == (UID.hex(), said, {"digest": "d", "rules": []})
    assert (found.started_ns, found.last_seen_ns, found.how) == (NOON, NOON + HOUR, None)
    assert store.last_seen(UID) == NOON + HOUR
    with store.transaction():
        store.process_ended(process, "gone")
        store.process_ended(process, "SIGKILL")
        store.process_ended(process, "killed")
    assert store.processes(living=True) == []
    assert store.processes(living=False)[0].how == "SIGKILL"


def test_processes_that_say_the_same_share_one_description(store):
    said = {"argv": ["worker.py"], "env": {"A": "b" * 500}}
    with store.transaction():
        for n in range(50):
            store.enter_process(ProcessInfo(n.to_bytes(8, "big"), 100 + n, NOON, said))
    assert store._con.execute("SELECT count(*) FROM description").fetchone()[0] == 1
    assert all(process.description == said for process in store.processes())


# -- files that are no store -------------------------------------------------------------------------------------------


def test_the_file_is_private(store):
    put(store, job(1))
    for name in os.listdir(os.path.dirname(store.path)):
        mode = os.stat(os.path.join(os.path.dirname(store.path), name)).st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_a_newer_store_is_refused_and_left_alone(tmp_path):
    path = str(tmp_path / "s.sqlite3")
    with Store(path) as store:
        put(store, job(1))
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    con.close()
    for readonly in (False, True):
        with pytest.raises(StoreError, match="newer autoinst"):
            Store(path, readonly=readonly)
    with pytest.raises(StoreError, match="newer autoinst"):
        open_repaired(path)
    assert os.listdir(tmp_path) == ["s.sqlite3"]


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = str(tmp_path / "s.sqlite3")
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE theirs(x)")
    con.commit()
    con.close()
    with pytest.raises(StoreError, match="not autoinst's"):
        open_repaired(path)
    con = sqlite3.connect(path)
    assert [row[0] for row in con.execute("SELECT name FROM sqlite_master")] == ["theirs"]
    con.close()


def test_a_database_cut_short_while_being_made_is_made_anew(tmp_path):
    path = tmp_path / "s.sqlite3"
    path.write_bytes(b"")
    with Store(str(path)) as store:
        put(store, job(1))
        assert store.count() == 1


def test_migrating_is_all_or_nothing(tmp_path, monkeypatch):
    path = str(tmp_path / "s.sqlite3")
    good = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*good[:-1], good[-1] + "; CREATE TABLE broken("))
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*good, "CREATE TABLE extra(x)"))
    monkeypatch.setattr(schema, "VERSION", len(good) + 1)
    with Store(path) as store:
        put(store, job(1))
        assert store._con.execute("PRAGMA user_version").fetchone()[0] == len(good) + 1
        assert store._con.execute("SELECT count(*) FROM extra").fetchone()[0] == 0


def test_an_older_store_is_brought_up_to_date(tmp_path, monkeypatch):
    path = str(tmp_path / "s.sqlite3")
    with Store(path) as store:
        put(store, job(1))
    before = schema.VERSION
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE extra(x)"))
    monkeypatch.setattr(schema, "VERSION", before + 1)
    with pytest.raises(StoreError, match=f"version {before}"):
        Store(path, readonly=True)
    with Store(path) as store:
        assert store.count() == 1
        assert store._con.execute("SELECT count(*) FROM extra").fetchone()[0] == 0


def test_opening_it_again_leaves_the_locks_of_what_is_open_in_this_process(tmp_path):
    path = str(tmp_path / "s.sqlite3")
    code = "import sys; from autoinst.store.sqlite import Store; from autoinst.record import Record\n"
    code += "with Store(sys.argv[1]) as s, s.transaction(): s.insert([Record(sys.argv[2] * 32, 'ok', 1)])"
    subprocess.run([sys.executable, "-c", code, path, "1"], check=True)
    with Store(path, readonly=True) as reader:
        assert reader.count() == 1
        Store(path).close()
        # Where the reader's lock is lost, the last writer takes the log away that it reads.
        for number in (2, 3):
            subprocess.run([sys.executable, "-c", code, path, str(number)], check=True)
            assert reader.count() == number


@pytest.mark.parametrize("damage", ["text", "header", "middle"])
def test_a_damaged_database_is_moved_aside(tmp_path, damage):
    path = tmp_path / "s.sqlite3"
    with Store(str(path)) as store:
        put(store, *(job(n, args=["x" * 100]) for n in range(200)))
        store.checkpoint()
    raw = bytearray(path.read_bytes())
    if damage == "text":
        raw[:] = b"no database at all, " * 100
    elif damage == "header":
        raw[:100] = os.urandom(100)
    else:
        raw[100:16384] = b"\xff" * (16384 - 100)
    path.write_bytes(raw)
    with pytest.raises(CorruptStoreError):
        Store(str(path), readonly=True)
    store, aside = open_repaired(str(path))
    with store:
        assert store.count() == 0
        put(store, job(1))
        assert [problem.kind for problem in store.problems()] == ["store"]
    assert aside is not None
    assert Path(aside).read_bytes() == raw
    # Twice in the same second: neither is overwritten.
    path.write_bytes(b"no database at all, " * 100)
    again, other = open_repaired(str(path))
    again.close()
    assert other not in (None, aside)
    assert Path(aside).read_bytes() == raw


def test_a_locked_store_is_an_error_after_the_timeout(tmp_path):
    path = str(tmp_path / "s.sqlite3")
    with Store(path) as first, Store(path, timeout=0.05) as second:
        with first.transaction():
            first.insert([job(1)])
            with pytest.raises(StoreError, match="locked"):
                put(second, job(2))
            assert second.count() == 0  # readers are not kept out
        put(second, job(2))
        assert first.count() == 2


def test_a_missing_store_cannot_be_read(tmp_path):
    with pytest.raises(StoreError, match="unable to open"):
        Store(str(tmp_path / "none.sqlite3"), readonly=True)


def test_a_readonly_store_cannot_be_written(tmp_path):
    path = str(tmp_path / "s.sqlite3")
    Store(path).close()
    with Store(path, readonly=True) as store, pytest.raises(StoreError, match="readonly"):
        put(store, job(1))


def test_problems_are_counted(store):
    with store.transaction():
        store.note_problem("spool", "x")
        store.note_problem("spool", "x", 2)
        store.note_problem("torn", "y")
    assert {(problem.kind, problem.detail, problem.times) for problem in store.problems()} == {
        ("spool", "x", 3),
        ("torn", "y", 1),
    }


def test_json_of_a_stored_record_is_json(shop):
    for record in shop.jobs(JobFilter()):
        assert json.loads(json.dumps(record.to_json()))["id"] == record.id
