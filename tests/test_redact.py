"""What may not be recorded: literals in SQL, credentials in URLs, secrets and card numbers in any text."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoinst.redact import dialects, secrets, sql, urls
from autoinst.trace.sanitize import FILTERED, Sanitizer
from tests.harness import Program
from tests.servers import Redis

RULES = Sanitizer(["iban"])


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        ("careful", "SELECT * FROM t WHERE id = 42", "SELECT * FROM t WHERE id = ?"),
        ("careful", "select 'it''s', -1.5e-10, .5, 0xFF, 1_000", "select ?, ?, ?, ?, ?"),
        (
            "careful",
            "SELECT a FROM t WHERE id IN (1, 2,3) AND b IN ('x','y')",
            "SELECT a FROM t WHERE id IN (?) AND b IN (?)",
        ),
        ("careful", "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')", "INSERT INTO t (a, b) VALUES (?)"),
        ("identifier", "INSERT INTO t VALUES ($1, $2)", "INSERT INTO t VALUES (?)"),
        ("careful", "SELECT ?, :name, :1, $1, @p1, %s, %(key)s", "SELECT ?, :name, :1, $1, @p1, %s, %(key)s"),
        ("careful", "-- why\nSELECT 1 /* user 7 */ , 2 -- end", "SELECT ? , ?"),
        ("string", "SELECT a # it's\nFROM t", "SELECT a FROM t"),
        (
            "identifier",
            "SELECT a #> '{b,c}', a # 5, a->>'k', x::int, y[1:2]",
            "SELECT a #> ?, a # ?, a->>?, x::int, y[?:?]",
        ),
        ("identifier", "SELECT $$it's$$, $tag$ $$ $other$ $tag$, E'it\\'s', U&'d\\0061t'", "SELECT ?, ?, ?, ?"),
        ("careful", "SELECT N'x', X'4D', b'01', _utf8'x', q'[it's]', Q'!a'b!'", "SELECT ?, ?, ?, ?, ?, ?"),
        ("string", 'SELECT "it\'s", "a""b", `c d`.`e` FROM t', "SELECT ?, ?, `c d`.`e` FROM t"),
        ("string", r"SELECT 'it\'s', 'b'", "SELECT ?, ?"),
        ("identifier", 'SELECT "a"."b" FROM "c" WHERE "d" = 5', 'SELECT "a"."b" FROM "c" WHERE "d" = ?'),
        ("careful", 'SELECT "a"."b" FROM "c" WHERE "d" = "e"', 'SELECT "a"."b" FROM "c" WHERE ? = ?'),
        ("careful", "SELECT t1.c2 FROM db3.t1 LIMIT 10", "SELECT t1.c2 FROM db3.t1 LIMIT ?"),
        ("careful", "SELECT a-1, a - -1, (-5)", "SELECT a-?, a - -?, (?)"),
        ("careful", "  SELECT\n\t1  ", "SELECT ?"),
        ("careful", "", ""),
        # what cannot be read for sure
        ("careful", "SELECT 'open", None),
        ("careful", 'SELECT "open', None),
        ("careful", "SELECT `open", None),
        ("careful", "SELECT 1 /* open", None),
        ("identifier", "SELECT $$open", None),
        ("careful", "SELECT \u2018curly\u2019", None),
        ("careful", "SELECT \\ 1", None),
        ("careful", "/* a /* b */ c */ SELECT 1", None),
        ("identifier", r"SELECT 'a\', 'b\', 'c'", "SELECT ?, ?, ?"),  # read otherwise it is no SQL
        ("careful", r"SELECT 'a\', 'b\', 'c'", None),
        ("careful", r"SELECT 'a\' + 'b' + '\' c'", None),  # this may be either
        ("careful", "SELECT a # it's", None),
        ("careful", "SELECT 5--'x'", None),
        ("careful", "\x00", None),
    ],
)
def test_sql(dialect: str, text: str, expected: str | None) -> None:
    found = sql.sanitized(text, dialect)
    assert found == expected
    if found is not None:
        assert sql.sanitized(found, dialect) == found


def test_a_long_statement_is_cut_with_no_part_of_a_literal_left() -> None:
    text = "INSERT INTO t VALUES ('" + "x" * 2 * sql.MAX_LENGTH + "', 'secret')"
    assert sql.sanitized(text, "careful") == "INSERT INTO t VALUES ( ..."


def test_the_verb_of_a_statement() -> None:
    assert sql.verb("select ?") == "SELECT"
    assert sql.verb("(SELECT ?)") is None
    assert sql.verb("WITH x AS (SELECT ?)") == "WITH"
    assert sql.verb("") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("query.sqlite", "careful"),
        ("query.mysql", "string"),
        ("query.psycopg", "identifier"),
        ("sql.active_record", "careful"),
        ("query.redis", None),
        ("request.httpx", "urls"),
        ("sqlite", None),
    ],
)
def test_an_events_name_tells_whether_it_is_sql(name: str, expected: str | None) -> None:
    assert dialects.dialect_of(name) == expected


# Statements made of pieces, each literal of which has a mark that must not be seen afterwards.

MARK = "SECRET"
INNER = st.text(st.sampled_from("ab'\"\\$`#-/*;()[]?%:@., \n\u2019é"), max_size=8)


def quoted(inner: str, quote: str, *, backslashes: bool) -> str:
    text = inner.replace("\\", "\\\\") if backslashes else inner
    return quote + text.replace(quote, quote * 2) + quote


def single(inner: str) -> str:
    return quoted(inner, "'", backslashes=False)


LITERALS: dict[str, list[Any]] = {
    "identifier": [
        single,
        lambda inner: "E" + quoted(inner, "'", backslashes=True),
        lambda inner: "e'" + inner.replace("\\", "\\\\").replace("'", "\\'") + "'",
        lambda inner: f"$q${inner.replace('$', '')}$q$",
        lambda inner: f"$${inner.replace('$', '')}$$",
        lambda inner: "N" + single(inner),
        lambda inner: "U&" + single(inner),
    ],
    "string": [
        lambda inner: quoted(inner, "'", backslashes=True),
        lambda inner: quoted(inner, '"', backslashes=True),
        lambda inner: "'" + inner.replace("\\", "\\\\").replace("'", "\\'") + "'",
        lambda inner: '"' + inner.replace("\\", "\\\\").replace('"', '\\"') + '"',
        lambda inner: "_utf8mb4 " + quoted(inner, "'", backslashes=True),
        lambda inner: "N" + quoted(inner, "'", backslashes=True),
    ],
    "careful": [
        single,
        lambda inner: quoted(inner, '"', backslashes=False),
        lambda inner: "q'{" + inner.replace("}", "") + "}'",
        lambda inner: quoted(inner, "'", backslashes=True),
    ],
}
AROUND = {
    "identifier": ['SELECT {0}, {1} FROM "t" -- it\'s {2}\nWHERE a IN ({1}, {0})', "/* {2} */ CALL f({0}) || {1}"],
    "string": ["SELECT {0}, {1} FROM `t` # {2}\nWHERE a IN ({1}, {0})", "/* {2} */ UPDATE t SET a={0},b={1} -- {2}"],
    "careful": ["SELECT {0}, {1} FROM t -- {2}\nWHERE a IN ({1}, {0})", "/* {2} */ UPDATE t SET a={0}, b = {1}"],
}


@st.composite
def statements(draw: st.DrawFn) -> tuple[str, str]:
    dialect = draw(st.sampled_from(sorted(LITERALS)))
    literals = []
    for _ in range(2):
        make = draw(st.sampled_from(LITERALS[dialect]))
        literals.append(make(draw(INNER) + MARK + draw(INNER)))
    comment = draw(INNER).replace("*", "").replace("\n", "") + MARK
    text = draw(st.sampled_from(AROUND[dialect])).format(literals[0], literals[1], comment)
    return dialect, text.replace("{0}", "x")


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("string", r"UPDATE t SET a='\'SECRET',b=':"),
        ("identifier", r"SELECT 'x\', 'SECRET"),
        ("identifier", r"CALL f(e'\'SECRET"),  # E'...' escapes whatever the mode
        ("careful", r"UPDATE t SET a='\'SECRET',b=':"),
        ("careful", r"SELECT 'it\'SECRET', 'b'"),
    ],
)
def test_a_reading_that_another_quoting_would_leave_open_is_not_taken_for_the_right_one(
    dialect: str, text: str
) -> None:
    assert sql.sanitized(text, dialect) is None


@settings(max_examples=400, deadline=None)
@given(statements())
def test_no_literal_and_no_comment_survives(made: tuple[str, str]) -> None:
    dialect, text = made
    found = sql.sanitized(text, dialect)
    assert found is None or MARK not in found
    cut = text[: len(text) * 2 // 3]
    found = sql.sanitized(cut, dialect)
    assert found is None or MARK not in found


@settings(max_examples=200, deadline=None)
@given(
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False)
)
def test_no_number_survives(number: Any) -> None:
    found = sql.sanitized(f"SELECT {number}, ({number}) FROM t WHERE a={number} AND b > {number}", "careful")
    assert found is not None
    assert not any(letter.isdigit() for letter in found), found


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["identifier", "string", "careful"]))
def test_any_text_is_read_or_dropped_and_what_is_read_stays(text: str, dialect: str) -> None:
    found = sql.sanitized(text, dialect)
    if found is not None:
        assert sql.sanitized(found, dialect) == found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:pass@example.com:8443/a/b?token=x&n=5#frag", "https://example.com:8443/a/b?token=?&n=?"),
        ("http://host", "http://host"),
        ("/path?a", "/path?"[:-1] + "??"[1:] + "?"),
        ("postgres://u:p@ss@host/db?x=1;y=2", "postgres://host/db?x=?&y=?"),
        ("//u:p@host/x", "//host/x"),
        ("redis://:secret@127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("", ""),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert urls.sanitized(url) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.text(min_size=1).map(lambda s: s.replace("/", "").replace("?", "").replace("#", "")),
    st.text().map(lambda s: s.replace("#", "")),
)
def test_no_credential_and_no_value_of_a_query_survives(user: str, value: str) -> None:
    found = urls.sanitized(
        f"https://{user}SECRET:SECRET@h/p?a=SECRET{value.replace('&', '').replace(';', '').replace('=', '')}"
    )
    assert "SECRET" not in found


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc==\n-----END RSA PRIVATE KEY-----"
LOOKS = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11AAAA_" + "b" * 30,
    "glpat-" + "x1" * 10,
    "xoxb-" + "123456789012-abcdef",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "sk-proj-" + "abcDEF123" * 4,
    "AIza" + "SyD-1" * 7,
    "SG." + "a" * 22 + "." + "b" * 43,
    JWT,
    PEM,
    PEM[:60],
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "378282246310005",
    "6011111111111117",
]


@pytest.mark.parametrize("secret", LOOKS)
def test_what_looks_like_a_secret_is_filtered_wherever_it_is(secret: str) -> None:
    for text in (secret, f"it is {secret}.", f"a,{secret},b", f"42 {secret} 12/25"):
        found = RULES.plain(text)
        assert secret not in found
        assert FILTERED in found
        assert secret[5:] not in found
    assert RULES.plain({"note": [secret]}) == {"note": [FILTERED]}
    assert RULES.message(f"failed for {secret}") == f"failed for {FILTERED}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def123", "Authorization: [FILTERED]"),
        ("got bearer abcdef123456", "got bearer [FILTERED]"),
        ("postgres://me:hunter2@db/x", "postgres://[FILTERED]@db/x"),
        ("host=db password=hunter2 user=me", "host=db password=[FILTERED] user=me"),
        ('{"password": "hun\\"ter2", "n": 1}', '{"password": [FILTERED], "n": 1}'),
        ("{'api-key': 'abc', 'n': 1}", "{'api-key': [FILTERED], 'n': 1}"),
        ('"{\\"client_secret\\": \\"abc\\", \\"n\\": 1}"', '"{\\"client_secret\\": [FILTERED], \\"n\\": 1}"'),
        ("?access_token=abc&page=2", "?access_token=[FILTERED]&page=2"),
        ("IBAN: DE89370400440532013000", "IBAN: [FILTERED]"),
        ("4111111111111112", "4111111111111112"),  # its check digit is wrong
        ("1700000000000000000", "1700000000000000000"),  # a time in ns
        ("sk-1", "sk-1"),
        ("basic configuration", "basic configuration"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("passwords are bad", "passwords are bad"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert RULES.plain(text) == expected


def test_numbers_of_cards_are_filtered_as_numbers_too() -> None:
    assert RULES.plain([4111111111111111, 4111111111111112, 1700000000000000000]) == [
        FILTERED,
        4111111111111112,
        1700000000000000000,
    ]


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Authorization",
        "X-Api-Key",
        "sessionid",
        "credit_card",
        "csrftoken",
        "my_IBAN",
        "Set-Cookie",
        "db_passwd",
    ],
)
def test_the_values_of_secret_names_are_filtered(key: str) -> None:
    assert RULES.plain({key: "x", "n": 1}) == {key: FILTERED, "n": 1}


def test_a_secret_at_the_cut_leaves_no_part() -> None:
    found = RULES.plain("x" * 1_990 + " " + JWT)
    assert "eyJ" not in found


def test_time_grows_with_the_text_only() -> None:
    start = time.process_time()
    for text in (
        "password" * 250,
        "a" * 2_000,
        "1" * 2_000,
        "://" * 600,
        "token=" * 300,
        '\\"token\\":' * 200,
        "-----BEGIN PRIVATE KEY-----" * 70,
    ):
        RULES.plain(text)
    for text in (
        "'" * 8_000,
        "(" * 8_000,
        "?," * 4_000,
        "_a " * 2_600,
        "\\'" * 4_000,
        "1e+" * 2_600,
        "(?,?),(" * 1_100,
    ):
        sql.sanitized(text, "careful")
    assert time.process_time() - start < 2


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert type(RULES.plain(text)) is str
    assert type(RULES.message(text)) is str


PROGRAM = """
    import autoinst, os

    def query(sql):
        pass

    def job(token, note, card, url):
        query("SELECT * FROM users WHERE mail = 'me@example.com' AND n = 7")
        with autoinst.instrument("query.postgresql", body="SELECT 'private'"):
            pass
        with autoinst.instrument("request.x", title="GET https://me:pw@host/?a=1", body="Authorization: Basic abc="):
            pass
        autoinst.Transaction.current().set_tags({"api_key": "k", "note": "password=x1y2"})
        raise ValueError(f"no such user: {note}, token: 5")

    try:
        job("t", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", 4111111111111111, "https://me:pw@host/")
    except ValueError:
        pass
"""
PROGRAM_RULES = """
    version: 1
    defaults: {env: [SECRET_THING, NORMAL], redact_messages: %s}
    jobs:
      - function: __main__.job
        payload: {args: "${args}"}
    events:
      - {function: __main__.query, name: query.sql, body: "${sql}"}
"""


@pytest.mark.parametrize("without_messages", [False, True])
def test_nothing_of_it_is_in_the_files_of_a_home(tmp_path: Path, without_messages: bool) -> None:
    program = Program(tmp_path)
    program.write("main.py", PROGRAM)
    program.write("rules.yaml", PROGRAM_RULES % str(without_messages).lower())
    environ = {"SECRET_THING": "s3cr3t", "NORMAL": "postgres://u:pw@h/d"}
    process = program.run("main.py", environ=environ, AUTOINST_AGENT="off")
    record = process.one()
    assert record["args"] == [FILTERED, FILTERED, FILTERED, "https://[FILTERED]@host/"]  # the first by its name
    assert [(event["title"], event["body"]) for event in record["events"]] == [
        ("SELECT", "SELECT * FROM users WHERE mail = ? AND n = ?"),
        ("SELECT", "SELECT ?"),
        ("GET https://host/?a=?", f"Authorization: {FILTERED}"),
    ]
    assert record["tags"] == {"api_key": FILTERED, "note": f"password={FILTERED}"}
    message = FILTERED if without_messages else f"no such user: {FILTERED}, token: 5"
    assert record["exception"]["message"] == message
    kept = [
        place for place in files(tmp_path / "home") if "cache" not in Path(place).parts
    ]  # which has the program's code
    everything = b"".join(Path(place).read_bytes() for place in kept)
    assert b"no such user" in everything or without_messages
    for secret in (b"me@example.com", b"'private'", b"sk_live", b"4111111111111111", b"s3cr3t", b"me:pw", b"u:pw"):
        assert secret not in everything


def files(folder: Path) -> list[str]:
    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]


def test_no_more_of_a_long_statement_is_remembered_than_is_read() -> None:
    for number in range(20):
        sql.sanitized(f"INSERT INTO t VALUES ({number}, '" + "x" * 300_000 + "')")
    assert max(len(key[0]) for key in sql._known) <= sql.MAX_LENGTH + 1


def test_a_command_of_a_shell_shows_its_program_alone(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs:\n  - {function: __main__.job}\n")
    program.write(
        "worker.py",
        """
        import subprocess

        def job():
            subprocess.run("SALT=hidden true", shell=True)
            subprocess.run("true\t--key=hidden", shell=True)
            subprocess.run("true\\n: hidden", shell=True)
            subprocess.Popen("SALT=hidden true", shell=True).wait()
            subprocess.run(["true", "hidden"])

        job()
        """,
    )
    record = program.run("worker.py", AUTOINST_PACKS="subprocess").one()
    assert [event["title"] for event in record["events"]] == ["SALT", "true", "true", "SALT", "true"]


@pytest.mark.service
@pytest.mark.once
def test_a_command_given_to_redis_as_one_text_shows_its_name_alone(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.write("rules.yaml", "version: 1\njobs:\n  - {function: __main__.job}\n")
    program.write(
        "worker.py",
        """
        import sys, redis

        client = redis.Redis.from_url(sys.argv[1])

        def job():
            client.execute_command("SET key hidden")
            client.execute_command(b"GET key")
            client.set("key", "hidden")

        job()
        """,
    )
    with Redis() as server:
        record = program.run("worker.py", server.database(0), AUTOINST_PACKS="redis").one()
    assert [event["title"] for event in record["events"]] == ["SET", "GET", "SET"]


@pytest.mark.parametrize(
    ("text", "closely"),
    [
        ("GET http://127.0.0.1:8000/orders/17", False),
        ("GET http://ada:lovelace@127.0.0.1/orders", True),
        ("ada@example.org", False),
        ("see http://example.org or write to ada@example.org", True),
        ("GET http://127.0.0.1:38761/order/123456", False),  # 16 digits, apart
        ("at 2026-11-28 14:16:39, pid 6381, order 31337", False),
        ("paid by 4111-1111 1111-1111", True),
    ],
)
def test_only_what_may_have_a_secret_is_looked_at_closely(text, closely):
    assert secrets.suspicious(text) is closely


def test_a_class_is_not_asked_whether_it_is_equal_to_a_list():
    class Loud(type):
        __hash__ = type.__hash__

        def __eq__(cls, other):
            raise AssertionError("the program's code ran")

    class Values(list[int], metaclass=Loud):
        pass

    assert Sanitizer().plain({"a": Values([1, 2])}) == {"a": [1, 2]}
