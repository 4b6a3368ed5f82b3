from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoinst.rules.expressions import Unavailable, compile_field, duration_ns, time_ns
from autoinst.rules.model import Field
from autoinst.rules.translate import translate


def evaluate(text: str, **values: Any) -> Any:
    found = translate(text)
    return compile_field(Field(found.source, found.literal, found.names), tuple(values))(*values.values())


UTC = dt.timezone.utc
NAIVE_MIN, NAIVE_MAX = (dt.datetime.combine(day, dt.time(0)) for day in (dt.date.min, dt.date.max))
NOON = dt.datetime(2024, 5, 6, 12, 0, 0, 250_000, tzinfo=UTC)
NOON_NS = 1_714_996_800_250_000_000


class Long(int):
    """A number as pika makes one of 64 bits, and of which nothing is asked."""

    def asked(self, *_arguments: object) -> Any:
        raise AssertionError("asked")

    __index__ = __int__ = __float__ = __str__ = __repr__ = __lt__ = __gt__ = __mul__ = __eq__ = __add__ = asked
    __hash__ = int.__hash__


class Real(float):
    __float__ = __str__ = __repr__ = __lt__ = __gt__ = __mul__ = __eq__ = __add__ = Long.asked
    __hash__ = float.__hash__


class Text(str):  # noqa: SLOT000 - as programs have them
    __str__ = __repr__ = __len__ = __getitem__ = encode = Long.asked  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        (NOON, {}, NOON_NS),
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))), {}, NOON_NS),
        (NOON.replace(tzinfo=None), {}, NOON_NS),
        (NOON.replace(tzinfo=None), {"naive": "utc"}, NOON_NS),
        ("2024-05-06T12:00:00.25Z", {}, NOON_NS),
        ("2024-05-06 17:30:00.250+05:30", {}, NOON_NS),
        ("2024-05-06T12:00:00.250000123-0000", {}, NOON_NS),
        (b"2024-05-06T12:00:00,25+00", {}, NOON_NS),
        ("2024-05-06T12:00", {}, NOON_NS - 250_000_000),
        ("2024-05-06", {}, NOON_NS - 250_000_000 - 12 * 3600 * 10**9),
        (NOON_NS / 1e9, {}, NOON_NS),
        (1_714_996_800, {}, NOON_NS - 250_000_000),
        (1_714_996_800_250, {}, NOON_NS),
        (1_714_996_800_250_000, {}, NOON_NS),
        (NOON_NS, {}, NOON_NS),
        ("1714996800250", {}, NOON_NS),
        ("1714996800.25", {}, NOON_NS),
        (5, {"unit": "s"}, 5 * 10**9),
        (5.5, {"unit": "ms"}, 5_500_000),
        (5, {"unit": "ns"}, 5),
    ],
)
def test_times_in_every_form(value: Any, options: dict[str, Any], expected: int) -> None:
    assert time_ns(value, **options) == expected


def test_naive_local_times_follow_the_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "EST+5")
    time.tzset()
    try:
        assert time_ns(NOON.replace(tzinfo=None), naive="local") == NOON_NS + 5 * 3600 * 10**9
        assert time_ns("2024-05-06T12:00:00.25", naive="local") == NOON_NS + 5 * 3600 * 10**9
        assert time_ns(NOON, naive="local") == NOON_NS
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_timedelta_is_how_long_ago() -> None:
    import time

    before = time.time_ns()
    found = time_ns(dt.timedelta(seconds=60))
    assert before - 60 * 10**9 <= found <= time.time_ns() - 60 * 10**9


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        -1,
        0,
        5,
        10**30,
        1e300,
        True,
        None,
        "",
        "soon",
        "9" * 80,
        b"\xff",
        [],
        dt.date(2024, 1, 1),
        NAIVE_MIN,
        NAIVE_MAX,
        dt.datetime.max.replace(tzinfo=UTC),
        dt.timedelta.max,
        dt.timedelta.min,
        "2024-13-01",
        "2024-01-01T99:00",
    ],
)
def test_what_is_no_time_is_unavailable(value: Any) -> None:
    for naive in (None, "utc", "local"):
        with pytest.raises(Unavailable):
            time_ns(value, None, naive)


def test_a_broken_zone_is_unavailable() -> None:
    class Zone(dt.tzinfo):
        def dst(self, when: dt.datetime | None) -> dt.timedelta:
            raise RuntimeError

        def tzname(self, when: dt.datetime | None) -> str:
            raise RuntimeError

        def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
            raise RuntimeError

    with pytest.raises(Unavailable, match="zone raised RuntimeError"):
        time_ns(dt.datetime(2024, 1, 1, tzinfo=Zone()))


@given(
    st.one_of(
        st.floats(), st.integers(), st.text(max_size=70), st.binary(max_size=70), st.datetimes(), st.timedeltas()
    ),
    st.sampled_from([None, "s", "ms", "us", "ns"]),
    st.sampled_from([None, "utc", "local"]),
)
def test_time_ns_gives_a_storable_number_or_is_unavailable(value: Any, unit: str | None, naive: str | None) -> None:
    try:
        found = time_ns(value, unit, naive)
    except Unavailable:
        return
    assert type(found) is int
    assert 0 < found < 2**63


@given(
    st.datetimes(
        min_value=NOON.replace(year=1971, tzinfo=None),
        max_value=NOON.replace(year=2200, tzinfo=None),
        timezones=st.just(UTC),
    )
)
def test_datetimes_and_their_iso_text_are_exact(moment: dt.datetime) -> None:
    exact = (moment - dt.datetime(1970, 1, 1, tzinfo=UTC)) // dt.timedelta(microseconds=1) * 1000
    assert time_ns(moment) == time_ns(moment.isoformat()) == exact


def test_durations() -> None:
    assert duration_ns(12.5) == 12_500_000
    assert duration_ns(2, "s") == 2 * 10**9
    assert duration_ns(dt.timedelta(milliseconds=-3)) == -3_000_000
    assert duration_ns("7") == 7_000_000
    for wrong in (float("nan"), 1e30, None, True, "x", object(), dt.timedelta.max):
        with pytest.raises(Unavailable):
            duration_ns(wrong)


def test_numbers_and_texts_of_a_class_of_their_own_are_read_without_asking_it() -> None:
    assert time_ns(Long(1_714_996_800_250)) == NOON_NS
    assert time_ns(Real(1_714_996_800.25)) == NOON_NS
    assert time_ns(Text("2024-05-06T12:00:00.25Z")) == NOON_NS
    assert duration_ns(Long(5)) == duration_ns(Real(5.0)) == duration_ns(Text("5")) == 5_000_000
    assert evaluate("${x + 1}", x=Long(5)) == evaluate("${1 + x}", x=Long(5)) == 6
    assert evaluate("${x * x}", x=Real(1.5)) == 2.25
    with pytest.raises(Unavailable):
        evaluate("${x + 1}", x=Text("5"))


def test_ms_is_for_times_and_timedeltas() -> None:
    assert evaluate("${ms(t)}", t=NOON) == NOON_NS / 1e6
    assert evaluate("${ms(t)}", t=dt.timedelta(seconds=2)) == 2000.0
    assert evaluate("${ms(t, 's')}", t=5) == 5000.0
    assert evaluate("${max(ms(a), ms(b))}", a=NOON, b=1_714_996_801) == 1_714_996_801_000.0
    with pytest.raises(Unavailable):
        evaluate("${ms(t, 'weeks')}", t=5)
