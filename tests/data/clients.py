"""Jobs that use every client there is a pack for; those that are given run, once outside a job and once as one."""

import asyncio
import json
import os
import sys

PORTS = json.loads(os.environ["PORTS"])
WEB = f"http://127.0.0.1:{PORTS['web']}"
CREDENTIALS = f"http://me:secret@127.0.0.1:{PORTS['web']}"
POSTGRES = {"host": "127.0.0.1", "port": PORTS["postgres"], "user": "test"}


def job_sqlite3():
    import sqlite3

    con = sqlite3.connect(":memory:")
    con.execute("CREATE TABLE t (a, b)")
    cursor = con.cursor()
    cursor.executemany("INSERT INTO t VALUES (?, 'secret')", [(1,), (2,)])
    return cursor.execute("SELECT a FROM t WHERE b = 'secret' AND a IN (1, 2, 3)").fetchall()


def job_psycopg():
    import psycopg

    with psycopg.connect(**POSTGRES, dbname="postgres", autocommit=True) as con:
        con.execute("SELECT 'secret', $$secret$$")
        with con.cursor() as cursor:
            cursor.executemany("SELECT %s", [(1,), (2,)])
        with psycopg.ServerCursor(con, "c") as cursor, con.transaction():
            return cursor.execute("SELECT 5 AS n").fetchall()


def job_psycopg_async():
    import psycopg

    async def ask():
        async with await psycopg.AsyncConnection.connect(**POSTGRES, dbname="postgres") as con:
            return await (await con.execute("SELECT 7")).fetchall()

    return asyncio.run(ask())


def job_psycopg2():
    import psycopg2
    import psycopg2.extras

    con = psycopg2.connect(**POSTGRES, dbname="postgres")
    cursor = con.cursor(cursor_factory=psycopg2.extras.DictCursor)
    cursor.execute("SELECT 'secret' AS a, %s AS b", ("x",))
    found = [list(row) for row in cursor.fetchall()]
    con.close()
    return found


def job_asyncpg():
    import asyncpg

    async def ask():
        async with asyncpg.create_pool(**POSTGRES, database="postgres", min_size=1, max_size=1) as pool:
            async with pool.acquire() as con:
                await con.execute("SELECT 'secret'")
                await con.executemany("SELECT $1::int", [(1,), (2,)])
                prepared = await con.prepare("SELECT $1::text || 'secret'")
                await prepared.fetchval("x")
                return [list(row) for row in await con.fetch("SELECT 1 WHERE 2 = $1", 2)]

    return asyncio.run(ask())


def mysql(module):
    con = module.connect(host="127.0.0.1", port=PORTS["mariadb"], user="test")
    cursor = con.cursor()
    cursor.execute("CREATE DATABASE IF NOT EXISTS shop")
    cursor.execute("CREATE TABLE IF NOT EXISTS shop.t (a int)")
    cursor.executemany("INSERT INTO shop.t VALUES (%s)", [(1,), (2,)])
    cursor.execute('SELECT a, "se\\"cret" FROM shop.t WHERE a = %s # secret', (1,))
    found = cursor.fetchone()
    con.close()
    return list(found)


def job_pymysql():
    import pymysql

    return mysql(pymysql)


def job_mysqlclient():
    import MySQLdb

    return mysql(MySQLdb)


def job_sqlalchemy():
    import sqlalchemy

    found = []
    address = f"postgresql+psycopg://test@127.0.0.1:{PORTS['postgres']}/postgres"
    for url in ("sqlite://", address, address.replace("psycopg", "psycopg2")):
        engine = sqlalchemy.create_engine(url, pool_reset_on_return=None)
        with engine.connect() as con:
            found.append(con.execute(sqlalchemy.text("SELECT 'alchemy'")).scalar())
        engine.dispose()
    return found


def job_sqlalchemy_async():
    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    async def ask():
        engine = create_async_engine(f"postgresql+asyncpg://test@127.0.0.1:{PORTS['postgres']}/postgres")
        async with engine.connect() as con:
            found = (await con.execute(sqlalchemy.text("SELECT 'alchemy'"))).scalar()
        await engine.dispose()
        return found

    return asyncio.run(ask())


def django_ready():
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            DATABASES={
                "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
                "other": {
                    "ENGINE": "django.db.backends.postgresql",
                    "HOST": "127.0.0.1",
                    "PORT": PORTS["postgres"],
                    "USER": "test",
                    "NAME": "postgres",
                },
            },
            TEMPLATES=[
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "OPTIONS": {
                        "loaders": [
                            ("django.template.loaders.locmem.Loader", {"a.html": "{% include 'b.html' %}", "b.html": "b"})
                        ]
                    },
                }
            ],
        )
        django.setup()


