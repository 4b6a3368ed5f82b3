"""The rules of docs/libraries.md for payloads of Sidekiq, Delayed Job and SQS, given anything at all."""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import autoinst.testing
from autoinst.trace import faults
from tests.workers import rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

KEYS = {
    "Sidekiq's payloads": "class queue retried_at enqueued_at at retry_count jid args",
    "Delayed Job's table": "handler queue run_at attempts id priority",
    "SQS consumers": (
        "Attributes SentTimestamp ApproximateReceiveCount MessageId MessageAttributes traceparent StringValue"
    ),
}
FRAGMENTS = (
    *(
        "--- !ruby/object:",
        "--- !ruby/struct:",
        "\nobject: !ruby/object:",
        "\nobject: !ruby/class ",
        "\nmethod_name: :",
    ),
    *("A::B", "'", "\n", " ", ":", "{}", "\x00", "\udc80", "é"),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=8)
    | st.sampled_from([10**400, -(10**30), "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "2026-01-01T00:00:00Z"])
    | st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)
)


def payloads(keys: str) -> st.SearchStrategy[Any]:
    """Return anything that JSON has, with the keys that the rule reads more often than others."""
    names = st.sampled_from(keys.split()) | st.text(max_size=5)
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=8), max_leaves=20
    )


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Make the module that a rule names; it goes when the test is over."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("consumer", "worker")
    (tmp_path / "consumer.py").write_text(
        "def perform(item):\n    return item\n\ndef handle(message, queue_url):\n    return message\n"
    )
    (tmp_path / "worker.py").write_text("def perform(job):\n    return job\n")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("title", KEYS)
def test_a_job_of_any_payload_runs_and_is_recorded(title: str, shop: Callable[[str], Any]) -> None:
    calls = 0
    before = dict(faults.counts)
    with autoinst.testing.record(rule(title)) as jobs:
        module = shop("worker" if title.startswith("Delayed") else "consumer")

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(payloads(KEYS[title]))
        def perform(payload: Any) -> None:
            nonlocal calls
            calls += 1
            done = module.handle(payload, payload) if title.startswith("SQS") else module.perform(payload)
            assert done is payload

        perform()
        assert len(jobs) == calls
        assert {job.status for job in jobs} == {"ok"}
    assert dict(faults.counts) == before


def test_a_payload_of_many_megabytes_costs_no_more_than_one_of_some(shop: Callable[[str], Any]) -> None:
    text = "x" * 64_000_000
    large = {"class": text, "queue": text, "jid": text, "at": text, "enqueued_at": text, "args": [text, {text: text}]}
    with autoinst.testing.record(rule("Sidekiq's payloads")) as jobs:
        perform = shop("consumer").perform
        perform({})
        times = []
        for _ in range(20):
            start = time.thread_time()
            perform(large)
            times.append(time.thread_time() - start)
        assert len(jobs) == 21
        assert len(str(jobs[-1])) < 100_000
    assert min(times) < 0.005  # 0.0004 s; to find a character in one of the texts takes 0.007 s, to encode it 0.05 s
