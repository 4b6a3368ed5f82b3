"""Makes a record's tail fit where there is little room, least important parts first."""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDER = ("events", "kwargs", "args", "params", "env", "tags", "exc")
FRAMES_KEPT = (20, 5, 1, 0)
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
