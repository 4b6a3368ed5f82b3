"""What each exporter sends a second, and the bytes a job takes on the wire, to a receiver on loopback that only reads.

python -m benchmarks.export [--jobs 20000] [--json]

Items a second are of one core: by the CPU time of the sending process, which other work on the machine disturbs least.

Jobs are of 20 actions, each with its own duration, job id and arguments; three in four have three events, one in fifty
failed. A feed is what the agent runs: from the store to the receiver, batches and cursors stored.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from autoinst.export.clickhouse import Connection, Jobs
from autoinst.export.exposition import render
from autoinst.export.pump import IDLE, Pump
from autoinst.export.settings import choose
from autoinst.export.watch import CURSOR
from autoinst.record import Event, ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Version
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from collections.abc import Iterable

ACTIONS = 20
BATCH = 4096
CHECK_IN = {"type": "cron", "schedule": None, "timezone": "UTC", "every": None, "grace": 60, "where": "x"}
# Answers any POST with an empty 200, as OTLP has it.
RECEIVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
FORMS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("otlp/traces", "OTLP traces, protobuf", {}),
    ("otlp/traces", "OTLP traces, JSON", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}),
    ("otlp/metrics", "OTLP metrics, protobuf", {}),
    ("appsignal/traces", "AppSignal traces", {}),
    ("appsignal/metrics", "AppSignal queue times", {}),
    ("appsignal/check_ins", "AppSignal check-ins, every job one", {}),
    ("webhook", "webhook, one notice a failed job", {}),
    ("clickhouse", "ClickHouse, jobs", {}),
)


def jobs(number: int) -> Iterable[Record]:
    """Yield jobs that differ as those of a program do."""
    chance = random.Random(1)
    uid, start = os.urandom(8), time.time_ns() - number * 1_000_000
    for n in range(number):
        action = chance.randrange(ACTIONS)
        record = Record(record_id(uid, n), "ok", start + n * 1_000_000, name="perform_job.rq")
        record.class_name, record.method = f"shop.jobs.Job{action}", "perform"
        record.action = f"{record.class_name}#perform"
        record.queue, record.queue_time_ms = chance.choice(("mail", "default", "slow")), chance.random() * 1000
        record.attempts, record.duration_ns = 1, chance.randrange(10**6, 10**9)
        record.job_id, record.args = (
            f"{chance.getrandbits(128):032x}",
            [chance.getrandbits(40), f"user-{chance.random()}"],
        )
        record.service, record.environment, record.revision = "shop", "production", "abc123"
        record.host, record.pid, record.thread, record.rule = "box", 42, "MainThread", "rq.yaml:8"
        record.tags = {"tenant": f"t{chance.randrange(1000)}", "check_in.cron": f"job-{action}"}
        if n % 4:
            statement = f"SELECT * FROM orders_{chance.randrange(50)} WHERE id = ? AND state = ?"
            record.events = [
                Event("query.postgresql", "SELECT", statement, chance.randrange(10**5), chance.randrange(10**6), None),
                Event("request.urllib3", None, f"GET https://api.example/{chance.random()}", 10**5, 10**6, None),
                Event("render.pdf", "invoice", None, 10**6, chance.randrange(10**6), None),
            ]
        if n % 50 == 0:
            record.status = "error"
            frames = [Frame(f"/app/shop/{chance.choice('abc')}.py", chance.randrange(99), "perform", True)] * 8
            record.exception = ExceptionInfo(f"shop.Error{n}", f"no item {chance.random()}", frames)
        yield record


def fill(path: str, number: int) -> None:
    with Store(path) as store:
        with store.transaction():
            store.add_feed(CURSOR, 0)  # or all errors would be known
        batch: list[Record] = []
        for record in jobs(number):
            batch.append(record)
            if len(batch) == BATCH:
                insert(store, batch)
                batch = []
        insert(store, batch)


def insert(store: Store, batch: list[Record]) -> None:
    with store.transaction():
        store.insert(batch)


def measure(path: str, url: str, name: str, more: dict[str, str]) -> dict[str, float]:
    """Send all there is by one feed; return items, items a second, and bytes an item."""
    environ = {
        "AUTOINST_EXPORTERS": name.partition("/")[0],
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "APPSIGNAL_COLLECTOR_ENDPOINT": url,
        "APPSIGNAL_LOGGING_ENDPOINT": url,
        "APPSIGNAL_PUSH_API_KEY": "00-key",
        "AUTOINST_WEBHOOK_URL": url,
        **more,
    }
    os.environ["NO_PROXY"] = "*"
    feeds = choose(environ, {"check_ins": {"job-0": CHECK_IN}}, os.path.dirname(path)).feeds
    [feed] = [clickhouse(url, path)] if name == "clickhouse" else [feed for feed in feeds if feed.name == name]
    name = feed.name
    with Store(path) as store, store.transaction():
        store._con.execute("DELETE FROM feed WHERE name = ?", (name,))
    pump = Pump(feed, path, logging.getLogger("autoinst.benchmark"))
    began = time.process_time()
    while pump.turn(all_now=True).wait != IDLE:
        assert not pump.trouble, pump.trouble
    took = time.process_time() - began
    pump.close()
    with Store(path, readonly=True) as store:
        row = store.feed(name)
    assert row is not None
    return {"items": row.jobs, "a second": row.jobs / took, "bytes": row.bytes / row.jobs}


def clickhouse(url: str, path: str) -> Jobs:
    """Return the feed of jobs to a receiver that says nothing, as ClickHouse does, and cannot tell its version."""
    feed = Jobs(Connection(parse(f"{url.replace('http', 'clickhouse')}/shop"), path))
    feed.connection.client._version = Version("26.9")
    return feed


def scrape(path: str) -> dict[str, float]:
    """Return what one scrape takes (ms), and its bytes."""
    chosen = choose({"AUTOINST_EXPORTERS": "prometheus", "AUTOINST_PROMETHEUS_LISTEN": "127.0.0.1:9464"}, {})
    maker: Any = chosen.services[0]._maker  # type: ignore[attr-defined]
    times = []
    for _ in range(10):
        began = time.process_time()
        with Store(path, readonly=True) as store:
            data = render(maker.families(store), openmetrics=True)
        times.append(time.process_time() - began)
    return {"ms": sorted(times)[5] * 1e3, "bytes": len(data), "series": data.count(b"_count{")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "store.sqlite3")
            fill(path, options.jobs)
            found: dict[str, dict[str, float]] = {title: measure(path, url, name, more) for name, title, more in FORMS}
            found["Prometheus, one scrape"] = scrape(path)
    finally:
        receiver.kill()
        receiver.wait()
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':36} {'items/s':>10} {'bytes an item':>14}")
    for title, values in found.items():
        if "ms" in values:
            print(f"{title}: {values['ms']:.1f} ms, {values['bytes']:,.0f} bytes, {values['series']:.0f} histograms")
        else:
            print(f"{title:36} {values['a second']:>10,.0f} {values['bytes']:>14.1f}")


if __name__ == "__main__":
    main()
