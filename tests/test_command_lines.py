"""The packs for command lines and pools, on where they are named: each command and each call is one transaction."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.workers import Worker, run, whole

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

COMMANDS: dict[str, str] = {}
COMMANDS["click"] = """
import sys, time, click

@click.group(invoke_without_command=True)
@click.pass_context
def main(ctx):
    pass

@main.command()
@click.argument("a", type=int)
@click.option("--password")
def add(a, password):
    print(a)

@main.command()
def fail():
    raise ValueError("bad")

@main.command()
def usage():
    raise click.UsageError("not so")

@main.command()
def leave():
    sys.exit(3)

@main.command()
@click.pass_context
def both(ctx):
    ctx.invoke(add, a=1)

if __name__ == "__main__":
    main()
"""
COMMANDS["typer"] = """
import sys, typer

main = typer.Typer()

@main.callback(invoke_without_command=True)
def group():
    pass

@main.command()
def add(a: int, password: str = "none"):
    print(a)

@main.command()
def fail():
    raise ValueError("bad")

@main.command()
def usage():
    raise typer.BadParameter("not so")

@main.command()
def leave():
    sys.exit(3)

if __name__ == "__main__":
    main()
"""


def command(library: str, function: str, **fields: Any) -> dict[str, Any]:
    nothing = {"queue": None, "queue_time": False, "attempts": None, "job_id": None, "args": None}
    module, _, name = function.rpartition(".")
    return {**run(library, "", f"{module}.{name}"), **nothing, "tags": {"command": name}, **fields}


def records(worker: Worker) -> list[dict[str, Any]]:
    return [whole(record) for found in worker.records().values() for record in found]


@pytest.mark.parametrize("environment", ["frameworks", "oldest"])
@pytest.mark.parametrize("library", ["click", "typer"])
def test_each_command_is_a_job_and_the_groups_above_it_are_none(tmp_path: Path, library: str, environment: str) -> None:
    variables = {"AUTOINST_PACKS": f"default,{library}"}
    worker = Worker(tmp_path / "program", environment, {"tool.py": COMMANDS[library]}, variables)
    for words in (["add", "1", "--password", "sesame"], ["fail"], ["usage"], ["leave"]):
        line = worker.command(("python", "tool.py", *words))
        plain = subprocess.run(line[2:], cwd=tmp_path / "program", env=worker.environ, capture_output=True, check=False)
        done = subprocess.run(line, cwd=tmp_path / "program", env=worker.environ, capture_output=True, check=False)
        assert done.returncode == plain.returncode
    found = records(worker)
    ignored = [record.pop("exception")[0] for record in found if record["status"] == "ignored"]
    assert [name.rpartition(".")[2] for name in ignored] == [
        "UsageError" if library == "click" else "BadParameter",
        "SystemExit",
    ]
    add, fail, usage, leave = found
    assert add == command(library, "__main__.add", kwargs={"a": 1, "password": "[FILTERED]"})
    assert (fail["status"], fail["method"], fail["exception"][:2]) == ("error", "fail", ("ValueError", "bad"))
    assert [(record["method"], record["status"]) for record in (usage, leave)] == [
        ("usage", "ignored"),
        ("leave", "ignored"),
    ]


def test_the_command_line_of_a_job_library_is_no_command(tmp_path: Path) -> None:
    shop = "from celery import Celery\napp = Celery('shop', broker='memory://')\n@app.task\ndef add(a):\n    return a\n"
    worker = Worker(tmp_path / "program", "celery", {"shop.py": shop}, {"AUTOINST_PACKS": "default,click"})
    worker.call("celery", "-A", "shop", "report")
    assert records(worker) == []


TASKS = """
from invoke import Exit, task

@task
def clean(c):
    print("clean")

@task(pre=[clean])
def build(c, name, fast=False):
    helper(c)

@task
def helper(c):
    print("help")

@task
def fail(c):
    raise ValueError("bad")

@task
def leave(c):
    raise Exit("enough", code=3)
"""


@pytest.mark.parametrize("environment", ["frameworks", "oldest"])
def test_invokes_tasks(tmp_path: Path, environment: str) -> None:
    worker = Worker(tmp_path / "program", environment, {"tasks.py": TASKS}, {})
    for words in (["build", "--name", "x"], ["fail"], ["leave"]):
        subprocess.run(
            worker.command(("invoke", *words)), cwd=tmp_path / "program", env=worker.environ, check=False, timeout=90
        )
    clean, build, fail, leave = records(worker)
    assert clean == command("invoke", "tasks.clean", args=[], tags={})
    inner = [{"name": "perform_job.invoke", "title": "invoke.tasks.Task#__call__", "body": None, "parent": None}]
    assert build == command(
        "invoke", "tasks.build", args=[], kwargs={"name": "x", "fast": False}, events=inner, tags={}
    )
    assert (fail["status"], fail["method"], fail["exception"][:2]) == ("error", "fail", ("ValueError", "bad"))
    assert (leave["status"], leave["method"], leave["exception"][0]) == ("ignored", "leave", "invoke.exceptions.Exit")


MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = (
    "SECRET_KEY = 'x'\nINSTALLED_APPS = ['shop']\nDATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3'}}\n"
)
BUILD = """
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("name")

    def handle(self, *args, **options):
        call_command("check")
        if options["name"] == "bad":
            raise CommandError("bad")
