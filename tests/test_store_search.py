"""The search language: what it finds is what each job says, however it is looked up; mistakes have their place."""

from __future__ import annotations

import random

import pytest

from autoinst.record import Event, ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.search import SearchError, Value, parse
from autoinst.store.sqlite import Store

NOW = 1_700_000_000 * 10**9
SECOND = 10**9
HOUR = 3600 * SECOND


def some_job(random_, n):
    status = random_.choice(["ok", "ok", "ok", "error", "ignored", "killed"])
    action = random_.choice(["shop.Mail#perform", "shop.Stock#run", "shop.Mail_Merge#perform", None])
    record = Record(record_id(b"12345678", n), status, NOW - n * 600 * SECOND, action=action)
    record.queue = random_.choice(["mail", "email", None])
    record.duration_ns = random_.choice([None, 5_000_000, SECOND, 90 * SECOND])
    record.queue_time_ms = random_.choice([None, 0.5, 4000.0])
    record.attempts = random_.choice([None, 1, 2, 3])
    record.job_id = random_.choice([None, f"job-{n % 7}", f"00000000-0000-0000-0000-{n % 5:012d}"])
    record.tags = random_.choice([{}, {"tenant": 42}, {"tenant": "acme", "deep": {"er": [1, "x"]}}])
    record.args = random_.choice([None, [1, "two"], [{"order": 7}]])
    record.kwargs = random_.choice([None, {"order": 17, "name": "Ada"}, {"order": {"id": 5}}])
    if status == "error":
        frames = [Frame("/app/jobs.py", 7, "perform", in_app=True)]
        name, message = random_.choice([("builtins.ValueError", "no items"), ("net.Timeout", 'said "100% late"')])
        record.exception = ExceptionInfo(name, message, frames)
    if n % 3 == 0:
        record.events = [Event("query.sql", "SELECT", "SELECT * FROM item", 0, 1000, None)]
    if n % 11 == 0:
        record.trace_id = record_id(b"12345678", 1)
    return record


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    random_ = random.Random(7)
    with Store(str(tmp_path_factory.mktemp("search") / "s.sqlite3")) as store:
        records = [some_job(random_, n) for n in range(400)]
        with store.transaction():
            for half, (service, revision) in enumerate([("shop", "r1"), ("billing", "r2")]):
                said = {"service": service, "revision": revision, "host": f"host{half}", "environment": "production"}
                process = store.enter_process(ProcessInfo(bytes([half] * 8), 100 + half, NOW - HOUR, said))
                store.insert(records[half * 200 : half * 200 + 200], process)
        yield store, list(store.jobs(JobFilter(limit=0)))


SEARCHES = [
    "",
    "action:mail",
    'action:"shop.Mail#perform"',
    'action:"shop.Mail"',
    "action:shop.*#run",
    "action:Mail_",
    "-action:mail",
    "status:error",
    "status:ok",
    "status:error,killed action:mail",
    "-status:ok",
    "queue:mail",
    "queue:*mail",
    "queue:mail,email -status:ok",
    "-queue:mail",
    "duration>1s",
    "duration>=1s",
    "duration<10",
    "-duration>1s",
    "wait>1s",
    "attempts>=2",
    "attempts:1",
    "error:timeout",
    "error:builtins.*",
    "-error:timeout",
    "status:error error:value action:mail",
    "tag.tenant:42",
    "tag.tenant:acme,42",
    "tag.tenant>40",
    "tag.deep.er.1:x",
    "-tag.tenant:42",
    "args.order:17",
    "args.order.id:5",
    "args.1:two",
    "args.0.order:7",
    "kwargs.name:ada",
    "job:job-3",
    "job:00000000-0000-0000-0000-000000000003",
    "-job:job-3",
    "service:shop",
    "-service:shop",
    "revision:r2 host:host1",
    "environment:prod*",
    "pid:100",
    "pid>100",
    '"no items"',
    '"said \\"100% late"',
    "-tenant",
    "job-3",
    "item",
    "since:2h",
    "since:30h until:20h action:stock",
    "nothing-like-it",
    "queue:nothing",
    f"id:{record_id(b'12345678', 5)}",
    "id:31 status:ok",
]


@pytest.mark.parametrize("text", SEARCHES)
def test_a_search_finds_what_each_job_says(filled, text):
    store, everything = filled
    search = parse(text, NOW)
    wanted = JobFilter(limit=0, search=search, since_ns=search.since_ns, until_ns=search.until_ns)
    expected = [record.id for record in everything if wanted.matches(record)]
    assert [record.id for record in store.jobs(JobFilter(limit=0, search=search))] == expected
    paged: list[str] = []
    before = None
    while True:
        page = store.page(JobFilter(limit=7, search=search, before=before), 60.0)
        assert page.complete
        paged += [record.id for record in page.records]
        before = page.before
        if before is None:
            break
        assert len(page.records) == 7
    assert paged == expected


def test_a_trace_is_found_by_any_of_its_jobs(filled):
    store, everything = filled
    root = record_id(b"12345678", 1)
    members = {record.id for record in everything if root in (record.id, record.trace_id)}
    assert {record.id for record in store.jobs(JobFilter(limit=0, search=parse(f"trace:{root}", NOW)))} == members
    assert {record.id for record in store.trace(root, 100)} == members
    assert len(members) > 30
    assert store.trace("no id", 9) == []


def test_searching_stops_in_time_and_says_where(filled):
    store, everything = filled
    before = None
    found: list[str] = []
    for _ in range(len(everything) * 2):
        page = store.page(JobFilter(limit=1000, search=parse("tag.tenant:42", NOW), before=before), 0.0)
        found += [record.id for record in page.records]
        if page.complete:
            break
        assert page.before is not None or before is None
        before = page.before
    assert set(found) <= {record.id for record in everything if record.tags.get("tenant") == 42}
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("text", "at", "message", "hint"),
    [
        ("acton:x", 0, "no 'acton'", "did you mean action?"),
        ("queue:mail statos:ok", 11, "no 'statos'", "did you mean status?"),
        ("status:eror", 0, "no status 'eror'", "did you mean error?"),
        ("status:ok status:error", 10, "both statuses", ""),
        ("queue:", 6, "a value is missing", ""),
        ('"open', 0, "closing quote", ""),
        ('queue:"open', 6, "closing quote", ""),
        ("duration>soon", 9, "no number", "500ms"),
        ("duration>1,2", 9, "no number", ""),
        ("attempts>2s", 9, "has no unit", ""),
        ("queue>3", 5, "no number", ""),
        ("tag:x", 0, "say which", ""),
        ("since:yesterday", 0, "neither a span", ""),
        ("duration>" + "9" * 400, 9, "no number", ""),
        ("a " * 40, 60, "more than 30", ""),
        ("x" * 3000, 2000, "longer than", ""),
    ],
)
def test_a_mistake_is_told_with_its_place(text, at, message, hint):
    with pytest.raises(SearchError, match=message) as caught:
        parse(text, NOW)
    assert caught.value.at == at
    assert hint in caught.value.hint


def test_a_value_is_never_a_pattern_of_sql():
    assert Value("100%_\\").pattern(containing=False) == "100\\%\\_\\\\"
    assert Value("a*b", exact=True).pattern(containing=True) == "a*b"
