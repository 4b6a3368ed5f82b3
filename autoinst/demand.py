"""Starts the agent from within a program that records jobs, on demand and so that the program sees nothing of it.

The program has no other thread, no child and no handler of SIGCHLD when that is done, or it is not done. It forks no
copy of itself (os.fork would run what others have registered for forks): a small Python is spawned that becomes the
daemon's parent and is gone, as is the record of it, before the program goes on. Nothing that fails here is said:
readers drain by themselves where no agent leads, and `doctor` tells.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from autoinst import config as configuration
from autoinst.leader import SAFE, leader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoinst.config import Config

LOG_NAME = "agent.log"
NOT_STARTED = "not started"
START_NAME = "agent.start"  # there from when an agent is started until it leads
START_SECONDS = 10.0  # how long one is waited for
ANSWER_FD = 3  # of the daemon's parent
HIGH_DESCRIPTOR = 16
PAUSE = 0.0005
ANSWER_PAUSES = 10_000  # the daemon's parent may take, which takes 10 ms: counted, as a test's clocks may stand still
ORPHANS = "a Python program takes in orphans here (as process 1, or a subreaper)"
REFUSED = "the program's audit hook lets no process be started"
UNTOLD = "the kernel does not tell of signals in /proc/self/status"
LAST_LINE = 300  # bytes of the log's end that its last line is in
SIGNALS = (b"SigCgt", b"SigBlk", b"SigIgn")

_refused = False  # for good, and in forked children


def ask(config: Config, environ: Mapping[str, str]) -> None:
    """Start the agent that is wanted for the home of `config`, unless one leads or begins, or the program might notice.

    Some 20 us where one leads, 20 ms and more where it is started: two Pythons begin one after the other. Raises
    OSError without descriptors, ValueError in another interpreter than the main one.
    """
    global _refused
    if _refused or sys.platform != "linux":
        return
    found = leader(config.home)
    if found is not None and found.is_agent:
        return
    reason = _unfit_for_good()
    _refused = reason is not None
    reason = reason or _unfit_now()
    if reason is None and is_due(config.home):
        reason = _spawn(config, environ)
        _refused = reason is not None
    if reason is not None:
        note(config.home, reason)


def is_due(home: str) -> bool:
    """Return whether nobody else is starting an agent; the caller is from now on. Raises OSError."""
    fd = os.open(os.path.join(home, START_NAME), os.O_RDWR | os.O_CREAT | SAFE, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if found.st_size and abs(time.time() - found.st_mtime) < START_SECONDS:
            return False
        os.pwrite(fd, b"1", 0)
        os.utime(fd)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def has_started(home: str) -> None:
    """Say that an agent leads: if it ends early, another one may be started at once."""
    try:
        os.unlink(os.path.join(home, START_NAME))
    except OSError:  # started by hand
        return


def note(home: str, reason: str) -> None:
    """Leave in the agent's log, for `doctor`, why none was started, if it does not end with that. Raises OSError."""
    line = f"{NOT_STARTED}: {reason}\n".encode()
    fd = os.open(os.path.join(home, LOG_NAME), os.O_RDWR | os.O_CREAT | os.O_APPEND | SAFE, 0o600)
    try:
        configuration.share_file(fd, home)
        end = os.fstat(fd).st_size
        if not os.pread(fd, LAST_LINE, max(end - LAST_LINE, 0)).endswith(line):
            os.write(fd, line)
    finally:
        os.close(fd)


def environment(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the agent's environment: the caller's, with absolute paths and without what would change its Python."""
    kept = {key: value for key, value in environ.items() if not key.startswith("PYTHON") or key == "PYTHONHOME"}
    kept |= {"AUTOINST_HOME": config.home, "AUTOINST_ENABLED": "0"}
    if config.rules:
        kept["AUTOINST_RULES"] = os.pathsep.join(config.rules)
    return kept


def command(*options: str, flags: tuple[str, ...] = ()) -> list[str]:
    """Return the command of the agent's own process."""
    package = os.path.dirname(os.path.abspath(__file__))
    return [sys.executable, *flags, os.path.join(package, "agent", "__main__.py"), *options]


def _unfit_for_good() -> str | None:
    """Return why this process, and what it forks, must start no agent."""
    if os.getpid() == 1 or _is_python("/proc/1/exe"):
        return ORPHANS
    own = os.path.realpath(sys.executable or "")
    if getattr(sys, "frozen", False) or not _is_python("/proc/self/exe") or os.readlink("/proc/self/exe") != own:
        return "the program is an executable of its own with Python inside"
    return None


def _is_python(link: str) -> bool:
    try:
        return os.path.basename(os.readlink(link)).startswith("python")
    except OSError:  # another user's
        return False


def _unfit_now() -> str | None:
    """Return why this process cannot start an agent unnoticed, as it is now. Raises OSError."""
    import _signal  # type: ignore[import-not-found]  # what the signal module wraps, without its enums
    import posix  # gevent and others have put functions of theirs into os

    with open("/proc/self/status", "rb", 0) as file:
        lines = dict(line.split(b":", 1) for line in file.read(8192).splitlines() if b":" in line)
    child = 1 << (_signal.SIGCHLD - 1)
    if not lines.keys() >= {b"Threads", *SIGNALS}:
        return UNTOLD
    if int(lines[b"Threads"]) != 1:
        return "the program has threads already"
    if any(int(lines[key], 16) & child for key in SIGNALS):
        return "the program sees to SIGCHLD itself"
    if len(lines.get(b"NSpid", b"").split()) > 1:
        return "process 1 is not to be seen in /proc"
    try:
        posix.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return "the program has children already"


def _spawn(config: Config, environ: Mapping[str, str]) -> str | None:
    """Start the daemon and wait until all that was a child of this process is gone; return why it was not started.

    All signals wait meanwhile, and SIGCHLD is ignored, which also has the kernel reap and count nothing as children's.
    """
    import _signal

    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
        try:
            answer = _answer(command("--apart", str(os.getpid()), flags=("-S",)), environment(config, environ))
        except OSError:  # no descriptor, no process: next time perhaps
            return None
        except Exception:  # not a signal's, as these wait
            return REFUSED
        finally:
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    return ORPHANS if answer.isdigit() else None


def _answer(line: list[str], environ: Mapping[str, str]) -> bytes:
    """Run `line`, return what it writes to ANSWER_FD, and see it gone."""
    import _signal
    import posix

    pause = configuration.new_lock()
    pause.acquire()
    reading, writing = posix.pipe()
    try:
        try:
            high = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR)
        finally:
            posix.close(writing)
        try:
            null = [(posix.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(ANSWER_FD)]
            child = posix.posix_spawn(
                line[0],
                line,
                environ,
                file_actions=[(posix.POSIX_SPAWN_DUP2, high, ANSWER_FD), *null],
                setsigmask=(),
                setsigdef=_signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP},
            )
        finally:
            posix.close(high)
        posix.set_blocking(reading, False)
        answer = b""
        for _ in range(ANSWER_PAUSES):
            try:
                answer = posix.read(reading, 64)  # nothing: it was closed by the agent's exec
                break
            except BlockingIOError:
                pause.acquire(timeout=PAUSE)
        else:
            posix.kill(child, _signal.SIGKILL)
        wait_gone(child)
        if answer.isdigit():
            wait_gone(int(answer))
        return answer
    finally:
        posix.close(reading)


def wait_gone(pid: int) -> None:
    """Wait until a child has ended, which the kernel may have reaped; raises OSError."""
    import posix

    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:  # it is gone, since SIGCHLD is ignored
        return
