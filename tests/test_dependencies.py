"""The wheel, installed by pip in new environments: with the oldest versions of what it needs, and with the newest."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import pythons

from tests.harness import ROOT
from tests.hostile import Receiver, certificate
from tests.libraries import unavailable
from tests.web_pages import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hostile import Handler

pytestmark = [pytest.mark.once, pytest.mark.service]
OLDEST_PYTHON = "3.10"
# What their packages are built with, where a newer one cannot: PyYAML 5.4 is of the time before Cython 3.
BUILT_WITH = "cython<3\n"
NEWEST = {"importlib-metadata": 8, "pyyaml": 6, "urllib3": 2, "wrapt": 2}  # major versions that are out, at least
VERSIONS = """
import importlib.metadata, json
found = importlib.metadata.distributions()
print(json.dumps({one.metadata["Name"].lower().replace("_", "-"): one.version for one in found}))
"""
WORKER = """
import sqlite3

def job():
    sqlite3.connect(":memory:").cursor().execute("SELECT 1")

job()
print("done")
"""
RULES = """
version: 1
packs: [none]
jobs:
  - function: __main__.job
events:
  - {class: sqlite3.Cursor, methods: [execute], name: query.sqlite}
"""


def floors() -> dict[str, str]:
    """Return the oldest version of each dependency, the page's too, that autoinst says it works with."""
    needed = importlib.metadata.requires("autoinst")
    assert needed
    return dict(entry.partition(";")[0].strip().lower().split(">=") for entry in needed)


def installed(folder: Path, wheel: Path, interpreter: str, constraints: str) -> Path:
    """Return the folder of programs of a new environment with `wheel` and its page."""
    (folder / "constraints.txt").write_text(constraints)
    (folder / "build.txt").write_text(BUILT_WITH)
    subprocess.run([interpreter, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    programs = folder / "venv" / "bin"
    command = [str(programs / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["-c", str(folder / "constraints.txt"), f"autoinst[ui] @ {wheel.as_uri()}"]
    built = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(folder / "build.txt"))  # older, newer pip
    done = subprocess.run(command, env=os.environ | built, capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"the wheel cannot be installed: {done.stderr.strip()[-300:]}")
    return programs


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def accepted(paths: list[str]) -> Callable[[Handler], None]:
    """Return how to take whatever is sent by OTLP, and keep the paths."""

    def behave(handler: Handler) -> None:
        if handler.sent():
            paths.append(handler.path)
        handler.reply(200, headers={"Content-Type": "application/x-protobuf"})

    return behave


def works(programs: Path, folder: Path) -> None:
    """Record a job, read it, send it over TLS to an address without a name, and see it on the page."""
    (folder / "worker.py").write_text(WORKER)
    (folder / "autoinst.yaml").write_text(RULES)
    context, authority = certificate(folder)
    paths: list[str] = []
    with Receiver(context) as receiver:
        receiver.chance = lambda: accepted(paths)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST_", "OTEL_"))} | {
            "AUTOINST_HOME": str(folder / "home"),
            "AUTOINST_AGENT": "off",
            "AUTOINST_EXPORTERS": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority),
        }

        def call(*words: str, status: int = 0) -> str:
            command = [str(programs / "autoinst"), *words]
            done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == status, done.stdout + done.stderr
            return done.stdout

        assert call("check", "autoinst.yaml") == ""
        assert call("run", "worker.py") == "done\n"
        (record,) = (json.loads(line) for line in call("jobs", "--json").splitlines())
        assert record["action"] == "__main__#job"
        assert [event["name"] for event in record["events"]] == ["query.sqlite"]
        call("agent", "--once")
        assert set(paths) == {"/v1/traces", "/v1/metrics"}
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url.replace("127.0.0.1", "localhost")
        told = call("doctor", status=1)
        assert "its certificate is not trusted" in told
        assert "localhost" in told
    with serving(folder / "home", program=str(programs / "autoinst")) as ui:
        assert "__main__#job" in ui.ask("/actions").text
        assert ui.ask("/static/app.js").status == 200


def test_the_wheel_works_with_the_oldest_versions(tmp_path: Path, wheel: Path) -> None:
    interpreter = pythons.find(OLDEST_PYTHON) or unavailable(f"Python {OLDEST_PYTHON} is not found")
    oldest = floors()
    constraints = "".join(f"{name}=={version}\n" for name, version in oldest.items())
    programs = installed(tmp_path, wheel, interpreter, constraints)
    found = json.loads(subprocess.run([programs / "python", "-c", VERSIONS], check=True, capture_output=True).stdout)
    whole = {name: version.removesuffix(".0") for name, version in found.items()}
    assert {name: whole[name] for name in oldest} == {name: text.removesuffix(".0") for name, text in oldest.items()}
    works(programs, tmp_path)


def test_the_wheel_works_with_the_newest_versions(tmp_path: Path, wheel: Path) -> None:
    programs = installed(tmp_path, wheel, sys.executable, "")
    found = json.loads(subprocess.run([programs / "python", "-c", VERSIONS], check=True, capture_output=True).stdout)
    assert all(int(found[name].partition(".")[0]) >= least for name, least in NEWEST.items()), found
    works(programs, tmp_path)
