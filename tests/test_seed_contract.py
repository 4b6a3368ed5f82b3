"""The four steps of AppSignal's page, and its two examples translated to Python, in both nesting orders."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

# The page's rake task: everything by hand.
RAKE_TASK = """
    import os, uuid
    import autoinst

    def collect():
        if {fail}:
            raise RuntimeError("no data")

    transaction = autoinst.Transaction.create(str(uuid.uuid4()), autoinst.BACKGROUND_JOB, dict(os.environ))
    try:
        with autoinst.instrument(
            "perform_job.collect", **{{"class": "DataCollector", "method": "collect", "queue_time": 12.5}}
        ):
            collect()
    except Exception as exception:
        if not autoinst.is_ignored_exception(exception):
            transaction.add_exception(exception)
        raise
    finally:
        transaction.complete()
"""

# The page's Sidekiq middleware.
MIDDLEWARE = """
    import os, time, uuid
    import autoinst
    from autoinst import Transaction

    class SidekiqPlugin:
        def call(self, worker, item, queue, run):
            transaction = Transaction.create(str(uuid.uuid4()), autoinst.BACKGROUND_JOB, os.environ)
            try:
                with autoinst.instrument(
                    "perform_job.sidekiq",
                    **{
                        "class": item["class"],
                        "method": "perform",
                        "attempts": item["retry_count"],
                        "queue": item["queue"],
                        "queue_time": (time.time() - item["enqueued_at"]) * 1000,
                    },
                ):
                    with autoinst.instrument("query.sql", title="SELECT", body="SELECT * FROM t WHERE id = ?"):
                        pass
                    run()
            except Exception as exception:
                if not Transaction.is_ignored_exception(exception):
                    transaction.add_exception(exception)
                raise
            finally:
                transaction.complete()

    def run():
        if FAIL:
            raise ValueError("no such customer")

    item = {"class": "MailJob", "queue": "mail", "retry_count": 2, "enqueued_at": time.time() - 0.5}
    try:
        SidekiqPlugin().call(None, item, "mail", run)
    except ValueError:
        pass
"""

# The same with the notification around the transaction.
INSIDE_OUT = """
    import os, time, uuid
    import autoinst
    from autoinst import Transaction

    def run():
        if FAIL:
            raise ValueError("no such customer")

    payload = {"class": "MailJob", "method": "perform", "attempts": 2, "queue": "mail", "queue_time": 500.0}
    try:
        with autoinst.instrument("perform_job.sidekiq", **payload):
            transaction = Transaction.create(str(uuid.uuid4()), autoinst.BACKGROUND_JOB, os.environ)
            try:
                with autoinst.instrument("query.sql", title="SELECT", body="SELECT * FROM t WHERE id = ?"):
                    pass
                run()
            except Exception as exception:
                transaction.add_exception(exception)
                raise
            finally:
                transaction.complete()
    except ValueError:
        pass
"""

# The same job, its library's worker, and a rule: not a line of autoinst in it.
LIBRARY = """
    import time

    class Database:
        def select(self, sql):
            return []

    class MailJob:
        def perform(self):
            Database().select("SELECT * FROM t WHERE id = ?")
            if FAIL:
                raise ValueError("no such customer")

    class Processor:
        def dispatch(self, item):
            MailJob().perform()

    if __name__ == "__main__":
        try:
            item = {"class": "MailJob", "queue": "mail", "attempts": 2, "enqueued_at": time.time() - 0.5}
            Processor().dispatch(item)
        except ValueError:
            pass
"""
LIBRARY_RULES = """
    version: 1
    jobs:
      - class: __main__.Processor
        methods: [dispatch]
        name: perform_job.sidekiq
        payload:
          class: ${item['class']}
          method: perform
          queue: ${item['queue']}
          attempts: ${item['attempts']}
          enqueued_at: ${item['enqueued_at']}
    events:
      - class: __main__.Database
        methods: [select]
        name: query.sql
        title: SELECT
        body: ${sql}
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def run(program: Program, text: str, *, fail: bool) -> dict[str, Any]:
    program.write("worker.py", f"FAIL = {fail}\n{textwrap.dedent(text)}")
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert result.stderr == ""
    assert result.status == 0
    return result.one()


@pytest.mark.parametrize("instrumented", [True, False], ids=["started", "api only"])
def test_rake_task_succeeds(program: Program, instrumented: bool) -> None:
    program.write("collect.py", RAKE_TASK.format(fail=False))
    environ: dict[str, str | None] = {} if instrumented else {"PYTHONPATH": str(ROOT)}
    result = program.run("collect.py", AUTOINST_PACKS="none", environ=environ)
    assert (result.status, result.stderr) == (0, "")
    record = result.one()
    assert len(record["id"]) == 32
    expected = {
        "status": "ok",
        "namespace": "background_job",
        "name": "perform_job.collect",
        "action": "DataCollector#collect",
        "class": "DataCollector",
        "method": "collect",
        "queue_time": 12.5,
        "queue": None,
        "attempts": None,
        "exception": None,
        "events": [],
    }
    assert {key: record[key] for key in expected} == expected


