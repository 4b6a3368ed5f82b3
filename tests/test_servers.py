"""The tests' own servers start, answer, and are gone afterwards."""

from __future__ import annotations

import socket

import pytest
import redis

from tests.servers import Postgres, RabbitMQ, Redis

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


def assert_refused(address: str, server: RabbitMQ | Postgres) -> None:
    with pytest.raises(OSError), socket.create_connection((address, server.port), timeout=5):
        pass


def assert_on_loopback_alone(server: RabbitMQ | Postgres) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        assert server.answers(connection)
    assert_refused("127.0.0.2", server)


def test_rabbitmq_listens_on_loopback_alone_and_is_gone_after() -> None:
    with RabbitMQ() as server:
        assert server.url == f"amqp://guest:guest@127.0.0.1:{server.port}//"
        assert_on_loopback_alone(server)
    assert_refused("127.0.0.1", server)


def test_postgres_listens_on_loopback_alone_and_is_gone_after() -> None:
    with Postgres() as server:
        assert f"port={server.port} user=test" in server.dsn
        assert_on_loopback_alone(server)
    assert_refused("127.0.0.1", server)
