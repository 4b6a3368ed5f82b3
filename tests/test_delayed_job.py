"""The rule of docs/libraries.md for workers of Delayed Job's table, with one in Python, PostgreSQL and SQLite."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests import bad_handlers
from tests.bad_payloads import MANGLE
from tests.servers import Postgres
from tests.sides import Side, both, check_same
from tests.tested import Library
from tests.workers import Worker, check_records, rule, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once]

# The columns of Delayed Job's own migration (delayed_job_active_record 4).
DATABASE = '''
"""The table as its migration makes it, and what both sides need of a database."""
import datetime, os

COLUMNS = """
    id {id} PRIMARY KEY, priority integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0, handler text NOT NULL,
    last_error text, run_at timestamp(6), locked_at timestamp(6), failed_at timestamp(6),
    locked_by varchar, queue varchar, created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL
"""
dsn = os.environ["DSN"]
if dsn:
    import psycopg
    from psycopg.rows import dict_row
    connection = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
    mark, skip, id_column = "%s", "FOR UPDATE SKIP LOCKED", "bigserial"
else:
    import sqlite3
    connection = sqlite3.connect("delayed.sqlite3", isolation_level=None)
    connection.row_factory = lambda cursor, row: dict(zip([column[0] for column in cursor.description], row))
    mark, skip, id_column = "?", "", "integer"

def now(seconds=0):
    """A time as Rails writes it: UTC without a zone; SQLite keeps its text."""
    time = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(seconds=seconds)
    return time if dsn else time.isoformat(" ")

def execute(statement, *values):
    return connection.execute(statement.replace("?", mark), values)
'''
SEND = '''
"""What the Ruby side puts into the table."""
from database import *

execute(f"CREATE TABLE IF NOT EXISTS delayed_jobs ({COLUMNS.format(id=id_column)})")
NEWSLETTER = "--- !ruby/struct:NewsletterJob\\ntext: {}\\nemails:\\n- a@example.org\\n"
REPORT = "--- !ruby/object:Shop::Reports::Build\\nname: {}\\n"
USER = """--- !ruby/object:Delayed::PerformableMethod
object: !ruby/object:Shop::User
  raw_attributes:
    id: 7
method_name: :activate!
args:
- {}
"""
RECORD = """--- !ruby/object:Delayed::PerformableMethod
object: !ruby/ActiveRecord:User
  attributes:
    id: 7
method_name: :tell
args:
- {}
"""
MAILER = """--- !ruby/object:Delayed::PerformableMailer
object: !ruby/class 'Notifier'
method_name: :signup
args:
- {}
"""
EMPTY = "--- !ruby/object:Sweep {{}}\\n"
jobs = {
    "1": (NEWSLETTER, "ok", -5, 0), "2": (REPORT, "fail", 0, 0), "3": (USER, "ok", 0, 0), "4": (RECORD, "flaky", 0, 0),
    "5": (MAILER, "ok", 0, 0), "6": (EMPTY, "ok", 0, 0), "7": (NEWSLETTER, "ok", 2, 0),
    "8": (NEWSLETTER, "hopeless", 0, 0), "9": (NEWSLETTER, "die", 0, 10),
}
for name, (handler, text, wait, priority) in jobs.items():
    values = (int(name), priority, handler.format(text), now(wait), "mail", now(), now())
    columns = "id, priority, handler, run_at, queue, created_at, updated_at"
    execute(f"INSERT INTO delayed_jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
'''
WORKER = '''
"""Takes jobs as Delayed Job's worker does: by priority and time, under a lock, tried again later, at last given up."""
import os, signal, time, traceback
import yaml
from database import *
from notes import note

MAX_ATTEMPTS = 3

class Loader(yaml.CSafeLoader):
    """Reads Ruby's objects as plain data."""

def construct(loader, tag, node):
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)

Loader.add_multi_constructor("!ruby/", construct)

