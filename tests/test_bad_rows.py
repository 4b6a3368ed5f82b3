"""Payloads and rows that no library wrote, in databases: a worker does what it does without.

As tests/test_bad_payloads.py, for libraries whose queue, or what jobs came to, is in a database. What cannot be put on
a queue is refused as without, and is no error of the job that tried.
"""

from __future__ import annotations

import signal
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests import bad_clusters, bad_rows
from tests.bad_payloads import MANGLE
from tests.bad_rows import REFUSED
from tests.databases import PostgresDatabase, RedisDatabase, SQLite
from tests.servers import Postgres, Redis
from tests.sides import Side, both, check_arguments, check_same, first_argument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bad_rows import Case
    from tests.databases import Database

pytestmark = [pytest.mark.service, pytest.mark.once]

CASES = bad_rows.CASES | bad_clusters.CASES


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


class RowsSide(Side):
    """One worker and its databases: the first has what jobs came to."""

    def __init__(self, folder: Path, case: Case, databases: list[Database]) -> None:
        self.case, self.databases = case, databases
        files = {"mangle.py": MANGLE, "refused.py": REFUSED, "send.py": textwrap.dedent(case.send)}
        files |= {name: textwrap.dedent(text) for name, text in case.files.items()}
        variables = {"PYTHONPATH": ".", **case.variables}
        for database in databases:
            variables |= database.variables
        super().__init__(folder, case.environment, files, variables, instrumented=folder.name == "instrumented")

    def run(self) -> None:
        """Run the worker until the last job's result is there."""
        by = None if self.case.by is None else signal.Signals[self.case.by]
        self.work(self.case.start.split(), by, lambda: bool(self.databases[0].rows(self.case.done)))

    def left(self) -> list[str]:
        """Return what is left in the database, and with the broker."""
        return [row for database in self.databases for row in database.all(self.case.left)]


@pytest.mark.parametrize("library", CASES)
def test_the_worker_does_what_it_does_without(tmp_path: Path, request: pytest.FixtureRequest, library: str) -> None:
    case = CASES[library]
    sides = []
    for number, name in enumerate(("plain", "instrumented")):
        folder = tmp_path / name
        databases: list[Database] = [
            PostgresDatabase(request.getfixturevalue("postgres"), name) if case.postgres else SQLite(folder)
        ]
        if case.redis:
            databases.append(RedisDatabase(request.getfixturevalue("redis"), number))
        sides.append(RowsSide(folder, case, databases))
    plain, side = sides
    for database in plain.databases:
        database.make()
    plain.call(*case.setup.split())
    plain.call("python", "send.py")
    for original, copy in zip(plain.databases, side.databases, strict=True):
        original.copy_to(copy)
    both(RowsSide.run, plain, side)
    check_same(plain.did(plain.left()), side.did(side.left()))
    check_arguments(side)
    (refuse,) = (record for record in side.records() if first_argument(record) == "refuse")
    assert (refuse["status"], refuse["exception"]) == ("ok", None)
    assert {record["action"] for record in side.records()} >= set(case.actions)
    said = side.doctor()
    for line in case.unavailable:
        assert f"\n  {line}" in said
