"""The environments of other people's libraries, in which tests start real workers: see scripts/environments.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NoReturn

import environments
import pytest


def python_of(name: str) -> str:
    """Return the Python of library environment `name`, made now if it is not there.

    AUTOINST_TESTS_<NAME> names the Python of another environment, with another version of the library.
    Skips the test where it cannot be made, as on a machine without a package index; with CI set it fails instead.
    """
    other = os.environ.get(f"AUTOINST_TESTS_{name.upper()}")
    if other:
        return other
    try:
        return str(environments.library(name))
    except subprocess.CalledProcessError as error:
        unavailable(f"environment {name} cannot be made: {error.stderr.strip()[-300:]}")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it with CI set, where all there is must be had."""
    if os.environ.get("CI") or os.environ.get("AUTOINST_TESTS_COMPLETE"):
        pytest.fail(reason)
    pytest.skip(reason)


def program_of(name: str, program: str) -> str:
    """Return the path of console script `program` of library environment `name`, such as `celery`."""
    return str(Path(python_of(name)).with_name(program))
