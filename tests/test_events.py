"""The packs of events with the real libraries: what each job's clients do is an event each, and holds no data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import Program
from tests.libraries import python_of
from tests.servers import MariaDB, Postgres, RabbitMQ, Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Result

pytestmark = [pytest.mark.service, pytest.mark.once]

DATA = Path(__file__).resolve().parent / "data"
RULES = """
    version: 1
    jobs:
      - {function: __main__.perform, payload: {method: "${function.__name__}"}}
"""


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Run all servers, and tell the port of each."""
    python = python_of("events")
    with ExitStack() as stack:
        servers: list[Any] = [stack.enter_context(kind()) for kind in (Redis, Postgres, MariaDB, RabbitMQ)]
        fakes = stack.enter_context(
            subprocess.Popen([python, str(DATA / "fakes.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert fakes.stdout is not None
        ports = json.loads(fakes.stdout.readline())
        names = ("redis", "postgres", "mariadb", "rabbit")
        yield ports | {name: server.port for name, server in zip(names, servers, strict=True)}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> tuple[Result, Result]:
    """Run all jobs with autoinst, and without."""
    return results(tmp_path_factory.mktemp("clients"), "events", ports)


def results(folder: Path, environment: str, ports: dict[str, int], *names: str) -> tuple[Result, Result]:
    """Run jobs of clients.py in an environment, those of `names` or all, with autoinst and without."""
    program = Program(folder)
    program.write("rules.yaml", RULES)
    shutil.copy(DATA / "clients.py", folder / "clients.py")
    variables = {"PORTS": json.dumps(ports), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [python_of(environment), "clients.py", *names]
    with_it = program.execute(command, variables, timeout=240)
    return with_it, program.execute(command, variables, instrumented=False, timeout=240)


def sql(*bodies: str, group: str) -> list[tuple[str, str | None, str | None]]:
    """Return the events of these statements, each with its first word as title."""
    return [(f"query.{group}", body.partition(" ")[0], body) for body in bodies]


def titled(name: str, *titles: str) -> list[tuple[str, str | None, str | None]]:
    return [(name, title, None) for title in titles]


PG = "postgresql"
RESET = "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;"  # by asyncpg's pool
MYSQL = sql(
    "CREATE DATABASE IF NOT EXISTS shop",
    "CREATE TABLE IF NOT EXISTS shop.t (a int)",
    "INSERT INTO shop.t VALUES (%s)",
    "SELECT a, ? FROM shop.t WHERE a = %s",
    group="mysql",
)
WEB = "http://127.0.0.1:PORT"
EXPECTED: dict[str, list[Any]] = {
    "sqlite3": sql(
        "CREATE TABLE t (a, b)",
        "INSERT INTO t VALUES (?)",
        "SELECT a FROM t WHERE b = ? AND a IN (?)",
        group="sqlite",
    ),
    "psycopg": sql("SELECT ?, ?", "SELECT %s", "SELECT ? AS n", group=PG),
    "psycopg_async": sql("SELECT ?", group=PG),
    "psycopg2": sql("SELECT ? AS a, %s AS b", group=PG),
    "asyncpg": sql("SELECT ?", "SELECT $1::int", "SELECT $1::text || ?", "SELECT ? WHERE ? = $1", RESET, group=PG),
    "pymysql": MYSQL,
    "mysqlclient": MYSQL,
    "redis": titled("query.redis", "SET", "pipeline of 2"),
    "redis_async": titled("query.redis", "SET", "pipeline of 1"),
    "pymongo": titled("query.mongodb", "insert", "update", "find", "find"),
    "pymongo_async": titled("query.mongodb", "delete"),
    "elasticsearch": titled("query.elasticsearch", "POST /things/_search", "PUT /things/_doc/1"),
    "boto3": titled("request.boto3", "SQS ListQueues"),
    "requests": titled("request.urllib3", f"GET {WEB}/from?word=?", f"GET {WEB}/to?word=?", f"POST {WEB}/a/b"),
    "urllib3": titled("request.urllib3", f"GET {WEB}/from?word=?", f"GET {WEB}/to?word=?"),
    "httpx": titled("request.httpx", f"GET {WEB}/from"),
    "httpx_async": titled("request.httpx", f"PUT {WEB}/x"),
    "aiohttp": titled("request.aiohttp", f"GET {WEB}/from?word=?", f"POST {WEB}/y"),
    "urllib": titled("request.urllib", f"GET {WEB}/from?word=?", f"PUT {WEB}/z?word=?"),
    "kombu": titled("publish.kombu", "mail"),
    "pika": titled("publish.pika", "mail"),
    "smtplib": titled("send.smtp", "127.0.0.1"),
    "jinja2": titled("render.jinja2", "a.html"),
    "subprocess": titled("run.subprocess", "/bin/echo", "/bin/echo", "/bin/echo"),
}
# Each of these asks through a driver's cursor, whose event it is, and there is no second one.
ON_DRIVERS: dict[str, list[Any]] = {
    "sqlalchemy": [
        *sql("SELECT ?", group="sqlite"),
        *sql("SELECT ?", group=PG),
        *sql("SELECT ?", group=PG),
    ],
    "sqlalchemy_async": sql("SELECT ?", group=PG),
    "django": [
        *sql("SELECT ? AS a, ? AS b", group="sqlite"),
        *sql("SELECT ? AS a, %s AS b", group=PG),
        *titled("render.django", "a.html", "b.html"),
    ],
}


def events(result: Result, name: str) -> list[tuple[str, str | None, str | None]]:
    (record,) = (record for record in result.records if record["method"] == f"job_{name}")
    assert record["status"] == "ok"
    found = [(event["name"], event["title"], event["body"]) for event in record["events"]]
    return [
        (name, None if title is None else re.sub(r"(?<=127\.0\.0\.1:)\d+", "PORT", title), body)
        for name, title, body in found
    ]


def test_the_program_does_what_it_does_without(result: tuple[Result, Result]) -> None:
    with_it, without = result
    assert (with_it.status, with_it.stdout, with_it.stderr) == (without.status, without.stdout, without.stderr)
    assert with_it.status == 0
    assert {record["method"] for record in with_it.records} == {f"job_{name}" for name in EXPECTED | ON_DRIVERS}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_clients_calls_are_events(result: tuple[Result, Result], name: str) -> None:
    assert events(result[0], name) == EXPECTED[name]


@pytest.mark.parametrize("name", ON_DRIVERS)
def test_a_query_is_one_event_however_it_came_to_the_driver(result: tuple[Result, Result], name: str) -> None:
    found = events(result[0], name)
    wanted = ON_DRIVERS[name]
    assert [event for event in found if event in wanted] == wanted, found
    bodies = [event[2] for event in found if event[2] is not None]
    assert bodies.count(wanted[0][2]) == len([event for event in wanted if event[2] == wanted[0][2]])


def test_no_data_is_recorded(result: tuple[Result, Result]) -> None:
    for record in result[0].records:
        text = json.dumps(record["events"])
        assert "secret" not in text


# Of `django` only the templates have a pack with a range.
OLDEST = {
    "oldest": [name for name in EXPECTED if name not in ("sqlite3", "urllib", "smtplib", "subprocess")] + ["django"],
}


@pytest.mark.parametrize("environment", OLDEST)
def test_the_oldest_versions_of_the_clients(ports: dict[str, int], tmp_path: Path, environment: str) -> None:
    names = OLDEST[environment]
    with_it, without = results(tmp_path, environment, ports, *names)
    assert (with_it.status, with_it.stdout) == (without.status, without.stdout), with_it.stderr
    assert with_it.status == 0, with_it.stderr
    found = {name: events(with_it, name) for name in names}
    assert found == {name: (EXPECTED | ON_DRIVERS)[name] for name in names}
