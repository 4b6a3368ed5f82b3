"""A trace: jobs that one another put on queues or began, across processes, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.spool.layout import event_span_id

if TYPE_CHECKING:
    from autoinst.record import Record


def tree(trace: list[Record]) -> list[tuple[Record, int]]:
    """Return the jobs of a trace (the first one first) as a tree is read, each with its depth.

    A parent is a job or an event of one; one that is not known is the first job.
    """
    if not trace:
        return []
    parents = _parents(trace)
    root = trace[0]
    children: dict[str, list[Record]] = {}
    for record in trace[1:]:
        parent = parents.get(record.parent_span_id or "", root)
        children.setdefault(root.id if parent is record else parent.id, []).append(record)
    out: list[tuple[Record, int]] = []
    waiting = [(root, 0)]
    seen = set()
    while waiting:
        record, depth = waiting.pop()
        if record.id in seen:
            continue
        seen.add(record.id)
        out.append((record, depth))
        waiting += [(child, depth + 1) for child in reversed(children.get(record.id, []))]
    return out + [(record, 1) for record in trace if record.id not in seen]


def _parents(trace: list[Record]) -> dict[str, Record]:
    """Return the job of each span that is a parent in the trace: the job's own, or one of its events'."""
    found = {record.id[16:]: record for record in trace}
    wanted = {record.parent_span_id for record in trace} - found.keys()
    if wanted - {None}:
        for record in trace:
            own = bytes.fromhex(record.id[16:])
            spans = (event_span_id(own, index).hex() for index in range(len(record.events)))
            found.update((span, record) for span in spans if span in wanted)
    return found
