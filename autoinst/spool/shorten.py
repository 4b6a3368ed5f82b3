"""What becomes of a record's tail where there is little room: its least important parts go, and it takes in names."""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from autoinst.spool.writer import Names

ORDER = ("events", "kwargs", "args", "params", "env", "tags", "exc")
FRAMES_KEPT = (20, 5, 1, 0)
MAX_NAME = 1_000  # characters
MESSAGE_KEPT = 40  # characters at the least, 10 more for each frame kept


def shorten(tail: bytes, room: int) -> bytes:
    """Drop the largest parts of a marshalled tail until it fits in `room` bytes; its ids go last."""
    content: dict[str, Any] = marshal.loads(tail)
    for key in ORDER:
        value = content.get(key)
        if value is None:
            continue
        if key == "exc":
            name, message, frames, _ = value
            for kept in FRAMES_KEPT:
                content[key] = (name, message[: max(kept * 10, MESSAGE_KEPT)], frames[-kept:] if kept else [], [])
                data = marshal.dumps(content, 2)
                if len(data) <= room:
                    return data
        if key == "events":
            content["dropped"] = content.get("dropped", 0) + len(value)
        del content[key]
        data = marshal.dumps(content, 2)
        if len(data) <= room:
            return data
    return b""


def spelled_out(tail: bytes, names: Names) -> bytes:
    """Return a marshalled tail with `names` in it as text: the arena's intern table is full."""
    content: dict[str, Any] = marshal.loads(tail) if tail else {}
    action, queue, _, namespace, name, rule, _ = names
    texts = (("action", action), ("queue", queue), ("name", name), ("namespace", namespace), ("rule", rule))
    content.update((key, text[:MAX_NAME]) for key, text in texts if text)
    return marshal.dumps(content, 2)
