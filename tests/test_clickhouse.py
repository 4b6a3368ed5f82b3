"""ClickHouse answers as SQLite does: the same records in both, of two machines, and every question a reader can ask."""

from __future__ import annotations

import itertools
import json
import shutil
import time
import types
from typing import Any

import pytest

from autoinst.record import Event, Killed, Record
from autoinst.spool.counted import Counted
from autoinst.spool.layout import record_id
from autoinst.store import overflow
from autoinst.store.failures import STATES
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.search import parse
from autoinst.store.sqlite import Store
from tests import webdata
from tests.clickhouses import Chdb, Debian, read, ship
from tests.exported import rich
from tests.webdata import HOUR, MINUTE, SECOND

pytestmark = [pytest.mark.once, pytest.mark.service]

NOW = time.time_ns() // SECOND * SECOND + 123_456_789
COUNTED_AT = NOW - 20 * MINUTE
SERVERS: dict[str, type[Chdb | Debian]] = {"current": Chdb, "debian": Debian}
SEARCHES = (
    "",
    "action:mail",
    'action:"shop.mail.InvoiceMailer#perform"',
    "action:*Mail*",
    "-action:shop",
    "status:error",
    "status:error,killed",
    "-status:ok",
    "queue:mail,payments",
    "-queue:mail",
    "queue:m*",
    "duration>1s",
    "duration<=20ms",
    "-duration>1s",
    "wait>1s",
    "wait>=140ms wait<300ms",
    "attempts>=2",
    "attempts:1 queue:payments",
    "-attempts>=1",
    "error:Timeout",
    "error:*Declined",
    "-error:Timeout status:error",
    "job:P-1",
    "-job:P-1 queue:payments",
    "service:shop-worker",
    "service:shop*",
    "-service:shop-worker",
    "host:worker-2",
    "environment:production",
    "revision:9b07e31",
    "pid:4100",
    "pid>4050",
    "name:perform_job.rq",
    "name:perform*",
    "tag.tenant:acme",
    "tag.tenant:ACME,globex",
    "-tag.tenant:acme queue:mail",
    "tag.tenant:a*e queue:payments",
    "args.order:10*",
    "args.order>10500",
    "args.0:13",
    "args.1.a:null",
    "tag.street:strasse",
    "Straße",
    "strasse",
    "tag.size>2",
    "tag.ratio:0.5",
    'tag.quote:"say \\"hi\\"\\\\now"',
    "invoice.html",
    '"no answer within 30 s"',
    "-gateway.example queue:payments",
    '"%"',
    "action:%",
    "queue:_ail",
    "o'clock",
    "id:3fe02125",
    "since:90m",
    "until:1h status:error",
    "status:error -error:Timeout duration>10ms queue:payments,imports",
)


def others(uid: bytes) -> list[Record]:
    """Return records with what webdata's lack."""
    everything = rich(1)
    everything.id, everything.started_ns = record_id(uid, 900), NOW - 50 * MINUTE + uid[-1]
    # No two machines have the same, so that it is told which is the longest.
    for event in everything.events:
        event.duration_ns = event.duration_ns + uid[-1] if event.duration_ns else (None, 5)[uid[-1] - 1]
    bare = Record(record_id(uid, 901), "ok", NOW - 49 * MINUTE - 1)
    odd = Record(record_id(uid, 902), "ok", NOW - 48 * MINUTE, action="a'b\\c%_#x", queue="tab\there")
    odd.tags = {"street": "Straße", "quote": 'say "hi"\\now', "nul": "\0", "when": "o'clock", "%": 1}
    odd.args, odd.kwargs = [1, 2.5, None, True, 10**20], {"deep": {"deeper": [{"x": "y"}]}}
    odd.job_id, odd.duration_ns = "0190a6e2-4f2c-7cc1-8b3a-2f2d1e0c9b8a", 1
    odd.clock_skew = odd.truncated = True
    odd.queue_time_ms, odd.attempts = 0.0, 7
    odd.events = [Event("query.sql", None, "SELECT 1", 0, uid[-1], None)]
    lost = Record(record_id(uid, 903), "killed", NOW - 47 * MINUTE + uid[-1], action="shop.lost", pid=3)
    lost.killed = Killed(3, "SIGKILL", "query.sql")
    return [everything, bare, odd, lost]


