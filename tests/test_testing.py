"""autoinst.testing, as a program's own tests use it."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import re
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import autoinst
import autoinst.testing
from autoinst.errors import RulesError
from autoinst.hook.ending import ending
from autoinst.hook.trampoline import probe_of
from autoinst.trace import recorder

MODULE = __name__


class Mailer:
    def __init__(self, queue: str = "mail") -> None:
        self.queue = queue

    def perform(self, order: int) -> str:
        if order == 13:
            raise ValueError(f"order {order} has no items")
        with autoinst.instrument("query.sql", title="SELECT"):
            pass
        return f"sent {order}"


def send(address: str) -> str:
    return address


async def slow(n: int) -> int:
    await asyncio.sleep(0)
    return n


RULES = {
    "version": 1,
    "jobs": [
        {
            "class": f"{MODULE}.Mailer",
            "methods": ["perform"],
            "payload": {"queue": "${self.queue}", "args": "${args}"},
            "keep": {"ok": 0},
        },
        {"function": f"{MODULE}.send"},
        {"function": f"{MODULE}.slow"},
    ],
}


def test_one_call_is_one_job() -> None:
    code = send.__code__
    with autoinst.testing.record(RULES) as jobs:
        assert Mailer().perform(11) == "sent 11"
        job = jobs.one(action=f"{MODULE}.Mailer#perform", queue="mail", status="ok", args=[11], events=["query.sql"])
        assert job is not None
        with pytest.raises(ValueError, match="order 13"):
            Mailer("other").perform(13)
    assert len(jobs) == 2
    assert [job.status for job in jobs] == ["ok", "error"]
    assert jobs[0].action == f"{MODULE}.Mailer#perform"
    assert jobs.one(exception="ValueError", queue="other").args == [13]
    jobs.none(status="killed")
    # After the block nothing is recorded, and the functions are as they were.
    Mailer().perform(12)
    assert len(jobs) == 2
    assert send.__code__ is code
    assert probe_of(Mailer.perform.__code__) is None


def test_one_block_after_the_other_and_none_of_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    finders = list(sys.meta_path)
    for n in range(3):
        with autoinst.testing.record(RULES) as jobs:
            send(str(n))
        assert len(jobs) == 1
    assert os.listdir(tmp_path) == []
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert sys.meta_path == finders
    from autoinst.trace import recorder

    assert recorder.active is None or not recorder.active.config.home.startswith(str(tmp_path))


def test_without_rules_what_the_program_says_itself_is_recorded() -> None:
    with autoinst.testing.record() as jobs:
        send("nobody@shop.example")
        with autoinst.monitor("Reports#nightly") as transaction:
            transaction.set_tags({"region": "eu"})
            assert [job.status for job in jobs] == ["running"]
    jobs.one(action="Reports#nightly", tags={"region": "eu"}, status="ok")
    assert len(jobs) == 1


@pytest.mark.parametrize("form", ["text", "file", "path"])
def test_rules_as_text_and_as_a_file(tmp_path: Path, form: str) -> None:
    text = f"version: 1\njobs:\n  - {{function: {MODULE}.send}}\n"
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    rules: Any = {"text": text, "file": str(file), "path": file}[form]
    with autoinst.testing.record(rules) as jobs:
        send("x")
    jobs.one(action=f"{MODULE}#send")


def test_wrong_rules_are_told_with_their_place() -> None:
    with pytest.raises(RulesError, match=r"rules.yaml:3:\d+: error: unknown key 'functoin'"):
        autoinst.testing.record("version: 1\njobs:\n  - {functoin: a.b}\n").__enter__()
    with pytest.raises(RulesError, match="no such file"):
        autoinst.testing.record("missing.yaml").__enter__()


def test_threads_coroutines_and_forked_children_are_recorded() -> None:
    with autoinst.testing.record(RULES) as jobs:
        thread = threading.Thread(target=send, args=("thread",))
        thread.start()
        thread.join()
        asyncio.run(slow(1))
        child = os.fork()
        if not child:
            send("child")
            os._exit(0)
        os.waitpid(child, 0)
        lost = os.fork()
        if not lost:
            Killed.die()
        os.waitpid(lost, 0)
        send("parent")
    assert len(jobs.matching(action=f"{MODULE}#send", status="ok")) == 3
    assert {job.pid for job in jobs.matching(action=f"{MODULE}#send")} == {os.getpid(), child}
    jobs.one(action=f"{MODULE}#slow")
    assert len(jobs) == 4


class Killed:
    @staticmethod
    def die() -> None:
        os.kill(os.getpid(), 9)


def test_a_job_killed_in_a_child_is_seen_as_killed() -> None:
    rules = {"version": 1, "jobs": [{"class": f"{MODULE}.Killed", "methods": ["die"]}]}
    with autoinst.testing.record(rules) as jobs:
        child = os.fork()
        if not child:
            Killed.die()
        os.waitpid(child, 0)
        jobs.one(status="killed")


def test_modules_imported_inside_the_block_and_functions_that_only_a_registry_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fresh_tasks.py").write_text(
        "tasks = []\ndef task(f):\n    tasks.append(f)\n@task\ndef hidden(n):\n    return n\ndef plain(): pass\n"
    )
    rules = {"version": 1, "jobs": [{"module": "fresh_tasks", "functions": ["*"], "exclude": ["fresh_tasks.task"]}]}
    with autoinst.testing.record(rules) as jobs:
        import fresh_tasks  # type: ignore[import-not-found]

        assert fresh_tasks.tasks[0](1) == 1
    assert [job.action for job in jobs] == ["fresh_tasks#hidden"]
    fresh_tasks.tasks[0](2)
    assert len(jobs) == 1
    for _ in range(2):
        with autoinst.testing.record(rules) as jobs:
            fresh_tasks.tasks[0](3)
            fresh_tasks.plain()
        assert [job.action for job in jobs] == ["fresh_tasks#hidden", "fresh_tasks#plain"]
    with autoinst.testing.record() as jobs:
        fresh_tasks.tasks[0](4)
    assert len(jobs) == 0
    del sys.modules["fresh_tasks"]


def test_a_failing_claim_says_what_there_is_instead() -> None:
    with autoinst.testing.record(RULES) as jobs:
        with pytest.raises(AssertionError, match=r"^no job was recorded; expected queue='mail'$"):
            jobs.one(queue="mail")
        Mailer("default").perform(11)
        send("a")
    with pytest.raises(AssertionError) as caught:
        jobs.one(action=f"{MODULE}.Mailer#perform", queue="mail", status="ok")
    assert str(caught.value).splitlines()[:6] == [
        "no job is as expected; of the 2 recorded, these are nearest:",
        f"job {MODULE}.Mailer#perform ok",
        f"    action = '{MODULE}.Mailer#perform'",
        "  - queue = 'mail'",
        "  + queue = 'default'",
        "    status = 'ok'",
    ]
    with pytest.raises(AssertionError, match="2 jobs are there, not one"):
        jobs.one()
    with pytest.raises(AssertionError, match="1 jobs that should not be there:\njob"):
        jobs.none(queue="default")
    with pytest.raises(TypeError, match="a job has no 'que'"):
        jobs.one(que="mail")
    assert repr(jobs).startswith(f"<2 jobs: {MODULE}.Mailer#perform ok, ")


PROGRAM = """\
import os, sys
def job(n):
    if n == 2:
        raise KeyError(n)
    if n == 3:
        os.kill(os.getpid(), 9)
