"""Payloads that are not what a library expects, and arguments that fight back: a worker does what it does without.

Each library's worker gets the same queue twice, with autoinst and without. Its output, its ends, the runs of jobs and
what is left with the broker must be the same; what ran is recorded, and good jobs that come later are done.
"""

from __future__ import annotations

import re
import signal
import subprocess
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests import bad_payloads, bad_pickles
from tests.bad_payloads import LARGE, MANGLE, OPENING
from tests.servers import Redis
from tests.workers import DEADLINE, Worker, rule, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bad_payloads import Case

pytestmark = [pytest.mark.service, pytest.mark.once]

CASES = bad_payloads.CASES | bad_pickles.CASES
STARTS = 3  # of a worker, which some payloads end
# What differs from run to run, and what takes its place.
VOLATILE = {
    r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(\+00:00|Z)?|\b\d\d:\d\d:\d\d\b": "TIME",
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b|\b[0-9a-f]{32}\b": "ID",
    r"(?<= worker )[0-9a-f]{8}\b|(?<=health:)[0-9a-f]{8}\b": "ID",
    r"0x[0-9a-f]+": "ADDRESS",
    r"\b(\d+:\d\d:)*\d+\.\d+(e-\d\d)?[sM]\b|\b\d+ms\b": "AMOUNT",
    r"(?<!line )\b\d{3,}(\.\d+)?\b": "NUMBER",
    r"\d+ ongoing to cancel": "AMOUNT",
    # A call stack that is logged shows the probe of a thread's start; pyres is told to end while a child of it ends.
    r"(?m)^.*\b_bootstrap_inner\b.*$|^.*Killing child at.*$": "",
}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Redis, Redis]]:
    """One for each side: pyres knows no databases, and what is published is heard in all of them."""
    with Redis() as plain, Redis() as instrumented:
        yield plain, instrumented


class Side:
    """One worker and its broker, with autoinst or without."""

    def __init__(self, folder: Path, case: Case, server: Redis, *, instrumented: bool) -> None:
        self.case, self.server = case, server
        send = textwrap.dedent(OPENING) + textwrap.dedent(case.send)
        files = {"shop.py": case.shop, "send.py": send, "mangle.py": MANGLE}
        if case.rules is not None:
            files["rules.yaml"] = rule(case.rules).replace("consumer.perform", "__main__.perform")
        variables = {"REDIS": server.url, "PYTHONPATH": ".", "C_FORCE_ROOT": "1"}
        self.worker = Worker(folder, case.environment, files, variables, instrumented=instrumented)
        self.folder = self.worker.program.folder
        self.statuses: list[int] = []
        self.output = ""

    def send(self) -> None:
        """Put the jobs on the queue, without autoinst."""
        command = [str(self.worker.bin / "python"), "send.py"]
        subprocess.run(command, cwd=self.folder, env=self.worker.environ, check=True, timeout=DEADLINE)

    def work(self) -> None:
        """Run the worker until the last job ran, and start it again where a payload ended it."""
        words = self.case.start.replace("URL", self.server.url).replace("PORT", str(self.server.port)).split()
        for _ in range(STARTS):
            self.worker.start(*words)
            self.worker.wait_for(["last"])
            process = self.worker.process
            assert process is not None
            wait_until(lambda: process.poll() is not None or self.is_done())  # noqa: B023 - within its round
            if process.poll() is None and self.case.by is not None:
                process.send_signal(signal.Signals[self.case.by])
            try:
                self.statuses.append(process.wait(DEADLINE))
            finally:
                self.worker.end()
            self.output += (self.folder / "worker.log").read_text(errors="backslashreplace")
            if "last" in self.worker.runs():
                return
        pytest.fail(f"the last job did not run\n{self.output[-3000:]}")

    def is_done(self) -> bool:
        """Return whether the last job's result is kept."""
        if self.case.done is None:
            return True
        key, wanted = self.case.done
        with redis.Redis.from_url(self.server.url) as client:
            return wanted in (client.get(key) or b"") if wanted else bool(client.exists(key))

    def did(self) -> list[str]:
        """Return all there is to see of it, in lines, without what differs from run to run."""
        output = self.output.replace(str(self.folder), "FOLDER")
        with redis.Redis.from_url(self.server.url) as client:
            left = [
                f"{key.decode()}: {part}" for key in client.scan_iter(count=10_000) for part in contents(client, key)
            ]
        asked = self.folder / "asked.log"
        lines = [*output.splitlines(), *left, *(f"ran {name}" for name in self.worker.runs())]
        lines += [f"asked {name}" for name in asked.read_text().split()] if asked.exists() else []
        return [*map(str, self.statuses), *sorted(filter(None, map(normalised, lines)))]


def contents(client: Any, key: bytes) -> list[str]:
    """Return the parts of what is kept under `key`; a worker's own record of itself counts for nothing."""
    if key.startswith(b"rq:worker") or b"worker_info" in key:
        return []
    found: dict[str, Any] = {
        "none": list,  # gone meanwhile
        "string": lambda: [client.get(key)],
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1),
        "hash": lambda: [b"=".join(item) for item in client.hgetall(key).items()],
        "stream": lambda: [repr(entry).encode() for _, entry in client.xrange(key)],
    }
    parts = found[client.type(key).decode()]()
    return [part.decode() if part.isascii() else "BINARY" for part in parts]  # a pickle has times in it


def normalised(text: str) -> str:
    for pattern, word in VOLATILE.items():
        text = re.sub(pattern, word, text)
    return text


def first_argument(record: dict[str, Any]) -> str:
    """Return the first argument of a job, which its run notes."""
    given = record["args"] or [(record["kwargs"] or {}).get("name")]
    return str(next(iter(given)) if isinstance(given, (list, dict)) else given)


@pytest.mark.parametrize("library", CASES)
def test_the_worker_does_what_it_does_without(tmp_path: Path, servers: tuple[Redis, Redis], library: str) -> None:
    case = CASES[library]
    plain = Side(tmp_path / "plain", case, servers[0], instrumented=False)
    side = Side(tmp_path / "with", case, servers[1], instrumented=True)
    with redis.Redis.from_url(servers[0].url) as original, redis.Redis.from_url(servers[1].url) as copy:
        for server in (original, copy):
            server.flushall()
        plain.send()
        for key in original.scan_iter(count=10_000):
            copy.restore(key, 0, original.dump(key))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Side.work, (plain, side)))
    different = unified_diff(plain.did(), side.did(), "without", "with", n=0, lineterm="")
    assert "\n".join(line[:500] for line in different) == ""
    spool = sum(path.stat().st_size for path in (side.worker.program.home / "spool").glob("*.arena"))
    assert spool < LARGE / 4
    records = side.worker.program.records()
    assert not Counter(side.worker.runs()) - Counter(map(first_argument, records))
    (large,) = (record for record in records if first_argument(record) == "large")
    value = large["args"][-1] if large["args"] else large["kwargs"]["value"]
    assert value.startswith("xxx")
    assert value.endswith(f"... {LARGE - 2_000} more")
    if case.unavailable is not None:
        doctor = subprocess.run(
            [str(side.worker.bin / "autoinst"), "doctor"],
            cwd=side.folder,
            env=side.worker.environ,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        assert f"\n  {case.unavailable}" in doctor.stdout
