"""ClickHouse for tests: Debian's server, which is old (18.16), and the current one inside PyPI's chdb."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from autoinst.export.changes import pumps
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Client
from autoinst.store.clickhouse.reader import Server as ServerStore
from tests.libraries import python_of
from tests.servers import Server, free_port

if TYPE_CHECKING:
    import socket

    from autoinst.store.clickhouse.address import Address

USER, PASSWORD = "autoinst", "geheim & co"  # with what an address has to escape
QUIET = logging.getLogger("autoinst.tests")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
_numbers = itertools.count(1)

CONFIG = """<yandex>
  <logger><level>none</level></logger>
  <http_port>{port}</http_port><tcp_port>{native}</tcp_port><listen_host>127.0.0.1</listen_host>
  <path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path><user_files_path>{folder}/files/</user_files_path>
  <users_config>{folder}/users.xml</users_config>
  <mark_cache_size>67108864</mark_cache_size><max_server_memory_usage>2000000000</max_server_memory_usage>
  <default_profile>default</default_profile><default_database>default</default_database>
  <remote_servers><shards>
    <shard><replica><host>127.0.0.1</host><port>{native}</port><default_database>shard_1</default_database>
      <user>default</user></replica></shard>
    <shard><replica><host>127.0.0.1</host><port>{native}</port><default_database>shard_2</default_database>
      <user>default</user></replica></shard>
  </shards></remote_servers>
</yandex>
"""
USERS = """<yandex>
  <profiles><default><max_memory_usage>2000000000</max_memory_usage></default>
    <reading><readonly>2</readonly></reading></profiles>
  <quotas><default></default></quotas>
  <users>
    <default><password></password><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota></default>
    <{user}><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota></{user}>
    <reader><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
      <profile>reading</profile><quota>default</quota></reader>
  </users>
</yandex>
"""


# Of the current one: a cluster of itself, a disk for backups, and a keeper in memory, which ClickHouse has for tests.
CURRENT = """<clickhouse>
  <tcp_port>{native}</tcp_port><interserver_http_port>{native}</interserver_http_port>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <macros><shard>one</shard><replica>one</replica></macros>
  <default_replica_path>/tables/{{database}}/{{table}}/{{shard}}</default_replica_path>
  <default_replica_name>{{replica}}</default_replica_name>
  <remote_servers><shards>
    <shard><replica><host>127.0.0.1</host><port>{native}</port></replica></shard>
  </shards></remote_servers>
  <storage_configuration><disks><backups><type>local</type><path>{folder}/backups/</path></backups></disks>
  </storage_configuration>
  <backups><allowed_disk>backups</allowed_disk></backups>
  <user_directories><users_xml><path>{folder}/users.xml</path></users_xml></user_directories>
</clickhouse>
"""


class _Database:
    port: int

    def address(self, database: str, options: str = "", user: str = USER, password: str = PASSWORD) -> str:
        """Return what AUTOINST_STORE takes."""
        word = password.replace("&", "%26").replace(" ", "%20")
        return f"clickhouse://{user}:{word}@127.0.0.1:{self.port}/{database}{options}"

    def make(self, database: str | None = None) -> Address:
        """Make a database and return its address."""
        database = database or f"test_{next(_numbers)}"
        client = Client(parse(self.address("default")))
        client.run(f"CREATE DATABASE {database}")
        client.close()
        return parse(self.address(database))


class Debian(_Database, Server):
    """Debian's ClickHouse server."""

    program = package = "clickhouse-server"
    start_seconds = 60.0
    many_files = True

    def start(self, program: str, folder: Path) -> None:
        """Start it for the users default (no password), autoinst, and reader (who may not write)."""
        native = free_port()
        (folder / "config.xml").write_text(CONFIG.format(port=self.port, native=native, folder=folder))
        (folder / "users.xml").write_text(USERS.format(user=USER, password=PASSWORD.replace("&", "&amp;")))
        self.spawn(program, f"--config-file={folder}/config.xml", environ={"PATH": os.environ["PATH"]})

    def answers(self, connection: socket.socket) -> bool:
        """Ask whether it is there."""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.1 200"


class Chdb(_Database, Server):
    """The current ClickHouse, served from chdb."""

    program, package = "python3", "python3"  # that of its environment, see start
    start_seconds = 120.0
    many_files = True

    def start(self, program: str, folder: Path) -> None:
        """Start it in the library's environment."""
        del program
        script = str(Path(__file__).with_name("chdb_server.py"))
        (folder / "config.xml").write_text(CURRENT.format(native=free_port(), folder=folder))
        (folder / "users.xml").write_text(USERS.format(user=USER, password=PASSWORD.replace("&", "&amp;")))
        self.spawn(python_of("clickhouse"), script, str(self.port), str(folder / "data"), str(folder / "config.xml"))

    def answers(self, connection: socket.socket) -> bool:
        """Ask whether it is there."""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.1 200"


def ship(path: str, address: Address) -> int:
    """Send all that the store `path` has to a database, as the agent's exporters do; return how many rows."""
    total = 0
    for pump in pumps(address, path, QUIET):
        try:
            while True:
                turn = pump.turn(all_now=True)
                total += turn.sent
                assert not turn.troubled, pump.trouble
                if turn.wait:
                    break
        finally:
            pump.close()
    return total


def read(address: Address) -> ServerStore:
    """Return the store as pages and commands read it."""
    return ServerStore(address)
