"""The built-in Airflow pack with a real scheduler, its executor and API server, and with `airflow dags test`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pprint import pformat
from typing import TYPE_CHECKING, Any

import pytest

from tests.libraries import program_of
from tests.servers import Server
from tests.tested import Library
from tests.workers import BEHIND, Worker, run, whole

if TYPE_CHECKING:
    import socket
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.once, pytest.mark.timeout(900)]

SHOP = '''
"""Tasks that end in every way; each run of a function notes it."""
import os, signal
from datetime import datetime, timedelta
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException
from notes import note

LONG_AGO = datetime(2026, 1, 1)

@task(queue="mail")
def add(a, b=0, token=None):
    note("add")
    return a + b

@task
def fail():
    note("fail")
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("bad") from error

@task(retries=1, retry_delay=timedelta(seconds=1))
def flaky():
    if note("flaky") == 1:
        raise RuntimeError("try again")

@task
def each(n):
    note(f"each-{n}")

@task
def skip():
    note("skip")
    raise AirflowSkipException("no")

@task.short_circuit
def cut():
    note("cut")
    return False

@task
def never():
    note("never")

@task
def die():
    note("die")
    os.kill(os.getpid(), signal.SIGKILL)

@task(executor="elsewhere")
def far():
    note("far")

@task(trigger_rule="all_done")
def last():
    note("last")

with DAG("shop", schedule="@once", start_date=LONG_AGO):
    add(1, b=2, token="hunter2")
    fail()
    flaky()
    each.expand(n=[5])
    skip()
    cut() >> never()
    die()
    far()
    order = TriggerDagRunOperator(task_id="order", trigger_dag_id="child")
    [BashOperator(task_id="unknown", bash_command="echo {{ nothing.at_all }}"), order] >> last()

with DAG("child", schedule=None):
    task(lambda: note("child"), task_id="child")()
'''

INSIDE = """
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, PokeReturnValue, task
from notes import note

@task
def add(a, b):
    note("inside")
    return b

@task
def leave():
    raise SystemExit(3)

@task.sensor(mode="reschedule", poke_interval=0)
def wait():
    return PokeReturnValue(is_done=note("wait") == 2)

with DAG("inside", schedule=None):
    add("{{ dag.dag_id }}", b=["x"])
    leave()
    wait()
    DateTimeSensorAsync(task_id="until", target_time="2026-01-01T00:00:00+00:00")
"""
# An executor of a machine whose clock is behind, to which the workload goes as JSON.
ELSEWHERE = f"""
import subprocess, sys
from airflow.executors.base_executor import BaseExecutor

