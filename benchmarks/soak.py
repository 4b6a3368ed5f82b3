"""Mixed real workers for an hour, with kills, edits of rules, restarts of the agent; then all jobs are accounted for.

    python -m benchmarks.soak [--seconds 3600] [--json]

A loop, threads, forks and a worker of RQ run jobs that note their begin and end in files of their own. Every few
seconds one of them, or an RQ job's own process, is killed; rules are edited and the agent is stopped or killed. In the
end each job that began has to be stored once, as what it was, and nothing else; the memory of the agent and of a worker
that lived all the time has to be flat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from autoinst.agent.drain import drain_once  # noqa: E402
from autoinst.agent.launch import command as agent_command  # noqa: E402
from autoinst.store.query import JobFilter  # noqa: E402
from autoinst.store.sqlite import Store  # noqa: E402
from benchmarks.soak_jobs import fresh  # noqa: E402
from tests.servers import Redis  # noqa: E402

RULES = """version: 1
jobs:
  - {function: soak_jobs.work, payload: {args: "${args}"}}
events:
  - {function: soak_jobs.step, name: step.soak}
"""
EDITED = RULES + "  - {function: soak_jobs.extra, name: extra.soak}\n"
KINDS = ("loop", "threads", "forks", "rq")
THREADS = 4  # of a process, at most
KILL_EVERY = 3.0  # seconds, about
EDIT_EVERY = 7.0
AGENT_EVERY = 41.0
AGENT_SECONDS = 30.0  # it ends after the round it is in, which is long on a busy machine
SAMPLE_EVERY = 1.0
RQ_RATE = 5.0  # jobs enqueued a second


class Result(NamedTuple):
    """What the soak found; `wrong` has to be empty."""

    seconds: float
    began: int
    ended: int
    ok: int
    killed: int
    workers_killed: int
    edits: int
    agents_ended: int
    agents_slow: int  # of those, that took longer than AGENT_SECONDS to end
    worker_memory: list[float]  # MB, medians of four quarters of the time
    worker_slope: float  # MB an hour, over the last three quarters
    agent_memory: list[float]
    wrong: list[str]


class Soak:
    """The processes and what is done to them."""

    def __init__(self, folder: Path, redis: str, seed: int) -> None:
        self.home, self.truth, self.rules = folder / "home", folder / "truth", folder / "rules.yaml"
        self.truth.mkdir()
        self.redis = redis
        self.random = random.Random(seed)
        self.killed = self.edits = self.agents = self.slow = self.sent = 0
        self.worker_samples: list[float] = []
        self.agent_samples: list[float] = []
        self.edit()
        bare = {name: text for name, text in os.environ.items() if not name.startswith(("AUTOINST_", "PYTHON"))}
        self.environ = bare | {
            "AUTOINST_HOME": str(self.home),
            "AUTOINST_RULES": str(self.rules),
            "AUTOINST_AGENT": "off",
            "PYTHONPATH": str(ROOT / "benchmarks"),
            "SOAK_TRUTH": str(self.truth),
        }
        self.workers = {kind: self.start(kind) for kind in KINDS}
        self.steady = self.start("loop")
        self.agent = self.start_agent()

    def start(self, kind: str) -> subprocess.Popen[bytes]:
        """Start a worker in a process group of its own."""
        programs = Path(sys.executable).parent
        words = [sys.executable, str(ROOT / "benchmarks" / "soak_jobs.py"), kind]
        if kind == "rq":
            words = [str(programs / "rq"), "worker", "--quiet", "--url", self.redis, "soak"]
        command = [str(programs / "autoinst"), "run", *words]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command,
            env=self.environ,
            cwd=self.truth.parent,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )

    def start_agent(self) -> subprocess.Popen[bytes]:
        """Start an agent that leads."""
        return subprocess.Popen(agent_command("--foreground"), env=self.environ, stderr=subprocess.DEVNULL)

    def kill_one(self) -> None:
        """Kill one of the workers, or only what it has forked, and start another in its place."""
        kind = self.random.choice(KINDS)
        worker = self.workers[kind]
        self.killed += 1
        if kind == "rq" and self.random.random() < 0.5:
            for child in children(worker.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            return
        kill_group(worker)
        self.workers[kind] = self.start(kind)

    def edit(self) -> None:
        """Put other rules in the place of the rules."""
        self.edits += 1
        new = self.rules.with_suffix(".new")
        new.write_text(EDITED if self.edits % 2 else RULES)
        new.replace(self.rules)

    def restart_agent(self) -> None:
        """End the agent, every other time without a warning, and start another."""
        self.agents += 1
        self.agent.send_signal(signal.SIGKILL if self.agents % 2 else signal.SIGTERM)
        self.wait_for_agent()
        self.agent = self.start_agent()

    def wait_for_agent(self) -> None:
        """Wait for the agent's end; one that takes too long is counted and killed, which must lose nothing either."""
        try:
            self.agent.wait(AGENT_SECONDS)
        except subprocess.TimeoutExpired:
            self.slow += 1
            self.agent.kill()
            self.agent.wait()

    def enqueue(self, due: int) -> None:
        """Put jobs on RQ's queue until there were `due`."""
        import rq
        from redis import Redis as Client

        with Client.from_url(self.redis) as client:
            queue = rq.Queue("soak", connection=client)
            while self.sent < due:
                queue.enqueue("soak_jobs.work", fresh(), result_ttl=0)
                self.sent += 1

    def run(self, seconds: float) -> None:
        """Do all that for so long."""
        began = time.monotonic()
        due = {self.kill_one: KILL_EVERY, self.edit: EDIT_EVERY, self.restart_agent: min(AGENT_EVERY, seconds / 4)}
        at = {do: began + every for do, every in due.items()}
        while (now := time.monotonic()) < began + seconds:
            for do, every in due.items():
                if now >= at[do]:
                    do()
                    at[do] = now + every * (0.5 + self.random.random())
            self.enqueue(int((now - began) * RQ_RATE))
            self.worker_samples.append(private(self.steady.pid))
            self.agent_samples.append(private(self.agent.pid))
            time.sleep(SAMPLE_EVERY)

    def stop(self) -> None:
        """End all: the workers at once, then the agent."""
        for worker in (*self.workers.values(), self.steady):
            self.killed += 1
            kill_group(worker)
        self.agent.terminate()
        self.wait_for_agent()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker with all it has forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def private(pid: int) -> float:
    """Return what a process has for itself in MB, without mapped arenas."""
    total, counts = 0, True
    try:
        with open(f"/proc/{pid}/smaps") as file:
            for line in file:
                words = line.split()
                if not words[0].endswith(":"):
                    counts = not words[-1].endswith((".arena", "(deleted)"))
                elif counts and words[0] in {"Private_Clean:", "Private_Dirty:"}:
                    total += int(words[1])
    except OSError:
        return 0.0
    return total / 1024


