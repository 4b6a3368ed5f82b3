"""What a person checks first: docs/checks.md says which test is which check; those without another place are here."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.cli.options import make_parser, subcommands
from autoinst.config import make_private
from autoinst.store.sqlite import Store
from tests import webdata
from tests.agents import eventually
from tests.harness import ROOT
from tests.launching import AUTOINST, environment
from tests.web_pages import Ui, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

MINUTE_SECONDS = 60
PROGRAM = """
class InvoiceMailer:
    queue = "mail"

    def perform(self, order):
        return f"invoice of {order}"

def main():
    for order in (11, 12):
        print(InvoiceMailer().perform(order))

if __name__ == "__main__":
    main()
"""
SLOW = """
import time

class Encoder:
    def perform(self, film):
        print("begun", flush=True)
        time.sleep(600)

Encoder().perform(3)
"""
SLOW_RULES = """
version: 1
jobs:
  - {class: __main__.Encoder, methods: [perform]}
"""


def test_the_list_of_checks_names_tests_that_there_are() -> None:
    text = (ROOT / "docs" / "checks.md").read_text()
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 10
    assert len(named) > 10
    for file, function in named:
        assert f"def {function}(" in (ROOT / file).read_text(), (file, function)


@pytest.mark.service
def test_from_an_empty_environment_to_the_first_job_on_the_page(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    binaries = tmp_path / "fresh" / "bin"
    install = [
        str(binaries / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        f"{wheel}[ui]",
    ]
    subprocess.run(install, check=True, timeout=600)
    program = tmp_path / "program"
    program.mkdir()
    (program / "worker.py").write_text(PROGRAM)
    env = environment(tmp_path / "home") | {"PATH": f"{binaries}:{os.environ['PATH']}"}
    began = used_by_children()
    said = {}
    for arguments in (["init"], ["check", "autoinst.yaml"], ["run", "worker.py"]):
        done = subprocess.run(
            ["autoinst", *arguments], cwd=program, env=env, capture_output=True, text=True, check=True
        )
        said[arguments[0]] = done.stdout
    assert said["run"] == "invoice of 11\ninvoice of 12\n"
    assert (program / "worker.py").read_text() == PROGRAM
    ui = subprocess.Popen(
        ["autoinst", "ui", "--port", "0"],
        cwd=program,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert ui.stdout is not None
        page = Ui(ui.stdout.readline().split()[-1])
        found = page.json("/jobs")["jobs"]
        assert "InvoiceMailer" in page.ask("/").text
        assert [job["action"] for job in found] == ["worker.InvoiceMailer#perform"] * 2 or [
            job["action"] for job in found
        ] == ["__main__.InvoiceMailer#perform"] * 2
    finally:
        ui.send_signal(signal.SIGINT)
        ui.communicate(timeout=60)
    assert used_by_children() - began < MINUTE_SECONDS


def used_by_children() -> float:
    """Return the seconds of processor that ended children used: those it was busy with others are not theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def autoinst(home: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command whose output is no terminal."""
    command = [AUTOINST, *arguments]
    return subprocess.run(
        command, env=environment(home), cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_job_killed_in_the_middle_is_shown_everywhere_and_for_good(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "worker.py").write_text(SLOW)
    (tmp_path / "rules.yaml").write_text(SLOW_RULES)
    command = [AUTOINST, "run", "--rules", "rules.yaml", "worker.py"]
    worker = subprocess.Popen(command, cwd=tmp_path, env=environment(home), stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == "begun\n"
        with serving(home) as ui:
            (running,) = ui.json("/running")["running"]
            assert (running["pid"], running["status"]) == (worker.pid, "running")
            worker.kill()
            worker.wait()
            eventually(lambda: ui.json("/running")["killed"])
            (killed,) = ui.json("/running")["killed"]
            page = ui.ask(f"/jobs/{killed['id']}").text
            assert f"Process {worker.pid} was killed" in page
            assert "The job had run for" in page
            assert f"process {worker.pid} killed" in ui.ask("/running").text
    finally:
        worker.kill()
        worker.communicate()
    assert killed["killed"]["pid"] == worker.pid
    assert killed["duration"] > 0
    (job,) = map(json.loads, autoinst(home, "jobs", "--json").stdout.splitlines())
    assert (job["status"], job["killed"]["pid"]) == ("killed", worker.pid)
    shown = autoinst(home, "show", job["id"]).stdout
    assert f"process {worker.pid} killed" in shown
    # Nothing of it was kept in memory only: another server shows the same.
    with serving(home) as ui:
        assert ui.json("/running")["killed"] == [killed]
        assert f"Process {worker.pid} was killed" in ui.ask(f"/jobs/{killed['id']}").text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home of jobs, some of them with escape sequences for a terminal in each of their texts."""
    home = tmp_path_factory.mktemp("checks") / "home"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=1)
        webdata.trouble(store, now)
        webdata.hostile(store, now)
    (home.parent / "shop.py").write_text("class Mail:\n    def perform(self):\n        ...\n")
    (home.parent / "good.yaml").write_text("version: 1\njobs:\n  - {class: shop.Mail, methods: [perform]}\n")
    (home.parent / "bad.yaml").write_text("version: 1\njbos: []\njobs:\n  - {class: shop.Mial, methods: [perform]}\n")
    return home


