"""What is made from the command line's parser: docs/commands.md, the man page, and completions that shells accept."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from autoinst.cli import main as cli
from autoinst.cli.options import COMMANDS
from tests.harness import ROOT

pytestmark = pytest.mark.once
COMPLETE = """
source "$1"
shift
COMP_WORDS=(autoinst "$@")
COMP_CWORD=$#
_autoinst
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_the_reference_and_the_man_page_are_up_to_date() -> None:
    script = ROOT / "scripts" / "commands_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run scripts/commands_reference.py: {done.stdout}{done.stderr}"


def test_man_shows_the_page() -> None:
    if shutil.which("man") is None:
        pytest.skip("there is no man on this machine")
    page = ROOT / "docs" / "autoinst.1"
    done = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "autoinst jobs --status error,killed --since 2h" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["jo"], ["jobs"]),
        (["errors", "--sta"], ["--state"]),
        (["errors", "--state", ""], ["open", "resolved", "ignored", "all"]),
        (["export", "--format", "c"], ["csv"]),
        (["completion", "f"], ["fish"]),
        (["run", "--serv"], ["--service"]),
    ],
)
def test_bash_completes(words: list[str], expected: list[str], tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", script, *words], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (expected, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_accept_it(shell: str, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    for command in COMMANDS:
        assert command in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
