"""The README's programs, rules and commands do what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import environment

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP = ["make demo", "make test"]


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == language]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = environment(folder / "home")
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_what_it_is_takes_ten_lines_and_set_up_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    introduction = text.partition("# autoinst\n")[2].partition("\n## ")[0].strip().splitlines()
    assert len([line for line in introduction if line]) <= 10
    assert blocks("sh")[0].split("\n") == [*SETUP, ""]
    assert {kind for kind, _ in BLOCK.findall(text)} == {"sh", "python", "yaml"}


def test_every_command_works(tmp_path: Path) -> None:
    shop, worker, by_hand = blocks("python")
    (rules,) = blocks("yaml")
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "worker.py").write_text(worker)
    (tmp_path / "rules.yaml").write_text(rules)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line not in SETUP]
    results = {command: run(command, tmp_path) for command in commands}
    for command, result in results.items():
        assert result.returncode == 0, (command, result.stderr)
    printed = "failed: order 13 has no items\nsent to ada@shop.example\n"
    runs = [result for command, result in results.items() if command.endswith("worker.py")]
    assert [(result.stdout, result.stderr) for result in runs] == [(printed, "")] * 2
    failed = json.loads(results["autoinst jobs --status error --json"].stdout)
    (tmp_path / "by_hand.py").write_text(by_hand)
    assert run("autoinst run by_hand.py", tmp_path).returncode == 0
    assert failed["action"] == "shop.InvoiceMailer#perform"
    assert failed["queue"] == "mail"
    assert failed["queue_time"] >= 1500
    assert failed["exception"]["message"] == "order 13 has no items"
    jobs = [json.loads(line) for line in run("autoinst jobs --json", tmp_path).stdout.splitlines()]
    assert jobs[0]["action"] == "Reports#nightly"
    assert [event["name"] for event in jobs[0]["events"]] == ["query.sql"]
    assert [job["action"] for job in jobs[1:]] == (["shop#send_email"] + ["shop.InvoiceMailer#perform"] * 3) * 2
    assert jobs[2]["args"] == [13]
    assert "shop.InvoiceMailer#perform" in results["autoinst jobs"].stdout


def test_make_targets(tmp_path: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)`", (ROOT / "README.md").read_text())) | {"demo", "test"}
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE))
    assert named <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_make_demo(tmp_path: Path) -> None:
    # Where .venv is not up to date, `make demo` would change the environment these tests run in.
    if subprocess.run(["make", "-q", ".venv/.ready"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip(".venv is not up to date, so these are not the tests of `make test`")
    result = run(f"make -C {ROOT} demo", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "jobs.VideoThumbnail#perform" in result.stdout