def readers(home: Path) -> dict[str, list[str]]:
    """Return by command that has `--json` what to give it."""
    hostile = json.loads(autoinst(home, "jobs", "--json", "--search", "id:686f7374696c6521").stdout.splitlines()[-1])
    return {
        "jobs": ["--limit", "0"],
        "tail": ["--no-follow", "--limit", "0"],
        "show": [hostile["id"]],
        "actions": ["--limit", "0"],
        "errors": ["--state", "all"],
        "init": ["-o", "-"],
        "check": ["bad.yaml", "good.yaml"],
        "explain": ["--rules", "good.yaml", "shop:Mail.perform"],
        "doctor": [],
        "import": ["empty.jsonl"],
        "demo": [],
    }


def test_piped_output_has_no_escape_sequence_and_json_is_json(home: Path, tmp_path: Path) -> None:
    (home.parent / "empty.jsonl").write_text("")
    commands = readers(home)
    with_json = {name for name, (_, sub) in subcommands(make_parser()).items() if "[--json]" in sub.format_help()}
    assert with_json == set(commands)
    for name, arguments in commands.items():
        where = home if name != "demo" else tmp_path / "demo"
        told = autoinst(where, name, *arguments, cwd=home.parent)
        data = autoinst(where, name, *arguments, "--json", cwd=home.parent)
        for done in (told, data):
            assert done.returncode in (0, 1), (name, done.stderr)
            assert "Traceback" not in done.stderr, name
            assert "\033" not in done.stdout + done.stderr, name
        found: list[Any] = [json.loads(line) for line in data.stdout.splitlines()]
        assert found or name == "tail", name


def test_show_and_errors_of_hostile_text_steer_no_terminal(home: Path) -> None:
    jobs = map(json.loads, autoinst(home, "jobs", "--json", "--search", "id:686f7374696c6521").stdout.splitlines())
    for job in jobs:
        done = autoinst(home, "show", "--full", job["id"])
        assert (done.returncode, done.stderr) == (0, "")
        assert "\033" not in done.stdout
        assert "\033" not in autoinst(home, "errors", fingerprint_of(home, job)).stdout if job["exception"] else True


def fingerprint_of(home: Path, job: dict[str, Any]) -> str:
    """Return the fingerprint of the error that a job ended in."""
    found = map(json.loads, autoinst(home, "errors", "--state", "all", "--json").stdout.splitlines())
    fingerprint: str = next(error["fingerprint"] for error in found if error["last_job"] == job["id"])
    return fingerprint


@pytest.mark.parametrize("command", ["jobs", "errors", "actions"])
def test_a_terminal_that_is_narrow_or_dumb_is_no_trouble(home: Path, command: str) -> None:
    narrow = on_terminal(home, command, TERM="xterm", COLUMNS="80")
    assert "\033[" in narrow
    lines = re.sub(r"\033\[[0-9;]*m", "", narrow).splitlines()
    assert max(len(line) for line in lines if "<script>" not in line and not line.startswith("autoinst: ")) <= 80
    assert "\033" not in on_terminal(home, command, TERM="dumb", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


def on_terminal(home: Path, command: str, **variables: str) -> str:
    """Return what a command writes on a terminal."""
    typescript = ["script", "-qec", f"{AUTOINST} {command}", "/dev/null"]
    env = environment(home) | variables
    env.pop("NO_COLOR", None)
    done = subprocess.run(typescript, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    assert b"Traceback" not in done.stdout
    return done.stdout.decode()