def perform(job):
    runs = note(str(job["id"]))
    handler = yaml.load(job["handler"], Loader)
    done = handler["args"][0] if "args" in handler else handler.get("text", handler.get("name", "ok"))
    if done in ("fail", "hopeless") or (done == "flaky" and runs < 3):
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError(done) from error
    if done == "die":
        os.kill(os.getpid(), signal.SIGKILL)

def reserve():
    return execute(f"""
        UPDATE delayed_jobs SET locked_at = ?, locked_by = ? WHERE id = (
            SELECT id FROM delayed_jobs WHERE run_at <= ? AND locked_at IS NULL AND failed_at IS NULL
            ORDER BY priority, run_at LIMIT 1 {skip}
        ) RETURNING *""", now(), f"host:x pid:{os.getpid()}", now()).fetchone()

def is_last_due():
    due = execute("SELECT priority FROM delayed_jobs WHERE run_at <= ? AND failed_at IS NULL", now()).fetchall()
    return [row["priority"] for row in due] == [10]

def work(job):
    try:
        perform(job)
    except Exception:
        attempts = job["attempts"] + 1
        failed = now() if attempts >= MAX_ATTEMPTS else None
        changes = "attempts = ?, last_error = ?, run_at = ?, failed_at = ?, locked_at = NULL"
        execute(f"UPDATE delayed_jobs SET {changes} WHERE id = ?",
                attempts, traceback.format_exc(), now(0.2), failed, job["id"])
    else:
        execute("DELETE FROM delayed_jobs WHERE id = ?", job["id"])
