"""Who a process is: what an arena's header says of its owner, so that a reader can tell whether it still lives."""

from __future__ import annotations

import os


def start_time(pid: int) -> int:
    """Return the start of process `pid` in clock ticks after boot (proc(5), stat field 22); 0 where it is unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as stat:
            return int(stat.read(2048).rsplit(b")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def boot_id() -> bytes:
    """Return this boot's 16-byte id (random(4), /proc/sys/kernel/random/boot_id), zeros where there is none."""
    return _hex_file("/proc/sys/kernel/random/boot_id")


def machine_id() -> bytes:
    """Return this machine's 16-byte id (machine-id(5)), zeros where there is none."""
    return _hex_file("/etc/machine-id")


def pid_namespace() -> int:
    """Return the inode number of this process's pid namespace, 0 where there is none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _hex_file(path: str) -> bytes:
    try:
        with open(path, "rb", 0) as file:
            return bytes.fromhex(file.read(64).decode("ascii").strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)
