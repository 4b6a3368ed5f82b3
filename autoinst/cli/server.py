"""What `autoinst doctor` says of the store past this machine: what the server answers, and what waits for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from autoinst.cli.output import Column
from autoinst.errors import StoreError
from autoinst.record import rfc3339
from autoinst.store.clickhouse.address import SCHEMES, VARIABLE, chosen, parse
from autoinst.wording import bytes_text

if TYPE_CHECKING:
    from autoinst.cli.output import Output
    from autoinst.store.clickhouse.address import Address
    from autoinst.store.sqlite import Store

SHOWN_HOMES = 50


def shown_address() -> str | None:
    """Return AUTOINST_STORE without its password."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        found = parse(text)
    except StoreError:
        return "unreadable"
    scheme = SCHEMES[found.secure]
    return f"{scheme}://{found.user}:***@{found.url.partition('//')[2]}{found.database}"


def server(store: Store | None, attention: list[str]) -> dict[str, Any] | None:
    """Return what there is to say of the store past this machine, None where there is none."""
    try:
        address = chosen(os.environ)
    except StoreError as error:
        attention.append(f"{error}; jobs wait in this machine's store")
        return {"to": None, "ok": False, "answer": str(error)}
    if address is None:
        return None
    out: dict[str, Any] = {"to": address.place, "ok": False}
    out |= waiting(store, address)
    try:
        out |= asked(address)
    except StoreError as error:
        out["answer"] = str(error).removeprefix(f"{address.place}: ")
    if not out["ok"]:
        attention.append(f"{VARIABLE}: {address.place}: {out['answer']}; {out['waiting']} job(s) wait here")
    if out.get("parked"):
        attention.append(f"{VARIABLE}: {out['parked']} job(s) are refused by {address.place} for good and were parked")
    return out


def waiting(store: Store | None, address: Address) -> dict[str, Any]:
    """Return how far this machine's store has been sent."""
    row = store.feed(address.feed) if store is not None else None
    last = store.last() if store is not None else 0
    out: dict[str, Any] = {
        "waiting": max(last - (row.n if row is not None else 0), 0),
        "changed": store.changed() if store is not None else 0,
    }
    if row is not None:
        out |= {"sent": row.jobs, "bytes": row.bytes, "parked": row.parked, "state": row.state, "detail": row.detail}
        out["last_sent_at"] = rfc3339(row.sent_ns)
    return out


def asked(address: Address) -> dict[str, Any]:
    """Return what the server says; raises StoreError."""
    from autoinst.store.clickhouse import schema
    from autoinst.store.clickhouse.client import Client

    client = Client(address)
    try:
        version = client.version().text
        tables = schema.version(client)
        out: dict[str, Any] = {"server": version, "tables_version": tables}
        if not tables:
            return out | {"ok": True, "answer": "it has no tables yet: the first agent makes them", "tables": {}}
        schema.check(client)
        homes = client.rows("SELECT * FROM home FINAL ORDER BY at DESC")
        out["tables"] = schema.facts(client)
    finally:
        client.close()
    out["homes"] = [
        {"host": home["host"], "path": home["path"], "autoinst": home["autoinst"], "waiting": home["waiting"]}
        | {"at": rfc3339(home["at"])}
        for home in homes
    ]
    return out | {"ok": True, "answer": f"ClickHouse {version}, tables of version {tables}"}


def print_server(out: Output, found: dict[str, Any] | None) -> None:
    """Write it for people."""
    if found is None or found["to"] is None:
        return
    out.line()
    rows = found.get("tables", {}).get("job", {}).get("rows", 0)
    size = sum(table["bytes"] for table in found.get("tables", {}).values())
    much = f", {rows} jobs, {bytes_text(size)}" if found.get("tables") else ""
    out.line(f"{out.style('sends to', 'dim')}   {found['to']}")
    out.line(f"           {out.style(found['answer'], 'green' if found['ok'] else 'red')}{much}")
    out.line(f"           {found.get('sent', 0)} jobs sent from here, {found['waiting']} wait")
    homes = found.get("homes", [])[:SHOWN_HOMES]
    if homes:
        out.line()
        cells = [(home["host"], home["at"], str(home["waiting"]), home["autoinst"], home["path"]) for home in homes]
        columns = (Column("HOST"), Column("LAST HEARD OF"), Column("WAITING", right=True), Column("AUTOINST"))
        out.table((*columns, Column("HOME", flexible=True)), cells)