"""
RUNWORKER = """
from django.core.management.base import BaseCommand

class Command(BaseCommand):
    def handle(self, **_):
        pass
"""


@pytest.mark.parametrize("environment", ["databases", "oldest"])
def test_djangos_management_commands(tmp_path: Path, environment: str) -> None:
    files = {"manage.py": MANAGE, "settings.py": SETTINGS, "shop/management/commands/build.py": BUILD}
    files["shop/management/commands/runworker.py"] = RUNWORKER
    worker = Worker(tmp_path / "program", environment, files, {"AUTOINST_PACKS": "default,django-commands"})
    for words in (["build", "good"], ["build", "bad"], ["runworker"]):
        subprocess.run(
            worker.command(("python", "manage.py", *words)), cwd=tmp_path / "program", env=worker.environ, check=False
        )
    good, bad = records(worker)
    assert good.pop("kwargs")["name"] == "good"
    assert [event["name"] for event in good.pop("events")] == ["perform_job.django-commands"]
    expected = command("django-commands", "shop.management.commands.build.Command.handle", args=[], tags={})
    assert good == {key: value for key, value in expected.items() if key not in ("kwargs", "events")}
    assert (bad["status"], bad["exception"][:2]) == ("error", ("django.core.management.base.CommandError", "bad"))


POOLS = '''
"""Calls that end in every way, in each kind of pool."""
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import Pool
from multiprocessing.pool import ThreadPool

def add(a, b=0):
    return a + b

def fail(x):
    raise ValueError("bad")

def outcome(wait):
    try:
        return wait()
    except ValueError as error:
        return str(error)

def main(kind):
    if kind in ("ThreadPoolExecutor", "ProcessPoolExecutor"):
        with globals()[kind](1) as pool:
            print(pool.submit(add, 1, b=2).result(), outcome(pool.submit(fail, 3).result))
            print(list(pool.map(add, [5, 6])))
    else:
        with globals()[kind](1) as pool:
            print(pool.apply(add, (1,), {"b": 2}), outcome(pool.apply_async(fail, (3,)).get))
            print(pool.map(add, [5, 6], chunksize=2))

if __name__ == "__main__":
    main(sys.argv[1])
'''


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "Pool", "ThreadPool"])
def test_each_call_in_a_pool(tmp_path: Path, kind: str) -> None:
    pack = "futures" if kind.endswith("Executor") else "mppool"
    worker = Worker(tmp_path / "program", "databases", {"pools.py": POOLS}, {"AUTOINST_PACKS": f"default,{pack}"})
    assert worker.call("python", "pools.py", kind) == "3 bad\n[5, 6]\n"
    found = records(worker)
    ids = [record.pop("job_id") for record in found]
    expected = [
        command(pack, "__main__.add", args=[1], kwargs={"b": 2}, tags={}),
        command(pack, "__main__.fail", args=[3], status="error", exception=("ValueError", "bad", [], "fail"), tags={}),
    ]
    if kind == "ThreadPoolExecutor":
        expected += [command(pack, "__main__.add", args=[n], tags={}) for n in (5, 6)]
    elif kind == "ProcessPoolExecutor":
        expected += [command(pack, "__main__.add", args=None, tags={}) for _ in (5, 6)]
    else:
        expected += [command(pack, "__main__.add", args=None, tags={})]
    for record in expected:
        del record["job_id"]
    assert found == expected, ids


def test_a_job_that_is_killed_in_a_pool(tmp_path: Path) -> None:
    text = POOLS.replace('raise ValueError("bad")', "os.kill(os.getpid(), signal.SIGKILL)")
    worker = Worker(tmp_path / "program", "databases", {"pools.py": text}, {"AUTOINST_PACKS": "default,futures"})
    line = worker.command(("python", "pools.py", "ProcessPoolExecutor"))
    done = subprocess.run(
        line, cwd=tmp_path / "program", env=worker.environ, capture_output=True, check=False, timeout=90
    )
    assert done.returncode not in (0, -signal.SIGKILL)
    assert [(record["method"], record["status"]) for record in records(worker)] == [("add", "ok"), ("fail", "killed")]


SCRIPT = """
import sys

def main(end):
    if end == "fail":
        raise ValueError("bad")
    if end != "good":
        sys.exit(int(end))

main(sys.argv[1])
"""


@pytest.mark.parametrize("how", [("worker.py",), ("-m", "package")])
def test_plain_scripts(tmp_path: Path, how: tuple[str, ...]) -> None:
    files = {"worker.py": SCRIPT, "package/__main__.py": SCRIPT}
    files["rules.yaml"] = "version: 1\njobs:\n  - {function: __main__.main, name: perform_job.script}\n"
    worker = Worker(tmp_path / "program", "databases", files, {"AUTOINST_RULES": "rules.yaml"})
    statuses = [
        subprocess.run(
            worker.command(("python", *how, end)), cwd=tmp_path / "program", env=worker.environ, check=False
        ).returncode
        for end in ("good", "fail", "0", "3")
    ]
    assert statuses == [0, 1, 0, 3]
    found = [(record["status"], (record["exception"] or (None,))[0]) for record in records(worker)]
    assert found == [("ok", None), ("error", "ValueError"), ("ok", "SystemExit"), ("error", "SystemExit")]