def test_rake_task_fails_as_it_would_without(program: Program) -> None:
    program.write("collect.py", RAKE_TASK.format(fail=True))
    result = program.run("collect.py", AUTOINST_PACKS="none")
    assert result.status == 1
    assert result.stderr.endswith("RuntimeError: no data\n")
    record = result.one()
    assert record["status"] == "error"
    assert record["exception"]["class"] == "RuntimeError"
    assert record["exception"]["message"] == "no data"
    assert [frame["function"] for frame in record["exception"]["backtrace"]][-1] == "collect"


@pytest.mark.parametrize("fail", [False, True], ids=["ok", "error"])
def test_both_orders_and_a_rule_give_the_same_record(program: Program, tmp_path: Path, fail: bool) -> None:
    records = {}
    for name, text in (("middleware", MIDDLEWARE), ("inside out", INSIDE_OUT), ("library", LIBRARY)):
        part = Program(tmp_path / name)
        if text is LIBRARY:
            part.write("rules.yaml", LIBRARY_RULES)
        else:
            (tmp_path / name).mkdir()
        records[name] = run(part, text, fail=fail)
    for record in records.values():
        assert record["status"] == ("error" if fail else "ok")
        assert 499 <= record["queue_time"] < 5_000
        assert len(record["events"]) == 1
        assert record["events"][0]["duration"] >= 0
        if fail:
            assert record["exception"]["message"] == "no such customer"
    compared = [
        "status",
        "namespace",
        "name",
        "action",
        "class",
        "method",
        "queue",
        "attempts",
        "dropped_events",
        "thread",
        "tags",
    ]
    first = {key: records["middleware"][key] for key in compared}
    assert first["action"] == "MailJob#perform"
    assert first["attempts"] == 2
    for record in records.values():
        assert {key: record[key] for key in compared} == first
        event = record["events"][0]
        assert (event["name"], event["title"], event["body"], event["parent"]) == (
            "query.sql",
            "SELECT",
            "SELECT * FROM t WHERE id = ?",
            None,
        )


API = """
    import autoinst
    from autoinst import Transaction

    assert not Transaction.current()
    Transaction.current().set_tags({"ignored": 1})
    Transaction.current().complete()

    first = Transaction.create("order-7", "rake")
    assert Transaction.current() is first
    first.set_action("Reports#nightly")
    first.set_queue_start(1)
    first.set_tags({"customer": 5, "password": "hunter2"})
    first.set_params({"a": [1, 2]})
    with autoinst.instrument("outer.event"):
        with autoinst.instrument("inner.event"):
            pass
    first.complete()
    first.complete()
    assert not Transaction.current()

    gone = Transaction.create("gone")
    gone.discard()
    gone.complete()

    second = Transaction.create("0123456789abcdef0123456789abcdef")
    second.set_action("Other#thing")
    try:
        raise KeyError("first")
    except KeyError as error:
        second.add_exception(error)
    second.add_exception(ValueError("second"))
    second.complete()

    with autoinst.monitor("Block#run"):
        pass

    heard = []
    stop = autoinst.subscribe("perform_job.*", lambda *call: heard.append(call))
    broken = autoinst.subscribe("**", lambda *call: 1 / 0)
    with autoinst.instrument("perform_job.x", class_="A", method="b"):
        pass
    stop()
    with autoinst.instrument("perform_job.y"):
        pass
    print(len(heard), heard[0][0], heard[0][4])
"""


def test_the_whole_api(program: Program) -> None:
    program.write("api.py", API)
    result = program.run("api.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == "1 perform_job.x {'class_': 'A', 'method': 'b'}\n"
    first, second, block = result.records
    assert first["job_id"] == "order-7"
    assert first["namespace"] == "rake"
    assert first["action"] == "Reports#nightly"
    assert first["queue_time"] > 1e12
    assert first["tags"] == {"customer": 5, "password": "[FILTERED]"}
    assert first["params"] == {"a": [1, 2]}
    events = [(event["name"], event["parent"]) for event in first["events"]]
    assert events == [("outer.event", None), ("inner.event", 0)]
    assert second["id"] == "0123456789abcdef0123456789abcdef"
    assert second["exception"]["class"] == "KeyError"
    assert [cause["class"] for cause in second["exception"]["causes"]] == ["ValueError"]
    assert block["action"] == "Block#run"


def test_a_second_create_returns_the_open_transaction(program: Program) -> None:
    program.write(
        "twice.py",
        """
        import warnings
        from autoinst import Transaction

        one = Transaction.create("a")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            two = Transaction.create("b")
        assert one is two
        assert caught[0].category is RuntimeWarning
        assert caught[0].filename == __file__
        one.complete()
        """,
    )
    result = program.run("twice.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    assert result.one()["job_id"] == "a"
