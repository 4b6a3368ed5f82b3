"""Fixtures that several test files use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.launching import make_programs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with the probe in every form a program can have."""
    folder = tmp_path / "work"
    folder.mkdir()
    make_programs(folder)
    return folder
