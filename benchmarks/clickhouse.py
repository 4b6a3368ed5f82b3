"""What ClickHouse as the store costs: bytes a job, rows inserted a second, how long pages' questions take.

    python -m benchmarks.clickhouse [--jobs 500000] [--times 20] [--server current|debian] [--url clickhouse://...]

The jobs are stored in SQLite and sent as agents send them; then the server copies them, each time as those of another
machine, until there are `times` as many. `current` is the ClickHouse of PyPI's chdb, `debian` that of Debian's package;
an address asks a server of your own, in a database made for this, which is not removed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from autoinst.record import Event
from autoinst.store.clickhouse import rows, schema, totals
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Client
from autoinst.store.clickhouse.reader import Server
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.search import parse as search
from autoinst.store.sqlite import Store
from autoinst.web import charts
from autoinst.web import window as windows
from benchmarks.store import BATCH, plain
from tests.clickhouses import Chdb, Debian, ship

if TYPE_CHECKING:
    from autoinst.store.clickhouse.address import Address

HOUR = 3_600 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=500_000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--server", choices=("current", "debian"), default="current")
    parser.add_argument("--events", action="store_true", help="jobs with arguments, a tag and three events each")
    parser.add_argument("--url")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if options.url:
            address = parse(options.url)
        else:
            server = stack.enter_context((Chdb if options.server == "current" else Debian)())
            address = server.make()
        print(f"ClickHouse {Client(address).version().text}, {os.cpu_count()} cores")
        now = time.time_ns()
        path = os.path.join(folder, "store.sqlite3")
        with Store(path) as store:
            took = fill(store, options.jobs, now - 24 * HOUR, events=options.events)
            print(f"stored on this machine       {options.jobs / took:>12,.0f} jobs/s")
        sent(path, address, options.jobs)
        encoding(path)
        multiply(Client(address, seconds=3600), options.times)
        sizes(address)
        questions(address, now)


def fill(store: Store, jobs: int, start: int, *, events: bool) -> float:
    step = 24 * HOUR // jobs
    spent = 0.0
    uid = os.urandom(8)
    for first in range(0, jobs, BATCH):
        if first % (BATCH * 25) == 0:
            uid = os.urandom(8)
            info = ProcessInfo(uid, 4000 + first // BATCH, start, {"host": "h", "service": "shop"})
        records = [plain(uid, n, start + n * step) for n in range(first, min(first + BATCH, jobs))]
        for n, record in enumerate(records if events else (), first):
            took = record.duration_ns or 0
            record.kwargs, record.tags, record.job_id = {"order": n}, {"tenant": n % 500}, str(uuid.UUID(int=hash(n)))
            record.events = [
                Event("query.sql", "SELECT", f"SELECT * FROM item WHERE id = {n}", took // 9, took // 5, None),
                Event("render.template", "invoice.html", None, took // 3, took // 7, None),
                Event("request.http", "POST mail.example", None, took // 2, took // 3, None),
            ]
        began = time.perf_counter()
        with store.transaction():
            store.insert(records, store.enter_process(info))
        spent += time.perf_counter() - began
    return spent


def sent(path: str, address: Address, jobs: int) -> None:
    begin = time.perf_counter()
    ship(path, address)
    took = time.perf_counter() - begin
    with Store(path) as store:
        feed = store.feed(address.feed)
    assert feed is not None
    print(f"sent, totals included        {jobs / took:>12,.0f} jobs/s")
    print(f"on the wire                  {feed.bytes / feed.jobs:>12,.1f} B/job")


def encoding(path: str) -> None:
    with Store(path) as store:
        some = store.jobs_after(0, 20_000)
    begin = time.perf_counter()
    for _, record in some:
        rows.of_record(record, 1, 1)
    print(f"made into rows               {len(some) / (time.perf_counter() - begin):>12,.0f} jobs/s")


def multiply(client: Client, times: int) -> None:
    number, home = client.one("SELECT count() AS n FROM job"), client.one("SELECT any(home) AS home FROM job")
    begin = time.perf_counter()
    for n in range(1, times):
        changed = f"bitXor(id_high, {n << 8}) AS id_high, start + {n * 1_000} AS start, home + {n} AS home"
        client.run(f"INSERT INTO job SELECT * REPLACE ({changed}) FROM (SELECT * FROM job WHERE home = {home})")
        for table in ("total", "overall", "release", "statement", "error", "error_hour"):
            one = f"(SELECT * FROM {table} WHERE home = {home})"
            client.run(f"INSERT INTO {table} SELECT * REPLACE (home + {n} AS home) FROM {one}")
    took = time.perf_counter() - begin
    print(f"copied within the server     {number * (times - 1) / max(took, 1e-9):>12,.0f} rows/s")


def sizes(address: Address) -> None:
    client = Client(address, seconds=600)
    for table in schema.TABLES:
        with contextlib.suppress(Exception):
            client.run(f"OPTIMIZE TABLE {table}")
    found = schema.facts(client)
    jobs = found["job"]["rows"]
    print(f"jobs                         {jobs:>12,}")
    for table, fact in sorted(found.items(), key=lambda item: -item[1]["bytes"])[:5]:
        print(f"table {table:10}      {fact['rows']:>12,} rows {fact['bytes'] / jobs:>10,.2f} B/job")
    print(f"all tables                   {sum(f['bytes'] for f in found.values()) / jobs:>12,.1f} B/job")


def by_action(store: Server, window: windows.Window) -> object:
    """Ask for the chart as if there were no totals of all actions together."""
    minutes, where = totals._steps(window.since_ns, window.until_ns, window.step_ns)
    step = window.step_ns // totals.NS
    return store.client.rows(
        f"SELECT intDiv(t.at, {step}) * {step} AS step, {totals.CELL} FROM total AS t FINAL"
        f" WHERE t.minutes = {minutes} AND {where} GROUP BY step ORDER BY step"
    )


def questions(address: Address, now: int) -> None:
    window = windows.of({}, now, 0)
    with Server(address) as store:
        one = next(store.jobs(JobFilter(limit=1))).id
        failed = JobFilter(limit=50, status=frozenset({"error", "killed"}))
        tenant = JobFilter(limit=50, search=search("tag.tenant:7 action:4", now))
        asked = {
            "Overview: totals of 24 h": lambda: store.totals(window.since_ns, window.until_ns),
            "Overview: its chart": lambda: store.series(window.since_ns, window.until_ns, step_ns=window.step_ns),
            "the same from totals by action": lambda: by_action(store, window),
            "Overview: small charts": lambda: store.action_steps(
                window.since_ns, window.until_ns, step_ns=charts.coarse(window).step_ns
            ),
            "newest 50 jobs": lambda: list(store.jobs(JobFilter(limit=50))),
            "newest 50 failures": lambda: list(store.jobs(failed)),
            "newest 50 of an action": lambda: list(store.jobs(JobFilter(limit=50, action="shop.jobs.Job4#perform"))),
            "search by tag and action": lambda: store.page(tenant, 10.0),
            "one job by its id": lambda: store.job(one),
            "last six digits of an id": lambda: store.ids_like(one[:6], one[-6:], limit=10),
            "statements of 24 h": lambda: store.statements(window.since_ns, window.until_ns),
            "errors": store.errors,
            "whether there is more": store.last,
        }
        for name, ask in asked.items():
            ask()
            took = []
            for _ in range(5):
                begin = time.perf_counter()
                ask()
                took.append(time.perf_counter() - begin)
            print(f"{name:28} {sorted(took)[2] * 1000:>12,.1f} ms")


if __name__ == "__main__":
    main()