def fill(store: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store what the agent of one machine would."""
    webdata.fill(store, NOW, hours=2, seed=seed)
    uid = b"machine" + bytes([seed])
    info = ProcessInfo(uid, 4100 + seed, NOW - HOUR, {"service": "späti", "host": f"worker-{seed}", "revision": "r1"})
    with store.transaction():
        process = store.enter_process(info)
        store.insert(others(uid), process)
        dying = [Record(record_id(uid, n), "killed", NOW - n * SECOND, action="shop.killed", queue="q") for n in (1, 2)]
        store.insert(dying, process)
    with monkeypatch.context() as patched:
        patched.setattr(overflow, "time", types.SimpleNamespace(time_ns=lambda: COUNTED_AT))
        with store.transaction():
            store.set_counted(uid, [Counted("shop.counted", 1000 + seed, 10, 10**9, 5 * 10**6, {180: 1000 + seed})])
    with store.transaction():  # one of the dead lived on; of the other no record is kept
        store.insert([Record(record_id(uid, 1), "ok", NOW - SECOND, action="shop.killed", duration_ns=5)], process)
        late = Record(record_id(uid, 2), "ok", NOW - 2 * SECOND, action="shop.killed", queue="q", duration_ns=7)
        store.count_left_out(uid, [late], process, freed=True)
    if seed == 1:
        webdata.retried(store, NOW)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Return the paths of two machines' stores, and that of one which has all of both."""
    folder = tmp_path_factory.mktemp("stores")
    patch = pytest.MonkeyPatch()
    paths = [str(folder / f"{name}.sqlite3") for name in ("one", "two", "all")]
    for path, seeds in zip(paths, ((1,), (2,), (1, 2)), strict=True):
        with Store(path) as store:
            for seed in seeds:
                fill(store, seed, patch)
    return paths


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request):
    with SERVERS[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def address(server, local):
    address = server.make()
    for path in local[:2]:
        assert ship(path, address) > 500
    return address


@pytest.fixture
def both(local, address):
    with Store(local[2], readonly=True) as sqlite, read(address) as clickhouse:
        yield sqlite, clickhouse


def same(both, ask):
    sqlite, clickhouse = both
    expected = ask(sqlite)
    assert ask(clickhouse) == expected
    return expected


def test_the_data_is_the_same_at_every_hour(tmp_path):
    found = []
    for hours in (0, 9):
        with Store(str(tmp_path / f"{hours}.sqlite3")) as store:
            records = webdata.fill(store, NOW + hours * HOUR, hours=2)
        found.append([(r.action, r.status, r.started_ns - hours * HOUR, r.kwargs) for r in records])
    assert found[0] == found[1]


def test_every_job_comes_back_whole(both):
    found = same(both, lambda store: [record.to_json() for record in store.jobs(JobFilter(limit=0))])
    assert len(found) > 800
    assert same(both, lambda store: store.count()) == len(found)
    assert {job["status"] for job in found} == {"ok", "error", "ignored", "killed"}


def test_the_search_language_finds_the_same(both):
    sqlite, clickhouse = both
    for text in SEARCHES:
        wanted = JobFilter(limit=0, search=parse(text, NOW))
        expected = [record.id for record in sqlite.jobs(wanted)]
        assert [record.id for record in clickhouse.jobs(wanted)] == expected, text


def test_the_searches_of_this_battery_find_something(local):
    with Store(local[2], readonly=True) as store:
        few = [text for text in SEARCHES if not list(store.jobs(JobFilter(limit=1, search=parse(text, NOW))))]
    # Nothing has these; that both say so is what they are there for.
    assert few == ["queue:_ail"]


FILTERS: list[dict[str, Any]] = [
    {"status": frozenset({"killed"})},
    {"action": "shop.mail.InvoiceMailer#perform"},
    {"action": "*Mailer*"},
    {"queue": "mail"},
    {"service": "shop-worker", "limit": 30},
    {"name": "perform_job.python"},
    {"job_id": "0190a6e2-4f2c-7cc1-8b3a-2f2d1e0c9b8a"},
    {"since_ns": NOW - HOUR, "until_ns": NOW - 30 * MINUTE},
    {"id_prefix": "3fe02125cc1a01"},
    {"id_prefix": "zz"},
    {"queue": "", "limit": 5},
]


def test_filters_find_the_same(both):
    for fields in FILTERS:
        wanted = JobFilter(**{"limit": 0, **fields})
        same(both, lambda store, wanted=wanted: [record.id for record in store.jobs(wanted)])


def test_pages_follow_one_another(both):
    for text in ("queue:mail", "tag.tenant:acme status:error", ""):
        search = parse(text, NOW)
        walks = []
        for store in both:
            wanted, ids, pages = JobFilter(limit=40, search=search), [], 0
            while True:
                page = store.page(wanted, 30.0)
                assert page.complete
                ids += [record.id for record in page.records]
                pages += 1
                if page.before is None:
                    break
                wanted = JobFilter(limit=40, search=search, before=page.before)
            walks.append(ids)
            assert pages > 1 or len(ids) < 40
        assert walks[0] == walks[1]
        assert len(set(walks[0])) == len(walks[0])


def test_one_job(both, local):
    with Store(local[2], readonly=True) as store:
        ids = [record.id for record in store.jobs(JobFilter(limit=0))][::97]
    for ident in [*ids, "0" * 32, "no id"]:
        same(both, lambda store, ident=ident: (job := store.job(ident)) and job.to_json())
    # The jobs of the two machines end alike.
    first, last = ids[0][:16], ids[0][-6:]
    assert same(both, lambda store: store.ids_like(first, last, limit=10)) == [ids[0]]
    assert ids[0] in same(both, lambda store: sorted(store.recent_ids(ids[0][-9:], newest=100_000, limit=10)))
    assert same(both, lambda store: store.recent_ids(ids[0][-20:], newest=100_000, limit=10)) == [ids[0]]


def test_a_trace(both):
    root = next(both[0].jobs(JobFilter(limit=1, search=parse("job:P-1 attempts:3", NOW))))
    assert len(same(both, lambda store: [record.id for record in store.trace(root.id, 50)])) == 4
    same(both, lambda store: [record.id for record in store.trace("5b8efff798038103d269b633813fc60c", 50)])
    assert same(both, lambda store: store.trace("0" * 32, 50)) == []


SPANS = {
    "all": (0, NOW + HOUR),
    "an hour": (NOW - HOUR, NOW),
    "within it": (NOW - 17 * MINUTE, NOW - 3 * MINUTE),
    "more": (NOW - 150 * MINUTE, NOW),
    "none": (5, 5),
}


@pytest.mark.parametrize(("since", "until"), SPANS.values(), ids=SPANS)
def test_totals(both, since, until):
    found = same(both, lambda store: store.totals(since, until))
    same(both, lambda store: store.queue_totals(since, until))
    same(both, lambda store: store.queue_totals(since, until, "shop.mail.InvoiceMailer#perform"))
    if since == 0:
        assert found["shop.counted"].counted == 2003
        assert found["shop.killed"].ok == 4
        assert found["shop.killed"].killed == 0
        assert found["shop.killed"].left_out == 2


@pytest.mark.parametrize("step", [MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR])
def test_series(both, step):
    since, until = NOW // HOUR * HOUR - 3 * HOUR, NOW // HOUR * HOUR + HOUR
    found = same(both, lambda store: store.series(since, until, step_ns=step))
    assert len(found) > 1  # right after the hour two of its hours have jobs
    same(both, lambda store: store.series(since, until, step_ns=step, action="shop.search.reindex_document"))
    same(both, lambda store: _steps(store.action_steps(since, until, step_ns=step)))


def _steps(found):
    return {action: sorted(steps) for action, steps in found.items()}


def test_percentiles_are_within_five_percent(both, local):
    action = "shop.search.reindex_document"
    with Store(local[2], readonly=True) as store:
        jobs = store.jobs(JobFilter(limit=0, action=action))
        exact = sorted(record.duration_ns for record in jobs if record.duration_ns is not None)
    cell = both[1].totals(0, NOW + HOUR)[action]
    assert cell.jobs == len(exact)
    for share in (0.5, 0.95, 0.99):
        expected = exact[min(int(share * len(exact)), len(exact) - 1)]
        neighbours = exact[max(int(share * len(exact)) - 2, 0) : int(share * len(exact)) + 2]
        assert any(abs(cell.percentile_ns(share) / value - 1) <= 0.05 for value in [expected, *neighbours])


def test_revisions(both):
    assert len(same(both, lambda store: store.deploys())) == 3
    same(both, lambda store: store.deploys(NOW - 8 * HOUR, 1))
    for revision in ("4f2c1aa", "9b07e31", "r1", "none"):
        same(both, lambda store, revision=revision: store.release(revision, 0, NOW + HOUR))
        same(both, lambda store, revision=revision: store.release(revision, 0, NOW + HOUR, "shop.lost"))


def test_statements(both):
    def ask(store, **more):
        found = [found._replace(id=0) for found in store.statements(NOW - 3 * HOUR, NOW, **more)]
        assert [each.sum_ns for each in found] == sorted((each.sum_ns for each in found), reverse=True)
        return sorted(found)

    assert len(same(both, ask)) > 3
    same(both, lambda store: ask(store, action="shop.stock.StockReport#perform"))
    same(both, lambda store: ask(store, limit=2))


def plain(group):
    return group and group._replace(id=0)


def test_errors(both):
    found = same(both, lambda store: [plain(group) for group in store.errors(limit=0)])
    assert len(found) > 3
    same(both, lambda store: [plain(group) for group in store.errors(since_ns=NOW - HOUR, limit=2)])
    for group in found:
        same(both, lambda store, group=group: plain(store.error(group.fingerprint)))
        same(both, lambda store, group=group: store.error_hours(store.error(group.fingerprint).id, 0))
        ids = same(
            both,
            lambda store, group=group: [
                record.id for record in store.jobs(JobFilter(limit=0, error=store.error(group.fingerprint).id))
            ],
        )
        assert len(ids) == group.total
        text = f"error:{group.fingerprint}"
        assert ids == same(
            both, lambda store, text=text: [r.id for r in store.jobs(JobFilter(limit=0, search=parse(text, NOW)))]
        )
    for wrong in ("", "zz", "0" * 16, "x" * 16):
        assert same(both, lambda store, wrong=wrong: store.error(wrong)) is None
    same(both, lambda store: sorted(map(str, store.all_error_hours(NOW - HOUR).values())))


def group_of(store, fingerprint):
    found = store.error(fingerprint)
    assert found is not None
    return found


def test_incidents(server, local, tmp_path):
    address = server.make()
    path = str(shutil.copy(local[0], tmp_path / "copy.sqlite3"))
    ship(path, address)
    with Store(path) as sqlite, read(address) as clickhouse:
        both = sqlite, clickhouse
        fingerprints = [group.fingerprint for group in sqlite.errors(limit=3)]
        for state, fingerprint in zip(("resolved", "ignored", "resolved"), fingerprints, strict=True):
            with sqlite.transaction():
                sqlite.set_error_state(group_of(sqlite, fingerprint), state)
            clickhouse.set_error_state(group_of(clickhouse, fingerprint), state)
        with pytest.raises(ValueError, match="none of open"):
            clickhouse.set_error_state(group_of(clickhouse, fingerprints[0]), "closed")
        assert same(both, lambda store: store.error_states(0))["ignored"] == 1
        for state in STATES:
            same(both, lambda store, state=state: [plain(group) for group in store.errors(state=state, limit=0)])
        # What was resolved comes again.
        again = next(sqlite.jobs(JobFilter(limit=1, error=group_of(sqlite, fingerprints[0]).id)))
        again.id, again.started_ns = "ab" * 16, time.time_ns() + SECOND
        with sqlite.transaction():
            sqlite.insert([again])
        ship(path, address)
        assert same(both, lambda store: plain(store.error(fingerprints[0]))).reopened
        clickhouse.set_error_state(group_of(clickhouse, fingerprints[1]), "open")
        assert clickhouse.error_states(0)["ignored"] == 0


def test_names_processes_and_the_rest(both):
    sqlite, clickhouse = both
    # SQLite lists the actions of records, ClickHouse those of totals.
    assert set(clickhouse.values("action")) == {*sqlite.values("action"), "shop.counted"}
    for key in ("queue", "name", "service", "host", "environment", "revision", "tag"):
        same(both, lambda store, key=key: store.values(key))

    def plainly(store, **more):
        # When an end was noticed differs between the two by what the test took.
        found = [each._replace(id=0, ended_ns=each.ended_ns and 1) for each in store.processes(**more)]
        return sorted(found, key=lambda process: process.uid)

    assert len(same(both, plainly)) > 5
    assert same(both, lambda store: plainly(store, living=False))
    same(both, lambda store: plainly(store, living=True))
    same(both, lambda store: store.first())
    assert both[1].last() > 0
    assert both[1].problems() == []


def test_what_is_sent_again_changes_nothing(server, local):
    address = server.make()
    for path in (*local[:2], *local[:2]):
        with Store(path) as store, store.transaction():
            store._con.execute("UPDATE feed SET n = 0, upto = NULL, token = NULL")
            if store.sender() is not None:
                store._con.execute("UPDATE sender SET destination = ''")
        assert ship(path, address) > 500
    with Store(local[2], readonly=True) as sqlite, read(address) as clickhouse:
        assert clickhouse.last() >= sqlite.count()
        both = sqlite, clickhouse
        same(both, lambda store: [record.to_json() for record in store.jobs(JobFilter(limit=0))])
        same(both, lambda store: store.totals(0, NOW + HOUR))
        same(both, lambda store: [plain(group) for group in store.errors(limit=0)])
        same(both, lambda store: sorted(found._replace(id=0) for found in store.statements(0, NOW)))


def test_a_job_said_to_be_killed_that_ends_after_it_was_sent(server, tmp_path):
    path, address = str(tmp_path / "store.sqlite3"), server.make()
    uid = b"seems__d"
    names = ("kept", "leftout", "stays")
    dead = [Record(record_id(uid, n), "killed", NOW - n * MINUTE, action=name) for n, name in enumerate(names)]
    with Store(path) as store:
        with store.transaction():
            process = store.enter_process(ProcessInfo(uid, 7, NOW - HOUR, {}))
            store.insert(dead, process)
        ship(path, address)
        with read(address) as clickhouse:
            assert [record.action for record in clickhouse.jobs(JobFilter(status=frozenset({"killed"})))] == [*names]
        ends = [Record(record.id, "ok", record.started_ns, action=record.action, duration_ns=9) for record in dead]
        with store.transaction():
            store.insert(ends[:1], process)
            store.count_left_out(uid, ends[1:2], process, freed=True)
        ship(path, address)
        with read(address) as clickhouse:
            both = store, clickhouse
            assert same(both, lambda s: [(r.action, r.status) for r in s.jobs(JobFilter())]) == [
                ("kept", "ok"),
                ("stays", "killed"),
            ]
            assert same(both, lambda s: s.count()) == 2
            same(both, lambda s: s.totals(0, NOW + HOUR))
            assert same(both, lambda s: [r.action for r in s.jobs(JobFilter(status=frozenset({"killed"})))]) == [
                "stays"
            ]
            assert same(both, lambda s: s.job(dead[1].id)) is None


def test_runs_that_are_numbered_after_they_were_sent(server, tmp_path):
    path, address = str(tmp_path / "store.sqlite3"), server.make()

    def run(number, left, attempts=None):
        record = Record(record_id(b"numbered", number), "error", NOW + number * SECOND, action="a", job_id="j")
        record.tags, record.attempts = {"retries_left": left}, attempts
        return record

    with Store(path) as store:
        with store.transaction():
            store.insert([run(2, 1)])
        ship(path, address)
        with store.transaction():
            store.insert([run(1, 2, attempts=1)])
        ship(path, address)
        with read(address) as clickhouse:
            assert same((store, clickhouse), lambda s: [r.attempts for r in s.jobs(JobFilter())]) == [2, 1]


def test_totals_that_retention_removed_and_a_late_job_makes_anew(server, tmp_path):
    from autoinst.store.retention import Limits

    path, address = str(tmp_path / "store.sqlite3"), server.make()
    old = NOW - 10 * 24 * HOUR
    jobs = [Record(record_id(b"old_jobs", n), "ok", old + n, action="old", duration_ns=10) for n in range(4)]
    with Store(path) as store:
        with store.transaction():
            store.insert(jobs[:3])
        ship(path, address)
        store.forget(Limits(days=5, rollup_days=5), NOW)
        assert store.totals(0, NOW) == {}
        with store.transaction():
            store.insert(jobs[3:])
        ship(path, address)
        ship(path, address)
        with read(address) as clickhouse:
            assert clickhouse.totals(old - HOUR, old + HOUR)["old"].ok == 4
            assert [cell.ok for cell in clickhouse.series(old - HOUR, old + HOUR, step_ns=MINUTE).values()] == [4]


def test_a_home_tells_where_it_is(both):
    homes = both[1].homes()
    assert len(homes) == 2
    assert len({home["home"] for home in homes}) == 2
    assert all(home["host"] and home["path"] and home["at"] > NOW - HOUR for home in homes)


def test_details_are_plain_json_for_whoever_asks_with_sql(address):
    with read(address) as store:
        rows = store.client.rows("SELECT details FROM job WHERE details LIKE '%tenant%' LIMIT 5")
    assert all(json.loads(row["details"])["tags"]["tenant"] for row in rows)


def test_every_reader_method_of_sqlite_is_there():
    from autoinst.store.clickhouse.reader import Server as ServerStore
    from autoinst.store.interface import Readable

    wanted = {name for name in itertools.chain(vars(Readable)) if not name.startswith("_")} - {"path"}
    assert len(wanted) > 20
    for of in (Store, ServerStore):
        assert wanted <= {name for name in dir(of) if not name.startswith("_")}
