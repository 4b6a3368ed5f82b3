"""Builds arena files straight from the layout: an encoder of its own, so that reader and writer cannot err alike."""

from __future__ import annotations

import fcntl
import marshal
import os
import struct
import time
import zlib
from typing import Any

from autoinst.spool import layout, process

INTERN_SIZE = 6144


class ArenaBuilder:
    """A bytearray that is an arena; keyword arguments replace header fields."""

    def __init__(self, slots: int = 32, *, description: dict[str, Any] | None = None, **fields: Any) -> None:
        self.slots = slots
        self.offset = layout.INTERN_OFFSET + INTERN_SIZE
        self.data = bytearray(self.offset + slots * layout.SLOT_SIZE)
        self.ids: dict[str, int] = {}
        self.intern_at = layout.INTERN_OFFSET + 4
        self.seq = 0
        self.cells = 0
        header: dict[str, Any] = {
            "magic": b"AUTOINST",
            "version": 2,
            "slot_size": 512,
            "slots": slots,
            "slots_offset": self.offset,
            "intern_size": INTERN_SIZE,
            "pid": os.getpid(),
            "euid": os.geteuid(),
            "start_time": process.start_time(os.getpid()),
            "pid_namespace": process.pid_namespace(),
            "boot_id": process.boot_id(),
            "machine_id": process.machine_id(),
            "uid": os.urandom(8),
            "process_uid": os.urandom(8),
            "number": 0,
            "created": time.time_ns(),
        } | fields
        self.header = header
        layout.HEADER.pack_into(self.data, 0, *header.values())
        info = marshal.dumps(
            {"service": "shop", "environment": "test", "revision": "r1", "host": "h1"} | (description or {}), 2
        )
        struct.pack_into("<II", self.data, 256, len(info), zlib.crc32(info))
        self.data[264 : 264 + len(info)] = info

    @property
    def name(self) -> str:
        return f"{self.header['pid']}-{self.header['uid'].hex()}.arena"

    def intern(self, text: str | None) -> int:
        if text is None:
            return 0
        if text not in self.ids:
            raw = text.encode()
            struct.pack_into("<H", self.data, self.intern_at, len(raw))
            self.data[self.intern_at + 2 : self.intern_at + 2 + len(raw)] = raw
            self.intern_at += 2 + len(raw)
            self.ids[text] = len(self.ids) + 1
            struct.pack_into("<I", self.data, layout.INTERN_OFFSET, len(self.ids))
        return self.ids[text]

    def put(
        self,
        slot: int,
        *,
        state: int = layout.DONE,
        status: int = layout.OK,
        tail: dict[str, Any] | bytes | None = None,
        chain: tuple[int, ...] = (),
        start: int | None = None,
        duration: int = 3_250_000,
        queue_time: float = float("nan"),
        action: str | None = "shop.jobs.Mail#perform",
        queue: str | None = None,
        attempts: int = 0,
        name: str = "perform_job.python",
        rule: str | None = "rules.yaml:3",
        thread: str | None = "MainThread",
        flags: int = 0,
        event: str | None = None,
        seq: int | None = None,
        crc: int | None = None,
    ) -> str:
        """Write one record into `slot` (its tail into the slots of `chain`, if given) and return its id."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        raw = b"" if tail is None else tail if isinstance(tail, bytes) else marshal.dumps(tail, 2)
        assert len(raw) <= layout.TAIL_ROOM * max(len(chain), 1), "the tail needs a longer chain"
        body = struct.pack(
            "<QqqdHHHHHHHHIBBH",
            seq,
            time.time_ns() if start is None else start,
            duration,
            queue_time,
            self.intern(action),
            self.intern(queue),
            attempts,
            self.intern("background_job"),
            self.intern(name),
            self.intern(rule),
            self.intern(thread),
            len(chain),
            len(raw),
            status,
            flags,
            0,
        )
        at = self.at(slot)
        self.data[at : at + 56] = body
        struct.pack_into("<I", self.data, at + 56, zlib.crc32(body + raw) if crc is None else crc)
        struct.pack_into("<H", self.data, at + 60, self.intern(event))
        if chain:
            struct.pack_into(f"<{len(chain)}I", self.data, at + 64, *chain)
            for i, link in enumerate(chain):
                part = raw[i * 448 : (i + 1) * 448]
                self.data[self.at(link) + 64 : self.at(link) + 64 + len(part)] = part
                self.data[self.at(link) + 63] = layout.CONTINUATION
        else:
            self.data[at + 64 : at + 64 + len(raw)] = raw
        self.data[at + 63] = state
        return layout.record_id(self.header["uid"], seq)

    def at(self, slot: int) -> int:
        return self.offset + slot * 512

    def overflow(
        self, row: int, action: str | None, durations: dict[int, int], failed: dict[int, int], sum_ns: int, max_ns: int
    ) -> None:
        """Enter what was counted of an action: its jobs by bucket of their durations, those that failed apart."""
        number = layout.OVERFLOW_REST if action is None else self.intern(action)
        struct.pack_into("<HHIQQ", self.data, 8192 + 24 * row, number, 0, 0, sum_ns, max_ns)
        for kind, counts in ((2 * row, durations), (2 * row + 1, failed)):
            for bucket, jobs in counts.items():
                struct.pack_into("<Q", self.data, 9728 + 8 * self.cells, kind << 56 | bucket << 47 | jobs)
                self.cells += 1

    def status(self, content: dict[str, Any], sequence: int = 2) -> None:
        raw = marshal.dumps(content, 2)
        struct.pack_into("<QII", self.data, 4096, sequence, len(raw), zlib.crc32(raw))
        self.data[4112 : 4112 + len(raw)] = raw

    def write(self, folder: str | os.PathLike[str], name: str | None = None) -> str:
        """Write the file into `folder` and return its path."""
        path = os.path.join(folder, name or self.name)
        with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(self.data)
        return path


def hold_lease(path: str) -> int:
    """Take the lease as an owner does; keep the descriptor for as long as it is to live."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def dead_pid() -> int:
    """Return the pid of a process that has ended and was waited for."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