print(sys.stdin.read())
for n in range(int(sys.argv[1])):
    try:
        job(n)
    except KeyError:
        pass
sys.exit(3)
"""


def test_a_program_is_run_and_its_jobs_returned(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(PROGRAM)
    rules = {"version": 1, "packs": ["none"], "jobs": [{"function": "__main__.job"}]}
    done = autoinst.testing.run(["worker.py", "3"], rules=rules, cwd=tmp_path, stdin="hello")
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello\n", "")
    assert [job.status for job in done.jobs] == ["ok", "ok", "error"]
    done.jobs.one(exception="KeyError", class_="__main__", method="job")
    killed = autoinst.testing.run(["worker.py", "5"], rules=rules, cwd=tmp_path)
    assert killed.returncode == -9
    killed.jobs.one(status="killed")
    (tmp_path / "autoinst.yaml").write_text("version: 1\njobs: [{function: __main__.job}]\n")
    assert len(autoinst.testing.run(["worker.py", "1"], cwd=tmp_path).jobs) == 1
    assert len(autoinst.testing.run(["-c", "print(1)"], cwd=tmp_path).jobs) == 0
    with pytest.raises(RulesError):
        autoinst.testing.run(["worker.py", "1"], rules="version: 2\n", cwd=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["autoinst.yaml", "worker.py"]


def test_in_a_program_under_autoinst_its_own_rules_are_what_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        "import autoinst.testing\n"
        "def job(n): pass\n"
        "job(0)\n"
        "with autoinst.testing.record() as jobs:\n    job(1)\n"
        "job(2)\n"
        "print(len(jobs), jobs[0].action)\n"
        "try:\n    autoinst.testing.record({'version': 1}).__enter__()\n"
        "except RuntimeError as error:\n    print(error)\n"
    )
    rules = {"version": 1, "jobs": [{"function": "__main__.job"}]}
    done = autoinst.testing.run(["worker.py"], rules=rules, packs="none", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "1 __main__#job",
        "this process has rules in force already: leave out those given here",
    ]
    assert len(done.jobs) == 2  # what was recorded apart is not among its jobs


def test_a_doctest_like_script_records_its_own_main_functions(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import autoinst.testing\n"
        "def job(): pass\n"
        "with autoinst.testing.record('version: 1\\njobs: [{function: __main__.job}]\\n') as jobs:\n    job()\n"
        "jobs.one(action='__main__#job')\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    blocks = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    readme = blocks.findall((root / "README.md").read_text())
    shop, worker = [text for kind, text in readme if kind == "python"][:2]
    (rules,) = [text for kind, text in readme if kind == "yaml"]
    page = blocks.findall((root / "docs" / "testing.md").read_text())
    example, fixture = [text for kind, text in page if kind == "python"]
    uses_it = "\n\ndef test_fixture(jobs):\n    shop.send_email('a')\n    assert len(jobs) == 1\n"
    for name, text in (
        ("shop.py", shop),
        ("worker.py", worker),
        ("rules.yaml", rules),
        ("test_shop.py", f"{example}\n\n{fixture}{uses_it}"),
    ):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_many_recordings_leave_nothing_for_forks_and_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    runpys_own = vars(runpy).copy()
    registered: list[Any] = []

    def left() -> tuple[int, int, int]:
        return atexit._ncallbacks(), len(recorder.at_fork), len(registered)

    def recorded() -> None:
        with autoinst.testing.record(RULES) as jobs:
            send("a")
        assert len(list(jobs)) == 1

    recorded()  # which follows forks from now on
    monkeypatch.setattr("os.register_at_fork", lambda **callbacks: registered.append(callbacks))
    before = left()
    for _ in range(3):
        recorded()
    assert left() == before
    assert ending.registry is None
    assert vars(runpy) == runpys_own


LIVING = """
def make():
    def closure(n):
        return n
    return closure

