"""Sees to it that what this machine recorded is in the store past it before that is read."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from autoinst.agent.lead import POLL_SECONDS
from autoinst.cli.output import message
from autoinst.errors import StoreError
from autoinst.export.changes import pumps
from autoinst.export.service import take_lock
from autoinst.store.sqlite import Store

if TYPE_CHECKING:
    from autoinst.config import Config
    from autoinst.store.clickhouse.address import Address

SECONDS = 5.0


def catch_up(config: Config, address: Address) -> None:
    """Wait until the agent has sent what waits, or send it where no agent does; says so if it takes too long."""
    if not os.path.isfile(config.store) or not os.access(config.store, os.W_OK):
        return
    deadline = time.monotonic() + SECONDS
    while waiting(config, address):
        lock = take_lock(config.home, wait=False)
        if lock >= 0:
            try:
                for trouble in send(config, address, deadline):
                    message(trouble)
            finally:
                os.close(lock)
            break
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    left = waiting(config, address)
    if left:
        message(f"{left} job(s) of this machine have not been sent to {address.place} yet; `autoinst doctor` says more")


def push(config: Config, address: Address) -> list[str]:
    """Send what waits where no agent does, at once nothing where one does; return troubles. Raises StoreError."""
    if not os.path.isfile(config.store) or not os.access(config.store, os.W_OK) or not waiting(config, address):
        return []
    lock = take_lock(config.home, wait=False)
    if lock < 0:
        return []
    try:
        return send(config, address, time.monotonic() + SECONDS)
    finally:
        os.close(lock)


def waiting(config: Config, address: Address) -> int:
    """Return how many jobs, in numbers of the local store, have not been sent; raises StoreError."""
    with Store(config.store, readonly=True) as store:
        feed = store.feed(address.feed)
        return max(store.last() - (feed.n if feed is not None else 0), 0)


def send(config: Config, address: Address, deadline: float) -> list[str]:
    """Send what waits until it is all sent, fails, or `deadline` (time.monotonic) is past; return troubles."""
    quiet = logging.getLogger("autoinst.export")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    troubles = []
    for pump in pumps(address, config.store, quiet):
        try:
            while time.monotonic() < deadline and not pump.turn(all_now=True).wait:
                continue
            if pump.trouble:
                troubles.append(f"{pump.feed.name}: {pump.trouble}")
        except StoreError as error:
            troubles.append(str(error))
        finally:
            pump.close()
    return troubles
