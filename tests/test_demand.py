"""The agent that a program under the sitecustomize starts on demand: there when jobs come, and never noticed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from autoinst import demand
from autoinst.config import boot_folder
from autoinst.leader import told
from tests.agents import Agents, eventually
from tests.launching import AUTOINST, environment, launch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Outcome

RULES = """\
version: 1
jobs:
  - {class: jobs.Job, methods: [perform]}
  - {class: __main__.Job, methods: [perform]}
events:
  - {function: tools.step}
"""

JOBS = """\
class Job:
    def perform(self):
        pass
"""

# All that a process can ask about children, signals and files that it has nothing to do with.
LOOK = """\
import _signal, os, resource, signal, sys, threading, time

def look():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open("/proc/self/status") as file:
        shown = ("SigBlk", "SigIgn", "SigCgt", "Threads", "Umask")  # not SigQ, which counts all of the user's processes
        status = [line.strip() for line in file if line.startswith(shown)]
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        children = file.read()
    low = sorted(name for name in os.listdir("/proc/self/fd") if int(name) < 200)
    mask = _signal.pthread_sigmask(0, ())
    return [list(used), os.times()[2:4], status, children, low, os.getcwd(), dict(os.environ), mask]

def waited():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return "no child"
"""

SAME = (
    LOOK
    + """
seen = []
os.register_at_fork(before=lambda: seen.append("before"), after_in_parent=lambda: seen.append("after"))
before = look()
import jobs
after = look()
jobs.Job().perform()
print(seen, waited(), [pair for pair in zip(before, after) if pair[0] != pair[1]])
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "autoinst.yaml").write_text(RULES)
    (folder / "jobs.py").write_text(JOBS)
    (folder / "tools.py").write_text("def step():\n    pass\n")
    (folder / "main.py").write_text(f"{JOBS}\nJob().perform()\n")
    return folder


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    found = Agents(tmp_path / "home")
    yield found
    found.end()


def variables(agents: Agents, **more: str) -> dict[str, str]:
    return environment(agents.home, **({"AUTOINST_AGENT": "auto", "PYTHONPATH": boot_folder()} | more))


def run(folder: Path, agents: Agents, program: str, *prefix: str, **more: str) -> Outcome:
    """Run `program` as a file of its own under the sitecustomize."""
    (folder / "program.py").write_text(program)
    done = launch([*prefix, sys.executable, "program.py"], folder, variables(agents, **more))
    assert (done.status, done.stderr) == (0, ""), done.stderr
    return done


def none_started(agents: Agents) -> bool:
    """Whether no agent leads or has led, and none is on its way."""
    return agents.leading() is None and not told(str(agents.home)).is_agent and not marked(agents)


def marked(agents: Agents) -> bool:
    return (agents.home / demand.START_NAME).exists()


