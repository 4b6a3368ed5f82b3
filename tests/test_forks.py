"""Every way a program makes processes: each job it runs in any of them is recorded once, held against its own truth.

The truth is a file to which every job appends a line when it begins and one when it ends. A job without its second
line was killed, and has to be reported so.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autoinst.agent.inflight import running
from tests.agents import eventually
from tests.harness import Program
from tests.libraries import program_of
from tests.servers import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = """
version: 1
jobs:
  - {module: work, functions: ["job*"], payload: {args: "${args}"}}
"""
WORK = """
import os, signal, subprocess, sys, threading, time

def note(what):
    descriptor = os.open(os.environ["TRUTH"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, (what + "\\n").encode())
    os.close(descriptor)

def job(key):
    note(f"begun {key}")
    note(f"ended {key}")
    return key

def job_that_waits(key):
    note(f"begun {key}")
    time.sleep(600)

def job_around(key, inner):
    note(f"begun {key}")
    inner()
    note(f"ended {key}")

def job_that_forks(key):
    note(f"begun {key}")
    child = os.fork()
    if child == 0:
        job(f"{key}, child")
        os._exit(0)
    os.waitpid(child, 0)
    note(f"ended {key}")

def wait_for(line):
    while True:
        with open(os.environ["TRUTH"]) as file:
            if line + "\\n" in file.readlines():
                return
        time.sleep(0.01)
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    made.write("rules.yaml", RULES)
    made.write("work.py", WORK)
    return made


def run(program: Program, code: str, **variables: str) -> Counter[str]:
    """Run `code`, compare what is recorded with the truth, and return how many jobs ended and were killed."""
    program.write("worker.py", "import os, signal, subprocess, sys, threading, time\nimport work\n" + code)
    truth = str(program.folder / "truth.txt")
    done = program.run("worker.py", environ={"AUTOINST_PACKS": "none", "TRUTH": truth, **variables})
    assert (done.status, done.stderr) == (0, "")
    return compare(program, done.records)


def compare(program: Program, records: list[dict[str, Any]]) -> Counter[str]:
    """Hold the records against the truth; return how many jobs ended and how many were killed."""
    lines = (program.folder / "truth.txt").read_text().splitlines()
    begun, ended = (
        Counter(line.split(" ", 1)[1] for line in lines if line.startswith(word)) for word in ("begun", "ended")
    )
    found: dict[str, Counter[str]] = {"ok": Counter(), "killed": Counter()}
    for record in records:
        found[record["status"]][str(record["args"][0])] += 1
    assert found["ok"] == ended
    assert found["killed"] == begun - ended
    return Counter({status: sum(keys.values()) for status, keys in found.items() if keys})


PREFORK = """
def child(number):
    for n in range(20):
        work.job(f"{number}.{n}")
    if number % 3 == 0:
        work.job_that_waits(f"{number}.last")
    os._exit(0)

def spawn(number):
    pid = os.fork()
    if pid == 0:
        child(number)
    return pid

work.job("master, before")
workers = {number: spawn(number) for number in range(6)}
for number in (0, 3):
    work.wait_for(f"begun {number}.last")
    os.kill(workers[number], signal.SIGKILL)
    os.waitpid(workers.pop(number), 0)
    workers[number + 100] = spawn(number + 100)  # the master replaces what died
work.job("master, meanwhile")
for pid in workers.values():
    os.waitpid(pid, 0)
work.job("master, after")
"""


def test_workers_forked_before_as_gunicorn_and_uwsgi_do(program: Program) -> None:
    # 0 and 3 are killed in a job; of their successors 100 and 103 none waits.
    assert run(program, PREFORK) == {"ok": 3 + 8 * 20, "killed": 2}


DAEMON = """
work.job("before")
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    for number in range(3, 1024):
        if number != writing:
            try:
                os.close(number)
            except OSError:
                pass
    for n in range(50):
        work.job(f"daemon.{n}")
    os.write(writing, b".")
    os.kill(os.getpid(), signal.SIGKILL)
os.close(writing)
assert os.read(reading, 1) == b"."
assert os.read(reading, 1) == b""
os.wait()
work.job("after")
"""


def test_a_daemon_that_forks_twice_and_closes_all_descriptors(program: Program) -> None:
    assert run(program, DAEMON) == {"ok": 52}


NESTED = """
def generation(depth):
    work.job(f"{depth}")
    work.job_that_forks(f"{depth} forks")
    if depth < 5:
        pid = os.fork()
        if pid == 0:
            generation(depth + 1)
            os._exit(0)
        os.waitpid(pid, 0)
    work.job(f"{depth}, after")

generation(0)
"""


def test_children_of_children(program: Program) -> None:
    assert run(program, NESTED) == {"ok": 6 * 4}


THREADS = """
def forking(number):
    for n in range(8):
        pid = os.fork()
        if pid == 0:
            work.job(f"child {number}.{n}")
            os._exit(0)
        work.job(f"thread {number}.{n}")
        os.waitpid(pid, 0)

threads = [threading.Thread(target=forking, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.filterwarnings("ignore")
def test_threads_that_fork_while_others_run_jobs(program: Program) -> None:
    assert run(program, THREADS, PYTHONWARNINGS="ignore") == {"ok": 64}


SPAWN = """
def inner(n):
    def spawn():
        subprocess.run(["true"], check=True)
        os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
        assert os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0
        assert os.system("exit 0") == 0
        code = f"import work; [work.job('python {n}.' + str(m)) for m in range(5)]"
        subprocess.run([sys.executable, "-c", code], check=True, close_fds=bool(n % 2))
        subprocess.run([sys.executable, "-c", code.replace("python", "new session")], check=True, preexec_fn=os.setsid)
    return spawn

for n in range(4):
    work.job_around(n, inner(n))
"""


def test_programs_started_from_within_a_job(program: Program) -> None:
    assert run(program, SPAWN) == {"ok": 4 + 4 * 10}


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

if __name__ == "__main__":
    context = multiprocessing.get_context(os.environ["METHOD"])
    work.job("before")
    with context.Pool(2, maxtasksperchild=3) as pool:
        assert pool.map(work.job, [f"pool {n}" for n in range(20)], chunksize=1)
        pool.close()
        pool.join()
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(work.job, [f"executor {n}" for n in range(20)]))
    process = context.Process(target=work.job_that_waits, args=("to be killed",))
    process.start()
    work.wait_for("begun to be killed")
    process.kill()
    process.join()
    work.job("after")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(program: Program, method: str) -> None:
    assert run(program, POOLS, METHOD=method, PYTHONWARNINGS="ignore") == {"ok": 42, "killed": 1}


ASYNC_JOB = """
import asyncio

async def job_async(key):
    note(f"begun {key}")
    await asyncio.sleep(0.001)
    note(f"ended {key}")
"""
ASYNCIO = """
import asyncio
from concurrent.futures import ThreadPoolExecutor

async def main():
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(4) as pool:
        futures = [loop.run_in_executor(pool, work.job, f"executor {n}") for n in range(100)]
        await asyncio.gather(*(work.job_async(f"task {n}") for n in range(200)), *futures)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import work; work.job('child')")
    assert await process.wait() == 0

asyncio.run(main())
"""


def test_asyncio_with_threads_and_processes(program: Program) -> None:
    program.write("work.py", WORK + ASYNC_JOB)
    assert run(program, ASYNCIO) == {"ok": 301}


CELERY = """
import os, time
from celery import Celery
import work

app = Celery("tasks", broker=os.environ["REDIS_URL"])
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False, task_ignore_result=True)