def noted(folder: Path) -> tuple[set[str], set[str]]:
    """Return the names of the jobs that began and of those that ended."""
    began, ended = set(), set()
    for path in folder.iterdir():
        for line in path.read_text().split():
            (began if line[0] == "+" else ended).add(line[1:])
    return began, ended


def judged(began: set[str], ended: set[str], records: list[tuple[str | None, str]], kills: int) -> list[str]:
    """Compare jobs' names and statuses as stored with what was noted; return what is wrong.

    A process killed between the recorder's begin or end and the note beside it leaves a job that is stored as killed
    and was not noted, or was noted as ended: one a thread that was killed, at most. Killed while the end is written
    over what the slot had of it, a job that ended is stored as killed without its arguments, and so without its name.
    """
    times = Counter(name for name, _ in records)
    ok = {name for name, status in records if status == "ok"}
    killed = {name for name, status in records if status == "killed"}
    wrong = [f"{name} is stored {count} times" for name, count in times.items() if count > 1 and name is not None]
    missing = began - times.keys()
    if len(missing & ended) <= times[None]:
        missing -= ended
    wrong += [f"{name} began and is not stored" for name in missing]
    wrong += [f"{name} is stored as ok and did not end" for name in ok - ended if name is not None]
    wrong += [f"{name} is {status}" for name, status in records if status not in {"ok", "killed"}]
    unsure = len(killed & ended) + times[None] + len(killed - began - {None})
    if unsure > kills * THREADS:
        wrong.append(f"{unsure} jobs were killed between their record and their note, by {kills} kills")
    return wrong


def soak(folder: Path, seconds: float, seed: int = 1) -> Result:
    """Run it in `folder`."""
    start = time.monotonic()
    with Redis() as redis:
        running = Soak(folder, redis.url, seed)
        try:
            running.run(seconds)
        finally:
            running.stop()
    drain_once(str(running.home))
    with Store(str(running.home / "store.sqlite3")) as store:
        found = store.jobs(JobFilter(limit=0))
        records = [(record.args[0] if record.args else None, record.status) for record in found]
        counted = sum(cell.counted for cell in store.totals(0, 2**62).values())
    began, ended = noted(running.truth)
    wrong = judged(began, ended, records, running.killed)
    if counted:
        wrong.append(f"{counted} jobs are only counted")
    return Result(
        seconds=time.monotonic() - start,
        began=len(began),
        ended=len(ended),
        ok=sum(status == "ok" for _, status in records),
        killed=sum(status == "killed" for _, status in records),
        workers_killed=running.killed,
        edits=running.edits,
        agents_ended=running.agents,
        agents_slow=running.slow,
        worker_memory=quarters(running.worker_samples),
        worker_slope=slope(running.worker_samples) * 3600 / SAMPLE_EVERY,
        agent_memory=quarters(running.agent_samples),
        wrong=wrong,
    )


def quarters(samples: list[float]) -> list[float]:
    """Return the medians of four quarters of `samples`."""
    size = max(len(samples) // 4, 1)
    return [round(statistics.median(samples[n * size : (n + 1) * size] or [0.0]), 2) for n in range(4)]


def slope(samples: list[float]) -> float:
    """Return how much is added from one sample to the next in the last three quarters, by least squares."""
    last = samples[len(samples) // 4 :]
    return statistics.linear_regression(range(len(last)), last).slope if len(last) > 2 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no worker is left
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        result = soak(Path(name), options.seconds, options.seed)
    if options.json:
        print(json.dumps(result._asdict()))
    else:
        for what, value in result._replace(wrong=result.wrong[:20])._asdict().items():
            print(f"{what:16} {value}")
        print(f"{len(result.wrong)} wrong")
    sys.exit(bool(result.wrong))


if __name__ == "__main__":
    main()
