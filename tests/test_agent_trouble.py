"""The agent in trouble that real machines have: a locked and a damaged store, few descriptors, a clock that is set."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from autoinst.agent import intake, service
from autoinst.agent.drain import Drain, catch_up
from autoinst.agent.journal import open_journal
from autoinst.agent.service import Agent
from autoinst.cli.diagnosis import diagnose
from autoinst.config import Config
from autoinst.leader import told as rounds
from autoinst.spool.reader import Arena
from autoinst.store.query import JobFilter
from autoinst.store.retention import DAY_NS
from autoinst.store.schema import VERSION
from autoinst.store.sqlite import Store
from tests.agents import Agents, eventually
from tests.arena_builder import ArenaBuilder, dead_pid, hold_lease
from tests.launching import AUTOINST, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    found = Agents(tmp_path / "home")
    (found.home / "spool").mkdir(mode=0o700, parents=True)
    found.home.chmod(0o700)
    yield found
    found.end()


def dead_arena(home: Path, jobs: int = 3, **fields: int) -> None:
    builder = ArenaBuilder(pid=dead_pid(), start_time=1)
    for slot in range(jobs):
        builder.put(slot, **fields)  # type: ignore[arg-type]
    builder.write(home / "spool")


def count(home: Path) -> int:
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        return store.count()


def told(agents: Agents, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AUTOINST, *arguments], env=environment(agents.home), capture_output=True, text=True, check=False, timeout=60
    )


def test_a_store_that_another_program_locks_is_tried_again(agents: Agents) -> None:
    process = agents.start()
    eventually((agents.home / "store.sqlite3").exists)
    other = sqlite3.connect(agents.home / "store.sqlite3", isolation_level=None, timeout=30)
    eventually(lambda: other.execute("PRAGMA user_version").fetchone() == (VERSION,))  # it is made in several steps
    other.execute("BEGIN IMMEDIATE")
    dead_arena(agents.home)
    done = told(agents, "jobs", "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert "has not answered" in done.stderr
    assert process.stderr is not None
    for line in process.stderr:
        if "database is locked; nothing is lost, trying again" in line:
            break
    assert len(os.listdir(agents.home / "spool")) == 1
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: count(agents.home) == 3)
    assert process.poll() is None


def test_a_store_damaged_after_an_agent_was_killed_is_moved_aside_and_told(agents: Agents) -> None:
    process = agents.start()
    dead_arena(agents.home)
    assert len(told(agents, "jobs", "--json").stdout.splitlines()) == 3
    process.kill()
    process.wait()
    with open(agents.home / "store.sqlite3", "r+b") as file:
        file.write(os.urandom(100_000))
    (agents.home / "store.sqlite3-wal").unlink()
    dead_arena(agents.home, 5)
    process = agents.start()
    eventually(lambda: not list((agents.home / "spool").glob("*.arena")))
    assert process.poll() is None
    assert any(".corrupt-" in name for name in os.listdir(agents.home))
    assert len(told(agents, "jobs", "--json").stdout.splitlines()) == 5
    attention = json.loads(told(agents, "doctor", "--json").stdout)["attention"]
    assert any("damaged, moved to" in text for text in attention)


@pytest.mark.parametrize("how", ["agent", "reader"])
def test_a_thousand_dead_arenas_are_stored_in_one_look_with_few_descriptors(agents: Agents, how: str) -> None:
    for _ in range(1000):
        dead_arena(agents.home)
    limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", AUTOINST]
    command = [*limited, "agent", "--once"] if how == "agent" else [*limited, "jobs", "--json", "--limit", "0"]
    done = subprocess.run(
        command, env=environment(agents.home), capture_output=True, text=True, check=True, timeout=120
    )
    assert os.listdir(agents.home / "spool") == []
    assert count(agents.home) == 3000
    if how == "reader":
        assert len(done.stdout.splitlines()) == 3000


def test_many_living_arenas_that_all_have_news_are_read_with_few_descriptors(agents: Agents) -> None:
    ready, tell = os.pipe()
    holder = os.fork()
    if not holder:
        # Another machine's, so that nobody judges their owner, who holds the leases of them all.
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for _ in range(600):
            builder = ArenaBuilder(boot_id=b"b" * 16, machine_id=b"m" * 16)
            builder.put(0)
            hold_lease(builder.write(agents.home / "spool"))
        os.write(tell, b".")
        time.sleep(120)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"."
        limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", AUTOINST, "agent", "--once"]
        done = subprocess.run(limited, env=environment(agents.home), capture_output=True, text=True, check=True)
        assert done.stderr == "autoinst: 600 job(s) stored\n"
    finally:
        os.kill(holder, 9)
        os.waitpid(holder, 0)
        os.close(ready)
        os.close(tell)


# An agent that looks by itself only once: from then on it must be asked.
ASLEEP = """
import sys
from autoinst.agent import service
from autoinst.agent.journal import open_journal
service.SHORTEST = service.LONGER = service.LONGEST = 3600.0
sys.exit(service.Agent(sys.argv[1], open_journal(sys.argv[1], foreground=True), idle_seconds=None).run())
"""


def test_a_reader_wakes_an_agent_that_sleeps_also_for_an_arena_among_many(agents: Agents) -> None:
    builders = []
    for _ in range(40):
        builder = ArenaBuilder(boot_id=b"b" * 16, machine_id=b"m" * 16)  # another machine's, so that it stays
        builder.put(0)
        builders.append((builder.write(agents.home / "spool"), builder))
    agents.launch([sys.executable, "-c", ASLEEP, str(agents.home)])
    eventually(lambda: rounds(str(agents.home)).ended > 0)
    assert count(agents.home) == 40
    path, builder = builders[0]
    for slot in range(1, 4):
        builder.put(slot)
        with open(path, "r+b") as file:
            file.write(builder.data)
        assert catch_up(str(agents.home), 60)
        assert count(agents.home) == 40 + slot


def test_of_too_many_arenas_those_longest_quiet_are_closed(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "OPEN_LIMIT", 10)
    opened: list[str] = []
    real = Arena.open

    def note(path: str, **how: bool) -> Arena:
        opened.append(path)
        return real(path, **how)

    monkeypatch.setattr(Arena, "open", note)
    builders = {}
    for _ in range(16):
        builder = ArenaBuilder(boot_id=b"b" * 16, machine_id=b"m" * 16)  # another machine's, so that it stays
        builder.put(0)
        builders[str(builder.write(agents.home / "spool"))] = builder

    def looked(drain: Drain) -> set[str]:
        """Return which arenas a look opens."""
        opened.clear()
        drain.run_dry()
        return set(opened)

    with Drain(str(agents.home)) as drain:
        assert looked(drain) == set(builders)
        quiet = looked(drain)
        assert len(quiet) == 6
        assert looked(drain) == quiet
        # One of these has something new: it stays open, and in its place another one is closed.
        news = min(quiet)
        builders[news].put(1)
        with open(news, "r+b") as file:
            file.write(builders[news].data)
        assert news in looked(drain)
        assert len(looked(drain) | {news}) == 7
        assert count(agents.home) == 17


# -- the clock ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [400, -400])
def test_a_clock_that_is_set_removes_no_jobs(
    agents: Agents, days: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = agents.home
    now = time.time_ns()
    dead_arena(home)
    dead_arena(home, 1, start=now - 60 * DAY_NS)
    agent = Agent(str(home), open_journal(str(home), foreground=True), idle_seconds=None)
    try:
        assert agent._round() is not None
        assert count(home) == 3  # and the job of two months ago is gone
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + days * 86_400)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + days * DAY_NS)
        dead_arena(home)
        agent._forget_at = 0.0
        assert agent._round() is not None
        assert "the clock was set by" in capsys.readouterr().err
        assert count(home) == 6
        assert agent._forget_at > time.monotonic() + 80_000
        # Set right again: another step, and another day without removing.
        monkeypatch.undo()
        agent._forget_at = 0.0
        assert agent._round() is not None
        assert "the clock was set by" in capsys.readouterr().err
        # It has held since.
        agent._forget_at = 0.0
        assert agent._round() is not None
        assert "the clock was set" not in capsys.readouterr().err
    finally:
        agent._drain.close()
    with Store(str(home / "store.sqlite3")) as store:
        assert {record.status for record in store.jobs(JobFilter(limit=0))} == {"ok"}


@pytest.mark.parametrize("seconds", [90, -90])
def test_a_clock_that_is_set_is_said_in_the_log_and_by_doctor(
    agents: Agents, seconds: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = agents.home
    agent = Agent(str(home), open_journal(str(home), foreground=True), idle_seconds=None)
    try:
        assert agent._round() is not None
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + seconds * 10**9)
        dead_arena(home)
        assert agent._round() is not None
        assert agent._round() is not None
    finally:
        agent._drain.close()
    assert capsys.readouterr().err.count(f"the clock was set by {seconds:+} s, to ") == 1
    assert count(home) == 3
    config = Config({"AUTOINST_HOME": str(home)}, str(home))
    assert any(text.startswith(f"clock: set by {seconds:+} s, to ") for text in diagnose(config)["attention"])


def test_a_machine_that_slept_has_not_had_its_clock_set(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(str(agents.home), open_journal(str(agents.home), foreground=True), idle_seconds=None)
    real, real_up = time.time, service._uptime
    monkeypatch.setattr(time, "time", lambda: real() + 30_000)
    monkeypatch.setattr(service, "_uptime", lambda: real_up() + 30_000)
    assert abs(agent._clock_step()) < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_home_is_refused_by_the_agent(agents: Agents) -> None:
    dead_arena(agents.home)
    os.chown(agents.home, 64001, 64001)
    for options in ((), ("--once",), ("--foreground",)):
        done = told(agents, "agent", *options)
        assert done.returncode == 1
        assert "belongs to user 64001" in done.stderr
        assert "Traceback" not in done.stderr
    assert len(os.listdir(agents.home / "spool")) == 1
    assert "store.sqlite3" not in os.listdir(agents.home)
