"""Fixtures that several test files use."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from autoinst.config import make_private
from autoinst.store.sqlite import Store
from tests import webdata
from tests.agents import Agents
from tests.clickhouses import Debian
from tests.launching import make_programs
from tests.web_pages import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web_pages import Ui


# No test depends on how busy the machine is, nor on luck: it has the same examples each time.
# `pytest --hypothesis-profile=search` has others.
hypothesis.settings.register_profile("search", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("tests", hypothesis.settings.get_profile("search"), derandomize=True)
hypothesis.settings.load_profile("tests")

LONG = ("kill", "transparency")  # markers of tests that run only where `-m` names them
TERMINAL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")  # what says of a terminal how output has to look there


def pytest_configure() -> None:
    """Let what tests start look alike on every terminal, and be interrupted.

    A job of a shell's background, and its children, ignore SIGINT.
    """
    for name in TERMINAL:
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Any:
    """Let pytest-xdist send the report of a test that failed with text that is none: it breaks down else."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    return type(value)(map(_encodable, value)) if type(value) in (list, tuple) else value


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out of a run that does not ask for them."""
    asked = config.getoption("markexpr")
    left_out = [item for item in items if any(item.get_closest_marker(name) and name not in asked for name in LONG)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home that is not there yet."""
    return tmp_path / "home"


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[Debian]:
    """Start Debian's ClickHouse for the tests of one file, which make databases of their own in it."""
    with Debian() as server:
        yield server


@pytest.fixture
def agents(home: Path) -> Iterator[Agents]:
    """Return the agents of that home, ended with the test."""
    found = Agents(home)
    yield found
    found.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with the probe in every form a program can have."""
    folder = tmp_path / "work"
    folder.mkdir()
    make_programs(folder)
    return folder


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with ten hours of a shop's jobs, to be read only."""
    home = tmp_path_factory.mktemp("web") / "home"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=10)
        webdata.retried(store, now)
    return home


@pytest.fixture(scope="session")
def shop_ui(shop: Path) -> Iterator[Ui]:
    """Serve that home."""
    with serving(shop) as ui:
        yield ui
