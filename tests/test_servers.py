"""The tests' own servers start, answer, and are gone afterwards."""

from __future__ import annotations

import pytest
import redis

from tests.servers import Redis

pytestmark = pytest.mark.service


def test_redis_starts_on_a_free_port_and_is_gone_after() -> None:
    with Redis() as first, Redis() as second:
        assert first.port != second.port
        with redis.Redis.from_url(first.url) as client, redis.Redis.from_url(second.url) as other:
            client.set("key", "value")
            assert client.get("key") == b"value"
            assert other.get("key") is None
    with redis.Redis.from_url(first.url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
