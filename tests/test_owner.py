"""Whether an arena's owner is dead: every way to die is seen, and nothing that lives is said to be dead."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from autoinst.spool import process
from autoinst.spool.owner import Judge, Life, Machine, is_own, lease_held
from autoinst.spool.reader import Arena
from tests.arena_builder import ArenaBuilder, dead_pid, hold_lease

HERE = Machine.current()
OTHER = bytes(range(16))
WAIT = 20.0

OWNER = """
import fcntl, mmap, os, signal, sys
path = sys.argv[1]
fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
mm = mmap.mmap(fd, 0)
def ready():
    print("ready", flush=True)
"""


class Owner:
    """A process that owns an arena file, as a worker does."""

    def __init__(self, folder, script="ready(); signal.pause()", prefix=()):
        self.path = os.path.join(folder, "new")
        builder = ArenaBuilder()
        builder.put(0)
        builder.write(folder, "new")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", OWNER + textwrap.dedent(script), self.path],
            stdout=subprocess.PIPE,
            text=True,
        )
        # The header names the owner, whose pid is known only now.
        pid = self.process.pid
        builder = ArenaBuilder(pid=pid, start_time=process.start_time(pid))
        with open(self.path, "r+b") as file:
            file.write(builder.data[:256])
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        renamed = os.path.join(folder, builder.name)
        os.rename(self.path, renamed)
        self.arena = Arena.open(renamed)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.arena.close()

    def until(self, life):
        deadline = time.monotonic() + WAIT
        while True:
            verdict = Judge().judge(self.arena)
            if verdict.life is life or time.monotonic() > deadline:
                return verdict
            time.sleep(0.01)


def arena_of(folder, **fields) -> Arena:
    return Arena.open(ArenaBuilder(**fields).write(folder))


def test_the_holder_of_the_lease_lives(tmp_path):
    with Owner(tmp_path) as worker:
        assert lease_held(worker.arena.fd) is True
        assert Judge().judge(worker.arena).life is Life.ALIVE


def test_asking_takes_no_lease(tmp_path):
    path = ArenaBuilder().write(tmp_path)
    asking, asked = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
    try:
        assert lease_held(asking) is False
        seen = subprocess.run(
            [sys.executable, "-c", OWNER + "print('taken')", path], check=True, capture_output=True, text=True
        )
        assert seen.stdout == "taken\n"
        assert lease_held(asked) is False
    finally:
        os.close(asking)
        os.close(asked)


def test_a_stopped_process_lives(tmp_path):
    with Owner(tmp_path) as worker:
        worker.process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        assert Judge().judge(worker.arena).life is Life.ALIVE
        worker.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_zombie_is_dead_and_tells_its_signal(tmp_path, number):
    with Owner(tmp_path) as worker:
        worker.process.send_signal(number)
        verdict = worker.until(Life.DEAD)
        assert (verdict.life, verdict.signal) == (Life.DEAD, number.name)


def test_a_zombie_that_exited_tells_no_signal(tmp_path):
    with Owner(tmp_path, "ready(); os._exit(3)") as worker:
        verdict = worker.until(Life.DEAD)
        assert (verdict.life, verdict.signal, verdict.reason) == (Life.DEAD, None, "it is a zombie")


def test_a_process_that_was_waited_for_is_dead(tmp_path):
    with Owner(tmp_path) as worker:
        worker.process.kill()
        worker.process.wait()
        assert Judge().judge(worker.arena) == (Life.DEAD, "its process is gone", None, None)


def test_a_process_that_lost_its_lease_but_maps_the_arena_lives(tmp_path):
    script = """
    os.closerange(3, 4096)  # as python-daemon does; the mapping stays
    ready(); signal.pause()
    """
    with Owner(tmp_path, script) as worker:
        assert lease_held(worker.arena.fd) is False
        verdict = Judge().judge(worker.arena)
        assert (verdict.life, verdict.reason) == (Life.ALIVE, "lost its lease but maps the arena")


def test_a_process_that_opened_its_own_arena_lives(tmp_path):
    with Owner(tmp_path, "open(path).close(); ready(); signal.pause()") as worker:
        assert lease_held(worker.arena.fd) is False
        assert Judge().judge(worker.arena).life is Life.ALIVE


def test_a_process_that_runs_another_program_now_has_dropped_its_jobs(tmp_path):
    script = "ready(); os.execv(sys.executable, [sys.executable, '-c', 'import signal; signal.pause()'])"
    with Owner(tmp_path, script) as worker:
        verdict = worker.until(Life.DEAD)
        assert (verdict.life, verdict.how) == (Life.DEAD, "exec")
        assert worker.process.poll() is None


def test_a_child_that_keeps_the_descriptor_does_not_keep_its_parent_alive(tmp_path):
    script = """
    child = os.fork()
    if not child:
        signal.alarm(30)
        signal.pause()
    ready()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with Owner(tmp_path, script) as worker:
        assert worker.until(Life.DEAD).signal == "SIGKILL"


def test_a_process_whose_main_thread_alone_ended_lives(tmp_path):
    script = """
    import ctypes, threading, time
    def work():
        while open("/proc/self/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.01)
        ready()
        signal.sigwait([signal.SIGUSR1])
    os.closerange(3, 4096)
    threading.Thread(target=work).start()
    ctypes.CDLL(None).pthread_exit(None)
    """
    with Owner(tmp_path, script) as worker:
        with open(f"/proc/{worker.process.pid}/stat") as file:
            assert file.read().rsplit(")", 1)[1].split()[0] == "Z"
        assert Judge().judge(worker.arena).reason == "only its main thread has ended"


