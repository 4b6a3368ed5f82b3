"""Starts the agent as a daemon that whoever starts it never notices: no child, no signal, no descriptor, no terminal.

`autoinst run` calls this before it executes the program, so only what a worker has loaded anyway is imported. A program
that runs already starts the agent by autoinst/demand.py, which has `apart` called in a process of its own.
"""

from __future__ import annotations

import os

from autoinst import config as configuration
from autoinst.agent import runs
from autoinst.demand import ANSWER_FD, ORPHANS, command, environment, is_due, note, wait_gone
from autoinst.errors import HomeError
from autoinst.leader import leader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

ORPHAN_SECONDS = 2.0  # how long the daemon waits for its parent to be gone
_ORPHAN_POLL = 0.0005


def start_for_program(environ: Mapping[str, str]) -> None:
    """Start an agent, unless one leads or it is not wanted, for the program this process is about to become.

    Nothing that goes wrong here is said: readers drain by themselves where no agent lives, and `doctor` tells.
    """
    config = configuration.Config(environ, configuration.working_directory() or "/")
    if not config.enabled or config.agent in configuration.OFF_WORDS or not hasattr(os, "fork"):
        return
    try:
        configuration.make_home(config.home, config.group)
        runs.announce(config.home)
        found = leader(config.home)
        if (found is not None and found.is_agent) or not is_due(config.home):
            return
        # What orphans are given to would have the agent for a child of its own.
        if os.getpid() == 1 or not daemonize(environment(config, environ)):
            note(config.home, ORPHANS)
    except (HomeError, OSError):
        return


def daemonize(environ: Mapping[str, str]) -> bool:
    """Start the agent with `environ` in a session of its own; return whether its program was executed.

    False where this process is a subreaper, which would become its parent. When this returns, all that was a child of
    this process is gone, and its use of the processor is not counted as this process's children's (SIGCHLD is ignored
    meanwhile, which also has the kernel reap). Not for a process with threads.
    """
    import _signal  # type: ignore[import-not-found]  # what the signal module wraps, without its enums

    reading, writing = os.pipe()
    caller = os.getpid()
    before = _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    try:
        child = os.fork()
        if not child:
            _intermediate(caller, writing, environ)
        os.close(writing)
        writing = -1
        answer = os.read(reading, 64)  # nothing: the pipe was closed by exec
        wait_gone(child)
        if answer.isdigit():
            wait_gone(int(answer))
        return not answer
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL if before is None else before)


def apart(caller: int) -> NoReturn:
    """Start the agent with this process's environment and end, as the child of `caller` that ANSWER_FD tells of it."""
    os.set_inheritable(ANSWER_FD, False)
    _intermediate(caller, ANSWER_FD, os.environ)


def _intermediate(caller: int, answer: int, environ: Mapping[str, str]) -> NoReturn:
    try:
        os.setsid()
        middle = os.getpid()
        if not os.fork():
            _become_agent(caller, middle, answer, environ)
    finally:
        os._exit(0)


def _become_agent(caller: int, middle: int, answer: int, environ: Mapping[str, str]) -> None:
    import _signal
    import time

    try:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while os.getppid() == middle and time.monotonic() < deadline:
            time.sleep(_ORPHAN_POLL)
        if os.getppid() in {caller, middle}:
            os.write(answer, str(os.getpid()).encode())
            return
        os.chdir("/")
        os.umask(0o077)
        _close_descriptors(answer)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        line = command()
        os.execve(line[0], line, dict(environ))
    except Exception as error:  # there is nobody to raise to
        os.write(answer, type(error).__name__.encode())


def _close_descriptors(but: int) -> None:
    """Close all descriptors but `but`, and put 0 to 2 on /dev/null."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(3, 4096))
    for number in numbers:
        if number > 2 and number != but:  # noqa: PLR2004 - the standard three are replaced below
            try:
                os.close(number)
            except OSError:  # the one the list was read with
                continue
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    if null > 2:  # noqa: PLR2004
        os.close(null)
