"""The agent: one a home, unseen by the program it serves, and nothing lost or doubled wherever it is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autoinst import demand
from autoinst.agent import lead as leads
from autoinst.agent import runs
from autoinst.agent.drain import catch_up
from autoinst.agent.journal import open_journal
from autoinst.agent.service import LONGEST, Agent, idle_seconds
from autoinst.config import Config
from autoinst.errors import HomeError, StoreError
from autoinst.leader import leader, told
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.agents import Agents, eventually
from tests.arena_builder import ArenaBuilder, dead_pid
from tests.launching import AUTOINST, environment
from tests.launching import launch as run_program

RULES = """\
version: 1
jobs:
  - {class: __main__.Job, methods: [perform]}
"""

WORKER = """\
import sys, threading, time

class Job:
    def perform(self):
        pass

def work():
    for _ in range(int(sys.argv[1])):
        Job().perform()
        if len(sys.argv) > 2:
            time.sleep(float(sys.argv[2]))

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

# What a process can see of children it never started.
CHILDLESS = """\
import os, resource, signal, time

class Job:
    def perform(self):
        time.sleep(0.3)

got = []
signal.signal(signal.SIGCHLD, lambda *_: got.append("SIGCHLD"))
Job().perform()
try:
    os.wait()
    got.append("a child")
except ChildProcessError:
    pass
used = resource.getrusage(resource.RUSAGE_CHILDREN)
got += [used.ru_maxrss, used.ru_minflt, used.ru_utime, open(f"/proc/self/task/{os.getpid()}/children").read()]
print(got, len(os.listdir("/proc/self/fd")) < 10)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "autoinst.yaml").write_text(RULES)
    (folder / "worker.py").write_text(WORKER)
    (folder / "childless.py").write_text(CHILDLESS)
    return folder


@pytest.fixture
def agents(tmp_path):
    found = Agents(tmp_path / "home")
    yield found
    found.end()


@pytest.fixture
def home(agents: Agents) -> Path:
    agents.home.mkdir(mode=0o700)
    (agents.home / "spool").mkdir(mode=0o700)
    return agents.home


def dead_arena(home: Path, jobs: int = 1) -> None:
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    for slot in range(jobs):
        builder.put(slot, tail={"args": [os.urandom(150).hex()]})
    builder.write(home / "spool")


def stored(home: Path) -> int:
    if not (home / "store.sqlite3").exists():
        return 0
    try:
        with Store(str(home / "store.sqlite3"), readonly=True) as store:
            return store.count()
    except StoreError:  # being made just now
        return 0


def cli(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AUTOINST, *arguments],
        env=environment(home, **variables),
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# -- started by `autoinst run` -----------------------------------------------------------------------------------------


def test_run_starts_one_that_stores_the_jobs_and_ends_when_idle(folder, agents):
    env = environment(agents.home, AUTOINST_AGENT="auto", AUTOINST_AGENT_IDLE="0.3")
    done = run_program([AUTOINST, "run", "worker.py", "5"], folder, env)
    assert (done.status, done.stderr) == (0, "")
    eventually(lambda: stored(agents.home) == 10)
    eventually(lambda: "nothing to do" in agents.log())
    assert agents.leading() is None
    assert os.listdir(agents.home / "runs") == []
    assert os.listdir(agents.home / "spool") == []


def test_the_program_sees_nothing_of_it(folder, agents):
    env = environment(agents.home, AUTOINST_AGENT="auto")
    done = run_program([AUTOINST, "run", "childless.py"], folder, env)  # its output ends although the agent lives
    assert (done.stdout, done.stderr, done.status) == ("[0, 0, 0.0, ''] True\n", "", 0)
    eventually(agents.leading)


def test_its_own_process_is_apart_from_everything(folder, agents):
    env = environment(agents.home, AUTOINST_AGENT="auto", PYTHONPATH=str(folder), PYTHONINSPECT="1", SECRET="x")
    ours, theirs = os.pipe()
    subprocess.run(
        [AUTOINST, "run", "-c", "pass"], cwd=folder, env=env, stdin=subprocess.DEVNULL, pass_fds=[theirs], check=True
    )
    os.close(theirs)
    assert os.read(ours, 1) == b""  # the inherited end was closed, though the agent lives
    os.close(ours)
    eventually(agents.leading)
    found = agents.leading()
    assert found is not None
    proc = Path(f"/proc/{found.pid}")
    assert os.readlink(proc / "cwd") == "/"
    assert [os.readlink(proc / "fd" / number) for number in "012"] == ["/dev/null"] * 3
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()
    assert (int(fields[3]) not in {os.getsid(0), found.pid}, fields[4]) == (True, "0")  # its session, no terminal
    variables = dict(item.split("=", 1) for item in (proc / "environ").read_text().split("\0") if item)
    assert [name for name in variables if name.startswith("PYTHON")] == []
    assert variables["AUTOINST_ENABLED"] == "0"
    assert variables["AUTOINST_RULES"] == str(folder / "autoinst.yaml")


def test_it_stays_while_a_program_lives_that_has_run_no_job_yet(folder, agents):
    env = environment(agents.home, AUTOINST_AGENT="auto", AUTOINST_AGENT_IDLE="0")
    program = subprocess.Popen(
        [AUTOINST, "run", "-c", "import sys; print(flush=True); sys.stdin.read()"],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    program.stdout.readline()
    eventually(agents.leading)
    rounds = told(str(agents.home)).ended
    eventually(lambda: told(str(agents.home)).ended >= rounds + 3)
    assert agents.leading() is not None
    program.communicate(b"")
    eventually(lambda: agents.leading() is None)


def test_none_is_started_where_it_is_not_wanted(folder, agents):
    for variables in ({"AUTOINST_AGENT": "off"}, {"AUTOINST_AGENT": "auto", "AUTOINST_ENABLED": "0"}):
        run_program([AUTOINST, "run", "worker.py", "1"], folder, environment(agents.home, **variables))
        assert not (agents.home / "runs").exists()


def test_none_is_started_by_a_subreaper_and_doctor_says_so(folder, agents):
    program = (
        "import ctypes, os, sys\n"
        "assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    env = environment(agents.home, AUTOINST_AGENT="auto")
    done = run_program([sys.executable, "-c", program, AUTOINST, "run", "childless.py"], folder, env)
    assert (done.stdout, done.status) == ("[0, 0, 0.0, ''] True\n", 0)
    assert agents.leading() is None
    found = json.loads(cli(agents.home, "doctor", "--json", AUTOINST_AGENT="auto").stdout)
    assert found["agent"]["pid"] is None
    assert any("takes in orphans" in line for line in found["attention"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder")
def test_a_home_of_another_user_is_refused(folder, agents, home):
    os.chown(home, 12345, 12345)
    for option in ("--once", "--foreground"):
        done = cli(home, "agent", option)
        assert (done.returncode, "belongs to user 12345" in done.stderr) == (1, True)
    env = environment(home, AUTOINST_AGENT="auto")
    program = run_program([AUTOINST, "run", "-c", "print(1)"], folder, env)
    assert (program.stdout, program.status) == ("1\n", 0)
    assert sorted(os.listdir(home)) == ["spool"]


# -- one a home --------------------------------------------------------------------------------------------------------


def test_a_second_says_who_leads_and_a_third_waits(agents, home):
    started = cli(home, "agent")
    assert (started.returncode, started.stdout) == (0, "")
    found = agents.leading()
    assert found is not None
    assert f"agent {found.pid} leads" in started.stderr
    second = cli(home, "agent")
    assert (second.returncode, f"agent {found.pid} leads {home} already" in second.stderr) == (0, True)
    dead_arena(home, 3)
    once = cli(home, "agent", "--once")
    assert (once.returncode, f"agent {found.pid} leads {home} and has drained it" in once.stderr) == (0, True)
    assert stored(home) == 3
    third = agents.launch()
    assert third.stderr is not None
    assert f"waits: process {found.pid} leads" in third.stderr.readline()
    os.kill(found.pid, signal.SIGTERM)
    assert "leads" in third.stderr.readline()
    third.terminate()
    assert third.wait(30) == 0


def test_once_drains_and_ends(agents, home):
    dead_arena(home, 4)
    done = cli(home, "agent", "--once")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "autoinst: 4 job(s) stored\n")
    assert stored(home) == 4
    assert agents.leading() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_looks_a_last_time(agents, home, number):
    process = agents.start()
    os.kill(process.pid, signal.SIGSTOP)
    dead_arena(home, 2)
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "told to" in said
    assert stored(home) == 2


def rounds_pass(home: Path, number: int) -> None:
    """Wait until its agent has looked so many times more."""
    before = told(str(home)).ended
    eventually(lambda: told(str(home)).ended > before + number)


def test_readers_have_it_look_at_once(agents, home):
    agents.start()
    waited: list[float] = []
    while not waited or (min(waited) > LONGEST / 2 and len(waited) < 5):
        rounds_pass(home, 6)  # by now it sleeps long, and has just begun to
        start = time.monotonic()
        dead_arena(home)
        assert catch_up(str(home))
        waited.append(time.monotonic() - start)
        assert stored(home) == len(waited)
    assert min(waited) <= LONGEST / 2


def test_one_that_does_not_answer_keeps_no_reader(agents, home):
    dead_arena(home)
    process = agents.start()
    assert catch_up(str(home))
    os.kill(process.pid, signal.SIGSTOP)
    dead_arena(home)
    assert not catch_up(str(home), 0.1)
    done = cli(home, "jobs", "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert "has not answered" in done.stderr
    process.kill()
    process.wait()
    assert len(cli(home, "jobs", "--json").stdout.splitlines()) == 2


def test_a_home_that_is_removed_ends_it(agents, home):
    process = agents.start()

    def removed() -> bool:  # it may be making files in there meanwhile, which ends a removal halfway
        shutil.rmtree(home, ignore_errors=True)
        return not home.exists()

    eventually(removed)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "was removed" in said) == (1, True)


# -- killed, and in trouble --------------------------------------------------------------------------------------------


def test_killed_twenty_times_nothing_is_lost_or_doubled(folder, agents):
    jobs = 3000
    env = environment(agents.home)
    worker = subprocess.Popen([AUTOINST, "run", "worker.py", str(jobs), "0.001"], cwd=folder, env=env)
    eventually((agents.home / "spool").exists)
    try:
        for number in range(20):
            process = agents.start()
            time.sleep(0.003 * number)
            process.kill()
            process.communicate()
    finally:
        worker.wait(60)
    assert catch_up(str(agents.home), 10)
    with Store(str(agents.home / "store.sqlite3")) as store:
        records = list(store.jobs(JobFilter(limit=0)))
        counted = sum(cell.counted for cell in store.totals(0, 2**62).values())
        assert sum(cell.jobs for cell in store.totals(0, 2**62).values()) == 2 * jobs
    assert len(records) + counted == 2 * jobs
    assert len({record.id for record in records}) == len(records)
    assert {record.status for record in records} == {"ok"}


def served(agent: Agent, until) -> None:
    """Run `agent` in this process until `until()` holds."""
    seen: list[BaseException] = []

    def watch() -> None:
        try:
            eventually(until)
        except BaseException as error:  # told below
            seen.append(error)
        agent.stopping = True
        leads.wake(agent.home)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = agent.run()
    watcher.join()
    assert (status, seen) == (0, [])


def test_a_full_store_is_tried_again_until_there_is_room(home, capsys):
    for _ in range(4):
        dead_arena(home, 32)
    agent = Agent(str(home), open_journal(str(home), foreground=True), idle_seconds=None)
    assert agent._drain.acquire()
    store = agent._drain.store
    assert store is not None
    store._con.execute("PRAGMA max_page_count = 1")  # SQLite then has what a full disk has it say
    assert agent._round() is None
    assert agent._round() is None
    said = capsys.readouterr().err
    assert (said.count("database or disk is full"), said.count("nothing is lost")) == (1, 1)
    store._con.execute("PRAGMA max_page_count = 100000")
    served(agent, lambda: stored(home) == 128)
    assert os.listdir(home / "spool") == []


def test_a_damaged_store_is_moved_aside_and_said(home, capsys):
    (home / "store.sqlite3").write_bytes(b"no database at all" * 1000)
    dead_arena(home, 2)
    served(
        Agent(str(home), open_journal(str(home), foreground=True), idle_seconds=None),
        lambda: not os.listdir(home / "spool"),
    )
    assert stored(home) == 2
    assert "the store was damaged and is now" in capsys.readouterr().err


def test_the_daemons_log_stays_small(home):
    journal = open_journal(str(home), foreground=False)
    for _ in range(3000):
        journal.info("%s", "x" * 300)
    for handler in journal.handlers:
        handler.close()
    files = sorted(name for name in os.listdir(home) if name.startswith("agent.log"))
    assert files == ["agent.log", "agent.log.1"]
    assert sum((home / name).stat().st_size for name in files) < 600_000


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_rounds_are_counted_on_from_holder_to_holder(home):
    one, other = leads.Lead(str(home)), leads.Lead(str(home), is_agent=True)
    assert one.acquire()
    assert not other.acquire()
    one.begin_round()
    found = leader(str(home))
    assert found is not None
    assert (found.pid, found.is_agent, found.begun, found.ended) == (os.getpid(), False, 1, 0)
    one.release()
    assert leader(str(home)) is None
    assert other.acquire()
    other.begin_round()
    other.end_round()
    last = told(str(home))
    assert (last.is_agent, last.begun, last.ended) == (True, 2, 2)
    assert other.in_place()
    os.unlink(other.path)
    assert not other.in_place()
    other.release()


def test_a_lock_file_of_anything_else_is_nobodys(home):
    (home / "drain.lock").write_bytes(b"\xff" * 100)
    assert told(str(home)).pid == 0
    with_link = home / "link"
    with_link.mkdir()
    (with_link / "drain.lock").symlink_to(home / "drain.lock")
    with pytest.raises(HomeError):
        leads.Lead(str(with_link)).acquire()
    (home / "agent.wake").write_text("no pipe")
    assert leads.open_wake(str(home)) == -1
    leads.wake(str(home))
    assert (home / "agent.wake").read_text() == "no pipe"


def test_marks_of_dead_programs_are_removed(home):
    runs.announce(str(home))
    folder = home / "runs"
    (own,) = os.listdir(folder)
    pid, start, namespace = own.split("-")
    for name in (
        f"{pid}-{int(start) + 1}-{namespace}",
        f"{dead_pid()}-5-{namespace}",
        f"1-1-{int(namespace) + 1}",
        "x",
    ):
        (folder / name).touch()
    os.utime(folder / "x", (1, 1))
    assert runs.living(str(home)) == [os.getpid()]
    assert sorted(os.listdir(folder)) == sorted([own, f"1-1-{int(namespace) + 1}"])


def test_the_environment_of_the_agent(tmp_path):
    (tmp_path / "autoinst.yaml").write_text(RULES)
    given = {"PYTHONPATH": "/boot", "PYTHONHOME": "/py", "PYTHONINSPECT": "1", "PATH": "/bin", "AUTOINST_HOME": "h"}
    found = demand.environment(Config(given, str(tmp_path)), given)
    assert found == {
        "PYTHONHOME": "/py",
        "PATH": "/bin",
        "AUTOINST_HOME": str(tmp_path / "h"),
        "AUTOINST_ENABLED": "0",
        "AUTOINST_RULES": str(tmp_path / "autoinst.yaml"),
    }


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("0", 0.0), ("", 60.0), ("soon", 60.0), ("-1", 60.0)])
def test_the_idle_time(text, seconds, monkeypatch):
    monkeypatch.setenv("AUTOINST_AGENT_IDLE", text)
    assert idle_seconds() == seconds


def test_it_hardly_uses_the_processor_while_nothing_happens(agents, home):
    process = agents.start()
    rounds_pass(home, 5)
    began, ended, used = time.monotonic(), told(str(home)).ended, _ticks(process.pid)
    time.sleep(2.5)
    rounds, ticks = told(str(home)).ended - ended, _ticks(process.pid) - used
    seconds = time.monotonic() - began  # more than 2.5 where the machine is busy
    assert rounds <= seconds / LONGEST + 2
    assert ticks <= 0.08 * seconds * os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
