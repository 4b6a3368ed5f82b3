"""A broker that vanishes in the middle of a job: the job runs to its end, and is recorded once as what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import Redis
from tests.workers import Worker, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

VANISH = """
import os, signal
from notes import note

def vanish():
    note("begin")
    os.kill(int(os.environ["SERVER"]), signal.SIGKILL)
    note("end")
"""
ARQ = """
import asyncio, os
from arq import create_pool
from arq.connections import RedisSettings
from vanish import vanish

async def job(ctx):
    vanish()

class WorkerSettings:
    functions = [job]
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS"])

async def send():
    await (await create_pool(WorkerSettings.redis_settings)).enqueue_job("job")

if __name__ == "__main__":
    asyncio.run(send())
"""
CELERY = """
import os
from celery import Celery
from vanish import vanish

app = Celery("shop", broker=os.environ["REDIS"])

@app.task(name="job")
def job():
    vanish()

if __name__ == "__main__":
    job.delay()
"""
HUEY = """
import os
from huey import RedisHuey
from vanish import vanish

queue = RedisHuey("mail", url=os.environ["REDIS"])

@queue.task()
def job():
    vanish()
"""
RQ = """
import os, redis, rq
import vanish

def job():
    vanish.vanish()

if __name__ == "__main__":
    rq.Queue("mail", connection=redis.Redis.from_url(os.environ["REDIS"])).enqueue("shop.job")
"""
SAQ = """
import asyncio, os
from saq import Queue
from vanish import vanish

queue = Queue.from_url(os.environ["REDIS"])

async def job(ctx):
    vanish()

settings = {"queue": queue, "functions": [job]}

if __name__ == "__main__":
    asyncio.run(queue.enqueue("job"))
"""
TASKIQ = """
import asyncio, os
from taskiq_redis import ListQueueBroker
from vanish import vanish

broker = ListQueueBroker(os.environ["REDIS"])

@broker.task
async def job():
    vanish()

async def send():
    await broker.startup()
    await job.kiq()
    await broker.shutdown()
"""
# Library -> environment, program, what sends the job, the worker.
LIBRARIES = {
    "arq": ("queues", ARQ, "python shop.py", "arq shop.WorkerSettings"),
    "celery": ("celery", CELERY, "python shop.py", "celery -A shop worker --concurrency=1"),
    "huey": ("queues", HUEY, "python -c import\tshop;shop.job()", "huey_consumer shop.queue"),
    "rq": ("databases", RQ, "python shop.py", "rq worker --url URL mail"),
    "saq": ("queues", SAQ, "python shop.py", "saq shop.settings"),
    "taskiq": (
        "taskiq",
        TASKIQ,
        "python -c import\tasyncio,shop;asyncio.run(shop.send())",
        "taskiq worker shop:broker --workers 1",
    ),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_job_in_progress_is_recorded(tmp_path: Path, library: str) -> None:
    environment, program, send, start = LIBRARIES[library]
    with Redis() as server:
        variables = {"REDIS": server.url, "SERVER": str(server.processes[0].pid), "PYTHONPATH": "."}
        worker = Worker(tmp_path / "program", environment, {"shop.py": program, "vanish.py": VANISH}, variables)
        worker.call(*(word.replace("\t", " ") for word in send.split(" ")))
        worker.start(*start.replace("URL", server.url).split())
        worker.wait_for(["begin", "end"])
    assert worker.process is not None
    try:
        wait_until(lambda: any(record["status"] != "running" for record in worker.program.records()))
    finally:
        worker.process.kill()
        worker.process.wait()
    (record,) = worker.program.records()
    # Huey keeps the result as part of the run, which therefore fails.
    status = "error" if library == "huey" else "ok"
    assert (record["name"], record["method"], record["status"]) == (f"perform_job.{library}", "job", status)
    assert worker.runs() == ["begin", "end"]
