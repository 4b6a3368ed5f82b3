"""The store with many jobs: rows a second, bytes a job, the questions people ask most, and the web pages over it.

python -m benchmarks.store [--jobs 1000000] [--keep FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from typing import TYPE_CHECKING, Any

from autoinst.agent.service import FORGET_BATCHES
from autoinst.record import ExceptionInfo, Frame, Record
from autoinst.spool.layout import record_id
from autoinst.store.processes import ProcessInfo
from autoinst.store.query import JobFilter
from autoinst.store.retention import Limits
from autoinst.store.sqlite import Store
from benchmarks import web

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_NS = 86_400_000_000_000
BATCH = 4096
ACTIONS = 20
FAILING = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--keep", help="where to leave the database")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.keep or os.path.join(folder, "store.sqlite3"), options.jobs)
    if options.json:
        print(json.dumps(found))
        return
    for what, value in found.items():
        print(f"{what}: {value:,.2f}" if value < 100 else f"{what}: {value:,.0f}")


def measure(path: str, jobs: int) -> dict[str, float]:
    """Fill a store at `path` with `jobs` plain jobs over 24 h, ask it, have pages made of it, remove half."""
    start = time.time_ns() - DAY_NS
    found: dict[str, float] = {"jobs": jobs}
    with Store(path) as store:
        found["rows a second"] = jobs / fill(store, jobs, start)
        store.checkpoint()
        found["bytes a job"] = os.path.getsize(path) / jobs
    with Store(path, readonly=True) as store:
        for what, (times, question) in questions(store, start).items():
            found[f"{what}, ms"] = best(question, times)
    found |= web.measure(path)
    with Store(path) as store:
        forget(store, start, found)
    return found


def fill(store: Store, jobs: int, start: int) -> float:
    """Insert `jobs` jobs as the agent does, one arena's at a time; return the seconds it took without making them."""
    random.seed(1)
    step = DAY_NS // jobs
    spent = 0.0
    uid = os.urandom(8)
    for first in range(0, jobs, BATCH):
        if first % (BATCH * 25) == 0:
            uid = os.urandom(8)
            info = ProcessInfo(uid, 4000 + first // BATCH, start, {"host": "h", "service": "shop"})
        records = [plain(uid, n, start + n * step) for n in range(first, min(first + BATCH, jobs))]
        began = time.perf_counter()
        with store.transaction():
            store.insert(records, store.enter_process(info))
        spent += time.perf_counter() - began
    return spent


def plain(uid: bytes, n: int, start: int) -> Record:
    """Return a job with nothing but the fixed fields; one in 500 fails."""
    name = f"shop.jobs.Job{random.randrange(ACTIONS)}"
    record = Record(record_id(uid, n), "ok", start, action=f"{name}#perform", class_name=name, method="perform")
    record.duration_ns = int(random.lognormvariate(16, 1.5))
    record.queue = "default"
    record.queue_time_ms = random.randrange(10**8) / 1e6
    record.attempts = 1
    record.rule = "rules.yaml:3"
    record.thread = "MainThread"
    if random.random() < FAILING:
        record.status = "error"
        frames = [Frame("/app/shop/jobs.py", 7, f"{name}.perform", in_app=True)]
        record.exception = ExceptionInfo("builtins.ValueError", f"bad value {n}", frames)
    return record


def questions(store: Store, start: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return what people ask, and how often it is tried."""
    end = time.time_ns() + DAY_NS
    since = start + 90 * 10**9  # not a whole hour: the worst case, minutes at both ends
    failed = frozenset({"error", "killed"})
    noon = JobFilter(limit=1, since_ns=start + DAY_NS // 2, until_ns=start + DAY_NS // 2 + DAY_NS)
    wanted = next(store.jobs(noon)).id

    def newest(**conditions: Any) -> Callable[[], Any]:
        return lambda: list(store.jobs(JobFilter(**conditions)))

    return {
        "overview of 24 h, totals per action": (5, lambda: store.totals(since, end)),
        "overview of 24 h, series per hour": (5, lambda: store.series(start, end, step_ns=DAY_NS // 24)),
        "newest 50 failures": (5, newest(status=failed)),
        "newest 50 jobs": (5, newest()),
        "newest 50 of an action": (5, newest(action="shop.jobs.Job3#perform")),
        "newest 50 of a queue": (5, newest(queue="default")),
        "newest 50 of a queue nobody used": (5, newest(queue="Job3")),
        "how many there are": (5, store.count),
        "errors by fingerprint": (5, store.errors),
        "one job by id": (5, lambda: store.job(wanted)),
        "one job by 8 digits of its id": (5, newest(id_prefix=wanted[:8], limit=1)),
        "all jobs read": (1, lambda: sum(1 for _ in store.jobs(JobFilter(limit=0)))),
    }


def forget(store: Store, start: int, found: dict[str, float]) -> None:
    """Remove the older half as the agent does: a few batches a round, so that nobody waits for long."""
    rounds: list[float] = []
    more = True
    while more:
        began = time.perf_counter()
        _, more = store.forget(Limits(days=0.5, max_bytes=None), start + DAY_NS, batches=FORGET_BATCHES)
        rounds.append(time.perf_counter() - began)
    found["half of them removed, s"] = sum(rounds)
    found["the longest of its rounds, ms"] = max(rounds) * 1e3


def best(question: Callable[[], Any], times: int) -> float:
    """Return the shortest time of `times` tries in ms."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        question()
        spent.append(time.perf_counter() - began)
    return min(spent) * 1e3


if __name__ == "__main__":
    main()
