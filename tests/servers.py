"""Servers for tests, each on a free loopback port of its own and gone when the test is over."""

from __future__ import annotations

import gzip
import os
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import services

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

TRIES = 5
GZIP = b"\x1f\x8b"
MEMORY, MUCH = "/dev/shm", 2 * 2**30  # a file system in memory, where there is one; bytes that must be free there


def _has_room(folder: str) -> bool:
    try:
        return shutil.disk_usage(folder).free >= MUCH
    except OSError:
        return False


class Server:
    """A server process with a folder of its own: `with Redis() as redis: ... redis.url`."""

    program: str  # looked for on PATH
    package: str  # Debian's, which has it
    start_seconds = 20.0
    many_files = False  # kept in memory where there is room: a busy disk takes minutes to remove them

    def __init__(self) -> None:
        self.port = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, folder: Path) -> None:
        """Start `program` on `self.port`, keeping all it writes in `folder`."""
        raise NotImplementedError

    def answers(self, connection: socket.socket) -> bool:
        """Whether the server on the other end of `connection` is ready."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        program = services.find(self.program)
        if program is None:
            raise RuntimeError(
                f"{self.program} is missing; `make test` installs it, or: apt-get install {self.package}"
            )
        for _ in range(TRIES):
            self._folder = tempfile.TemporaryDirectory(
                prefix=f"autoinst-{Path(self.program).name}-",
                dir=MEMORY if self.many_files and _has_room(MEMORY) else None,
                ignore_cleanup_errors=True,
            )
            self.port = free_port()
            self.start(program, Path(self._folder.name))
            if self._ready():
                return self
            self._stop()
        raise RuntimeError(f"{self.program} does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def spawn(self, *command: str, environ: dict[str, str] | None = None, **user: Any) -> None:
        """Start one of the server's processes."""
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=environ, cwd="/", stdin=quiet, stdout=quiet, stderr=quiet, **user)
        self.processes.append(process)

    def _ready(self) -> bool:
        """Whether these very processes answer in time (another one may have taken the port before them)."""
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self.processes):
                return False
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    if self.answers(connection):
                        return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def _stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self.processes.clear()
        self._folder.cleanup()


class Redis(Server):
    """A Redis server without persistence."""

    program = package = "redis-server"

    @property
    def url(self) -> str:
        """Return the address clients take."""
        return self.database(0)

    def database(self, number: int) -> str:
        """Return the address of one of its 16 databases."""
        return f"redis://127.0.0.1:{self.port}/{number}"

    def start(self, program: str, folder: Path) -> None:
        """Start it with nothing kept on disk."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self.spawn(program, *options, "--dir", str(folder))

    def answers(self, connection: socket.socket) -> bool:
        """Ask for a PONG."""
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"


class RabbitMQ(Server):
    """A RabbitMQ server for the user `guest`, with a name daemon (epmd) of its own; it is up in some ten seconds."""

    program = package = "rabbitmq-server"
    start_seconds = 120.0
    scripts = Path("/usr/lib/rabbitmq/bin")  # that of PATH is for root alone and changes to another user

    @property
    def url(self) -> str:
        """Return the address clients take."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self, program: str, folder: Path) -> None:
        """Start a node that listens on loopback only."""
        names = str(free_port())
        config = folder / "rabbitmq.conf"
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = false\ndisk_free_limit.absolute = 1MB\n"
        )
        plugins = folder / "plugins"
        plugins.write_text("[].")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # of the cookie
            "ERL_EPMD_PORT": names,
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_ALLOW_INPUT": "1",  # so that the script becomes the server
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_NODENAME": f"autoinst{self.port}@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -noinput",
        }
        self.spawn("epmd", "-port", names, "-address", "127.0.0.1", environ=environ)
        script = self.scripts / "rabbitmq-server"
        self.spawn(str(script) if script.exists() else program, environ=environ)

    def answers(self, connection: socket.socket) -> bool:
        """Offer AMQP 0-9-1: a node that is up answers with a method frame."""
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"


class Postgres(Server):
    """A PostgreSQL server with the database `postgres` and the user `test`, who needs no password.

    It refuses to run as root; started by root it runs as nobody.
    """

    program, package = "postgres", "postgresql"

    @property
    def dsn(self) -> str:
        """Return the connection string clients take."""
        return f"host=127.0.0.1 port={self.port} user=test dbname=postgres connect_timeout=10"

    def start(self, program: str, folder: Path) -> None:
        """Make a database and serve it on loopback only."""
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        setup = [f"{Path(program).resolve().parent}/initdb", "-D", f"{folder}/data", "-U", "test", "-A", "trust", "-N"]
        # Else the locale of whoever runs the tests says what text is.
        subprocess.run([*setup, "-E", "UTF8", "--no-locale"], cwd="/", check=True, stdout=subprocess.DEVNULL, **user)
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-F"]
        self.spawn(program, "-D", f"{folder}/data", *options, **user)

    def answers(self, connection: socket.socket) -> bool:
        """Log in: a server that is up agrees."""
        names = b"user\0test\0database\0postgres\0\0"
        connection.sendall(struct.pack("!II", 8 + len(names), 3 << 16) + names)
        return connection.recv(1) == b"R"


class MariaDB(Server):
    """A MariaDB server that lets everybody do everything: it has no tables of users."""

    program, package = "mariadbd", "mariadb-server-core"

    def start(self, program: str, folder: Path) -> None:
        """Serve an empty folder on loopback only."""
        (folder / "data").mkdir()
        options = ["--skip-grant-tables", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"]
        user = ["--user=root"] if os.geteuid() == 0 else []
        paths = [f"--datadir={folder}/data", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
        self.spawn(program, "--no-defaults", *paths, f"--port={self.port}", *options, *user)

    def answers(self, connection: socket.socket) -> bool:
        """Wait for its greeting: a packet of protocol 10."""
        greeting = connection.recv(5)
        return greeting[4:] == b"\n"


class Sink:
    """An HTTP server that keeps what is posted to it: `with Sink() as sink: ... sink.url, sink.posted`.

    Every request is answered with 200 and an empty JSON object.
    """

    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes]] = []  # path, body (unpacked)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = sink.read(self)
                sink.posted.append((self.path, gzip.decompress(body) if body[:2] == GZIP else body))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names the base class calls

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Return the address, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def sent(self, path: str) -> bytes:
        """Return all that was posted to paths which begin with `path`."""
        return b"".join(body for where, body in self.posted if where.startswith(path))

    @staticmethod
    def read(handler: BaseHTTPRequestHandler) -> bytes:
        """Return a request's body, sent whole or in chunks."""
        if handler.headers.get("Transfer-Encoding") != "chunked":
            return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body = b""
        while size := int(handler.rfile.readline(), 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body

    def __enter__(self) -> Sink:  # noqa: PYI034 - Self is not in typing before 3.11
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def free_port() -> int:
    """Return a loopback port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