COMMAND = [*{BEHIND}, sys.executable, "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]

class Elsewhere(BaseExecutor):
    def start(self):
        self.processes = {{}}

    def _process_workloads(self, workload_list):
        for workload in workload_list:
            self.running.add(workload.key)
            self.processes[workload.key] = subprocess.Popen([*COMMAND, workload.model_dump_json()])
            del self.queued_tasks[workload.key]

    def sync(self):
        for key in [key for key, process in self.processes.items() if process.poll() is not None]:
            (self.fail if self.processes.pop(key).returncode else self.success)(key)

    def end(self):
        for process in self.processes.values():
            process.wait()
        self.sync()
"""
DEADLINE = 250.0  # seconds that some dozen processes may take, each of which imports Airflow
STANDARD = "airflow.providers.standard"


def job(dag: str, task: str, state: str | None = "success", **fields: Any) -> dict[str, Any]:
    """Return the whole record of a run of a task; a killed one cannot tell its `state`."""
    tags = {"operator": fields.pop("operator", "@task"), "state": state}
    known = {key: value for key, value in tags.items() if value is not None}
    job_id = fields.pop("job_id", f"{dag}/{task}")
    return run("airflow", job_id, f"{dag}.{task}", **{"queue": "default", "tags": known, **fields})


def shop(task: str, state: str | None = "success", **fields: Any) -> dict[str, Any]:
    """Return the record of a task of the scheduler's, which is in the trace that Airflow made."""
    return job("shop", task, state, **{"parent_span_id": True, **fields})


def inside(task: str, state: str = "success", **fields: Any) -> dict[str, Any]:
    """Return the record of a task that nothing put on a queue."""
    return job("inside", task, state, **{"queue_time": False, **fields})


def ended(kind: str, message: str, function: str | None, *causes: tuple[str, str]) -> dict[str, Any]:
    """Return the exception of a record."""
    return {"exception": (kind, message, [*causes], function)}


CHILD = {"name": "enqueue.airflow", "title": "child", "body": None, "parent": None}
NO_ARGUMENTS: dict[str, Any] = {"args": None, "kwargs": None}
EXPECTED = {
    "shop/add": [shop("add", queue="mail", args=[1], kwargs={"b": 2, "token": "[FILTERED]"})],
    "shop/fail": [shop("fail", "failed", status="error", **ended("ValueError", "bad", "fail", ("KeyError", "'key'")))],
    "shop/flaky": [
        shop("flaky", "up_for_retry", status="error", **ended("RuntimeError", "try again", "flaky")),
        shop("flaky", attempts=2),
    ],
    "shop/each/0": [shop("each", job_id="shop/each/0", kwargs={"n": 5})],
    "shop/skip": [
        shop("skip", "skipped", status="ignored", **ended("airflow.sdk.exceptions.AirflowSkipException", "no", "skip"))
    ],
    "shop/cut": [shop("cut", operator="@task.short_circuit")],
    "shop/die": [shop("die", None, status="killed", killed=True)],
    "shop/far": [shop("far", clock_skew=True)],
    "shop/order": [
        shop(
            "order",
            operator=f"{STANDARD}.operators.trigger_dagrun.TriggerDagRunOperator",
            events=[CHILD],
            **NO_ARGUMENTS,
        )
    ],
    # What a template lacks is found before the task's own code runs.
    "shop/unknown": [
        shop(
            "unknown",
            "failed",
            operator=f"{STANDARD}.operators.bash.BashOperator",
            status="error",
            **ended("jinja2.exceptions.UndefinedError", "'nothing' is undefined", "root"),
            **NO_ARGUMENTS,
        )
    ],
    "shop/last": [shop("last")],
    "child/child": [job("child", "child", parent_span_id=True)],
}
IN_ONE_PROCESS = {
    "inside/add": [inside("add", args=["inside"], kwargs={"b": ["x"]})],
    "inside/leave": [inside("leave", "failed", status="error", **ended("SystemExit", "3", "leave"))],
    "inside/wait": [
        inside(
            "wait",
            "up_for_reschedule",
            operator="@task.sensor",
            status="ignored",
            **ended("airflow.sdk.exceptions.AirflowRescheduleException", "", None),
        ),
        inside("wait", operator="@task.sensor"),
    ],
    "inside/until": [
        inside(
            "until",
            "deferred",
            operator=f"{STANDARD}.sensors.date_time.DateTimeSensorAsync",
            status="ignored",
            **ended("airflow.sdk.exceptions.TaskDeferred", "", None),
            **NO_ARGUMENTS,
        ),
        inside("until", operator=f"{STANDARD}.sensors.date_time.DateTimeSensorAsync", **NO_ARGUMENTS),
    ],
}
LIBRARY = Library(
    "Airflow",
    "airflow",
    "apache-airflow",
    "airflow",
    "SQLite, the scheduler with its local executor and one of another machine, and `airflow dags test`",
    EXPECTED | IN_ONE_PROCESS,
    delayed=("shop/flaky",),
    missing=(
        "The class is the DAG, the method its task; a tag tells the state a run ended in. The trace is Airflow's own, "
        "one for each run of a DAG; a run that a task triggers has another. A task waits from when the scheduler hands "
        "it to an executor, as Airflow puts none on a queue before it is due. Only operators with a function have "
        "arguments. `airflow dags test` has neither a queue time nor a trace. Triggers are no jobs. Airflow 2 is left "
        "alone."
    ),
)


class ApiServer(Server):
    """The API server, which tasks tell what becomes of them."""

    start_seconds = 300.0

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.program = program_of("airflow", "airflow")
        self.worker = worker

    def start(self, program: str, folder: Path) -> None:
        """Start it in the worker's folder, under autoinst as all parts of Airflow."""
        del program, folder
        url = f"http://127.0.0.1:{self.port}/execution/"
        self.worker.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = url
        command = self.worker.command(("airflow", "api-server", "--host", "127.0.0.1", "--port", str(self.port)))
        self.spawn(*command, environ=self.worker.environ)

    def answers(self, connection: socket.socket) -> bool:
        """Ask whether it is well."""
        connection.settimeout(30)
        connection.sendall(b"GET /execution/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b" 200 " in connection.recv(32)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """Return the folder of an Airflow with an empty database."""
    folder = tmp_path_factory.mktemp("airflow") / "program"
    variables = {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "text that is as long as a key for the hash of tokens is to be, or longer",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor,elsewhere:elsewhere.Elsewhere",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "PYTHONPATH": ".",
    }
    files = {"dags/shop.py": SHOP, "dags/inside.py": INSIDE, "elsewhere.py": ELSEWHERE}
    worker = Worker(folder, "airflow", files, variables)
    worker.deadline = DEADLINE
    worker.call("airflow", "db", "migrate")
    return worker


def check(worker: Worker, dags: set[str], expected: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Compare all records of `dags` and return them, by the job's id without the run of the DAG."""
    found: dict[str, list[dict[str, Any]]] = {}
    compared: dict[str, list[dict[str, Any]]] = {}
    for job_id, records in worker.records().items():
        dag, dag_run, task = job_id.split("/", 2)
        if dag not in dags:
            continue
        name = f"{dag}/{task}"
        assert name not in found
        found[name] = records
        compared[name] = [whole(record) | {"job_id": name} for record in records]
        assert {record["tags"].pop("run") for record in compared[name]} == {dag_run}
    different = {name for name in compared.keys() | expected.keys() if compared.get(name) != expected.get(name)}
    assert not different, pformat([(compared.get(name), expected.get(name)) for name in different], sort_dicts=False)
    return found


def kept(worker: Worker) -> dict[str, dict[int, sqlite3.Row]]:
    """Return what Airflow keeps of the tasks of DAG `shop`, by try."""
    found: dict[str, dict[int, sqlite3.Row]] = {}
    columns = "task_id, try_number, state, queued_dttm, context_carrier"
    with closing(sqlite3.connect(worker.program.folder / "airflow" / "airflow.db")) as database:
        database.row_factory = sqlite3.Row
        for table in ("task_instance", "task_instance_history"):
            for row in database.execute(f"SELECT {columns} FROM {table} WHERE dag_id = 'shop'"):
                found.setdefault(row["task_id"], {})[row["try_number"]] = row
    return found


def test_every_run_of_a_schedulers_tasks(worker: Worker) -> None:
    worker.call("airflow", "dag-processor", "--num-runs", "1")
    with ApiServer(worker):
        worker.start("airflow", "scheduler", "--skip-serve-logs")
        names = ["add", "fail", "flaky", "flaky", "each-5", "skip", "cut", "die", "far", "last", "child"]
        worker.stop_after(names)
    found = check(worker, {"shop", "child"}, EXPECTED)
    rows = kept(worker)
    ends = {"fail": "failed", "skip": "skipped", "never": "skipped", "die": "failed", "unknown": "failed"}
    assert {name: tries[max(tries)]["state"] for name, tries in rows.items()} == {
        name: ends.get(name, "success") for name in rows
    }
    for records in (records for name, records in found.items() if name.startswith("shop/")):
        record = records[-1]
        row = rows[record["method"]][record["attempts"]]
        # It was handed to the executor after Airflow took it off its list, and the database's row is as it was.
        queued = datetime.fromisoformat(row["queued_dttm"]).replace(tzinfo=timezone.utc)
        started = time_of(record["started_at"]) + timedelta(minutes=5 if record.get("clock_skew") else 0)
        assert queued - timedelta(milliseconds=1) <= time_of(record["enqueued_at"]) <= started
        carrier = json.loads(row["context_carrier"])
        assert carrier["__var"].keys() == {"traceparent"}
    first, second = found["shop/flaky"]
    assert time_of(second["enqueued_at"]) >= time_of(first["started_at"]) + timedelta(seconds=1)
    traces = {name: {record["trace_id"] for record in records} for name, records in found.items()}
    child = traces.pop("child/child")
    assert len(set.union(*traces.values())) == 1
    assert not child & traces["shop/order"]


def time_of(text: str) -> datetime:
    """Return a record's time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_tasks_run_in_one_process_without_a_scheduler(worker: Worker) -> None:
    worker.start("airflow", "dags", "test", "inside")
    worker.stop_after([*worker.runs(), "inside", "wait", "wait"], by=None)
    check(worker, {"inside"}, IN_ONE_PROCESS)
