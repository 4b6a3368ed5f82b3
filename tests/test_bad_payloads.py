"""Payloads that are not what a library expects, and arguments that fight back: a worker does what it does without.

Each library's worker gets the same queue twice, with autoinst and without. Its output, its ends, the runs of jobs and
what is left with the broker must be the same; what ran is recorded, and good jobs that come later are done.
"""

from __future__ import annotations

import re
import signal
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests import bad_messages, bad_payloads, bad_pickles
from tests.bad_payloads import LARGE, MANGLE, OPENING
from tests.databases import RedisDatabase
from tests.servers import Redis
from tests.sides import Side, both, check_arguments, check_same
from tests.workers import rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bad_payloads import Case

pytestmark = [pytest.mark.service, pytest.mark.once]

CASES = bad_payloads.CASES | bad_pickles.CASES | {"kombu": bad_messages.KOMBU_ON_REDIS}
# What autoinst hands on in the headers of a message, which is JSON.
HANDED_ON = r'(, )?"(traceparent": "00-[0-9a-f-]{52}"|autoinst_enqueued": \d{13}\b)'


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Redis, Redis]]:
    """One for each side: pyres knows no databases, and what is published is heard in all of them."""
    with Redis() as plain, Redis() as instrumented:
        yield plain, instrumented


class RedisSide(Side):
    """One worker and its broker."""

    def __init__(self, folder: Path, case: Case, server: Redis, *, instrumented: bool) -> None:
        self.case, self.server, self.database = case, server, RedisDatabase(server)
        send = textwrap.dedent(OPENING) + textwrap.dedent(case.send)
        files = {"shop.py": case.shop, "send.py": send, "mangle.py": MANGLE, "tried.py": bad_messages.TRIED}
        if case.rules is not None:
            files["rules.yaml"] = rule(case.rules).replace("consumer.perform", "__main__.perform")
        variables = {**self.database.variables, "PYTHONPATH": ".", "C_FORCE_ROOT": "1"}
        variables |= {"BROKER": server.url, "QUEUE": "mail"}
        if case.pack is not None:
            variables["AUTOINST_PACKS"] = f"default,{case.pack}"
        super().__init__(folder, case.environment, files, variables, instrumented=instrumented)

    def run(self) -> None:
        """Run the worker until the last job's result is there."""
        words = self.case.start.replace("URL", self.server.url).replace("PORT", str(self.server.port)).split()
        by = None if self.case.by is None else signal.Signals[self.case.by]
        self.work(words, by, lambda: self.case.done is None or self.database.has(*self.case.done))

    def seen(self) -> list[str]:
        """Return what it did and left."""
        left = self.database.all()
        if self.case.pack is not None:
            left = [re.sub(HANDED_ON, "", part) for part in left]
        return self.did([part if len(part) < LARGE else f"{part[:1000]} {len(part)}" for part in left])


@pytest.mark.parametrize("library", CASES)
def test_the_worker_does_what_it_does_without(tmp_path: Path, servers: tuple[Redis, Redis], library: str) -> None:
    case = CASES[library]
    plain = RedisSide(tmp_path / "plain", case, servers[0], instrumented=False)
    side = RedisSide(tmp_path / "with", case, servers[1], instrumented=True)
    plain.database.make()
    plain.call("python", "send.py")
    plain.database.copy_to(side.database)
    both(RedisSide.run, plain, side)
    check_same(plain.seen(), side.seen())
    if case.pack is None:
        check_arguments(side)
    else:
        assert len(side.records()) == len(side.worker.runs()) - len(["last"])
    if case.unavailable is not None:
        assert f"\n  {case.unavailable}" in side.doctor()
