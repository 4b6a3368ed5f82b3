"""For tests/test_bad_rows.py: the programs of libraries whose queue, or what jobs came to, is in a database.

Each `send` puts one good payload on the queue, takes it back, and puts wrong copies of it there; then jobs whose
arguments fight back or are large, and one, "refuse", that tries to put on the queue what cannot be; then a good one,
"last".
"""

from __future__ import annotations

from dataclasses import dataclass, field

# What a job, and a program that is none, try to put on a queue.
REFUSED = '''
"""Arguments of which many cannot be kept, and what is said of them."""
from mangle import Touchy

deep = []
for _ in range(100_000):
    deep = [deep]
cycle = {}
cycle["self"] = cycle
VALUES = {
    "object": object(), "set": {1, 2}, "bytes": b"\\xff\\xfe", "function": lambda: 0, "surrogate": "\\udc80",
    "nul": "a\\x00b", "nan": float("nan"), "deep": deep, "cycle": cycle, "keys": {(1, 2): 3}, "huge": 10**5000,
    "touchy": Touchy(), "generator": (number for number in ()),
}

def tried(put):
    """Print what comes of `put` for each of the values."""
    for name, value in VALUES.items():
        try:
            put(value)
        except RecursionError:  # which says where it was
            print(name, "is too deep", flush=True)
        except Exception as error:
            print(name, type(error), str(error)[:200], flush=True)
        else:
            print(name, "is kept", flush=True)
'''


@dataclass(frozen=True)
class Case:
    """How one library's worker is started, in which environment and with which program, and what it leaves.

    It is ended by the signal `by`, or ends by itself. `left` are queries of what there is to compare, `done` finds the
    last job's result; `unavailable` is what `doctor` says among the values that could not be read. The database is that
    of SQLite unless `postgres`, and the broker is Redis if `redis`. `actions` are those of some records.
    """

    environment: str
    files: dict[str, str]
    setup: str
    send: str
    start: str
    left: tuple[str, ...]
    done: str
    by: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    postgres: bool = False
    redis: bool = False
    unavailable: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


