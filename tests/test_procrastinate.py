"""The built-in Procrastinate pack with a real PostgreSQL and real workers: every run is recorded once."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.databases import PostgresDatabase
from tests.servers import Postgres
from tests.tested import Library
from tests.workers import BEHIND, Worker, check_records, run, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

SHOP = '''
"""Tasks that end in every way; each run notes its id."""
import asyncio, os, signal
import procrastinate
from notes import note as write

connector = procrastinate.PsycopgConnector(conninfo=os.environ["DSN"], timeout=2)
app = procrastinate.App(connector=connector, import_paths=["shop"])
task = app.task(queue="mail", pass_context=True)

def note(context):
    return write(context.job.id)

@task
def add(context, a, b=0):
    note(context)
    return a + b

@task
async def add_async(context, a):
    note(context)
    await asyncio.sleep(0.01)
    return a

@task
def fail(context, x):
    note(context)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@app.task(queue="mail", pass_context=True, retry=2)
async def flaky(context, failures):
    if note(context) <= failures:
        raise RuntimeError("try again")

@task
def aborted(context):
    note(context)
    raise procrastinate.exceptions.JobAborted

@app.task(queue="mail", pass_context=True, name="a-name")
def named(context, text):
    note(context)

@task
def leave(context):
    note(context)
    raise SystemExit(3)

@task
async def order(context):
    note(context)
    await add.defer_async(a=7)
    await add.batch_defer_async({"a": 8})

@task
def die(context):
    note(context)
    os.kill(os.getpid(), signal.SIGKILL)

@task
def drop_database(context):
    note(context)
    os.kill(int(os.environ["SERVER"]), signal.SIGKILL)
'''

SEND = """
import datetime, sys
from shop import *

def early():
    add.configure(schedule_at=datetime.datetime.now(datetime.timezone.utc)).defer(a=6)

def send():
    add.defer(a=1, b=2)
    add_async.defer(a=3)
    fail.defer(x="x")
    flaky.defer(failures=2)
    flaky.defer(failures=9)
    aborted.defer()
    named.defer(text="x" * 3_000_000)
    leave.defer()
    add.configure(schedule_in={"seconds": 2}).defer(a=5)
    app.configure_task("shop.nothing", queue="mail").defer(a=1)
    order.defer()

with app.replace_connector(procrastinate.SyncPsycopgConnector(conninfo=os.environ["DSN"])) as app, app.open():
    own = {"schema": app.schema_manager.apply_schema, "all": send, "early": early}
    for name in sys.argv[1:]:
        own[name]() if name in own else globals()[name].defer()
"""


def job(number: int, function: str, **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run; when a job without a time to run at was sent is not known."""
    fields = {"queue_time": False, "args": None, "tags": {"task": f"shop.{function}"}, **fields}
    return run("procrastinate", str(number), f"shop.{function}", **fields)


def failed(number: int, attempt: int) -> dict[str, Any]:
    fields = {"status": "error", "exception": ("RuntimeError", "try again", [], "flaky"), "attempts": attempt}
    return job(number, "flaky", kwargs={"failures": 2 if number == 4 else 9}, queue_time=attempt > 1, **fields)


SENT = {"name": "enqueue.procrastinate", "title": "shop.add", "body": None, "parent": None}
BAD = ("ValueError", "bad", [("KeyError", "'key'")], "fail")
EXPECTED = {
    "1": [job(1, "add", kwargs={"a": 1, "b": 2})],
    "2": [job(2, "add_async", kwargs={"a": 3})],
    "3": [job(3, "fail", kwargs={"x": "x"}, status="error", exception=BAD)],
    "4": [failed(4, 1), failed(4, 2), job(4, "flaky", kwargs={"failures": 2}, attempts=3, queue_time=True)],
    "5": [failed(5, 1), failed(5, 2), failed(5, 3)],
    "6": [
        job(
            6,
            "aborted",
            status="ignored",
            exception=("procrastinate.exceptions.JobAborted", "\n    Job was aborted.\n    ", [], "aborted"),
        )
    ],
    "7": [job(7, "named", tags={"task": "a-name"}, kwargs={"text": "..."})],
    "8": [job(8, "leave", status="error", exception=("SystemExit", "3", [], "leave"))],
    "9": [job(9, "add", kwargs={"a": 5}, queue_time=True)],
    "10": [
        job(
            10,
            "nothing",
            kwargs={"a": 1},
            status="error",
            exception=("procrastinate.exceptions.TaskNotFound", "\n    Task cannot be imported.\n    ", [], None),
        )
    ],
    "11": [job(11, "order", kwargs={}, events=[SENT, SENT])],
    "12": [job(12, "add", kwargs={"a": 7})],
    "13": [job(13, "add", kwargs={"a": 8})],
    "14": [job(14, "die", status="killed", killed=True)],
}
# Of a job that was to run at a time that had not come by the worker's own clock.
EARLY = {"1": [job(1, "add", kwargs={"a": 6}, queue_time=True, clock_skew=True)]}