def numbers(n):
    yield n
    job(n)

def job(n):
    return n
"""


def test_functions_that_live_on_keep_none_of_the_rules_they_were_recorded_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "living_tasks.py").write_text(LIVING)
    rules = {"version": 1, "jobs": [{"function": "living_tasks.make.<locals>.closure"}]}
    kept: list[Any] = []

    def recorded() -> None:
        with autoinst.testing.record(rules) as jobs:
            import living_tasks  # type: ignore[import-not-found]

            kept.append(living_tasks.make())
            for closure in kept:
                closure(1)
        assert len(jobs) == len(kept)
        del sys.modules["living_tasks"]

    def alive() -> list[int]:
        gc.collect()
        kinds = [type(found).__name__ for found in gc.get_objects()]
        return [kinds.count(name) for name in ("RuleSet", "Finder", "Spool")]

    recorded()
    before = alive()
    for _ in range(5):
        recorded()
    # What other tests left may go meanwhile.
    assert all(now <= then for now, then in zip(alive(), before, strict=True))
    assert [closure(2) for closure in kept] == [2] * 6


def test_a_job_that_a_recording_left_open_ends_as_if_there_were_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "open_tasks.py").write_text(LIVING)
    (tmp_path / "late_tasks.py").write_text("def job():\n    pass\n")
    rules = {"version": 1, "jobs": [{"function": "open_tasks.numbers"}, {"function": "late_tasks.job"}]}
    with autoinst.testing.record(rules) as first:
        import open_tasks  # type: ignore[import-not-found]

        numbers = open_tasks.numbers(1)
        next(numbers)
    assert [job.status for job in first] == ["running"]
    import late_tasks  # type: ignore[import-not-found]

    code = late_tasks.job.__code__
    with autoinst.testing.record({"version": 1, "jobs": [{"function": "open_tasks.job"}]}) as second:
        assert next(numbers, None) is None
        assert late_tasks.job.__code__ is code
        open_tasks.job(2)
    # The second recording has what was called in it, and nothing was done by the first one's rules.
    assert [(job.action, job.status) for job in second] == [("open_tasks#job", "ok")] * 2
    assert [job.status for job in first] == ["running"]
    del sys.modules["open_tasks"], sys.modules["late_tasks"]
