"""The real workload: a job that asks a database and an HTTP server and computes, as a task of Celery and a job of RQ.

work.py enqueue celery|rq COUNT        celery -A work worker        rq worker
"""

import os
import sqlite3
import sys

import requests
from celery import Celery
from redis import Redis

QUEUE = "orders"
REDIS = os.environ["BENCH_REDIS"]
app = Celery("work", broker=REDIS)
app.conf.update(
    task_default_queue=QUEUE,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
)
if "PRODUCT_OFF" not in os.environ:
    product = __import__("benchmarks.peers.products." + os.environ["BENCH_PRODUCT"], fromlist=["PRODUCT"]).PRODUCT
    product.work()
done = Redis.from_url(REDIS)
session = requests.Session()
session.trust_env = False
tables = {}


def table():
    """Return this process's connection, with a table."""
    if os.getpid() not in tables:
        tables[os.getpid()] = database = sqlite3.connect(":memory:")
        database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, price INTEGER)")
    return tables[os.getpid()]


def order(n):
    cursor = table().cursor()
    cursor.execute("INSERT INTO item (price) VALUES (?)", (n,))
    price = session.get(f"{os.environ['BENCH_SINK']}/order/{n}", timeout=60).json()["price"]
    total = sum(i * price for i in range(5_000))
    cursor.execute("SELECT count(*), sum(price) FROM item")
    cursor.fetchone()
    done.incr("done")
    return total


order_task = app.task(name="work.order")(order)


def enqueue(kind, count):
    if kind == "celery":
        with app.producer_or_acquire() as producer:
            for n in range(count):
                order_task.apply_async((n,), producer=producer)
    else:
        import rq

        queue = rq.Queue(QUEUE, connection=done)
        queue.enqueue_many([rq.Queue.prepare_data("work.order", (n,), result_ttl=0) for n in range(count)])


if __name__ == "__main__":
    enqueue(sys.argv[2], int(sys.argv[3]))
