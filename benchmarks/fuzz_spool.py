"""Feeds damaged and hostile arenas to the reader and to whole drains, within a bound on memory.

python -m benchmarks.fuzz_spool [--rounds 100000] [--seed N] [--memory MB]

Every arena begins as a good one and is then damaged: bits flipped, bytes replaced, parts cut off, moved or doubled,
numbers set to their extremes, with the checksums made right again as often as not, or it is noise altogether. The
reader must end with records or a SpoolError; a drain must not fail at all. A bound on the address space, set here and
kept by the kernel, is the proof that no number in a file makes it allocate wildly.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from typing import TYPE_CHECKING

from autoinst.agent.drain import drain_once
from autoinst.errors import SpoolError
from autoinst.spool import layout
from autoinst.spool.blocks import BLOCK
from autoinst.spool.reader import Arena
from autoinst.store.query import JobFilter
from autoinst.store.sqlite import Store
from tests.arena_builder import ArenaBuilder, dead_pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoinst.spool.reader import Done

DRAIN_EVERY = 200  # rounds for each drain of a home full of damaged files
FILES = 12  # in that home
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
# Where one number decides much: the header, the description, the status, the overflow and intern tables.
FIELDS = (8, 12, 16, 20, 24, 28, 32, 36, 44, 256, 260, 4096, 4104, 4108, 8192, 8200, 8208, 9728, 9735, 16384, 16388)
SLOT_FIELDS = (0, 8, 16, 24, 32, 34, 36, 38, 40, 42, 44, 46, 48, 52, 56, 60, 63, 64, 68)
BUILT = 9  # slots that hold something
EXCEPTION = ("builtins.ValueError", "bad", [("/app/jobs.py", 7, "f", 1)], [("builtins.KeyError", "'x'", [], [])])


def good(chance: random.Random) -> ArenaBuilder:
    """Return an arena with something of everything."""
    builder = ArenaBuilder(pid=chance.choice((DEAD, os.getpid())), start_time=1)
    builder.put(0)
    builder.put(1, status=layout.ERROR, queue="mail", tail={"exc": EXCEPTION, "args": (1, b"x", {"a": 2.5})})
    builder.put(2, tail={"args": ["x" * 1500], "job_id": "1"}, chain=(3, 4, 5, 6))
    builder.put(7, state=layout.RUNNING, status=layout.UNSET, event="query.sql")
    events = [("query.sql", "SELECT", "SELECT 1", 4, 5, -1), ("inner", None, None, 5, -1, 0)]
    builder.put(8, state=layout.RUNNING, tail={"events": events, "tags": {"t": "v"}, "kwargs": {"k": None}})
    builder.overflow(0, "shop.jobs.Mail#perform", {53: 5}, {53: 2}, 700, 100)
    builder.status({"digest": "d", "rules": [["r.yaml:1", "patched", "source", 1, None]]})
    return builder


def damage(builder: ArenaBuilder, chance: random.Random) -> bytearray:
    """Return the file with one to eight things wrong in it."""
    data = builder.data
    for _ in range(chance.randint(1, 8)):
        kind = chance.randrange(7)
        at = chance.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            part = chance.randbytes(chance.choice((1, 2, 4, 8, 100)))
            data[at : at + len(part)] = part[: len(data) - at]
        elif kind == 2:
            other = chance.randrange(len(data))
            size = min(chance.choice((4, 64, 512)), len(data) - max(at, other))
            data[at : at + size] = data[other : other + size]
        elif kind == 3:
            put_extreme(data, chance.choice(FIELDS), chance)
        else:
            slot = builder.at(chance.randrange(BUILT))
            put_extreme(data, slot + chance.choice(SLOT_FIELDS), chance)
            if chance.random() < 0.5:
                tail = slot + layout.TAIL_OFFSET + chance.randrange(100)
                data[tail] = chance.choice(b"NTFiIgfyYlusatAZzR()[]{}<>c0") if chance.random() < 0.5 else 0xFF
    if chance.random() < 0.6:
        make_checksums_right(builder, data)
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    elif chance.random() < 0.05:
        data[:] = chance.randbytes(chance.choice((0, 10, 5000, 30_000)))
    return data


def put_extreme(data: bytearray, at: int, chance: random.Random) -> None:
    size = chance.choice((1, 2, 4, 8))
    data[at : at + size] = (chance.choice(EXTREMES) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")


def make_checksums_right(builder: ArenaBuilder, data: bytearray) -> None:
    """Have every slot's checksum and the description's say that the damage is what was written."""
    for slot in range(BUILT):
        at = builder.at(slot)
        links, size = struct.unpack_from("<HI", data, at + 46)
        if not links and size <= layout.TAIL_ROOM:
            content = data[at + layout.TAIL_OFFSET : at + layout.TAIL_OFFSET + size]
        else:
            content = b"".join(data[builder.at(n) + 64 : builder.at(n) + 512] for n in (3, 4, 5, 6))[:size]
        struct.pack_into("<I", data, at + 56, zlib.crc32(content, zlib.crc32(data[at : at + 56])))
    (length,) = struct.unpack_from("<I", data, layout.INFO_OFFSET)
    info = data[layout.INFO_OFFSET + 8 : layout.INFO_OFFSET + 8 + length]
    struct.pack_into("<I", data, layout.INFO_OFFSET + 4, zlib.crc32(info))


def read(data: bytearray) -> Done | None:
    """Read all there is; only a SpoolError may come of it."""
    try:
        arena = Arena(data, "fuzz.arena")
    except SpoolError:
        return None
    found = arena.done()
    for record in (*found.records, *found.left_out, *(flight.record for flight in arena.running())):
        json.dumps(record.to_json(), allow_nan=False).encode()
    arena.description()
    arena.status()
    arena.overflow()
    arena.free(found.slots)
    return found


def drain(chance: random.Random) -> int:
    """Drain a home full of damaged files twice and list what is stored; return how many jobs that is."""
    with tempfile.TemporaryDirectory(prefix="autoinst-fuzz-") as home:
        spool = os.path.join(home, "spool")
        os.mkdir(spool, 0o700)
        os.chmod(home, 0o700)
        for _ in range(FILES):
            builder = good(chance)
            name = builder.name
            damage(builder, chance)
            builder.write(spool, name)
        with open(os.path.join(spool, "tally"), "wb") as file:
            file.write(chance.randbytes(BLOCK * 3 + chance.randrange(2)))
        for _ in range(2):
            assert drain_once(home) is not None
        with Store(os.path.join(home, "store.sqlite3")) as store:
            jobs = [record.to_json() for record in store.jobs(JobFilter(limit=0))]
            store.totals(0, 2**63)
            store.errors()
            store.processes()
        return len(jobs)


def bounded(megabytes: int) -> None:
    """Let this process have so much more memory than it has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


DEAD = dead_pid()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--memory", type=int, default=48, help="MB that it may take beside what it has at the start")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    drain(random.Random(0))  # loads what it needs
    bounded(options.memory)
    counts = {"arenas": 0, "refused": 0, "records": 0, "torn": 0, "drains": 0, "stored": 0}

    def round_of(number: int) -> Callable[[], None]:
        chance = random.Random(options.seed * 1_000_003 + number)

        def run() -> None:
            found = read(damage(good(chance), chance))
            counts["arenas"] += 1
            counts["refused"] += found is None
            counts["records"] += len(found.records) if found else 0
            counts["torn"] += found.torn if found else 0
            if number % DRAIN_EVERY == 0:
                counts["drains"] += 1
                counts["stored"] += drain(chance)

        return run

    for number in range(options.rounds):
        try:
            round_of(number)()
        except BaseException:
            print(f"NOT CLEAN: seed {options.seed}, round {number}", file=sys.stderr)
            raise
    print(", ".join(f"{name} {value}" for name, value in counts.items()), "- clean, within", options.memory, "MB")


if __name__ == "__main__":
    main()
