"""The libraries whose payloads are pickles, as tests/bad_payloads.py has them."""

from __future__ import annotations

from tests.bad_payloads import Case

RQ = Case(
    "databases",
    """
    from notes import note

    def job(name, *values):
        note(name)
    """,
    """
    import pickle, zlib
    import rq
    from shop import job

    queue = rq.Queue("mail", connection=client)

    def put(values):
        name = f"bad{client.incr('number')}"
        client.hset(f"rq:job:{name}", mapping=values)
        client.rpush("rq:queue:mail", name)

    def packed(value):
        return zlib.compress(pickle.dumps(value))

    queue.enqueue(job, "mangled", job_id="mangled")
    client.delete("rq:queue:mail")
    value = client.hgetall("rq:job:mangled")
    put({**value, b"created_at": b"\\xff\\xfe"})  # which ends the worker
    for part in (b"data", b"description", b"traceparent"):
        put({name: text for name, text in value.items() if name != part})
        for junk in (b"7", b"{}"):
            put({**value, part: junk})
    client.rpush("rq:queue:mail", "nobody")
    for data in wrong(value[b"data"]):
        put({**value, b"data": data})
    for data in wrong_inside(["shop.job", None, ("mangled",), {}]):
        put({**value, b"data": packed(tuple(data))})
    queue.enqueue(job, "large", "x" * LARGE, job_id="large", description="-")
    queue.enqueue(job, "touchy", Touchy(), Text("abc"), job_id="touchy", description="-")
    queue.enqueue(job, "last", job_id="last")
    """,
    "rq worker --worker-class rq.SimpleWorker --burst --url URL mail",
    by=None,
)
HUEY = Case(
    "queues",
    """
    import os
    from huey import RedisHuey
    from notes import note

    queue = RedisHuey("mail", url=os.environ["REDIS"])

    @queue.task(name="job")
    def job(name, *values):
        note(name)
    """,
    """
    import pickle
    from shop import job

    def put(payload):
        client.rpush("huey.redis.mail", payload)

    job("mangled")
    good = client.lpop("huey.redis.mail")
    for payload in wrong(good):
        put(payload)
    message = pickle.loads(good)
    for number, part in enumerate(message._fields):
        if part not in ("eta", "expires", "expires_resolved"):
            put(pickle.dumps(message._replace(**{part: JUNK[number % len(JUNK)]})))
    job("large", "x" * LARGE)
    job("touchy", Touchy(), Text("abc"))
    job("last")
    """,
    "huey_consumer shop.queue",
    by="SIGINT",
    unavailable="huey.yaml:7: attempts unavailable 1 time: comparing a dict with a int would run code\n",
)
ARQ = Case(
    "queues",
    """
    import os
    from arq.connections import RedisSettings
    from notes import note

    async def job(ctx, name, *values):
        note(name)

    class WorkerSettings:
        functions = [job]
        redis_settings = RedisSettings.from_dsn(os.environ["REDIS"])
        queue_name = "mail"
        poll_delay = 0.05
        max_jobs = 1
        max_tries = 1
    """,
    """
    import asyncio, pickle
    from arq import create_pool
    from shop import WorkerSettings

    def put(payload):
        number = client.incr("number")
        client.set(f"arq:job:bad{number}", payload)
        client.zadd("mail", {f"bad{number}": number})

    async def send():
        pool = await create_pool(WorkerSettings.redis_settings, default_queue_name="mail")
        await pool.enqueue_job("job", "mangled", _job_id="mangled")
        good = client.get("arq:job:mangled")
        client.delete("mail")
        for payload in list(mangled(good, pickle.loads, pickle.dumps))[:-1]:  # a wrong time ends the worker
            put(payload)
        client.zadd("mail", {"nobody": 1})
        await pool.enqueue_job("job", "large", "x" * LARGE, _job_id="large")
        await pool.enqueue_job("job", "touchy", Text("abc"), Touchy(), _job_id="touchy")
        await pool.enqueue_job("job", "last", _job_id="last")
        client.zadd("mail", {"large": 1001, "touchy": 1002, "last": 1003})

    asyncio.run(send())
    """,
    "arq shop.WorkerSettings --burst",
    by=None,
)
STREAQ = Case(
    "queues",
    """
    import os
    from streaq import Worker
    from notes import note

    worker = Worker(redis_url=os.environ["REDIS"], queue_name="mail", concurrency=1)

    @worker.task(name="job")
    async def job(name, *values):
        note(name)
    """,
    """
    import asyncio, pickle
    from shop import job, worker

    stream = "streaq:mail:queues:normal"

    def put(payload):
        name = f"bad{client.incr('number')}"
        client.set(f"streaq:mail:task:data:{name}", payload)
        client.xadd(stream, {"task_id": name, "enqueue_time": "1700000000000"})

    async def send():
        async with worker:
            await job.enqueue("mangled")
            (key,) = client.keys("streaq:mail:task:data:*")
            good = client.get(key)
            client.delete(key, stream)
            for payload in wrong(good):  # a task of missing parts ends the worker, and each one after it
                put(payload)
            client.xadd(stream, {"task_id": "nobody", "enqueue_time": "1"})
            await job.enqueue("large", "x" * LARGE)
            await job.enqueue("touchy", Text("abc"), Touchy())
            last = job.enqueue("last")
            last.id = "last"
            await last

    asyncio.run(send())
    """,
    "streaq run shop:worker",
    done=("streaq:mail:task:results:last", b""),
)
CASES = {"arq": ARQ, "huey": HUEY, "rq": RQ, "streaq": STREAQ}
