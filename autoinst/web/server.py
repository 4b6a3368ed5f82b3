"""Runs the page: binds the address first, so that what is said of it is true, then serves until it is told to end."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from autoinst.errors import AutoinstError
from autoinst.store.clickhouse.address import chosen
from autoinst.web.app import Site
from autoinst.web.remote import RemoteSource
from autoinst.web.security import is_loopback
from autoinst.web.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from autoinst.config import Config

CONCURRENT = 200  # connections at once
END_SECONDS = 1  # how long answers in progress may take when it is told to end


class ServerError(AutoinstError):
    """The page cannot be served."""


@dataclass(frozen=True)
class Options:
    """How to serve; port 0 takes any free one."""

    host: str
    port: int
    token: str | None
    read_from: str | None
    allowed: Collection[str] = ()


def serve(config: Config, options: Options, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is given the address. Raises ServerError."""
    if options.token is None and not is_loopback(options.host):
        raise ServerError(
            f"{options.host} can be reached from other machines, and the page shows arguments and errors:"
            " set AUTOINST_UI_TOKEN or give --token, or leave out --host"
        )
    listener = bind(options.host, options.port)
    port = int(listener.getsockname()[1])
    source = source_of(config, options.read_from)
    site = Site(source, config, hosts=[options.host, *options.allowed], token=options.token, port=port)
    server = uvicorn.Server(
        uvicorn.Config(
            site.guard,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONCURRENT,
            timeout_graceful_shutdown=END_SECONDS,
            lifespan="off",
            ws="none",
        )
    )
    source.start()
    try:
        shown = f"[{options.host}]" if ":" in options.host else options.host
        ready(f"http://{shown}:{port}/")
        # Ctrl-C has ended it as it should; uvicorn then raises it once more.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        source.close()
        listener.close()
        sys.stdout.flush()


def source_of(config: Config, read_from: str | None) -> Source:
    """Return where the pages are read from; raises StoreError for an AUTOINST_STORE that is none."""
    if read_from is not None:
        return Source(read_from, frozen=True)
    address = chosen(os.environ)
    return Source(config.home) if address is None else RemoteSource(config.home, address)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to that address; raises ServerError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ServerError(f"{host}: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ServerError(f"{host}:{port}: {error.strerror}; --port 0 takes any that is free") from None
    listener.set_inheritable(True)
    return listener
