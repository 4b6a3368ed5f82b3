"""What earlier versions wrote is read as before: arenas, stores, rules files, and the keys of a record as JSON.

tests/data/compat has, for each version of the store, the home that autoinst of that time left after the same program:
its arena, its store, and what `autoinst jobs --json` printed then.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.rules.load import load_files
from autoinst.spool.reader import Arena
from autoinst.store import schema
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DATA = ROOT / "tests" / "data" / "compat"
VERSIONS = range(1, schema.VERSION + 1)
OF_THE_PROCESS = frozenset({"host", "service", "environment", "revision", "pid"})  # the arena has them once


def kept(name: str) -> bytes:
    path = DATA / f"{name}.gz"
    assert path.exists(), "the store has a new version: run scripts/compatibility.py and commit what it writes"
    return gzip.decompress(path.read_bytes())


def unpacked(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(kept(name))
    path.chmod(0o600)
    return path


def printed(version: int) -> dict[str, dict[str, Any]]:
    lines = kept(f"store-{version}.jsonl").splitlines()
    found = {record["id"]: record for record in map(json.loads, lines)}
    assert sorted(record["status"] for record in found.values()) == ["error", "ignored", "ok", "ok", "ok", "ok"]
    return found


def as_before(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return of `now` what there was before: keys may be added, everywhere."""
    same: dict[str, Any] = {}
    for key, value in before.items():
        assert key in now, key
        same[key] = now[key]
        if key == "events":
            same[key] = [as_before(*pair) for pair in zip(now[key], value, strict=True)]
        elif key == "exception" and value is not None:
            same[key] = as_before(now[key], value)
    return same


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_is_brought_up_to_date_with_all_its_jobs(version: int, tmp_path: Path) -> None:
    before = printed(version)
    with Store(str(unpacked(f"store-{version}.sqlite3", tmp_path))) as store:
        now = {record.id: record.to_json() for record in store.jobs(JobFilter(limit=0))}
        assert {key: as_before(record, before[key]) for key, record in now.items()} == before
        totals = store.totals(0, 2**62)
        assert {action: cell.jobs for action, cell in totals.items()} == {
            "shop.Mailer#perform": 4,
            "shop#bare": 1,
            "Reports#nightly": 1,
        }
        (error,) = store.errors()
        assert (error.class_name, error.total) == ("ValueError", 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_arena_is_read_with_all_its_jobs(version: int, tmp_path: Path) -> None:
    before = printed(version)
    arena = Arena.open(str(unpacked(f"store-{version}.arena", tmp_path)))
    try:
        now = {record.id: record.to_json() for record in arena.done().records}
    finally:
        arena.close()
    assert now
    for key, record in now.items():
        expected = {name: value for name, value in before[key].items() if name not in OF_THE_PROCESS}
        assert as_before(record, expected) == expected


def test_a_rules_file_with_every_key_of_version_1() -> None:
    rules, loader = load_files([str(DATA / "rules-1.yaml")], None)
    assert [problem.render() for problem in loader.problems] == []
    assert [rule.kind for rule in rules.rules] == ["job"] * 5 + ["event", "exception", "enqueue", "enrich"]
    first = rules.rules[0]
    assert (first.name, first.namespace, first.nested, first.unsafe) == ("perform_job.mail", "mails", "new", True)
    assert set(first.fields) >= {"class", "method", "queue", "queue_time", "enqueued_at", "eta", "attempts", "job_id"}
