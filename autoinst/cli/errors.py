"""`autoinst errors`: errors by fingerprint, one of them whole, and what a person says of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from autoinst.cli import filters
from autoinst.cli.jobs import print_table as print_jobs
from autoinst.cli.output import Column, Output, message
from autoinst.cli.reading import Home, owner_of, user_name, writable
from autoinst.cli.show import print_exception
from autoinst.config import from_environ
from autoinst.errors import HomeError, UsageError
from autoinst.store.query import JobFilter
from autoinst.wording import ago, clock, exact

if TYPE_CHECKING:
    import argparse

    from autoinst.config import Config
    from autoinst.store.failures import ErrorGroup
    from autoinst.store.interface import Readable

SAMPLES = 5
STATE_STYLES = {"open": "red", "resolved": "green", "ignored": "dim"}
COLUMNS = (
    Column("LAST"),
    Column("AGO", right=True, spare=True),
    Column("STATE"),
    Column("TIMES", right=True),
    Column("ACTION", flexible=True),
    Column("ERROR", flexible=True),
    Column("FINGERPRINT"),
)


def run(options: argparse.Namespace) -> int:
    """List errors, or show or change the one of `options.fingerprint`; returns 0, 1 where there is no such one.

    Raises UsageError.
    """
    if options.state_to_set and options.fingerprint is None:
        raise UsageError("say which error: `autoinst errors` lists their fingerprints")
    now = time.time_ns()
    since = filters.since(options.since, now)
    config = from_environ()
    with Home(config) as home:
        if options.fingerprint is not None:
            return one(config, home.store, options)
        found = [] if home.store is None else listed(home.store, options, since)
        if options.json:
            out = Output()
            for group in found:
                out.data(group.to_json())
        elif found:
            print_table(Output(), found, now)
            if len(found) == options.limit:
                message(f"the latest {options.limit}; --limit N shows more (0: all)")
        elif options.state == "open" and since is None:
            message("no open error; --state all shows those that were resolved or ignored too")
        else:
            message("no such error; `autoinst errors --state all` shows all")
    return 0


def listed(store: Readable, options: argparse.Namespace, since_ns: int | None) -> list[ErrorGroup]:
    """Return the errors that `options` ask for, the latest first."""
    state = None if options.state == "all" else options.state
    return store.errors(since_ns=since_ns, limit=options.limit, state=state)


def print_table(out: Output, found: list[ErrorGroup], now_ns: int) -> None:
    """Write a row for each error."""
    out.table(
        COLUMNS,
        [
            (
                clock(group.last_ns, now_ns),
                out.style(ago(group.last_ns, now_ns), "dim"),
                out.style(state_of(group), STATE_STYLES[group.state]),
                f"{group.total:,}",
                group.action,
                headline(group),
                out.style(group.fingerprint, "dim"),
            )
            for group in found
        ],
    )


def state_of(group: ErrorGroup) -> str:
    """Return an error's state in words: one that came again after it was resolved says so."""
    return "reopened" if group.reopened else group.state


def headline(group: ErrorGroup) -> str:
    """Return class and message on one line."""
    first = next(iter(group.message.splitlines()), "")
    return f"{group.class_name}: {first}" if first else group.class_name


def one(config: Config, store: Readable | None, options: argparse.Namespace) -> int:
    """Show the error `options.fingerprint` names, by all or its first digits; first put it into the state asked for."""
    found = [] if store is None else matching(store, options.fingerprint)
    if store is None or not found:
        message(f"no error has the fingerprint {options.fingerprint!r}; `autoinst errors --state all` lists them")
        return 1
    if len(found) > 1:
        message(f"{options.fingerprint!r} means more than one error; give more digits:")
        for group in found:
            message(f"  {group.fingerprint}  {headline(group)}")
        return 1
    group = found[0]
    if options.state_to_set:
        set_state(config, group, options.state_to_set)
        group = group._replace(state=options.state_to_set, reopened=False)
        message(f"{group.fingerprint} is {group.state} now")
    if options.json:
        Output().data(group.to_json())
    elif not options.state_to_set:
        print_error(Output(), store, group)
    return 0


def matching(store: Readable, text: str) -> list[ErrorGroup]:
    """Return the errors whose fingerprint is, or begins with, `text`."""
    wanted = text.lower()
    exactly = store.error(wanted)
    if exactly is not None:
        return [exactly]
    return [group for group in store.errors(limit=0) if wanted and group.fingerprint.startswith(wanted)]


def set_state(config: Config, group: ErrorGroup, state: str) -> None:
    """Put an error into a state; raises HomeError in another user's home, StoreError."""
    owner = owner_of(config.home)
    if owner is not None and owner != os.geteuid():
        raise HomeError(f"{config.home} belongs to user {user_name(owner)}: you may only read it")
    with writable(config) as store:
        store.set_error_state(group, state)


def print_error(out: Output, store: Readable, group: ErrorGroup) -> None:
    """Write all that is known of an error, and its latest jobs."""
    now = time.time_ns()
    out.line(f"{out.style(state_of(group), STATE_STYLES[group.state])}  {out.style(headline(group), 'bold')}")
    for label, text in (
        ("fingerprint", group.fingerprint),
        ("action", group.action),
        ("times", f"{group.total:,}"),
        ("first", f"{exact(group.first_ns)} ({ago(group.first_ns, now)})"),
        ("last", f"{exact(group.last_ns)} ({ago(group.last_ns, now)})"),
    ):
        if text:
            out.line(f"  {out.style(label.ljust(11), 'dim')} {text}")
    samples = list(store.jobs(JobFilter(limit=SAMPLES, error=group.id)))
    if samples and samples[0].exception is not None:
        out.line()
        print_exception(out, samples[0].exception, full=False)
    if samples:
        out.line()
        print_jobs(out, samples)
