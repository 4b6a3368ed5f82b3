"""Which events are about SQL or URLs, by their names."""

from __future__ import annotations

IDENTIFIER, STRING, CAREFUL = "identifier", "string", "careful"
URLS = "urls"
# What "..." is, by the group of an event's name: a name, a text, or either (SQLite takes a name it does not know for a
# text), which is then kept only where it can be nothing but a name.
DIALECTS = {
    "active_record": CAREFUL,
    "asyncpg": IDENTIFIER,
    "mariadb": STRING,
    "mssql": CAREFUL,
    "mysql": STRING,
    "oracle": IDENTIFIER,
    "pg": IDENTIFIER,
    "postgres": IDENTIFIER,
    "postgresql": IDENTIFIER,
    "psycopg": IDENTIFIER,
    "psycopg2": IDENTIFIER,
    "sql": CAREFUL,
    "sqlalchemy": CAREFUL,
    "sqlite": CAREFUL,
    "sqlite3": CAREFUL,
}


def dialect_of(name: str) -> str | None:
    """Return how texts of an event of that name are read: as SQL, for URLs (`URLS`), or as any text (None)."""
    action, _, group = name.partition(".")
    if action == "request":
        return URLS
    found = DIALECTS.get(group.rpartition(".")[2])
    return CAREFUL if found is None and action == "sql" else found