@app.task
def add(key):
    work.job(key)

@app.task
def endless(key):
    work.job_that_waits(key)
"""
ENQUEUE = """
import tasks
for n in range(60):
    tasks.add.delay(f"{n}")
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.mark.once
@pytest.mark.service
@pytest.mark.parametrize(
    ("pool", "killed"),
    [
        (["--pool=prefork", "--concurrency=2", "--max-tasks-per-child=7"], 2),
        (["--pool=threads", "--concurrency=4"], 0),
        (["--pool=gevent", "--concurrency=10"], 0),
        (["--pool=eventlet", "--concurrency=10"], 0),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_celery(program: Program, redis: Redis, pool: list[str], killed: int) -> None:
    celery = program_of("celery", "celery")
    python = str(Path(celery).with_name("python"))
    program.write("tasks.py", CELERY)
    truth = program.folder / "truth.txt"
    truth.touch()
    environ = program.environ(
        {"AUTOINST_PACKS": "none", "TRUTH": str(truth), "REDIS_URL": redis.url, "PYTHONWARNINGS": "ignore"}
    )
    worker = subprocess.Popen(
        [celery, "-A", "tasks", "worker", *pool, "--loglevel=ERROR", "--without-gossip", "--without-mingle"],
        cwd=program.folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    plain = environ | {"AUTOINST_ENABLED": "0"}

    def ended() -> int:
        return truth.read_text().count("ended ")

    try:
        subprocess.run([python, "-c", ENQUEUE], cwd=program.folder, env=plain, check=True)
        eventually(lambda: ended() == 60, 60)
        for number in range(killed):
            code = f"import tasks; tasks.endless.delay('endless {number}')"
            subprocess.run([python, "-c", code], cwd=program.folder, env=plain, check=True)
            eventually(partial(is_in, truth, f"begun endless {number}"), 60)
            program.records()
            (flying,) = flying_pids(program)
            os.kill(flying, signal.SIGKILL)
            eventually(lambda: not flying_pids(program), 60)
    finally:
        worker.terminate()
        try:
            worker.wait(60)
        finally:
            worker.kill()
            worker.wait()
    assert compare(program, program.records()) == +Counter(ok=60, killed=killed)


def is_in(file: Path, text: str) -> bool:
    """Return whether `file` has `text`."""
    return text in file.read_text()


def flying_pids(program: Program) -> list[int]:
    """Return the pids of the processes with a job in flight."""
    return [int(record.pid or 0) for record in running(str(program.home))]


def test_a_child_forgets_what_other_threads_were_preparing(program: Program) -> None:
    program.write("rules.yaml", "version: 1\njobs: [{function: jobs.job}]\n")
    program.write("jobs.py", "def job():\n    pass\n")
    program.write(
        "worker.py",
        """
        import os, sys, threading, warnings

        warnings.simplefilter("ignore")  # 3.12 warns of a fork beside threads
        finder = sys.meta_path[0]
        go_on = threading.Event()
        other = threading.Thread(target=go_on.wait)
        other.start()
        finder._preparing.add(other.ident)  # as while it prepares a module, which is too quick to be met
        finder._busy.add((other.ident, "jobs"))
        pid = os.fork()
        if pid:
            status = os.waitpid(pid, 0)[1]
            assert finder._busy and finder._preparing
            go_on.set()
            sys.exit(status)

        def work():
            import jobs
            jobs.job()

        # In the child a new thread has the place, and so the number, of the one that was.
        again = threading.Thread(target=work)
        again.start()
        again.join()
        assert again.ident == other.ident, "this C library numbers threads in another way"
        """,
    )
    result = program.run("worker.py", AUTOINST_PACKS="none")
    assert (result.status, result.stderr) == (0, "")
    assert [record["action"] for record in result.records] == ["jobs#job"]


@pytest.mark.parametrize(("packs", "there"), [("sqlite", [False, True, True]), ("none", [False] * 3)])
def test_a_program_that_forks_again_and_again_imports_for_its_children(
    program: Program, packs: str, there: list[bool]
) -> None:
    program.write(
        "worker.py",
        """
        import os, sqlite3, sys
        import work

        for n in range(3):
            if os.fork() == 0:
                print("autoinst.redact.sql" in sys.modules, flush=True)
                work.job(n)
                sqlite3.connect(":memory:").execute("SELECT 17")
                os._exit(0)
            os.wait()
        """,
    )
    done = program.run("worker.py", environ={"AUTOINST_PACKS": packs, "TRUTH": os.devnull})
    assert (done.status, done.stderr, done.stdout.split()) == (0, "", [str(known) for known in there])
    assert [record["args"] for record in done.records] == [[0], [1], [2]]
