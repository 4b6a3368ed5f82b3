"""The agent with exporters on: a worker's jobs arrive, and nothing a receiver does holds up worker, drain or agent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from autoinst.config import make_private
from autoinst.demand import command
from autoinst.store.sqlite import Store
from tests import hostile
from tests.agents import eventually
from tests.exported import job
from tests.exporters import FEEDS, arrived, failing, variables
from tests.harness import Program
from tests.hostile import Receiver, status
from tests.launching import AUTOINST, environment
from tests.servers import free_port

if TYPE_CHECKING:
    from autoinst.record import Record

pytestmark = pytest.mark.once

KILLS = 200  # `make kill`; a few in the normal run


@pytest.fixture
def program(tmp_path):
    found = Program(tmp_path)
    found.write("rules.yaml", "version: 1\njobs: [{function: work.job}]\n")
    found.write("work.py", "def job(number):\n    return number\n")
    found.write("main.py", "import sys, work\nfor number in range(int(sys.argv[1])):\n    work.job(number)\n")
    return found


def otlp(url, **variables):
    settings = {"AUTOINST_EXPORTERS": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "NO_PROXY": "*"}
    return settings | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_METRIC_EXPORT_INTERVAL": "100"} | variables


def fill(home, records):
    make_private(str(home))
    with Store(str(home / "store.sqlite3")) as store, store.transaction():
        store.insert(records)


def stored(home):
    with Store(str(home / "store.sqlite3")) as store:
        return store.count()


def feed(home, name="otlp/traces"):
    with Store(str(home / "store.sqlite3")) as store:
        return store.feed(name)


def test_jobs_of_a_worker_arrive(program, home, agents):
    with Receiver() as receiver:
        agents.start(**otlp(receiver.url))
        found = program.run("main.py", "30")
        assert found.status == 0, found.stderr
        hostile.wait_for(lambda: len(receiver.jobs) == 30)
        assert {span["name"] for span in receiver.spans} == {"work#job"}
        hostile.wait_for(lambda: sum_of(receiver, "autoinst.jobs") == 30)


def sum_of(receiver, name):
    bodies = [body for key, body in list(receiver.bodies.items()) if key.startswith("/v1/metrics")]
    metrics = [m for body in bodies for of in body["resourceMetrics"] for s in of["scopeMetrics"] for m in s["metrics"]]
    return sum(int(point["asInt"]) for m in metrics if m["name"] == name for point in m["sum"]["dataPoints"])


def test_a_receiver_that_never_answers_holds_up_neither_worker_nor_drain_nor_the_other_feed(program, home, agents):
    with Receiver() as receiver:
        for path in ("/v1/traces", "/appsignal/v1/traces", "/appsignal/v1/metrics", "/hook"):
            receiver.path_behaviours[path] = hostile.hang
        every = variables(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="60000")
        agents.start(**every)
        program.run("main.py", "5", environ=every)
        hostile.wait_for(lambda: receiver.hanging)
        began = time.monotonic()
        found = program.run("main.py", "20", environ=every)
        took = time.monotonic() - began
        assert found.status == 0
        assert took < 30  # the request hangs for 60
        eventually(lambda: stored(home) == 25)
        hostile.wait_for(lambda: sum_of(receiver, "autoinst.jobs") == 25)
        assert receiver.jobs == []


def test_an_agent_told_to_end_does_not_wait_for_a_receiver(home, agents):
    fill(home, [job(1)])
    with Receiver() as receiver:
        receiver.path_behaviours["/v1/traces"] = hostile.hang
        agent = agents.start(**otlp(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="120000"))
        hostile.wait_for(lambda: receiver.hanging)
        agent.terminate()
        assert agent.wait(60) == 0
        assert feed(home).n == 0
        receiver.path_behaviours.clear()
        agents.start(**otlp(receiver.url))
        hostile.wait_for(lambda: receiver.jobs == [job(1).id])


def test_the_agent_says_in_its_log_what_its_exporters_say(home, agents):
    fill(home, [job(1)])
    agent = agents.start(**otlp(f"http://127.0.0.1:{free_port()}"))
    assert agent.stderr is not None
    lines: list[str] = []
    while not any("connection refused; nothing is lost, trying again" in line for line in lines):
        lines.append(agent.stderr.readline())
    assert any("otlp/traces: to http://127.0.0.1:" in line for line in lines)


def test_exporters_that_die_are_started_again(home, agents):
    fill(home, [job(1)])
    with Receiver() as receiver:
        agent = agents.start(**otlp(receiver.url))
        hostile.wait_for(lambda: receiver.jobs == [job(1).id])
        (child,) = children(agent.pid)
        os.kill(child, signal.SIGKILL)
        fill(home, [job(2)])
        hostile.wait_for(lambda: sorted(receiver.jobs) == sorted([job(1).id, job(2).id]))


def test_exporters_end_when_the_agent_is_killed(home, agents):
    with Receiver() as receiver:
        agent = agents.start(**otlp(receiver.url))
        eventually(lambda: children(agent.pid))
        (child,) = children(agent.pid)
        agent.kill()
        agent.wait()
        eventually(lambda: not alive(child))


def test_no_process_is_started_where_no_exporter_is_on(home, agents, program):
    agent = agents.start()
    program.run("main.py", "3")
    eventually(lambda: stored(home) == 3)
    assert children(agent.pid) == []


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def once(home, **variables):
    done = subprocess.run(
        [AUTOINST, "agent", "--once"],
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


def test_once_sends_all_there_is_and_ends(home):
    fill(home, [job(number) for number in range(1, 1201)])
    with Receiver() as receiver:
        code, lines = once(home, **otlp(receiver.url))
        assert (code, lines[1:]) == (
            0,
            ["autoinst: otlp/traces: 1200 job(s) sent", "autoinst: otlp/metrics: 1200 job(s) sent"],
        )
        assert len(set(receiver.jobs)) == len(receiver.jobs) == 1200


def test_once_says_what_could_not_be_sent(home):
    fill(home, [job(1), job(2)])
    port = free_port()
    code, lines = once(home, **otlp(f"http://127.0.0.1:{port}", OTEL_METRICS_EXPORTER="none"))
    assert code == 1
    place = f"http://127.0.0.1:{port}/v1/traces"
    assert lines[1:] == [f"autoinst: otlp/traces: 0 job(s) sent, 2 wait: {place}: connection refused"]


def test_once_names_mistakes(home):
    fill(home, [job(1)])
    code, lines = once(home, AUTOINST_EXPORTERS="oltp")
    assert code == 1
    assert lines[1:] == ["autoinst: AUTOINST_EXPORTERS: there is no exporter 'oltp'; did you mean otlp?"]


RULES = """\
version: 1
jobs: [{function: work.job, check_in: nightly}]
exporters: {webhook: {interval: 0.01}}
"""


def kill_agents(home, kills, seed):
    """Kill agents with all exporters at random moments while a receiver misbehaves; return what it took, by feed."""
    chance = random.Random(seed)
    records: list[Record] = []
    rules = home.parent / "rules.yaml"
    rules.write_text(RULES)
    with Receiver() as receiver:
        chosen = variables(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="500", AUTOINST_RULES=str(rules))
        env = environment(home, **chosen)
        fill(home, [])
        assert once(home, **chosen)[0] == 0  # from now on there are notices
        receiver.chance = lambda: chance.choice(
            [
                *[None] * 12,
                hostile.reset,
                hostile.taken_then(hostile.reset),
                status(503),
                hostile.half_an_answer,
            ]
        )
        for _ in range(kills):
            new = [failing(len(records) + number) for number in range(1, 41)]
            fill(home, new)
            records += new
            agent = subprocess.Popen(command("--foreground"), env=env, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.05, 1.5))
            for pid in [*children(agent.pid), agent.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            agent.wait()
        receiver.chance = lambda: None
        patient = chosen | {"OTEL_EXPORTER_OTLP_TIMEOUT": "60000"}
        eventually(lambda: once(home, **patient)[0] == 0, 600)
        assert receiver.conflicts == []
        wanted = sorted(record.id for record in records)
        for name in FEEDS:
            assert sorted(arrived(receiver, name, records)) == wanted, name
        assert sum_of(receiver, "autoinst.jobs") == len(records)
        with Store(str(home / "store.sqlite3")) as store:
            assert [feed.name for feed in store.feeds() if feed.parked or feed.left_out or feed.missing] == []


def test_agents_killed_at_random_lose_and_double_nothing_of_any_exporter(home):
    kill_agents(home, 6, 1)


@pytest.mark.kill
@pytest.mark.timeout(3600)
def test_agents_killed_two_hundred_times_lose_and_double_nothing_of_any_exporter(home):
    kill_agents(home, KILLS, 2)
