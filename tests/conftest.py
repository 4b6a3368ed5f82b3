"""Fixtures that several test files use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.launching import make_programs

if TYPE_CHECKING:
    from pathlib import Path


LONG = ("kill", "transparency")  # markers of tests that run only where `-m` names them


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out of a run that does not ask for them."""
    asked = config.getoption("markexpr")
    left_out = [item for item in items if any(item.get_closest_marker(name) and name not in asked for name in LONG)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with the probe in every form a program can have."""
    folder = tmp_path / "work"
    folder.mkdir()
    make_programs(folder)
    return folder
