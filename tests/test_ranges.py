"""Each pack's range is shown by tests at its lowest end: that version is in the lock of an environment that runs it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import libraries_table
import pytest

from autoinst.rules.load import load_files
from autoinst.rules.packs import builtin_packs
from tests.harness import ROOT
from tests.test_oldest import CASES
from tests.test_oldest import ENVIRONMENT as OLDEST

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

BOUND = re.compile(r">=([0-9.]+)")
# What other tests run of packs for no job library, and where: test_command_lines.py, test_events.py and test_sqs.py.
OTHERS = dict.fromkeys(
    [
        "aiohttp",
        "asyncpg",
        "boto3",
        "click",
        "django-commands",
        "elasticsearch",
        "httpx",
        "invoke",
        "mysql",
        "psycopg",
        "publish",
        "pymongo",
        "templates",
        "typer",
    ],
    OLDEST,
)
# Pack -> why its oldest version has no test.
EXCEPTIONS = {
    "airflow": "an environment of it is too large for two",
    "redis": "libraries of the environment need a newer one, of which the tests run two",
    "sqs": "moto is for newer ones; it has the hook that the pack boto3 has, whose oldest is run",
    "urllib3": "libraries of the environment need 1.26.2; tests of the wheel run 1.26.0",
}


def lowest(pack: str) -> dict[str, tuple[int, ...]]:
    """Return the lowest version of each distribution that the pack's rules are for."""
    found: dict[str, tuple[int, ...]] = {}
    for rule in load_files([], pack)[0].rules:
        for distribution, specifier in rule.requires.items():
            if distribution == "python":  # each version of which the tests run with
                continue
            bound = BOUND.search(specifier)
            assert bound is not None, (pack, specifier)
            version = padded(bound[1])
            found[distribution] = min(version, found.get(distribution, version))
    return found


def padded(version: str) -> tuple[int, ...]:
    return (*map(int, version.split(".")), 0, 0, 0)[:4]


def locked(environment: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Return the distributions of an environment with their versions; one may have several, for several Pythons."""
    name = "test.txt" if environment == "test" else f"libraries/{environment}.txt"
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    for distribution, version in re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([0-9.]+[0-9])\b", text, re.MULTILINE):
        yield distribution, padded(version)


def environments() -> dict[str, set[str]]:
    """Return by pack the environments in which tests run it."""
    found = {pack: {environment} for pack, environment in OTHERS.items()}
    for library in libraries_table.libraries():
        if library.pack and library.pack not in EXCEPTIONS:
            found[library.pack] = {library.environment, library.oldest or library.environment}
            if library.pack in CASES:
                found[library.pack].add(OLDEST)
    return found


@pytest.mark.parametrize("pack", [name for name in builtin_packs() if lowest(name)])
def test_the_lowest_version_of_a_pack_is_run_or_it_is_said_why_not(pack: str) -> None:
    if pack in EXCEPTIONS:
        return
    have = {pin for environment in environments()[pack] for pin in locked(environment)}
    assert not {pin for pin in lowest(pack).items() if pin not in have}
