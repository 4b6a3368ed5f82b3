"""The environments of libraries: one for each group, each with a lock that names no index."""

from __future__ import annotations

import subprocess

import environments
import pytest

from tests.libraries import program_of, python_of

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", environments.names())
def test_each_environment_has_a_lock_without_addresses(name):
    lines = environments.lock_of(name).read_text().splitlines()
    always = "requests==" if name.startswith(environments.PEER) else "pyyaml=="
    assert any(line.startswith(always) for line in lines)
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_a_library_and_autoinst_stand_side_by_side():
    code = "import autoinst, celery, os; print(os.path.dirname(os.path.dirname(autoinst.__file__)))"
    done = subprocess.run([python_of("celery"), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(environments.ROOT)
    assert subprocess.run([program_of("celery", "autoinst"), "path"], capture_output=True, check=False).returncode == 0


def test_peers_are_made_only_where_they_are_named():
    assert [name for name in environments.names() if name not in environments.libraries()] == [
        f"peer-{lock.stem}" for lock in sorted((environments.REQUIREMENTS / "peers").glob("*.txt"))
    ]


def test_an_unknown_environment_is_named(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["environments.py", "nothing"])
    assert environments.main() == 1
    assert "library-nothing" in capsys.readouterr().err
