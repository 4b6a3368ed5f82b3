"""What `autoinst doctor` says of exporters: how far each has come, and what its receiver answers to a test."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from autoinst.cli.output import Column
from autoinst.export.choice import chosen_names
from autoinst.record import rfc3339
from autoinst.wording import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoinst.cli.output import Output
    from autoinst.export.feed import Feed, Service
    from autoinst.rules.model import RuleSet
    from autoinst.store.feeds import Feed as Row
    from autoinst.store.sqlite import Store

SHOWN_PARKED = 20


def exporters(home: str, rules: RuleSet, store: Store | None, attention: list[str]) -> dict[str, Any]:
    """Return the feeds of the exporters that are on, each with what came back for a test record, and parked jobs."""
    names, problems = chosen_names(os.environ, rules.settings)
    rows = {row.name: row for row in store.feeds()} if store is not None else {}
    found: dict[str, Any] = {"feeds": [], "parked": []}
    if names or problems:
        from autoinst.export.settings import choose

        chosen = choose(os.environ, rules.settings, home)
        attention += chosen.problems
        answers = test_all([*chosen.feeds, *chosen.services])
        for feed in chosen.feeds:
            answer, well = answers[feed.name]
            found["feeds"].append(
                facts(
                    feed,
                    rows.get(feed.name),
                    feed.source.last(store) if store is not None else 0,
                    answer,
                    well,
                    attention,
                )
            )
        for service in chosen.services:
            answer, well = answers[service.name]
            if not well:
                attention.append(f"exporter {service.name}: {service.place}: {answer}")
            found["feeds"].append(
                {"name": service.name, "to": service.place, "test": answer, "ok": well, "waiting": None}
            )
        chosen.close()
    if store is not None and names:
        found["parked"] = [
            {"feed": parked.feed, "job": parked.job, "at": rfc3339(parked.at_ns), "reason": parked.reason}
            for parked in store.parked(SHOWN_PARKED)
        ]
    return found


def test_all(feeds: Sequence[Feed | Service]) -> dict[str, tuple[str, bool]]:
    """Send a test record through each feed, all at once; return by name what came back, and if that was well."""
    from autoinst.export.answers import Verdict

    answers: dict[str, tuple[str, bool]] = {}

    def test(feed: Feed | Service) -> None:
        answer = feed.test()
        answers[feed.name] = (answer.text, answer.verdict is Verdict.ACCEPTED and not answer.rejected)

    threads = [threading.Thread(target=test, args=(feed,), daemon=True) for feed in feeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {feed.name: answers.get(feed.name, ("could not be tested", False)) for feed in feeds}


def facts(feed: Feed, row: Row | None, last: int, answer: str, well: bool, attention: list[str]) -> dict[str, Any]:
    """Return what there is to say of one feed."""
    waiting = last - (row.n if row is not None else last if feed.from_now else 0)
    noun = feed.source.noun
    if not well:
        attention.append(f"exporter {feed.name}: {feed.place}: {answer}; {max(waiting, 0)} {noun} wait in the store")
    out: dict[str, Any] = {"name": feed.name, "to": feed.place, "test": answer, "ok": well, "waiting": max(waiting, 0)}
    if row is None:
        return out
    if row.parked:
        attention.append(f"exporter {feed.name}: {row.parked} {noun} are refused for good and were parked")
    if row.left_out:
        attention.append(f"exporter {feed.name}: {row.left_out} {noun} were left out, since too many waited")
    if row.rejected:
        attention.append(f"exporter {feed.name}: the receiver rejected {row.rejected} item(s) of what it took")
    return out | {
        "sent": row.jobs,
        "posts": row.posts,
        "bytes": row.bytes,
        "parked": row.parked,
        "rejected": row.rejected,
        "left_out": row.left_out,
        "missing": row.missing,
        "state": row.state,
        "detail": row.detail,
        "last_sent_at": rfc3339(row.sent_ns),
    }


def print_exporters(out: Output, found: dict[str, Any]) -> None:
    """Write the exporters for people."""
    if found["feeds"]:
        out.line()
        rows = [
            (
                feed["name"],
                "" if feed["waiting"] is None else str(feed.get("sent", 0)),
                "" if feed["waiting"] is None else str(feed["waiting"]),
                bytes_text(feed["bytes"] / feed["sent"]) if feed.get("sent") else "",
                out.style(feed["test"], "green" if feed["ok"] else "red"),
                feed["to"],
            )
            for feed in found["feeds"]
        ]
        columns = (
            Column("EXPORTER"),
            Column("SENT", right=True),
            Column("WAITING", right=True),
            Column("A JOB", right=True),
            Column("TEST", flexible=True),
            Column("TO", flexible=True),
        )
        out.table(columns, rows)
    for parked in found["parked"]:
        out.line(f"{parked['feed']}: parked {parked['at']}: {parked['reason']}")