def test_a_pid_that_is_another_process_now_is_dead(tmp_path):
    arena = arena_of(tmp_path, pid=os.getppid(), start_time=1)
    assert Judge().judge(arena) == (Life.DEAD, "its pid is another process's now", None, None)
    arena.close()


def test_an_unreadable_proc_is_no_proof_of_death(tmp_path, monkeypatch):
    arena = arena_of(tmp_path, pid=os.getppid(), start_time=process.start_time(os.getppid()))

    def hidden(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", hidden)
    verdict = Judge(HERE).judge(arena)
    monkeypatch.undo()
    assert verdict == (Life.ALIVE, "/proc hides its process", None, None)
    arena.close()


# -- other boots, machines, namespaces ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "here", "local", "life"),
    [
        ({"boot_id": OTHER}, HERE, True, Life.DEAD),
        ({"boot_id": OTHER, "machine_id": OTHER}, HERE, True, Life.FOREIGN),
        ({"boot_id": OTHER, "machine_id": bytes(16)}, HERE._replace(machine_id=bytes(16)), True, Life.DEAD),
        ({"boot_id": OTHER, "machine_id": bytes(16)}, HERE._replace(machine_id=bytes(16)), False, Life.FOREIGN),
        ({"boot_id": bytes(16), "machine_id": OTHER}, HERE, True, Life.FOREIGN),
        ({"machine_id": OTHER}, HERE, True, Life.SUSPECT),
        ({"pid_namespace": 1}, HERE, True, Life.SUSPECT),
        ({}, HERE._replace(pid_namespace=1), True, Life.SUSPECT),
    ],
    ids=["restarted", "other machine", "no ids", "no ids, shared", "no boot id", "container", "inside", "outside"],
)
def test_owners_elsewhere(tmp_path, fields, here, local, life):
    arena = arena_of(tmp_path, pid=dead_pid(), **fields)
    assert Judge(here, local=local).judge(arena).life is life
    arena.close()


def test_a_held_lease_in_another_namespace_lives(tmp_path):
    with Owner(tmp_path) as worker:
        judge = Judge(HERE._replace(pid_namespace=1))
        assert judge.judge(worker.arena).life is Life.ALIVE
        worker.process.kill()
        worker.process.wait()
        assert judge.judge(worker.arena).life is Life.SUSPECT


def test_another_namespace_is_dead_after_half_a_minute_without_a_change(tmp_path, monkeypatch):
    now = [10**12]
    monkeypatch.setattr("autoinst.spool.owner.time.monotonic_ns", lambda: now[0])
    path = ArenaBuilder(pid=dead_pid(), pid_namespace=1).write(tmp_path)
    arena = Arena.open(path)
    judge = Judge()

    def after(seconds):
        now[0] += int(seconds * 1e9)
        return judge.judge(arena).life

    assert after(0) is Life.SUSPECT
    assert after(29.9) is Life.SUSPECT
    with open(path, "r+b") as file:
        file.seek(20_000)
        file.write(b"changed")
    assert after(0.2) is Life.SUSPECT
    assert after(29.9) is Life.SUSPECT
    assert after(0.2) is Life.DEAD
    # Another process that looks later goes on from what this one saw.
    another = Judge()
    another.suspects = dict(judge.suspects)
    assert another.judge(arena).life is Life.DEAD
    arena.close()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)")
def test_a_real_pid_namespace(tmp_path):
    # Inside, the owner writes what it knows of itself: another pid and another namespace.
    script = """
    import struct
    from autoinst.spool import layout, process
    header = list(layout.HEADER.unpack_from(mm))
    header[6], header[8], header[9] = os.getpid(), process.start_time(os.getpid()), process.pid_namespace()
    ready()
    mm[: layout.HEADER.size] = layout.HEADER.pack(*header)
    print("written", flush=True)
    signal.pause()
    """
    with Owner(tmp_path, script, prefix=("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")) as worker:
        assert worker.process.stdout is not None
        assert worker.process.stdout.readline() == "written\n"
        worker.arena.close()
        worker.arena = Arena.open(worker.arena.path)
        assert worker.arena.header.pid == 1
        assert worker.arena.header.pid_namespace not in (0, HERE.pid_namespace)
        assert Judge().judge(worker.arena).life is Life.ALIVE
        worker.process.kill()
        worker.process.wait()
        deadline = time.monotonic() + WAIT
        while lease_held(worker.arena.fd) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Judge().judge(worker.arena).life is Life.SUSPECT


# -- one's own arena ----------------------------------------------------------------------------------------------


def test_a_process_knows_its_own_arena_without_opening_it(tmp_path):
    builder = ArenaBuilder()
    path = builder.write(tmp_path)
    fd = hold_lease(path)
    try:
        assert is_own(path)
        asked = subprocess.run(
            [sys.executable, "-c", OWNER, path], check=False, capture_output=True, text=True, timeout=WAIT
        )
        assert "BlockingIOError" in asked.stderr  # the lease is still held
    finally:
        os.close(fd)


def test_an_arena_of_a_process_elsewhere_with_the_same_pid_is_not_ones_own(tmp_path):
    assert not is_own(ArenaBuilder(pid_namespace=1).write(tmp_path))


def test_a_forked_child_does_not_own_its_parents_arena(tmp_path):
    path = ArenaBuilder().write(tmp_path)
    fd = hold_lease(path)
    pid = os.fork()
    if not pid:
        found = is_own(path)
        os._exit(int(found))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)


@pytest.mark.parametrize("name", ["x.arena", "12-zz.arena", "1.arena", "PID-000000000000000.arena"])
def test_other_names_are_nobodys_own(tmp_path, name):
    path = tmp_path / name.replace("PID", str(os.getpid()))
    path.write_bytes(b"")
    assert not is_own(str(path))
