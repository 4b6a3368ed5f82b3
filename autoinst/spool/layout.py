"""The arena file format, version 2: all that crosses from a worker to the reading half.

    0      header page       HEADER, then the process's description (marshal) at INFO_OFFSET
    4096   status region     STATUS (seqlock, length, crc), then marshal: rule statuses, unavailable values
    8192   overflow table    OVERFLOW_ENTRIES entries of OVERFLOW: the actions of jobs that could only be counted
    9728   overflow cells    OVERFLOW_CELLS cells (cells.py): how many of them, by action, outcome and duration
    16384  intern table      INTERN_COUNT, then entries of a 16-bit length and UTF-8 bytes; id 0 is null
    ...    slots             `slots` of SLOT_SIZE bytes, at `slots_offset`

A slot is claimed when a job starts and is the record when the job ends. Its first BODY bytes are the fixed
fields, then a crc32 of body and tail, the event in progress, and last the state byte, which is
always stored by itself and after everything else.  All integers are little-endian.

A reader that has stored a record frees its first slot, and its owner then frees the continuation slots.

Version 1 had the intern table at 10240 and, in its overflow table, count, errors and sum of durations per action; its
readers freed continuation slots too, after the first.
"""

from __future__ import annotations

from struct import Struct

MAGIC = b"AUTOINST"
VERSION = 2
PAGE = 4096

# magic, version, slot size, slot count, slots offset, intern size, pid, effective uid, start time (clock ticks
# after boot, field 22 of /proc/PID/stat), pid namespace inode, boot id, machine id, arena uid, process uid,
# number of the arena within its process, created (ns since the epoch)
HEADER = Struct("<8sIIIIIIIQQ16s16s8s8sIq")
INFO = Struct("<II")  # length, crc32 of the marshalled description that follows
INFO_OFFSET = 256
INFO_ROOM = PAGE - INFO_OFFSET - INFO.size

STATUS_OFFSET = PAGE
STATUS_SIZE = PAGE
STATUS = Struct("<QII")  # sequence (odd while being written), length, crc32
STATUS_ROOM = STATUS_SIZE - STATUS.size

OVERFLOW_OFFSET = STATUS_OFFSET + STATUS_SIZE
OVERFLOW_ENTRIES = 64
# interned action (0: entry unused; the last entry takes every action that found no room, under id 0xFFFF),
# padding, sum and maximum of the durations in ns
OVERFLOW = Struct("<HHIQQ")
OVERFLOW_REST = 0xFFFF
CELLS_OFFSET = OVERFLOW_OFFSET + OVERFLOW_ENTRIES * OVERFLOW.size
OVERFLOW_CELLS = 832

INTERN_OFFSET = CELLS_OFFSET + 8 * OVERFLOW_CELLS
INTERN_COUNT = Struct("<I")
INTERN_LENGTH = Struct("<H")
INTERN_MAX_BYTES = 500

SLOT_SIZE = 512
# seq, start (ns since the epoch), duration (ns), queue time (ms, NaN = unknown), then interned action and queue,
# attempts (0 = unknown), interned namespace, name, rule and thread, number of continuation slots, length of the
# tail, status, flags, spare
BODY = Struct("<QqqdHHHHHHHHIBBH")
CRC_OFFSET = BODY.size  # 56
EVENT_OFFSET = 60  # 16-bit: interned name of the event in progress, 0 for none
STATE_OFFSET = 63
TAIL_OFFSET = 64
TAIL_ROOM = SLOT_SIZE - TAIL_OFFSET
CRC = Struct("<I")
CHAIN_MAX = TAIL_ROOM // 4  # continuation slots one record may own: their numbers fill the first slot's tail
TAIL_MAX = CHAIN_MAX * TAIL_ROOM

# state byte
FREE, RUNNING, DONE, CONTINUATION = 0, 1, 2, 3
# status byte
UNSET, OK, ERROR, IGNORED, KILLED = 0, 1, 2, 3, 4
STATUS_NAMES = ("running", "ok", "error", "ignored", "killed")
# flags
FLAG_CLOCK_SKEW = 1  # queue time was negative and is kept as 0
FLAG_TRUNCATED = 2  # the tail did not fit and lost something
FLAG_LEFT_OUT = 4  # the rule keeps no record of this job: it is only counted, by its fixed fields

# slot counts of a process's arenas, one after the other as it needs them: 32 KiB first, 60 MB in all
SEGMENTS = (20, 256, 2048, 16384, 32768, 65536)


def mix(seq: int) -> int:
    """Spread `seq` over 64 bits, one to one (the finaliser of splitmix64), so that ratio samplers of trace ids work."""
    seq = (seq + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    seq = ((seq ^ (seq >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    seq = ((seq ^ (seq >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return seq ^ (seq >> 31)


def event_span_id(of_job: bytes, index: int) -> bytes:
    """Return the id of the span of event `index` of a job whose own span has the id `of_job` (8 bytes each)."""
    number = mix((int.from_bytes(of_job, "big") + index + 1) & 0xFFFFFFFFFFFFFFFF)
    return (number or 1).to_bytes(8, "big")


def record_id(arena_uid: bytes, seq: int) -> str:
    """Return the 32-hex id of record `seq` of the arena with that 8-byte uid.

    The uid goes into both halves: a process that runs one job numbers it 1, and a ratio sampler reads the low half.
    """
    return f"{arena_uid.hex()}{mix(seq + int.from_bytes(arena_uid, 'big')):016x}"
