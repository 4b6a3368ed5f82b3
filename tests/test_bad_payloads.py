"""Payloads that are not what a library expects, and arguments that fight back: a worker does what it does without.

Each library's worker gets the same queue twice, with autoinst and without. Its output, its ends, the runs of jobs and
what is left with the broker must be the same; what ran is recorded, and good jobs that come later are done.
"""

from __future__ import annotations

import signal
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests import bad_payloads, bad_pickles
from tests.bad_payloads import MANGLE, OPENING
from tests.servers import Redis
from tests.sides import Side, both, check_arguments, check_same
from tests.workers import rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bad_payloads import Case

pytestmark = [pytest.mark.service, pytest.mark.once]

CASES = bad_payloads.CASES | bad_pickles.CASES


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Redis, Redis]]:
    """One for each side: pyres knows no databases, and what is published is heard in all of them."""
    with Redis() as plain, Redis() as instrumented:
        yield plain, instrumented


class RedisSide(Side):
    """One worker and its broker."""

    def __init__(self, folder: Path, case: Case, server: Redis, *, instrumented: bool) -> None:
        self.case, self.server = case, server
        send = textwrap.dedent(OPENING) + textwrap.dedent(case.send)
        files = {"shop.py": case.shop, "send.py": send, "mangle.py": MANGLE}
        if case.rules is not None:
            files["rules.yaml"] = rule(case.rules).replace("consumer.perform", "__main__.perform")
        variables = {"REDIS": server.url, "PYTHONPATH": ".", "C_FORCE_ROOT": "1"}
        super().__init__(folder, case.environment, files, variables, instrumented=instrumented)

    def run(self) -> None:
        """Run the worker until the last job's result is there."""
        words = self.case.start.replace("URL", self.server.url).replace("PORT", str(self.server.port)).split()
        self.work(words, None if self.case.by is None else signal.Signals[self.case.by], self.is_done)

    def is_done(self) -> bool:
        """Return whether the last job's result is kept."""
        if self.case.done is None:
            return True
        key, wanted = self.case.done
        with redis.Redis.from_url(self.server.url) as client:
            return wanted in (client.get(key) or b"") if wanted else bool(client.exists(key))

    def left(self) -> list[str]:
        """Return what is left with the broker."""
        with redis.Redis.from_url(self.server.url) as client:
            return [
                f"{key.decode()}: {part}" for key in client.scan_iter(count=10_000) for part in contents(client, key)
            ]


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


@pytest.mark.parametrize("library", CASES)
def test_the_worker_does_what_it_does_without(tmp_path: Path, servers: tuple[Redis, Redis], library: str) -> None:
    case = CASES[library]
    plain = RedisSide(tmp_path / "plain", case, servers[0], instrumented=False)
    side = RedisSide(tmp_path / "with", case, servers[1], instrumented=True)
    with redis.Redis.from_url(servers[0].url) as original, redis.Redis.from_url(servers[1].url) as copy:
        for server in (original, copy):
            server.flushall()
        plain.call("python", "send.py")
        for key in original.scan_iter(count=10_000):
            copy.restore(key, 0, original.dump(key))
    both(RedisSide.run, plain, side)
    check_same(plain.did(plain.left()), side.did(side.left()))
    check_arguments(side)
    if case.unavailable is not None:
        assert f"\n  {case.unavailable}" in side.doctor()