'''
LOOP = """
while True:
    # The one that kills its worker is taken last of all.
    waiting = execute("SELECT id FROM delayed_jobs WHERE failed_at IS NULL ORDER BY priority").fetchall()
    job = None if len(waiting) > 1 and is_last_due() else reserve()
    work(job) if job else time.sleep(0.05)
"""


def delayed(name: str, function: str, attempts: int = 1, **fields: Any) -> dict[str, Any]:
    given = {"args": None, "kwargs": None, "rule": "rules.yaml", "attempts": attempts, "tags": {"priority": 0}}
    class_name, _, method = function.rpartition("#")
    action = {"action": function, "class": class_name, "method": method}
    return run("delayed_job", name, function) | given | action | fields


def bad(text: str) -> dict[str, Any]:
    return {"status": "error", "exception": ("ValueError", text, [("KeyError", "'key'")], "perform")}


BUILD, TELL, LETTER = "Shop::Reports::Build#perform", "User#tell", "NewsletterJob#perform"
EXPECTED = {
    "1": [delayed("1", LETTER)],
    "2": [delayed("2", BUILD, attempts, **bad("fail")) for attempts in (1, 2, 3)],
    "3": [delayed("3", "Shop::User#activate!")],
    "4": [*(delayed("4", TELL, attempts, **bad("flaky")) for attempts in (1, 2)), delayed("4", TELL, 3)],
    "5": [delayed("5", "Notifier#signup")],
    "6": [delayed("6", "Sweep#perform")],
    "7": [delayed("7", LETTER)],
    "8": [delayed("8", LETTER, attempts, **bad("hopeless")) for attempts in (1, 2, 3)],
    "9": [delayed("9", LETTER, status="killed", killed=True, tags={"priority": 10})],
}
LIBRARY = Library(
    "Delayed Job's table",
    rule="Delayed Job's table",
    versions="4, by its table",
    tested="the table of delayed_job_active_record 4",
    runs="PostgreSQL and SQLite and a worker in Python, handlers as Delayed Job writes them",
    expected=EXPECTED,
    delayed=("7",),
    lacks=("trace", "clock skew"),
    missing=(
        "Arguments are in the handler's YAML, which no rule reads: one on the function that is called with them does. "
        "A row has no place for a trace. A job is taken only when the worker's own clock has come to its `run_at`, "
        "from which it waits."
    ),
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_every_run_is_recorded_once(tmp_path: Path, postgres: Postgres, database: str) -> None:
    check(tmp_path, "" if database == "sqlite" else postgres.dsn)


def check(tmp_path: Path, dsn: str) -> None:
    rules = rule("Delayed Job's table").replace("worker.perform", "__main__.perform")
    files = {"database.py": DATABASE, "send.py": SEND, "worker.py": WORKER + LOOP, "rules.yaml": rules}
    worker = Worker(tmp_path / "program", "databases", files, {"DSN": dsn})
    subprocess.run(
        [worker.bin / "python", "send.py"], cwd=worker.program.folder, env=worker.environ, check=True, timeout=90
    )
    worker.start("python", "worker.py")
    worker.stop_after([name for name, runs in EXPECTED.items() for _ in runs], by=None)
    found = check_records(worker, EXPECTED)
    assert 5_000 <= found["1"][0]["queue_time"] < 120_000
    # A delayed job, and one that is tried again, wait from when they are due.
    assert found["7"][0]["queue_time"] < found["1"][0]["queue_time"]
    for record in (*found["4"], *found["7"]):
        assert record["enqueued_at"] <= record["started_at"]
    if not dsn:
        with sqlite3.connect(worker.program.folder / "delayed.sqlite3") as connection:
            left = connection.execute("SELECT id, failed_at IS NOT NULL FROM delayed_jobs ORDER BY id").fetchall()
        connection.close()
        assert left == [(2, 1), (8, 1), (9, 0)]


class Table(Side):
    """A worker of a table with bad rows."""

    def __init__(self, folder: Path, dsn: str, *, instrumented: bool) -> None:
        rules = rule("Delayed Job's table").replace("worker.perform", "__main__.perform")
        files = {"database.py": DATABASE, "mangle.py": MANGLE, "send.py": bad_handlers.SEND, "rules.yaml": rules}
        files |= {"left.py": bad_handlers.LEFT, "worker.py": WORKER + bad_handlers.LOOP}
        super().__init__(folder, "databases", files, {"DSN": dsn}, instrumented=instrumented)

    def run(self) -> None:
        """Work off the table."""
        self.work(["python", "worker.py"], None, lambda: False)

    def seen(self) -> list[str]:
        """Return what it did and left."""
        return self.did(self.call("python", "left.py").splitlines())


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_bad_rows(tmp_path: Path, postgres: Postgres, database: str) -> None:
    kinds = ("plain", "copied")
    dsns = [postgres.dsn.replace("dbname=postgres", f"dbname={kind}") if database != "sqlite" else "" for kind in kinds]
    plain = Table(tmp_path / "plain", dsns[0], instrumented=False)
    side = Table(tmp_path / "with", dsns[1], instrumented=True)
    create = (
        "import psycopg, sys; psycopg.connect(sys.argv[1], autocommit=True).execute(f'CREATE DATABASE {sys.argv[2]}')"
    )
    if database != "sqlite":
        plain.call("python", "-c", create, postgres.dsn, "plain")
    labels = dict(line.split() for line in plain.call("python", "send.py").splitlines())
    if database != "sqlite":
        plain.call("python", "-c", create, postgres.dsn, "copied TEMPLATE plain")
    else:
        shutil.copy(plain.folder / "delayed.sqlite3", side.folder)
    both(Table.run, plain, side)
    check_same(plain.seen(), side.seen())
    runs = [labels[run] for run in side.worker.runs() if run != "last"]
    found = {
        label: (record["action"], record["attempts"], record["queue"] is not None, record["queue_time"] is not None)
        for label, record in zip(runs, side.records(), strict=True)
    }
    assert found == {label: bad_handlers.expected(label, database) for label in runs}
    doctor = side.doctor()
    for what in bad_handlers.UNAVAILABLE[database]:
        assert f"\n  rules.yaml:3: {what}" in doctor, doctor