def said(agents: Agents) -> str:
    """Return what `doctor` wants seen to."""
    done = subprocess.run(
        [AUTOINST, "doctor", "--json"],
        env=environment(agents.home, AUTOINST_AGENT="auto"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return " ".join(json.loads(done.stdout)["attention"])


# -- there when it is needed -------------------------------------------------------------------------------------------

FORMS = {
    "script": ["main.py"],
    "-m": ["-m", "main"],
    "-c": ["-c", "import jobs; jobs.Job().perform()"],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_program_with_jobs_has_one(form: str, folder: Path, agents: Agents) -> None:
    done = launch([sys.executable, *FORMS[form]], folder, variables(agents))
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    eventually(lambda: "leads" in agents.log())  # it says so, and then takes the mark away, once it does
    eventually(lambda: not marked(agents))
    assert agents.log().count("leads") == 1


@pytest.mark.once
def test_workers_that_start_at_once_have_one(folder: Path, agents: Agents) -> None:
    env = variables(agents)
    processes = [subprocess.Popen([sys.executable, "main.py"], cwd=folder, env=env) for _ in range(8)]
    assert [process.wait(60) for process in processes] == [0] * 8
    eventually(lambda: "leads" in agents.log())
    assert agents.log().count("leads") == 1


@pytest.mark.once
def test_one_that_autoinst_run_has_started_is_enough(folder: Path, agents: Agents) -> None:
    done = launch([AUTOINST, "run", "main.py"], folder, environment(agents.home, AUTOINST_AGENT="auto"))
    assert (done.status, done.stderr) == (0, "")
    eventually(lambda: "leads" in agents.log())
    assert agents.log().count("leads") == 1


def test_it_stays_as_long_as_the_program_and_no_longer(folder: Path, agents: Agents) -> None:
    (folder / "program.py").write_text("import jobs, sys\nprint(flush=True)\nsys.stdin.read()\n")
    program = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        env=variables(agents, AUTOINST_AGENT_IDLE="0"),
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
    eventually(lambda: "nothing to do" in agents.log())  # it gives up the lead first, for a moment
    eventually(lambda: agents.leading() is None)


def test_one_that_was_killed_is_started_again_when_slots_run_out(folder: Path, agents: Agents) -> None:
    (folder / "program.py").write_text(
        "import jobs, sys\nprint(flush=True)\nsys.stdin.readline()\n"
        "for _ in range(40):\n    jobs.Job().perform()\nprint(flush=True)\nsys.stdin.read()\n"
    )
    program = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        env=variables(agents),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdout.readline()
    eventually(agents.leading)
    first = agents.leading()
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: agents.leading() is None)
    program.stdin.write(b"\n")
    program.stdin.flush()
    program.stdout.readline()
    # Of one that has just taken the lock the file still tells the one before.
    eventually(lambda: (second := agents.leading()) is not None and second.pid != first.pid)
    program.communicate(b"")


# -- never noticed -----------------------------------------------------------------------------------------------------


def test_the_program_finds_nothing_changed(folder: Path, agents: Agents) -> None:
    done = run(folder, agents, SAME)
    assert done.stdout == "[] no child []\n"
    eventually(agents.leading)


TICKING = (
    LOOK
    + """
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
before = look()
import jobs
after = look()
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(ticks) > 0, waited(), [pair for pair in zip(before, after) if pair[0] != pair[1]])
"""
)


def test_signals_meanwhile_come_afterwards(folder: Path, agents: Agents) -> None:
    assert run(folder, agents, TICKING).stdout == "True no child []\n"
    eventually(agents.leading)


LIMITED = """
import os, signal
from autoinst import demand

class TimeUp(Exception):
    pass

def up(*_):
    raise TimeUp

def answer(*arguments):
    os.kill(os.getpid(), signal.SIGALRM)
    return real(*arguments)

signal.signal(signal.SIGALRM, up)
real, demand._answer = demand._answer, answer
try:
    import jobs
except TimeUp:
    print("time is up")
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no child")
"""


@pytest.mark.once
def test_an_exception_from_a_signal_leaves_nothing_behind(folder: Path, agents: Agents) -> None:
    assert run(folder, agents, LIMITED).stdout == "time is up\nset() True\nno child\n"
    eventually(agents.leading)


@pytest.mark.once
def test_a_time_limit_that_ends_meanwhile_is_the_programs(folder: Path, agents: Agents) -> None:
    program = LIMITED.replace("class TimeUp(Exception):", "class TimeUp(TimeoutError):")
    assert run(folder, agents, program).stdout == "time is up\nset() True\nno child\n"
    eventually(agents.leading)


REFUSING = (
    LOOK
    + """
def refuse(event, arguments):
    if event == "os.posix_spawn":
        raise RuntimeError("no processes here")

sys.addaudithook(refuse)
before = look()
import jobs
after = look()
jobs.Job().perform()
print(waited(), [pair for pair in zip(before, after) if pair[0] != pair[1]])
"""
)


@pytest.mark.once
def test_a_program_whose_audit_hook_refuses_processes_goes_on_without(folder: Path, agents: Agents) -> None:
    assert run(folder, agents, REFUSING).stdout == "no child []\n"
    assert agents.log() == f"not started: {demand.REFUSED}\n"


UNTOLD = """
import io
from autoinst import demand

def opened(path, *how):
    return io.BytesIO(b"Name:\\tpython\\nThreads:\\t1\\n") if path == "/proc/self/status" else open(path, *how)

demand.open = opened
import jobs
jobs.Job().perform()
"""


@pytest.mark.once
def test_none_is_started_where_the_kernel_does_not_tell_of_signals(folder: Path, agents: Agents) -> None:
    run(folder, agents, UNTOLD)
    assert none_started(agents)
    assert agents.log() == f"not started: {demand.UNTOLD}\n"


@pytest.mark.once
def test_closed_standard_descriptors_stay_closed(folder: Path, agents: Agents) -> None:
    program = "import os\nfor n in range(3):\n    os.close(n)\nimport jobs\n"
    program += "os.open('out', os.O_WRONLY | os.O_CREAT)\nos.write(0, str(os.listdir('/proc/self/fd')).encode())\n"
    run(folder, agents, program)
    eventually(agents.leading)
    assert "'2'" not in (folder / "out").read_text()  # 0 is the file itself, 1 the folder that is listed


# -- not where it would be noticed -------------------------------------------------------------------------------------

UNFIT = {
    "a handler": (
        (
            "import signal\ngot = []\nsignal.signal(signal.SIGCHLD, lambda *_: got.append(1))\n"
            "import jobs\njobs.Job().perform()\nprint(got)\n"
        ),
        "[]\n",
        "the program sees to SIGCHLD itself",
    ),
    "a blocked signal": (
        (
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])\n"
            "import jobs\nprint(signal.sigpending())\n"
        ),
        "set()\n",
        "the program sees to SIGCHLD itself",
    ),
    "a thread": (
        (
            "import threading\nend = threading.Event()\nother = threading.Thread(target=end.wait)\nother.start()\n"
            "import jobs\njobs.Job().perform()\nend.set()\nother.join()\n"
        ),
        "",
        "the program has threads already",
    ),
    "a child": (
        (
            "import os\npid = os.fork()\nif not pid:\n    os._exit(7)\n"
            "import jobs\njobs.Job().perform()\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        ),
        "7\n",
        "the program has children already",
    ),
    "frozen": (
        "import sys\nsys.frozen = True\nimport jobs\n",
        "",
        "the program is an executable of its own with Python inside",
    ),
    "another program's name": (
        "import sys\nsys.executable = '/bin/true'\nimport jobs\n",
        "",
        "the program is an executable of its own with Python inside",
    ),
    "a subreaper": (
        (
            "import ctypes, os\nassert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
            "import jobs\njobs.Job().perform()\n"
            "try:\n    print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError:\n    print('no child')\n"
        ),
        "no child\n",
        demand.ORPHANS,
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_none_is_started_where_the_program_would_notice(kind: str, folder: Path, agents: Agents) -> None:
    program, output, reason = UNFIT[kind]
    assert run(folder, agents, program).stdout == output
    with contextlib.suppress(FileNotFoundError):  # a subreaper's was tried
        (agents.home / demand.START_NAME).unlink()
    assert none_started(agents)
    assert agents.log() == f"not started: {reason}\n"


def test_a_forked_child_of_such_a_program_starts_it(folder: Path, agents: Agents) -> None:
    program = UNFIT["a thread"][0].replace(
        "end.set()",
        "print(os.path.exists(os.environ['AUTOINST_HOME'] + '/drain.lock'))\n"
        "pid = os.fork()\nif not pid:\n    jobs.Job().perform()\n    os._exit(0)\n"
        "print(os.waitpid(-1, 0)[0] == pid)\nend.set()",
    )
    done = run(folder, agents, f"import os, warnings\nwarnings.simplefilter('ignore')\n{program}")
    assert done.stdout == "False\nTrue\n"
    eventually(agents.leading)


WANTED_NOWHERE = {
    "AUTOINST_AGENT": {"AUTOINST_AGENT": "off"},
    "AUTOINST_ENABLED": {"AUTOINST_ENABLED": "0"},
}


@pytest.mark.parametrize("name", WANTED_NOWHERE)
def test_none_is_started_where_it_is_not_wanted(name: str, folder: Path, agents: Agents) -> None:
    run(folder, agents, "import jobs\njobs.Job().perform()\n", **WANTED_NOWHERE[name])
    assert none_started(agents)


def test_none_is_started_for_a_program_without_jobs(folder: Path, agents: Agents) -> None:
    program = "import sqlite3, subprocess, sys, tools\ntools.step()\nprint('autoinst.demand' in sys.modules)\n"
    assert run(folder, agents, program).stdout == "False\n"
    assert list((agents.home / "spool").glob("*.arena"))  # the events' rules did act on something
    assert none_started(agents)


unshare = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)")
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@unshare
@pytest.mark.once
def test_none_is_started_by_process_1_nor_by_its_children(folder: Path, agents: Agents) -> None:
    program = (
        "import os, subprocess, sys\nprint(os.getpid(), flush=True)\nimport jobs\njobs.Job().perform()\n"
        "pid = os.fork()\nif not pid:\n    jobs.Job().perform()\n    os._exit(0)\n"
        "print(os.waitpid(-1, 0)[0] == pid, flush=True)\n"
        "print(subprocess.call([sys.executable, 'main.py']))\n"
        "try:\n    print(os.waitpid(-1, 0))\nexcept ChildProcessError:\n    print('no child')\n"
    )
    assert run(folder, agents, program, *CONTAINER).stdout == "1\nTrue\n0\nno child\n"
    assert none_started(agents)
    assert "takes in orphans" in said(agents)


@unshare
@pytest.mark.once
def test_none_is_started_where_process_1_cannot_be_seen(folder: Path, agents: Agents) -> None:
    program = (
        "import os, subprocess, sys\nprint(subprocess.call([sys.executable, 'main.py']))\n"
        "try:\n    print(os.waitpid(-1, 0))\nexcept ChildProcessError:\n    print('no child')\n"
    )
    assert run(folder, agents, program, "unshare", "--pid", "--fork", "--kill-child").stdout == "0\nno child\n"
    assert none_started(agents)


@pytest.mark.once
def test_a_reason_is_said_once(agents: Agents) -> None:
    agents.home.mkdir(mode=0o700)
    for reason in ("one", "one", "another", "one", "one"):
        demand.note(str(agents.home), reason)
    assert agents.log().splitlines() == [f"not started: {reason}" for reason in ("one", "another", "one")]


@pytest.mark.once
def test_one_that_does_not_come_to_lead_is_waited_for_a_while(agents: Agents) -> None:
    agents.home.mkdir(mode=0o700)
    home = str(agents.home)
    assert demand.is_due(home)
    assert not demand.is_due(home)
    old = os.stat(agents.home / demand.START_NAME).st_mtime - demand.START_SECONDS - 1
    os.utime(agents.home / demand.START_NAME, (old, old))
    assert demand.is_due(home)
    demand.has_started(home)
    assert demand.is_due(home)


def test_one_that_hangs_is_given_up_though_the_programs_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # as freezegun does
    monkeypatch.setattr(demand, "ANSWER_PAUSES", 20)
    assert demand._answer(["/bin/sleep", "600"], {}) == b""