def job_django():
    django_ready()
    from django.db import connections
    from django.template.loader import render_to_string

    found = []
    for name in ("default", "other"):
        connections[name].ensure_connection()
        with connections[name].cursor() as cursor:
            cursor.execute("SELECT 'secret' AS a, %s AS b", ["x"])
            found.append(list(cursor.fetchone()))
    return [*found, render_to_string("a.html")]


def job_redis():
    import redis

    client = redis.Redis(port=PORTS["redis"])
    client.set("secret", "secret")
    with client.pipeline() as pipe:
        pipe.get("secret").get("other")
        found = pipe.execute()
    client.close()
    return [str(value) for value in found]


def job_redis_async():
    import redis.asyncio

    async def ask():
        client = redis.asyncio.Redis(port=PORTS["redis"])
        await client.set("secret", "secret")
        async with client.pipeline() as pipe:
            await pipe.get("secret").execute()
        await client.aclose()

    return asyncio.run(ask())


def job_pymongo():
    import pymongo

    with pymongo.MongoClient(port=PORTS["mongo"], serverSelectionTimeoutMS=20_000) as client:
        things = client.shop.things
        things.insert_one({"secret": 1})
        things.update_one({"secret": 1}, {"$set": {"secret": 2}})
        return [len(list(things.find({"secret": 1}))), things.find_one()["n"]]


def job_pymongo_async():
    import pymongo

    async def ask():
        async with pymongo.AsyncMongoClient(port=PORTS["mongo"], serverSelectionTimeoutMS=20_000) as client:
            await client.shop.things.delete_one({"secret": 1})

    return asyncio.run(ask())


def job_elasticsearch():
    import elasticsearch

    with elasticsearch.Elasticsearch(WEB) as client:
        client.search(index="things", q="secret")
        return client.index(index="things", id="1", document={"secret": 1})["count"]


def job_boto3():
    import boto3

    client = boto3.client(
        "sqs", endpoint_url=WEB, region_name="eu-west-1", aws_access_key_id="secret", aws_secret_access_key="secret"
    )
    return client.list_queues()["QueueUrls"]


def job_requests():
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{CREDENTIALS}/from?word=secret")
        return session.post(f"{WEB}/a/b", json={"secret": 1}).status_code


def job_urllib3():
    import urllib3

    with urllib3.PoolManager() as pool:
        return pool.request("GET", f"{WEB}/from?word=secret").status


def job_httpx():
    import httpx

    with httpx.Client(follow_redirects=True, trust_env=False) as client:
        return client.get(f"{CREDENTIALS}/from?word=secret").status_code


def job_httpx_async():
    import httpx

    async def ask():
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.put(f"{WEB}/x", content=b"secret")).status_code

    return asyncio.run(ask())


def job_aiohttp():
    import aiohttp
    import yarl

    async def ask():
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{CREDENTIALS}/from?word=secret") as answer:
                await answer.read()
            async with session.post(yarl.URL(f"{WEB}/y?word=secret"), data=b"secret") as answer:
                return answer.status

    return asyncio.run(ask())


def job_urllib():
    import urllib.request

    with urllib.request.urlopen(f"{WEB}/from?word=secret") as answer:
        answer.read()
    request = urllib.request.Request(f"{WEB}/z?word=secret", data=b"secret", method="PUT")
    with urllib.request.urlopen(request) as answer:
        return answer.status


def job_kombu():
    import kombu

    with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{PORTS['rabbit']}//") as con:
        producer = kombu.Producer(con.channel(), routing_key="mail")
        producer.publish({"secret": 1})


def job_pika():
    import pika

    con = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", PORTS["rabbit"]))
    con.channel().basic_publish("", "mail", b"secret")
    con.close()


def job_smtplib():
    import email.message
    import smtplib

    message = email.message.EmailMessage()
    message["To"] = message["From"] = "secret@example.com"
    with smtplib.SMTP("127.0.0.1", PORTS["mail"]) as server:
        return server.send_message(message)


def job_jinja2():
    import jinja2

    loader = jinja2.DictLoader({"a.html": "{% include 'b.html' %}", "b.html": "{{ secret }}"})
    return jinja2.Environment(loader=loader, autoescape=True).get_template("a.html").render(secret="x")


def job_subprocess():
    import subprocess

    echo = ["/bin/echo", "secret"]
    subprocess.run(echo, stdout=subprocess.DEVNULL, check=True)
    subprocess.check_output("/bin/echo secret", shell=True)
    with subprocess.Popen(echo, stdout=subprocess.PIPE) as process:
        return process.communicate()[0].decode()


def perform(function):
    """The job: the rules name this."""
    return function()


for name, function in [*globals().items()]:
    if name.startswith("job_") and (len(sys.argv) == 1 or name[4:] in sys.argv[1:]):
        print(name, json.dumps(function()), json.dumps(perform(function)), flush=True)