DJANGO_TASKS = Case(
    "django6",
    {
        "settings.py": """
        SECRET_KEY = "x"
        USE_TZ = True
        INSTALLED_APPS = ["django_tasks_db"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
        TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["mail"]}}
        """,
        "shop.py": """
        from django.tasks import task
        from notes import note
        from refused import tried

        @task(queue_name="mail")
        def job(name, *values, value=None):
            note(name)

        @task(queue_name="mail")
        def refuse(name):
            note(name)
            tried(lambda value: job.enqueue("refused", value))
        """,
        # Most rows that it cannot read end the worker, which meets them again: they are taken out of its way, as an
        # operator would. It is started anew in the same process, which is quicker.
        "serve.py": """
        import subprocess, traceback
        import django
        from django.core.management import execute_from_command_line
        from django.db import connection

        table = "django_tasks_database_dbtaskresult"
        words = ["django-admin", "db_worker", "--queue-name", "*", "--batch", "--no-startup-delay", "--no-reload",
                 "--worker-id", "me"]

        def mend():
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT rowid FROM {table} WHERE status = 'READY'")
                for number in cursor.fetchall():
                    try:
                        (found,) = DBTaskResult.objects.extra(where=["rowid = %s"], params=number)
                        [*found.worker_ids]
                    except Exception:
                        cursor.execute(f"UPDATE {table} SET status = 'FAILED' WHERE rowid = %s", number)

        print("ended by", subprocess.run(words).returncode, flush=True)
        django.setup()
        from django_tasks_db.models import DBTaskResult
        while True:
            mend()
            try:
                execute_from_command_line(words)
                break
            except Exception:
                traceback.print_exc()
        """,
    },
    "django-admin migrate",
    """
    import django
    from mangle import *

    django.setup()
    from django.db import connection
    from shop import job, refuse

    table = "django_tasks_database_dbtaskresult"
    cursor = connection.cursor()
    cursor.execute("PRAGMA ignore_check_constraints = ON")  # as if another program had made the table
    job.enqueue("mangled")
    cursor.execute(f"SELECT * FROM {table}")
    good = dict(zip([column[0] for column in cursor.description], cursor.fetchone()))
    cursor.execute(f"DELETE FROM {table}")
    count = 0

    def put(**fields):
        global count
        count += 1
        row = good | {"id": f"{count:032x}"} | fields
        marks = ", ".join(["%s"] * len(row))
        cursor.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    for args in ([], [["a"]], ["mangled", {"a": "b"}], [7], ["mangled", 10**400]):
        put(args_kwargs=json.dumps({"args": args, "kwargs": {}}))
    put(args_kwargs=json.dumps({"args": ["mangled"], "kwargs": {"unknown": 7}}))
    for junk in ("[7]", "{}", '{"a": "b"}', '"\\u00e9"'):
        put(worker_ids=junk)
    for junk in ("", "7", "\\u00e9", "2026-13-01 00:00:00", "1900-01-01 00:00:00"):
        put(run_after=junk)
    for junk in ("", "\\u00e9", "shop", "shop.nothing", "os.path.join", ".", b"\\xff"):
        put(task_path=junk)
    # The others end the worker.
    good["priority"] = -1
    for junk in ("\\u00e9", b"\\xff"):
        put(queue_name=junk)
        put(worker_ids=junk)
        put(id=junk)
        put(priority=junk)
        put(enqueued_at=junk)
    for payload in wrong(good["args_kwargs"].encode()):
        put(args_kwargs=payload)
        put(args_kwargs=payload.decode(errors="replace"))
    for value in wrong_inside(json.loads(good["args_kwargs"])):
        put(args_kwargs=json.dumps(value))
    job.enqueue("large", "x" * LARGE)
    refuse.enqueue("refuse")
    job.using(priority=-2).enqueue("last")
    """,
    "python serve.py",
    ("SELECT * FROM django_tasks_database_dbtaskresult",),
    "SELECT 1",
    variables={"DJANGO_SETTINGS_MODULE": "settings"},
    unavailable=("django-tasks.yaml:8: kwargs unavailable 13 times: no key 'kwargs'\n",),
)
PROCRASTINATE = Case(
    "databases",
    {
        "shop.py": """
        import json, os
        import procrastinate
        from mangle import Text, Touchy
        from notes import note
        from refused import tried

        def load(text):
            def made(value):  # as a program does whose arguments are of its own classes
                return {"touchy": Touchy(), "text": Text("abc")}.get(value.get("class"), value)
            return json.loads(text, object_hook=made)

        connector = procrastinate.PsycopgConnector(conninfo=os.environ["DSN"], json_loads=load)
        app = procrastinate.App(connector=connector, import_paths=["shop"])

        @app.task(name="job")
        def job(name, value=None, other=None):
            note(name)

        @app.task(name="refuse")
        def refuse(name):
            note(name)
            tried(lambda value: job.defer(name="refused", value=value))
        """,
        # A row that it cannot read ends the worker, and is the first again: it is taken out of its way.
        "serve.py": """
        import os, subprocess, traceback
        import psycopg
        from shop import app

        MEND = '''UPDATE procrastinate_jobs SET status = 'failed' WHERE id = (
            SELECT id FROM procrastinate_jobs WHERE status = 'todo' ORDER BY priority DESC, id LIMIT 1)'''
        words = "procrastinate --app shop.app worker --one-shot --concurrency 1"
        print("ended by", subprocess.run(words.split()).returncode, flush=True)
        while True:
            with psycopg.connect(os.environ["DSN"]) as connection:
                connection.execute(MEND)
            try:
                with app.open():
                    app.run_worker(wait=False, concurrency=1)
                break
            except Exception:
                traceback.print_exc()
        """,
    },
    "procrastinate --app shop.app schema --apply",
    """
    import os
    import psycopg
    from mangle import *

    connection = psycopg.connect(os.environ["DSN"], autocommit=True)

    def put(value, **fields):
        row = {"queue_name": "mail", "task_name": "job", "args": json.dumps(value), **fields}
        marks = ", ".join(["%s"] * len(row))
        connection.execute(f"INSERT INTO procrastinate_jobs ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    good = {"name": "mangled", "value": 7}
    for value in wrong_inside(good):
        put(value)
    for value in JUNK:
        put(value)
        put({"name": "mangled", "value": value, "other": {"more": value}})
    for value in ({}, {"unknown": 1}, {"": 7}, {"name": "mangled", "value": 10**400}, {"self": 7}):
        put(value)
    for junk in ("", ".", "shop.nothing", "\\u00e9", "job.", "x" * 40):
        put(good, task_name=junk)
        put(good, queue_name=junk)
        put(good, lock=junk, queueing_lock=junk)
    for junk in (-1, -(2**31), 2**31 - 1):  # of the last, the worker cannot write how many it was then
        put(good, attempts=junk)
    for junk in ("0001-01-01", "1969-12-31", "2026-01-01"):
        put(good, scheduled_at=junk)
    put({"name": "touchy", "value": {"class": "touchy"}, "other": {"class": "text"}})
    put({"class": "touchy"})
    put({"name": "large", "value": "x" * LARGE})
    put({"name": "refuse"}, task_name="refuse")
    # The others end the worker.
    put(good, scheduled_at="-infinity", priority=-1)
    put({"name": {"class": []}}, priority=-1)
    for text in ("1" * 5000, "[" * 3000 + "]" * 3000):
        put(None, args=text, priority=-1)
    put({"name": "last"}, priority=-2)
    """,
    "python serve.py",
    (
        "SELECT * FROM procrastinate_jobs ORDER BY id",
        "SELECT job_id, type FROM procrastinate_events ORDER BY id",
        "SELECT count(*) FROM procrastinate_workers",
    ),
    "SELECT 1",
    postgres=True,
    unavailable=(
        "procrastinate.yaml:8: attempts unavailable 3 times: not a count from 1\n",
        "procrastinate.yaml:8: eta unavailable 2 times: the time is not between 1970 and 2262\n",
    ),
)
CASES = {"django-tasks": DJANGO_TASKS, "procrastinate": PROCRASTINATE}
