"""Run a command and all it leaves behind, and say what they took: `meter.py OUT.json COMMAND ...`.

What becomes of the command's daemons is a child of this process (it is their subreaper), so that an agent started by a
worker is measured with it. When the command has ended they are given time to do what there is to do, then ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
QUIET = 1.0  # seconds without CPU time after which the rest counts as idle
LONGEST = 30.0  # seconds that the rest may be busy
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and write the figures: times in seconds, memory in MB."""
    out, command = sys.argv[1], sys.argv[2:]
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    began = time.perf_counter()
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, give_up)
    with open(out + ".pid", "w") as file:
        file.write(str(process.pid))
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    memory = rest()
    all_of_them = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "wall": wall,
        "status": process.returncode,
        "cpu": usage.ru_utime + usage.ru_stime,
        "all_cpu": all_of_them.ru_utime + all_of_them.ru_stime,
        "agents_memory": memory,
    }
    with open(out + ".new", "w") as file:
        json.dump(figures, file)
    os.replace(out + ".new", out)


def rest() -> float:
    """Wait until what is left is idle, end it, and return the most private memory it had, in MB."""
    deadline = time.monotonic() + LONGEST
    quiet_since, last, memory = time.monotonic(), -1, 0.0
    while (left := descendants()) and time.monotonic() < deadline:
        spent = sum(cpu_ticks(pid) for pid in left)
        memory = max(memory, sum(private(pid) for pid in left))
        if spent != last:
            quiet_since, last = time.monotonic(), spent
        elif time.monotonic() - quiet_since > QUIET:
            break
        time.sleep(0.1)
        reap()
    end(signal.SIGTERM, signal.SIGKILL)
    return memory


def give_up(*_arguments: object) -> None:
    """End all at once: the program takes too long."""
    end(signal.SIGKILL)
    os._exit(1)


def end(*signals: signal.Signals) -> None:
    """Send each signal in turn to what is left, until nothing is."""
    for number in signals:
        deadline = time.monotonic() + 10
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while descendants() and time.monotonic() < deadline:
            reap()
            time.sleep(0.02)
    reap()


def reap() -> None:
    """Wait for those that have ended, as nobody else does."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants() -> list[int]:
    """Return all processes below this one."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        fields = stat(int(name))
        if fields:
            parents[int(name)] = int(fields[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on; none where it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process."""
    fields = stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def private(pid: int) -> float:
    """Return what a process has for itself, in MB."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) / 1024
    except (OSError, ValueError):
        return 0.0


if __name__ == "__main__":
    main()
