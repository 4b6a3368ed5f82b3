"""The store with many jobs: rows a second, bytes a job, and the questions people ask most.

python -m benchmarks.store [--jobs 1000000] [--keep FILE]
"""

from __future__ import annotations

import argparse
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or os.path.join(folder, "store.sqlite3")
        start = time.time_ns() - DAY_NS
        with Store(path) as store:
            seconds = fill(store, options.jobs, start)
            print(f"{options.jobs} plain jobs over 24 h: {options.jobs / seconds:,.0f} rows/s", end=", ")
            store.checkpoint()
            print(f"{os.path.getsize(path) / options.jobs:.0f} B/job")
        with Store(path, readonly=True) as store:
            ask(store, options.jobs, start)
        with Store(path) as store:
            forget(store, start)


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


def ask(store: Store, jobs: int, start: int) -> None:
    """Time the questions, the best of five."""
    end = time.time_ns() + DAY_NS
    since = start + 90 * 10**9  # not a whole hour: the worst case, minutes at both ends
    show("overview of 24 h by rollups: totals per action", lambda: len(store.totals(since, end)))
    show("overview of 24 h by rollups: series per hour", lambda: len(store.series(start, end, step_ns=DAY_NS // 24)))
    failed = frozenset({"error", "killed"})
    some = list(store.jobs(JobFilter(limit=1, since_ns=start + DAY_NS // 2, until_ns=start + DAY_NS // 2 + DAY_NS)))
    wanted = some[0].id
    show("newest 50 failures", lambda: len(list(store.jobs(JobFilter(status=failed)))))
    show("newest 50 jobs", lambda: len(list(store.jobs(JobFilter()))))
    show("newest 50 of an action", lambda: len(list(store.jobs(JobFilter(action="shop.jobs.Job3#perform")))))
    show("newest 50 of a queue", lambda: len(list(store.jobs(JobFilter(queue="default")))))
    show("newest 50 of a queue nobody used", lambda: len(list(store.jobs(JobFilter(queue="Job3")))))
    show("how many there are", store.count)
    show("errors by fingerprint", lambda: len(store.errors()))
    show("one job by id", lambda: store.job(wanted))
    show("one job by 8 digits of its id", lambda: next(store.jobs(JobFilter(id_prefix=wanted[:8], limit=1))))
    show(f"all {jobs} jobs read", lambda: sum(1 for _ in store.jobs(JobFilter(limit=0))), times=1)


def forget(store: Store, start: int) -> None:
    """Remove the older half as the agent does: a few batches a round, so that nobody waits for long."""
    rounds: list[float] = []
    jobs, more = 0, True
    while more:
        began = time.perf_counter()
        removed, more = store.forget(Limits(days=0.5, max_bytes=None), start + DAY_NS, batches=FORGET_BATCHES)
        rounds.append(time.perf_counter() - began)
        jobs += removed
    longest = max(rounds) * 1e3
    print(f"retention: {jobs} jobs removed in {sum(rounds):.1f} s, {len(rounds)} rounds, the longest {longest:.0f} ms")


def show(what: str, question: Callable[[], Any], times: int = 5) -> None:
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        answer = question()
        best = min(best, time.perf_counter() - began)
    print(f"{what}: {best * 1e3:.2f} ms" + (f" ({answer})" if isinstance(answer, int) else ""))


if __name__ == "__main__":
    main()
