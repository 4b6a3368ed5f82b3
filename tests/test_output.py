"""Tables, durations and times for people."""

from __future__ import annotations

import io
import time

import pytest

from autoinst.cli.output import Column, Output, display_width, printable
from autoinst.wording import ago, bytes_text, duration, parse_since, to_json

SECOND = 10**9


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, None),
        (0.0, "0.00 ms"),
        (9.994, "9.99 ms"),
        (12.34, "12.3 ms"),
        (999.94, "999.9 ms"),
        (1000, "1.00 s"),
        (59_990, "59.99 s"),
        (60_000, "1m 00s"),
        (3_599_000, "59m 59s"),
        (7_260_000, "2h 01m"),
    ],
)
def test_duration(ms: float | None, text: str | None) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (0.4, "now"), (1, "1s ago"), (61, "1m ago"), (7300, "2h ago"), (200_000, "2d ago"), (-30, "in 30s")],
)
def test_ago(seconds: float, text: str) -> None:
    now = 1_800_000_000 * SECOND
    assert ago(now - int(seconds * SECOND), now) == text


def test_parse_since() -> None:
    now = 1_800_000_000 * SECOND
    assert parse_since("90s", now) == now - 90 * SECOND
    assert parse_since("1.5h", now) == now - 5400 * SECOND
    assert parse_since("2027-01-15T08:00:00Z", now) == now
    assert parse_since("2027-01-15T09:00:00+01:00", now) == now
    assert parse_since("9999-12-31", now) == 2**63 - 1
    assert parse_since("0001-01-01", now) == 0
    assert parse_since("999999999999w", now) == 0
    for text in ("", "x", "5", "5 parsecs", "2027-13-01"):
        with pytest.raises(ValueError, match="neither a span"):
            parse_since(text, now)


def test_recorded_text_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    out = Output(stream, color=True)
    hostile = "a\033[31mb\r\n\x9bc\u202e"
    out.line(out.style(hostile, "bold"))
    out.table((Column("NAME"),), [(hostile,)])
    assert stream.getvalue().split("\n") == [
        "\033[1ma?[31mb? ?c?\033[0m",
        "\033[2mNAME\033[0m",
        "a?[31mb? ?c?",
        "",
    ]


def test_table_aligns_wide_letters_and_leaves_out_empty_columns() -> None:
    stream = io.StringIO()
    out = Output(stream)
    columns = (Column("NAME"), Column("EMPTY"), Column("COUNT", right=True))
    out.table(columns, [("ab", None, "1"), ("日本", "", "22")])
    assert stream.getvalue() == "NAME  COUNT\nab        1\n日本     22\n"
    assert display_width("日本") == 4


def test_a_narrow_terminal_cuts_flexible_columns() -> None:
    stream = io.StringIO()
    out = Output(stream)
    out.width = 30
    out.table((Column("ID"), Column("TEXT", flexible=True)), [("12345678", "x" * 40)])
    lines = stream.getvalue().splitlines()
    assert [display_width(line) for line in lines] == [14, 30]
    assert lines[1].endswith("x…")


def test_an_encoding_without_the_letters_is_no_error() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    out = Output(stream)
    out.line(out.status("ok") + " é")
    out.data({"é": "\udc80"})
    stream.flush()
    assert stream.buffer.getvalue() == b'+ ok \\xe9\n{"\\xe9": "\\udc80"}\n'


def test_json_of_what_json_cannot_hold() -> None:
    assert to_json({"a": float("nan"), 1: (b"x", {2}), "deep": [{"b": float("-inf")}]}) == (
        '{"a": "nan", "1": ["b\'x\'", [2]], "deep": [{"b": "-inf"}]}'
    )


def test_bytes_text() -> None:
    assert [bytes_text(n) for n in (0, 1023, 1024, 5 << 20, 3 << 30)] == ["0 B", "1023 B", "1 KiB", "5 MiB", "3.0 GiB"]


def test_printable_keeps_ordinary_text() -> None:
    assert printable("é 日本 ✓") == "é 日本 ✓"


def test_a_text_of_megabytes_is_cut_at_once() -> None:
    out = Output(io.StringIO())
    began = time.process_time()
    assert out.cut("Endless" * 200_000, 12) == "EndlessEndl…"
    assert out.cut("e\u0301" * 200_000, 3) == "e\u0301e\u0301…"
    assert time.process_time() - began < 1  # seconds; it was minutes
