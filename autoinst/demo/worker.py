"""A worker as it might be found anywhere: takes jobs from a queue, runs each in a child process, retries some.

python worker.py            runs it as it is
autoinst run worker.py      runs it as it is, and records its jobs
"""

from __future__ import annotations

import os
import time
from collections import deque

from jobs import (  # type: ignore[import-not-found]
    InvoiceMailer,
    Job,
    PaymentCapture,
    PriceImport,
    StockReport,
    VideoThumbnail,
    send_email,
)


def fill() -> deque[Job]:
    """Return a queue of jobs, some of which have waited for a while."""
    now = time.time()
    return deque(
        [
            InvoiceMailer("M-1", now - 2.4, order=17),
            InvoiceMailer("M-2", now - 1.1, order=18),
            PaymentCapture("P-1", now - 0.3, order=17),
            PriceImport("I-1", now - 30.0, lines=["apple;1.20", "pear;0.90", "plum;n/a"]),
            StockReport("R-1", now - 0.1, items=20),
            VideoThumbnail("V-1", now, film=3),
            InvoiceMailer("M-3", now, order=-19),
            InvoiceMailer("M-4", now, order=20),
        ]
    )


def run(job: Job) -> int:
    """Run a job in a child process, as many job libraries do, and return the child's wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            job.perform()
            status = 0
        except Exception as error:
            print(f"worker: {type(job).__name__} {job.number}: {error}", flush=True)
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Work until the queue is empty."""
    queue = fill()
    print(f"worker: pid {os.getpid()}, {len(queue)} jobs waiting", flush=True)
    while queue:
        job = queue.popleft()
        status = run(job)
        if os.WIFSIGNALED(status):
            print(f"worker: {type(job).__name__} {job.number}: killed by signal {os.WTERMSIG(status)}", flush=True)
        elif status and job.attempt < job.tries:
            job.attempt += 1
            job.due_at = time.time() + 0.1
            time.sleep(0.1)
            queue.append(job)
    send_email("operations@shop.example", "all jobs are done")
    print("worker: done", flush=True)


if __name__ == "__main__":
    main()
