"""`autoinst init`: what it makes of a program is a rules file that `check` finds nothing wrong in, and that works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autoinst.cli import main as cli
from autoinst.cli.init import job_packs
from tests.harness import Program

Capture = pytest.CaptureFixture[str]
JOBS = """
from celery import Celery, shared_task
import rq.job

app = Celery("shop")

class Base:
    def perform(self, order): ...

class Mail(Base):
    def perform(self, order): ...

class Refund(Base):
    def perform(self, order): ...

class Own(rq.job.Job):
    def perform(self): ...

@shared_task
def of_celery(): ...

@app.task(bind=True)
def of_an_app(self): ...

def send_mail(address, queue): ...

class ReportJob:
    def run(self, enqueued_at, queue_name): ...
    @property
    def perform(self): ...

class Server:
    def run(self): ...

@scheduler.job("cron")
def nightly(): ...
"""
# Tasks of an app that another module makes, by both ways of importing it.
MORE = """
import shop.jobs
from shop.jobs import app as celery_app

@celery_app.task
def of_its_app(): ...

@shop.jobs.app.task
def of_its_app_too(): ...
"""
WORKER = """
from shop import jobs

class Cleanup:
    def perform(self, number):
        print("cleaned", number)

if __name__ == "__main__":
    Cleanup().perform(7)
    jobs.ReportJob().run(1.0, "reports")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "billing"
    for name, text in (
        ("shop/__init__.py", ""),
        ("shop/jobs.py", JOBS),
        ("shop/more.py", MORE),
        ("worker.py", WORKER),
        ("tests/test_jobs.py", "class TestJob:\n    def perform(self): ...\n"),
        ("venv/lib.py", "class OtherJob:\n    def perform(self): ...\n"),
        ("broken.py", "class BadJob(:\n"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(folder)
    return folder


def test_what_is_found_becomes_rules_that_check_accepts(project: Path, capsys: Capture) -> None:
    assert cli.main(["init"]) == 0
    err = capsys.readouterr().err
    assert "wrote ./autoinst.yaml: 4 rules in force, 1 more as comments" in err
    assert "jobs of celery and rq need no rule" in err
    text = (project / "autoinst.yaml").read_text()
    schema = text.splitlines()[0].partition("$schema=")[2]
    assert json.loads(Path(schema).read_text())["title"] == "autoinst rules"
    assert yaml.safe_load(text)["jobs"] == [
        {"subclass_of": "shop.jobs.Base", "module": "shop.**", "methods": ["perform"]},
        {
            "class": "shop.jobs.ReportJob",
            "methods": ["run"],
            "payload": {"queue": "${queue_name}", "enqueued_at": "${enqueued_at}"},
        },
        {"function": "shop.jobs.nightly"},
        {"class": "__main__.Cleanup", "methods": ["perform"]},
    ]
    assert '  # - function: shop.jobs.send_mail\n  #   payload:\n  #     queue: "${queue}"' in text
    assert {"celery", "rq", "click"} <= set(job_packs())
    assert not {"sqlite", "urllib3"} & set(job_packs())  # which record no jobs
    for pack in job_packs():
        assert pack in text
    assert cli.main(["check", "autoinst.yaml"]) == 0


def test_libraries_whose_packs_have_other_names_are_known(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "app.py").write_text(
        "import django_q.tasks\nfrom temporalio import activity\n\n@activity.task\ndef f(): ...\n"
    )
    assert cli.main(["init", "--json", "-o", "-", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["libraries"], found["candidates"]) == (["django-q2", "temporal"], [])


def test_doubtful_ones_are_right_once_they_are_no_comments(project: Path, capsys: Capture) -> None:
    assert cli.main(["init", "-o", "-"]) == 0
    text = capsys.readouterr().out
    assert not (project / "autoinst.yaml").exists()
    head, mark, rest = text.partition("  # Perhaps these too:\n")
    more, end, closing = rest.partition("\n\n")
    (project / "all.yaml").write_text(
        head + mark + more.replace("  # ", "  ").replace("  shop/", "  # shop/") + end + closing
    )
    assert cli.main(["check", "all.yaml"]) == 0
    assert {"function": "shop.jobs.send_mail", "payload": {"queue": "${queue}"}} in yaml.safe_load(
        (project / "all.yaml").read_text()
    )["jobs"]


def test_json(project: Path, capsys: Capture) -> None:
    assert cli.main(["init", "--json", "-o", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["libraries"] == ["celery", "rq"]
    assert found["file"] is None
    assert {
        "class": "__main__.Cleanup",
        "methods": ["perform"],
        "file": "worker.py",
        "line": 5,
        "why": "a class with `perform`",
        "likely": True,
    } in found["candidates"]


def test_a_file_that_is_there_is_kept(project: Path, capsys: Capture) -> None:
    (project / "autoinst.yaml").write_text("version: 1\n")
    assert cli.main(["init"]) == 1
    assert "--force" in capsys.readouterr().err
    assert (project / "autoinst.yaml").read_text() == "version: 1\n"
    assert cli.main(["init", "--force"]) == 0
    assert "jobs:" in (project / "autoinst.yaml").read_text()


def test_a_program_without_jobs_gets_an_example(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "app.py").write_text("print('hello')\n")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert "0 rules in force" in capsys.readouterr().err
    assert cli.main(["check", str(tmp_path / "autoinst.yaml")]) == 0
    assert "shop.jobs.InvoiceMailer" in (tmp_path / "autoinst.yaml").read_text()
    assert cli.main(["init", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_init_then_run_shows_the_first_jobs(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("shop/__init__.py", "")
    program.write("shop/jobs.py", "class ReportJob:\n    def run(self, enqueued_at, queue_name): ...\n")
    program.write("worker.py", WORKER)
    environ = program.environ({}, instrumented=False)
    autoinst = [sys.executable, "-m", "autoinst.cli.main"]
    for command in (["init"], ["run", "worker.py"]):
        done = subprocess.run(
            [*autoinst, *command],
            cwd=program.folder,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "cleaned 7\n"
    assert [(record["action"], record["queue"]) for record in program.records()] == [
        ("__main__.Cleanup#perform", None),
        ("shop.jobs.ReportJob#run", "reports"),
    ]
