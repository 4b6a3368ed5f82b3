"""`autoinst agent`: starts the one process that moves what workers record into the store."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from autoinst.agent.drain import Drain, catch_up
from autoinst.agent.launch import daemonize
from autoinst.agent.lead import POLL_SECONDS
from autoinst.agent.limits import limits
from autoinst.agent.sharing import open_home
from autoinst.cli.output import message
from autoinst.cli.progress import busy
from autoinst.config import from_environ
from autoinst.demand import LOG_NAME, command, environment
from autoinst.export.choice import anything
from autoinst.leader import leader
from autoinst.rules.cache import load_cached

if TYPE_CHECKING:
    import argparse

    from autoinst.config import Config
    from autoinst.leader import Leader

START_SECONDS = 10.0
ONCE_SECONDS = 60.0  # how long `--once` waits for the agent that leads


def run(options: argparse.Namespace) -> int:
    """Drain once, become the agent, or start it as a daemon; returns 0, or 1 where that failed."""
    config = from_environ()
    open_home(config.home, config.group)
    if options.once:
        return once(config)
    if options.foreground:
        line = command("--foreground")
        sys.stdout.flush()
        os.execve(line[0], line, environment(config, os.environ))
    return start(config)


def once(config: Config) -> int:
    """Store all there is, or have the agent that leads do it."""
    with contextlib.closing(Drain(config.home)) as drain:
        if drain.acquire():
            drain_and_forget(drain)
            return export(config)
    found = agent_of(config.home)
    if not catch_up(config.home, ONCE_SECONDS):
        message(f"{who(found)} leads {config.home} and has not drained it within {ONCE_SECONDS:.0f} s")
        return 1
    message(f"{who(found)} leads {config.home} and has drained it")
    return 0


def export(config: Config) -> int:
    """Send what the exporters that are on have not sent yet; returns 1 where one of them could not."""
    if not anything(os.environ, load_cached(config).settings):
        return 0
    from autoinst.export.service import run_once

    quiet = logging.getLogger("autoinst.export")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    with busy("sending"):
        lines, well = run_once(config, os.environ, quiet)
    for line in lines:
        message(line)
    return 0 if well else 1


def drain_and_forget(drain: Drain) -> None:
    """Store all there is and remove what is beyond the limits."""
    with busy("storing what workers recorded"):
        counts = drain.run_dry()
    killed = f", {counts.killed} of them killed" if counts.killed else ""
    message(f"{counts.stored} job(s) stored{killed}")
    settings = load_cached(from_environ()).settings
    drain.expect_check_ins(settings.get("check_ins") or ())
    kept, problems = limits(os.environ, settings)
    for problem in problems:
        message(problem)
    with busy("removing what is beyond the limits"):
        forgotten = drain.forget(kept)
    if forgotten.jobs:
        message(f"{forgotten.jobs} job(s) beyond the limits removed")


def start(config: Config) -> int:
    """Start the daemon unless there is one, and wait until it leads."""
    found = agent_of(config.home)
    if found is not None:
        message(f"{who(found)} leads {config.home} already")
        return 0
    if not daemonize(environment(config, os.environ)):
        message("not started: this process is a subreaper; use `autoinst agent --foreground`")
        return 1
    deadline = time.monotonic() + START_SECONDS
    while found is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        found = agent_of(config.home)
    if found is None:
        message(f"the agent did not start; see {os.path.join(config.home, LOG_NAME)}")
        return 1
    message(f"{who(found)} leads {config.home}")
    return 0


def agent_of(home: str) -> Leader | None:
    """Return the agent that leads `home`, None where none does."""
    found = leader(home)
    return found if found is not None and found.is_agent else None


def who(found: Leader | None) -> str:
    """Name a leader."""
    return "another process" if found is None else f"agent {found.pid}"