def start(
    folder: Path,
    database: PostgresDatabase,
    *jobs: str,
    environment: str = "databases",
    shop: str = SHOP,
    under: tuple[str, ...] = (),
) -> Worker:
    """Make the tables, send `jobs` and start a worker for them."""
    variables = {**database.variables, "PYTHONPATH": ".", "SERVER": str(database.server.processes[0].pid)}
    worker = Worker(folder, environment, {"shop.py": shop, "send.py": SEND}, variables)
    worker.call("python", "send.py", "schema", *jobs)
    words = "procrastinate --app shop.app worker --queues mail --fetch-job-polling-interval 0.3"
    worker.start(*under, *words.split())
    return worker


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def database(server: Postgres, tmp_path: Path) -> PostgresDatabase:
    made = PostgresDatabase(server, re.sub(r"\W", "_", tmp_path.name))
    made.make()
    return made


@pytest.mark.parametrize("environment", ["databases", "oldest"])
def test_every_run_of_every_task(database: PostgresDatabase, tmp_path: Path, environment: str) -> None:
    expected, shop = dict(EXPECTED), SHOP
    if environment == "oldest":  # which knows no batches
        shop = SHOP.replace("    await add.batch_defer_async", "    # ")
        expected["11"] = [job(11, "order", kwargs={}, events=[SENT])]
        expected["13"] = [{**expected.pop("14")[0], "job_id": "13"}]
    worker = start(tmp_path / "program", database, "all", environment=environment, shop=shop)
    runs = [number for number, records in expected.items() for _ in records if number != "10"]
    worker.wait_for(runs[:-1])
    worker.call("python", "send.py", "die")
    status = worker.stop_after(runs, by=None)
    assert status == -signal.SIGKILL, worker.output
    found = {number: [whole(record) for record in records] for number, records in worker.records().items()}
    text = found["7"][0]["kwargs"]["text"]
    assert text.startswith("xxx")
    assert len(text) < 20_000
    found["7"][0]["kwargs"] = {"text": "..."}
    assert found == expected, worker.output


def test_a_server_whose_clock_is_ahead_is_told(database: PostgresDatabase, tmp_path: Path) -> None:
    worker = start(tmp_path / "program", database, "early", under=BEHIND)
    worker.wait_for_records(1)
    worker.stop_after(["1"])
    check_records(worker, EARLY)


def test_a_job_whose_database_vanishes_is_recorded(tmp_path: Path) -> None:
    with Postgres() as server:
        worker = start(tmp_path / "program", PostgresDatabase(server, "postgres"), "drop_database")
        worker.stop_after(["1"], by=None)
    ((record,),) = worker.records().values()
    found = whole(record)
    # The worker cannot store the outcome, unless the server's own children live on for that long.
    if found["status"] == "error":
        assert found["exception"][0] == "procrastinate.exceptions.ConnectorException"
        found.update(status="ok", exception=None)
    assert found == job(1, "drop_database"), worker.output


LIBRARY = Library(
    "Procrastinate",
    "procrastinate",
    "procrastinate",
    "databases",
    "PostgreSQL, coroutines and plain functions",
    EXPECTED | {"early": EARLY["1"]},
    delayed=("9",),
    lacks=("trace",),
    missing=(
        "When a job was put on its queue is not read: only one that was to run later has a queue time. The clock that "
        "says when is the database's. A job has no place for a trace."
    ),
    oldest="oldest",
)
