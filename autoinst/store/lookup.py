"""Finds jobs by some digits of their ids, from the index alone: all ids of a process begin alike, however many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.store.conditions import id_range

if TYPE_CHECKING:
    import sqlite3


def ids_like(con: sqlite3.Connection, first: str, last: str, limit: int) -> list[str]:
    """Return up to `limit` ids that begin with the hexadecimal digits `first` and end with `last`."""
    ends, values = _ends(last)
    query = f"SELECT id FROM job WHERE id BETWEEN ? AND ? AND {ends} LIMIT ?"  # noqa: S608 - a fixed condition
    return [row[0].hex() for row in con.execute(query, (*id_range(first), *values, limit))]


def recent_ids(con: sqlite3.Connection, last: str, newest: int, limit: int) -> list[str]:
    """Return up to `limit` ids that end with the digits `last`, the newest first, of the `newest` jobs stored last."""
    ends, values = _ends(last)
    query = f"SELECT id FROM job WHERE n > (SELECT max(n) - ? FROM job) AND {ends} ORDER BY n DESC LIMIT ?"  # noqa: S608
    return [row[0].hex() for row in con.execute(query, (newest, *values, limit))]


def _ends(last: str) -> tuple[str, tuple[int | bytes | str, ...]]:
    """Return a condition on the last digits: whole bytes of an id are compared in half the time."""
    if len(last) % 2:
        return "substr(hex(id), -?) = ?", (len(last), last.upper())
    return ("substr(id, -?) = ?", (len(last) // 2, bytes.fromhex(last))) if last else ("1", ())
