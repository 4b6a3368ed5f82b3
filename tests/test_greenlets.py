"""gevent and eventlet: a job in each greenlet is a transaction of its own, however they take turns."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.harness import Program
from tests.libraries import python_of
from tests.turns import RULES

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.once

# Each job gives way to the others at every step.
WORK = """
import time


def step(label):
    time.sleep(0.002)


def job(number):
    for i in range(4):
        step(f"{number}.{i}")
    return number


def job_inside(number):
    step(f"{number}.before")
    job(number + 1)
    step(f"{number}.after")
    return number


def job_failing(number):
    step(f"{number}")
    raise ValueError(number)


def job_that_waits():
    time.sleep(60)
"""
GEVENT = """
from gevent import monkey

monkey.patch_all()
import threading

import gevent
from gevent.pool import Pool
from gevent.threadpool import ThreadPool

import work

print([greenlet.value for greenlet in gevent.joinall([gevent.spawn(work.job, n) for n in range(20)])])
print(list(Pool(3).imap(work.job_inside, range(100, 200, 10))))
threads = [threading.Thread(target=work.job, args=(n,)) for n in (30, 31)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(ThreadPool(2).map(work.job, [40, 41]))


def fails():
    try:
        work.job_failing(50)
    except ValueError as error:
        print("failed", error)


gevent.spawn(fails).join()
killed = gevent.spawn(work.job_that_waits)
gevent.sleep(0.01)
killed.kill()
print(repr(killed.value))
with gevent.Timeout(0.01, False):
    work.job_that_waits()
"""
EVENTLET = """
import warnings

warnings.simplefilter("ignore")
import eventlet

eventlet.monkey_patch()
import threading

from eventlet import tpool

import work

print(list(eventlet.GreenPool(20).imap(work.job, range(20))))
print(list(eventlet.GreenPool(3).imap(work.job_inside, range(100, 200, 10))))
threads = [threading.Thread(target=work.job, args=(n,)) for n in (30, 31)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([tpool.execute(work.job, n) for n in (40, 41)])


def fails():
    try:
        work.job_failing(50)
    except ValueError as error:
        print("failed", error)


eventlet.spawn(fails).wait()
killed = eventlet.spawn(work.job_that_waits)
eventlet.sleep(0.01)
killed.kill()
with eventlet.Timeout(0.01, False):
    work.job_that_waits()
"""
PROGRAMS = {"gevent": GEVENT, "eventlet": EVENTLET}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.write("work.py", WORK)
    program.write("rules.yaml", RULES)
    return program


def titles(record: dict[str, Any]) -> list[str]:
    return [event["title"] for event in record["events"]]


@pytest.mark.parametrize("library", PROGRAMS)
def test_each_greenlet_has_a_transaction_of_its_own(program: Program, library: str) -> None:
    program.write("worker.py", PROGRAMS[library])
    command = [python_of("peers"), "worker.py"]
    plain = program.execute(command, {}, instrumented=False)
    ours = program.execute(command, {})
    assert (ours.stdout, ours.stderr, ours.status) == (plain.stdout, plain.stderr, 0)
    by_method: dict[str, list[dict[str, Any]]] = {}
    for record in ours.records:
        by_method.setdefault(record["method"], []).append(record)
    jobs = {record["args"][0]: record for record in by_method["job"]}
    assert sorted(jobs) == [*range(20), 30, 31, 40, 41] == sorted(record["args"][0] for record in by_method["job"])
    for number, record in jobs.items():
        assert (record["status"], titles(record)) == ("ok", [f"{number}.{i}" for i in range(4)])
    assert len(by_method["job_inside"]) == 10
    for record in by_method["job_inside"]:
        number = record["args"][0]
        inner = [f"{number + 1}.{i}" for i in range(4)]
        assert titles(record) == [f"{number}.before", "work#job", *inner, f"{number}.after"]
        assert [event["parent"] for event in record["events"]] == [None, None, 1, 1, 1, 1, None]
    assert [record["exception"]["class"] for record in by_method["job_failing"]] == ["ValueError"]
    ends = Counter((record["status"], record["exception"]["class"]) for record in by_method["job_that_waits"])
    assert ends == {("ignored", "greenlet.GreenletExit"): 1, ("error", f"{library}.timeout.Timeout"): 1}


@pytest.mark.parametrize("library", PROGRAMS)
def test_the_spool_keeps_the_interpreter_s_own_locks(program: Program, library: str) -> None:
    # A greenlet's lock in the hands of native threads would wait for a loop that these have not.
    program.write(
        "worker.py",
        PROGRAMS[library]
        + """
from autoinst.trace import recorder

spool = recorder.get().spool
locks = (spool._grow_lock, spool._refill_lock, spool.overflow._lock, spool.arenas[0]._lock)
print("locks:", {f"{type(lock).__module__}.{type(lock).__name__}" for lock in locks})
""",
    )
    result = program.execute([python_of("peers"), "worker.py"], {})
    assert result.stdout.splitlines()[-1] == "locks: {'_thread.lock'}", result.stderr


def test_a_job_beside_a_finalizer_that_waits_has_its_events(program: Program) -> None:
    # Before 3.12 autoinst leaves the context alone in a finalizer; what other greenlets do meanwhile is not in one.
    program.write(
        "worker.py",
        """
import gc
import gevent
import work


class Waits:
    def __init__(self):
        self.itself = self

    def __del__(self):
        gevent.sleep(0)


gc.disable()
Waits()
beside = gevent.spawn(work.job_beside)
gc.collect()
beside.join()
""",
    )
    program.write("work.py", WORK + "\n\ndef job_beside():\n    step('beside')\n")
    (record,) = program.execute([python_of("peers"), "worker.py"], {}).records
    assert titles(record) == ["beside"]
