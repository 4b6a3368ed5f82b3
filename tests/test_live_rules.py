"""Rules that are edited while workers run: each call is under the old rules or under the new ones, none is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import rq

from tests.harness import Program
from tests.libraries import python_of
from tests.servers import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent
DEADLINE = 60.0  # seconds for what takes one or two on a quiet machine

# Each call leaves a line in a log of its process and thread: its number, and the name of the transaction it is in.
SHOP = """
import functools, os, threading
from autoinst import Transaction

def note(what, n):
    line = f"{what} {n} {getattr(Transaction.current(), 'name', None)}\\n"
    descriptor = os.open(f"log.{os.getpid()}.{threading.get_native_id()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)

def send(n, cc=None):
    note("send", n)
    return n

def other(n):
    note("other", n)

def many(*numbers, **options):
    note("many", numbers[0])

class Mailer:
    def perform(self, n):
        note("perform", n)

    @staticmethod
    def check(n):
        note("check", n)

def decorate(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@decorate
def decorated(n):
    note("decorated", n)

def make():
    def inner(n):
        note("inner", n)
    return inner

def numbers(n):
    for i in range(3):
        note("numbers", n)
        yield i

async def later(n):
    note("later", n)
"""
WORKER = """
import itertools, os, sys, threading, time
import shop

count = itertools.count().__next__
hidden = [shop.make(), shop.numbers]
del shop.make, shop.numbers  # no name leads to these any longer
mailer = shop.Mailer()
send = shop.send

def work():
    while not os.path.exists("stop"):
        for call in (send, shop.other, shop.many, mailer.perform, shop.Mailer.check, shop.decorated, hidden[0]):
            call(count())
        list(hidden[1](count()))
        time.sleep(0.001)

threads = [threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
ALL = ("send", "other", "many", "perform", "check", "decorated", "inner", "numbers")


def rule(what: str, name: str, more: str = "") -> str:
    """Return a rule for function `what` of the shop whose transactions are called perform_job.`name`."""
    where = {
        "perform": "class: shop.Mailer, methods: [perform]",
        "check": "class: shop.Mailer, methods: [check]",
        "inner": "function: shop.make.<locals>.inner",
    }.get(what, f"function: shop.{what}")
    number = "${args}" if what != "many" else "${numbers}"
    return f'  - {{{where}, name: perform_job.{name}, payload: {{args: "{number}"}}{more}}}\n'


def rules(*lines: str) -> str:
    return "version: 1\njobs:\n" + "".join(lines)


class Worker:
    """A worker process whose rules files are edited while it runs."""

    def __init__(self, program: Program, *arguments: str, python: str = sys.executable, **variables: str) -> None:
        self.program = program
        self.folder = program.folder
        self.process = subprocess.Popen(
            [python, *arguments],
            cwd=self.folder,
            env=program.environ({"AUTOINST_PACKS": "none", **variables}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that its children go with it
        )

    def __enter__(self) -> Worker:  # noqa: PYI034 - Self is not in typing before 3.11
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def log(self) -> Counter[tuple[str, int, str]]:
        """Return what the calls noted themselves: (function, number, transaction), with how often."""
        found: Counter[tuple[str, int, str]] = Counter()
        for path in self.folder.glob("log.*"):
            for line in path.read_text().split("\n")[:-1]:  # the last one may be in the making
                what, number, name = line.split()
                found[what, int(number), name] += 1
        return found

    def seen(self) -> set[tuple[str, str]]:
        return {(what, name) for what, _, name in self.log()}

    def wait_for(self, *pairs: tuple[str, str]) -> None:
        """Wait until calls of (function, transaction) have been noted."""
        self.wait(lambda: set(pairs) <= self.seen())

    def wait(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not is_true():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, self.seen()
            time.sleep(0.05)

    def since(self, what: str, change: Callable[[], object]) -> Callable[[], set[str]]:
        """Make a change and return what tells the names of `what` in calls since then."""
        change()
        before = self.log()
        return lambda: {name for called, _, name in (self.log() - before) if called == what}

    def stop(self) -> list[dict[str, Any]]:
        """Let the worker end and return the records."""
        (self.folder / "stop").touch()
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        assert (self.process.returncode, stdout, stderr) == (0, "", "")
        return self.program.records()


def hold_against_the_log(log: Counter[tuple[str, int, str]], records: list[dict[str, Any]]) -> None:
    """Compare the records with what the calls noted themselves: every one that was in a transaction, and once."""
    truth = Counter({(number, name): 1 for _, number, name in log if name != "None"})
    recorded = Counter((record["args"][0], record["name"]) for record in records)
    assert recorded == truth
    assert {record["status"] for record in records} == {"ok"}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    found = Program(tmp_path)
    found.write("shop.py", SHOP)
    found.write("worker.py", WORKER)
    found.write("rules.yaml", rules(rule("send", "one")))
    return found


def replace(path: Path, text: str) -> None:
    """Put a file in another's place, as editors and configuration systems do."""
    new = path.with_name(".new")
    new.write_text(text)
    new.replace(path)


def test_edits_under_load_lose_and_double_nothing(program: Program) -> None:
    file = program.folder / "rules.yaml"
    with Worker(program, "worker.py", "4") as worker:
        worker.wait_for(("send", "perform_job.one"), ("other", "None"), ("inner", "None"), ("numbers", "None"))
        # changed, read by other arguments than before
        file.write_text(rules(rule("send", "two", ', tags: {cc: "${cc}"}, when: "${n >= 0}"')))
        worker.wait_for(("send", "perform_job.two"))
        # added to functions that are loaded, one of them decorated; those that nothing leads to stay as they are
        file.write_text(rules(*(rule(what, "three") for what in ALL)))
        names = [(what, "perform_job.three") for what in ALL if what not in ("inner", "numbers")]
        worker.wait_for(*names)
        assert {name for what, name in worker.seen() if what in ("inner", "numbers")} == {"None"}
        # removed
        since = worker.since("send", lambda: replace(file, rules(rule("other", "four"))))
        worker.wait_for(("other", "perform_job.four"))
        worker.wait(lambda: "None" in since())
        # and added again
        replace(file, rules(rule("send", "five"), rule("many", "five")))
        worker.wait_for(("send", "perform_job.five"), ("many", "perform_job.five"))
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_functions_that_nothing_leads_to_change_over_as_well(program: Program) -> None:
    file = program.folder / "rules.yaml"
    file.write_text(rules(*(rule(what, "one") for what in ALL)))
    with Worker(program, "worker.py", "2") as worker:
        worker.wait_for(*((what, "perform_job.one") for what in ALL))
        file.write_text(rules(*(rule(what, "two", ', tags: {n: "${n}"}') for what in ALL)))
        worker.wait_for(*((what, "perform_job.two") for what in ALL))
        since = worker.since("inner", lambda: file.write_text(rules(rule("numbers", "three"))))
        worker.wait_for(("numbers", "perform_job.three"))
        worker.wait(lambda: "None" in since())
        file.write_text(rules(rule("inner", "four"), rule("numbers", "four")))
        worker.wait_for(("inner", "perform_job.four"), ("numbers", "perform_job.four"))
        records = worker.stop()
        hold_against_the_log(worker.log(), records)
        tagged = [record for record in records if record["name"] == "perform_job.two" and record["method"] == "inner"]
        assert tagged
        assert all(record["tags"] == {"n": record["args"][0]} for record in tagged)


def test_a_rule_only_moved_in_its_file_is_the_same_rule_at_another_place(program: Program) -> None:
    file = program.folder / "rules.yaml"
    with Worker(program, "worker.py", "2") as worker:
        worker.wait_for(("send", "perform_job.one"))
        text = rules(rule("send", "one"), rule("other", "two"))
        file.write_text("# comment\n# comment\n" + text)
        worker.wait_for(("other", "perform_job.two"))
        records = worker.stop()
        hold_against_the_log(worker.log(), records)
    assert {record["rule"] for record in records if record["method"] == "send"} == {"rules.yaml:3", "rules.yaml:5"}
    assert {record["rule"] for record in records if record["method"] == "other"} == {"rules.yaml:6"}


def test_an_earlier_rule_takes_a_function_over_and_gives_it_back(program: Program) -> None:
    file = program.folder / "rules.yaml"
    with Worker(program, "worker.py", "2") as worker:
        worker.wait_for(("send", "perform_job.one"))
        file.write_text(rules(rule("send", "first"), rule("send", "one")))
        worker.wait_for(("send", "perform_job.first"))
        since = worker.since("send", lambda: file.write_text(rules(rule("send", "one"), rule("send", "first"))))
        worker.wait(lambda: "perform_job.one" in since())
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_files_come_go_and_are_included(program: Program) -> None:
    folder = program.folder / "rules.d"
    folder.mkdir()
    (folder / "a.yaml").write_text("include: [../more/*.yaml]\n" + rules(rule("send", "one")))
    (program.folder / "more").mkdir()
    included = program.folder / "more" / "b.yaml"
    included.write_text(rules(rule("other", "two")))
    with Worker(program, "worker.py", "2", AUTOINST_RULES="rules.d") as worker:
        worker.wait_for(("send", "perform_job.one"), ("other", "perform_job.two"))
        included.write_text(rules(rule("other", "three")))
        worker.wait_for(("other", "perform_job.three"))
        (folder / "c.yaml").write_text(rules(rule("many", "four")))
        worker.wait_for(("many", "perform_job.four"))
        (program.folder / "more" / "d.yaml").write_text(rules(rule("perform", "five")))
        worker.wait_for(("perform", "perform_job.five"))
        since = worker.since("many", (folder / "c.yaml").unlink)
        worker.wait(lambda: "None" in since())
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_a_broken_edit_keeps_the_last_good_rules_and_doctor_says_where(program: Program) -> None:
    file = program.folder / "rules.yaml"
    with Worker(program, "worker.py", "2") as worker:
        worker.wait_for(("send", "perform_job.one"))
        file.write_text(rules(rule("send", "two")) + "  - [unclosed\n")

        def doctor() -> dict[str, Any]:
            environ = program.environ({"AUTOINST_PACKS": "none"}, instrumented=False)
            command = [str(BIN / "autoinst"), "doctor", "--json"]
            done = subprocess.run(command, cwd=program.folder, env=environ, capture_output=True, text=True, check=False)
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        def is_told() -> bool:
            return any("rules read before" in text and "rules.yaml:5:" in text for text in doctor()["attention"])

        worker.wait(is_told)
        since = worker.since("send", lambda: None)
        worker.wait(lambda: "perform_job.one" in since())
        assert ("send", "perform_job.two") not in worker.seen()
        # so does a file that is gone
        file.unlink()
        worker.wait(lambda: any("no such file" in str(text) for text in doctor()["attention"]))
        since = worker.since("send", lambda: None)
        worker.wait(lambda: "perform_job.one" in since())
        # one bad rule disables itself alone
        file.write_text(rules(rule("send", "three"), "  - {function: shop.other, colour: red}\n"))
        worker.wait_for(("send", "perform_job.three"))
        worker.wait(lambda: not any("rules read before" in text for text in doctor()["attention"]))
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_a_job_in_progress_ends_under_the_rule_it_began_with(program: Program) -> None:
    program.write(
        "slow.py",
        """
        import os, sys, time
        import shop

        def wait(n, f):
            while not os.path.exists(f):
                shop.send(n)
                time.sleep(0.01)
            return n

        def generate(n):
            yield from (1, 2)
            wait(n, "go2")
            yield 3
            return n
        """,
    )
    program.write(
        "worker.py",
        "import slow\nslow.wait(7, 'go')\nlist(slow.generate(8))\nslow.wait(9, 'stop')\nlist(slow.generate(1))",
    )
    file = program.folder / "rules.yaml"

    def text(version: str, nested: str = "new") -> str:
        tags = f'tags: {{{version}: "${{result}}"}}'
        return (
            "version: 1\njobs:\n"
            f"  - {{function: slow.wait, name: perform_job.{version}, nested: new, {tags}}}\n"
            f"  - {{function: slow.generate, name: perform_job.{version}g, {tags}}}\n"
            f"  - {{function: shop.send, name: perform_job.{version}s, nested: {nested}}}\n"
        )

    file.write_text(text("one"))
    with Worker(program, "worker.py") as worker:
        worker.wait_for(("send", "perform_job.ones"))
        file.write_text(text("two"))
        worker.wait_for(("send", "perform_job.twos"))
        (program.folder / "go").touch()
        # the generator begins under the second and ends under it, although the third comes in its middle
        worker.wait(lambda: any(record["name"] == "perform_job.one" for record in program.records()))
        file.write_text(text("three"))
        worker.wait_for(("send", "perform_job.threes"))
        (program.folder / "go2").touch()
        records = worker.stop()
    ended = [(record["name"], record["tags"]) for record in records if record["method"] != "send"]
    assert [entry for entry in ended if entry[0] in ("perform_job.one", "perform_job.twog")] == [
        ("perform_job.one", {"one": 7}),
        ("perform_job.twog", {"two": 8}),
    ]
    # the last generator's own call of `wait` comes last
    last = [
        ("perform_job.three", {"three": 9}),
        ("perform_job.threeg", {"three": 1}),
        ("perform_job.three", {"three": 1}),
    ]
    assert ended[-3:] == last


def test_a_worker_without_any_match_learns_of_rules_at_an_import(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import importlib, os, time
        import shop
        n = 0
        while not os.path.exists("stop"):
            n += 1
            shop.send(n)
            time.sleep(0.02)
            try:
                importlib.import_module(f"missing{n}")
            except ImportError:
                pass
        """,
    )
    file = program.folder / "rules.yaml"
    for before in (rules(rule("nothing", "one")), ""):
        file.write_text(before)
        (program.folder / "stop").unlink(missing_ok=True)
        for path in program.folder.glob("log.*"):
            path.unlink()
        with Worker(program, "worker.py") as worker:
            worker.wait_for(("send", "None"))
            file.write_text(rules(rule("send", "two")))
            worker.wait_for(("send", "perform_job.two"))
            worker.stop()


def test_a_default_file_that_comes_later_is_read(program: Program) -> None:
    (program.folder / "rules.yaml").unlink()
    with Worker(program, "worker.py", "1", AUTOINST_PACKS="default") as worker:
        worker.wait_for(("send", "None"))
        # Nothing in this worker imports, forks or runs a job: so it does not hear of the file.
        (program.folder / "autoinst.yaml").write_text(rules(rule("send", "one")))
        with Worker(program, "-c", "import shop\n" + FORKS, AUTOINST_PACKS="default") as other:
            other.wait_for(("send", "perform_job.one"))
            other.stop()
        worker.stop()


FORKS = """
import os, time
n = 1000
while not os.path.exists("stop"):
    n += 1
    child = os.fork()
    if not child:
        shop.send(n)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.05)
"""


def test_a_parent_that_forks_for_each_job_learns_of_rules_as_it_forks(program: Program) -> None:
    program.write("worker.py", "import shop\n" + FORKS)
    file = program.folder / "rules.yaml"
    with Worker(program, "worker.py") as worker:
        worker.wait_for(("send", "perform_job.one"))
        file.write_text(rules(rule("send", "two", ', tags: {cc: "${cc}"}')))
        worker.wait_for(("send", "perform_job.two"))
        since = worker.since("send", lambda: file.write_text(rules(rule("other", "three"))))
        worker.wait(lambda: "None" in since())
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_long_lived_forked_children_learn_of_rules_each_by_itself(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import os
        import shop

        def work(n):
            import time
            while not os.path.exists("stop"):
                n += 1
                shop.send(n)
                time.sleep(0.005)

        children = []
        for i in range(3):
            child = os.fork()
            if not child:
                work(i * 1_000_000)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        """,
    )
    file = program.folder / "rules.yaml"
    with Worker(program, "worker.py") as worker:
        worker.wait(lambda: len(set(program.folder.glob("log.*"))) == 3)
        replace(file, rules(rule("send", "two")))

        def in_all() -> bool:
            return all("perform_job.two" in path.read_text() for path in program.folder.glob("log.*"))

        worker.wait(in_all)
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_asyncio_workers(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import asyncio, os
        import shop

        async def work(n):
            while not os.path.exists("stop"):
                n += 1
                await shop.later(n)
                await asyncio.sleep(0.002)

        async def main():
            await asyncio.gather(*(work(i * 1_000_000) for i in range(4)))

        asyncio.run(main())
        """,
    )
    file = program.folder / "rules.yaml"
    file.write_text(rules(rule("later", "one")))
    with Worker(program, "worker.py") as worker:
        worker.wait_for(("later", "perform_job.one"))
        file.write_text(rules(rule("later", "two", ", tags: {a: b}")))
        worker.wait_for(("later", "perform_job.two"))
        file.write_text(rules(rule("later", "three"), rule("send", "three")))
        worker.wait_for(("later", "perform_job.three"))
        records = worker.stop()
        hold_against_the_log(worker.log(), records)


def test_functions_of_the_main_script(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import os, time
        from shop import note, send

        class Cleanup:
            def run(self, n):
                note("run", n)

        n = 0
        while not os.path.exists("stop"):
            n += 2
            send(n)
            Cleanup().run(n + 1)
            time.sleep(0.01)
        """,
    )
    file = program.folder / "rules.yaml"
    line = '  - {class: %s.Cleanup, methods: [run], name: perform_job.%s, payload: {args: "${args}"}}\n'
    with Worker(program, "worker.py") as worker:
        worker.wait_for(("send", "perform_job.one"), ("run", "None"))
        file.write_text(rules(rule("send", "one"), line % ("__main__", "two")))
        worker.wait_for(("run", "perform_job.two"))
        file.write_text(rules(rule("send", "one"), line % ("worker", "three")))
        worker.wait_for(("run", "perform_job.three"))
        since = worker.since("run", lambda: file.write_text(rules(rule("send", "one"))))
        worker.wait(lambda: "None" in since())
        records = worker.stop()
        hold_against_the_log(worker.log(), records)
    assert {record["class"] for record in records if record["method"] == "run"} == {"__main__.Cleanup"}


def test_settings_of_the_file_change_too(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import os, time
        import shop

        def fail(n):
            shop.note("fail", n)
            raise KeyError(n)

        n = 0
        while not os.path.exists("stop"):
            n += 1
            try:
                fail(n)
            except KeyError:
                time.sleep(0.01)
        """,
    )
    file = program.folder / "rules.yaml"
    text = "version: 1\njobs: [{function: __main__.fail, tags: {colour: red}}]\n"
    file.write_text(text)

    def statuses() -> set[tuple[str, str]]:
        return {(record["status"], record["tags"]["colour"]) for record in program.records()}

    with Worker(program, "worker.py") as worker:
        worker.wait(lambda: statuses() == {("error", "red")})
        file.write_text(text + "ignore_exceptions: [KeyError]\ndefaults: {redact: [colour]}\n")
        worker.wait(lambda: ("ignored", "[FILTERED]") in statuses())
        worker.stop()


def test_where_nothing_changes_the_files_are_looked_at_once_a_second(program: Program) -> None:
    program.write(
        "worker.py",
        """
        import sys, time
        import shop
        looks = []

        def look(path, real):
            looks.append(path)
            return real(path)

        shop.send(0)
        start = time.monotonic()
        while time.monotonic() < start + 3.2:
            shop.other(1)
            edits = sys.modules.get("autoinst.hook.edits")
            if edits is not None and not hasattr(edits, "real"):
                edits.real = edits.signature
                edits.signature = lambda path: look(path, edits.real)
        print(len(looks), int(time.monotonic() - start))
        """,
    )
    program.write("rules.yaml", rules(rule("send", "one"), rule("other", "one")))
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert result.stderr == ""
    looks, seconds = map(int, result.stdout.split())
    assert 1 <= looks <= seconds  # one file


@pytest.mark.service
def test_rq_work_horses(program: Program) -> None:
    program.write(
        "jobs.py",
        """
        import shop
        def run(n):
            shop.send(n)
        """,
    )
    file = program.folder / "rules.yaml"
    with Redis() as server:
        arguments = ("-m", "rq.cli", "worker", "-u", server.url, "-q", "--path", ".")
        with (
            redis.Redis.from_url(server.url) as connection,
            Worker(program, *arguments, AUTOINST_PACKS="default") as worker,
        ):
            queue = rq.Queue(connection=connection)
            queue.enqueue("jobs.run", 0)
            worker.wait(lambda: len(worker.log()) == 1)
            # `shop.send` is an event of RQ's job now; then a job of its own, of another kind of rule
            file.write_text(rules(rule("send", "two", ", nested: new")))
            numbers = itertools.count(1)

            def is_new() -> bool:
                n = next(numbers)
                queue.enqueue("jobs.run", n)
                worker.wait(lambda: any(number == n for _, number, _ in worker.log()))
                return ("send", "perform_job.two") in worker.seen()

            worker.wait(is_new)
            file.write_text(rules(rule("nothing", "three")))
            since = worker.since("send", lambda: None)
            worker.wait(lambda: (is_new(), "perform_job.rq" in since())[1])
            worker.process.send_signal(signal.SIGTERM)
            worker.process.communicate(timeout=DEADLINE)
            log = worker.log()
        records = program.records()
    assert sorted(number for _, number, _ in log) == list(range(len(log)))
    by_rq = [record for record in records if record["name"] == "perform_job.rq"]
    assert len(by_rq) == len(log)
    assert {record["status"] for record in records} == {"ok"}
    own = Counter((record["args"][0], record["name"]) for record in records if record["name"] != "perform_job.rq")
    assert own == Counter((number, name) for _, number, name in log if name != "perform_job.rq")


@pytest.mark.once
@pytest.mark.service
def test_celery_prefork_children(program: Program) -> None:
    python = python_of("celery")
    file = program.folder / "rules.yaml"
    rule_of_task = '  - {function: tasks.run, name: perform_job.%s, payload: {args: "${args}"}}\n'
    file.write_text(rules(rule_of_task % "one"))
    with Redis() as server:
        program.write(
            "tasks.py",
            f"""
            import celery, shop
            app = celery.Celery("tasks", broker={server.url!r})

            @app.task(name="run")
            def run(n):
                shop.send(n)
            """,
        )
        arguments = ("-m", "celery", "-A", "tasks", "worker", "-c", "2", "-P", "prefork", "-l", "ERROR")
        add = "import sys, tasks\nfor n in range(int(sys.argv[1]), int(sys.argv[2])): tasks.run.delay(n)"
        numbers = iter(range(0, 100_000, 20))

        with Worker(program, *arguments, python=python) as worker:

            def run_until(name: str) -> None:
                """Send tasks until both children have run some under `name`."""

                def is_so() -> bool:
                    n = next(numbers)
                    environ = program.environ({"AUTOINST_ENABLED": "0"})
                    command = [python, "-c", add, str(n), str(n + 20)]
                    subprocess.run(command, cwd=program.folder, env=environ, check=True, timeout=DEADLINE)
                    worker.wait(lambda: sum(worker.log().values()) == n + 20)
                    found = [path.read_text() for path in program.folder.glob("log.*")]
                    return len(found) == 2 and all(text.rstrip().endswith(name) for text in found)

                worker.wait(is_so)

            run_until("perform_job.one")
            replace(file, rules(rule_of_task % "two"))
            run_until("perform_job.two")
            file.write_text(rules(rule("send", "three")))
            run_until("perform_job.three")
            worker.process.send_signal(signal.SIGTERM)
            worker.process.communicate(timeout=DEADLINE)
            log = worker.log()
        hold_against_the_log(log, program.records())


def with_one_job(folder: Path) -> Program:
    """Return a program with a module `work` whose `job` is a job."""
    program = Program(folder)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    program.write("work.py", "def job():\n    pass\n")
    return program


def test_a_look_that_takes_longer_than_the_time_to_the_next_one(tmp_path: Path) -> None:
    program = with_one_job(tmp_path)
    # What looking at the files imports asks the finder, which would look again, and import the same.
    result = program.run(
        "-c",
        "import sys\n"
        "from autoinst.hook import finder\n"
        "finder.LOOK_INTERVAL = -(10**12)\n"
        "next(each for each in sys.meta_path if type(each) is finder.Finder).look_after = 0\n"
        "import colorsys, work\n"
        "work.job()\n",
        AUTOINST_PACKS="none",
    )
    assert (result.status, result.stderr, len(result.records)) == (0, "", 1)


def test_no_look_while_autoinst_is_imported(tmp_path: Path) -> None:
    program = with_one_job(tmp_path)
    result = program.run(
        "-c",
        "import sys\n"
        "from autoinst.hook import finder\n"
        "finder.LOOK_INTERVAL = -(10**12)\n"
        "assert 'autoinst.hook.registry' not in sys.modules\n"
        "found = next(each for each in sys.meta_path if type(each) is finder.Finder)\n"
        "class Due:\n"  # a second has passed in the middle of the import
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'autoinst.hook.carry':\n"
        "            found.look_after = 0\n"
        "sys.meta_path.insert(0, Due)\n"
        "found.registry\n"
        "import work\n"
        "work.job()\n",
        AUTOINST_PACKS="none",
    )
    assert (result.status, result.stderr, len(result.records)) == (0, "", 1)


@pytest.mark.parametrize("statement", ["with autoinst.monitor('Reports#nightly'): pass", "import autoinst.cli.doctor"])
def test_no_look_while_a_program_imports_autoinst(tmp_path: Path, statement: str) -> None:
    program = with_one_job(tmp_path)
    result = program.run(
        "-c",
        "import sys\n"
        "from autoinst.hook import finder\n"
        "found = next(each for each in sys.meta_path if type(each) is finder.Finder)\n"
        "names = []\n"
        "class Due:\n"  # a second has passed before each of them
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        names.append(name)\n"
        "        found.look_after = 0\n"
        "sys.meta_path.insert(0, Due)\n"
        "import autoinst\n"
        f"{statement}\n"
        "import work\n"
        "work.job()\n"
        "own = [name for name in names if name.startswith('autoinst.')]\n"
        "assert len(own) == len(set(own)) > 5, names\n",  # a module that is found twice is there twice
        AUTOINST_PACKS="none",
    )
    assert (result.status, result.stderr) == (0, "")
    assert "work#job" in [record["action"] for record in result.records]


def test_rules_of_earlier_edits_do_not_stay_and_lazy_modules_are_left_alone(tmp_path: Path) -> None:
    program = with_one_job(tmp_path)
    program.write("idle.py", "def job():\n    pass\n")
    # A lazy module that is never loaded: what rules mean in it has to wait.
    result = program.run(
        "-c",
        "import gc, importlib.util, sys\n"
        "from autoinst.hook import edits, finder\n"
        "import work\n"
        "edits.SETTLED_NS = finder.LOOK_INTERVAL = -(10**18)\n"
        "spec = importlib.util.find_spec('idle')\n"
        "spec.loader = importlib.util.LazyLoader(spec.loader)\n"
        "sys.modules['idle'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "found = next(each for each in sys.meta_path if type(each) is finder.Finder)\n"
        "def edit(number):\n"
        "    first = f'{{function: work.job, name: perform_job.n{number}}}'\n"
        "    rules = f'version: 1\\njobs: [{first}, {{function: idle.job}}]\\n'\n"
        "    open('rules.yaml', 'w').write(rules)\n"
        "    found.look(0)\n"
        "    work.job()\n"
        "    gc.collect()\n"
        "    return len([each for each in gc.get_objects() if type(each).__name__ == 'Rule'])\n"
        "found.look(0)\n"
        "counts = [edit(number) for number in range(12)]\n"
        "print(counts[-1] - counts[4], found.rules.digest != '', type(module).__name__)\n"
        "module.job\n"  # now it is loaded
        "found.look(0)\n"
        "module.job()\n",
        AUTOINST_PACKS="none",
    )
    assert (result.status, result.stderr, result.stdout) == (0, "", "0 True _LazyModule\n")
    names = [*(f"perform_job.n{number}" for number in range(12)), "perform_job.python"]
    assert [record["name"] for record in result.records] == names


def test_a_modules_own_getattr_is_not_asked(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs: [{function: work.job}, {function: made.job}]\n")
    program.write("work.py", "def job():\n    pass\n")
    result = program.run(
        "-c",
        "import sys, types\n"
        "made = types.ModuleType('made')\n"
        "del made.__spec__\n"
        "exec('def __getattr__(name): raise RuntimeError(name)\\ndef job(): pass', vars(made))\n"
        "sys.modules['made'] = made\n"
        "import work\n"
        "work.job()\n"
        "made.job()\n",
        AUTOINST_PACKS="none",
    )
    assert (result.status, result.stderr, len(result.records)) == (0, "", 2)
