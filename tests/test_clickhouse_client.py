"""What answers in a ClickHouse server's place is not taken for one: nothing counts as stored that is not."""

from __future__ import annotations

import pytest

from autoinst.export.answers import Verdict
from autoinst.export.clickhouse import answer_of
from autoinst.store.clickhouse import address
from autoinst.store.clickhouse.client import Client, ServerError, Version
from tests import hostile

PAGE = b"<html>please log in</html>"


@pytest.fixture
def receiver():
    with hostile.Receiver() as found:
        yield found


@pytest.fixture
def client(receiver):
    made = Client(address.parse(f"clickhouse://u:p@{receiver.url.partition('://')[2]}/shop"), seconds=5)
    made._version = Version("26.9")
    yield made
    made.close()


@pytest.mark.parametrize(
    "ask",
    [lambda client: client.insert("job", [{"a": 1}], "token"), lambda client: client.rows("SELECT 1 AS x")],
    ids=["insert", "question"],
)
@pytest.mark.parametrize(
    ("behaviour", "verdict", "after"),
    [
        (hostile.status(200, PAGE, Content_Type="text/html"), Verdict.WRONG, None),
        (hostile.status(302, Location="/login"), Verdict.WRONG, None),
        (hostile.status(404), Verdict.WRONG, None),
        (hostile.status(429, Retry_After="7"), Verdict.LATER, 7.0),
        (hostile.status(503, PAGE, Retry_After="9"), Verdict.LATER, 9.0),
        (hostile.status(502), Verdict.LATER, None),
    ],
    ids=["a login page", "a redirect", "not found", "too many", "unavailable", "bad gateway"],
)
def test_other_answers(receiver, client, ask, behaviour, verdict, after) -> None:
    receiver.behave(behaviour)
    with pytest.raises(ServerError) as raised:
        ask(client)
    found = answer_of(raised.value, client.address.place)
    assert (found.verdict, found.retry_after) == (verdict, after)
