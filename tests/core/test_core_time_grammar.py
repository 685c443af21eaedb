"""The one grammar of times: every form means one moment, everything else is refused with its text and the grammar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.domain.time_grammar import (
    BEGINNING,
    END,
    TimeError,
    is_relative,
    midnight,
    parse_local,
    parse_time,
)  # fmt: skip

DAY = 86_400_000_000
NOW = 20_500 * DAY + 7 * 3_600_000_000 + 123
UNITS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY, "w": 7 * DAY}


@given(st.integers(BEGINNING, END - DAY), st.integers(-14 * 60, 14 * 60), st.sampled_from("T "))
def test_a_date_time_keeps_every_microsecond_in_every_offset(micros: int, minutes: int, separator: str) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    local = moment.astimezone(timezone(timedelta(minutes=minutes))) if micros > DAY else moment
    assert parse_time(local.isoformat(sep=separator), None) == micros
    assert parse_time(f"  {moment.isoformat(sep=separator).replace('+00:00', 'Z')} ", NOW) == micros


@given(st.integers(0, 999), st.sampled_from(sorted(UNITS)))
def test_so_long_ago_counts_from_the_moment_that_is_given(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert parse_time(text, NOW) == NOW - number * UNITS[unit]
    assert is_relative(text)
    with pytest.raises(TimeError, match="needs a present moment"):
        parse_time(text, None)


@given(st.dates(datetime(1970, 1, 1).date(), datetime(2199, 12, 31).date()))  # noqa: DTZ001  # a date has no zone
def test_a_date_is_its_midnight_in_utc(day: object) -> None:
    assert parse_time(str(day), None) % DAY == 0
    assert parse_time(str(day), None) == parse_time(f"{day}T00:00Z", None)
    assert parse_time(str(day), None) == parse_time(str(day).replace("-", ""), None)


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Kiritimati", "America/Havana"]).map(
    ZoneInfo
)


@given(st.integers(DAY * 400, END - DAY), st.integers(0, 300), ZONES)
def test_days_of_a_zone_begin_at_its_midnights(now: int, days: int, zone: ZoneInfo) -> None:
    def local(micros: int) -> datetime:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).astimezone(zone)

    today = local(now).date()
    assert parse_local("today", now).micros(zone) <= now
    for text, back in (("today", 0), ("yesterday", 1), (f"{days}d", days), (f"{days // 7}w", days // 7 * 7)):
        begun = parse_local(f" {text} ", now).micros(zone)
        assert begun == parse_local(str(today - timedelta(back)), now).micros(zone)
        assert local(begun).date() == today - timedelta(back) != local(begun - 1).date()
    for exact in (f"{days}h", "now", "2026-11-24T10:00:00+01:00", "beginning", "end", "1790000000000000"):
        assert parse_local(exact, now).micros(zone) == parse_time(exact, now)


def test_a_day_without_a_midnight_begins_with_its_first_moment() -> None:
    assert midnight(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo")) == parse_time("2018-11-04T03:00Z", None)
    assert parse_local("1970-01-01", NOW).micros(ZoneInfo("Asia/Tokyo")) == BEGINNING
    with pytest.raises(TimeError, match="is no time"):
        parse_local("30 d", NOW)


def test_the_words() -> None:
    assert parse_time("now", NOW) == NOW
    assert parse_time("today", NOW) == 20_500 * DAY
    assert parse_time("yesterday", NOW) == 20_499 * DAY
    assert (parse_time("beginning", None), parse_time("end", None)) == (BEGINNING, END)
    assert parse_time("1790000000000000", None) == 1_790_000_000_000_000
    assert not any(map(is_relative, ("beginning", "end", "2026-11-01", "1790000000000000", "30", "d")))
    assert parse_time("2026-11-24T10:00:00.1234567Z", None) % 1_000_000 == 123_456


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5min", "30 d", "d", "-5m", "5y", "5M", "\u00b2h", "\u0663\u0660d", "soon", "Today", "tomorrow",
        "2026-11", "2026-W45", "2026-305", "01.11.2026", "11/01/2026", "2026-11-24_10", "2026-11-24T10", "10:00",
        "1.5d", "last week", "30d ago", "now()", "2026-11-24T10:00:00+01:00[Europe/Berlin]", "--from", "nan", "1e9",
        "\x1b[31mred", "None",
    ],
)  # fmt: skip
def test_what_is_no_time_is_named_with_the_grammar(text: str) -> None:
    with pytest.raises(TimeError) as refused:
        parse_time(text, NOW)
    message = str(refused.value)
    assert "it must be a date (2026-11-01), a date-time with its offset" in message
    assert "30d" in message
    assert "\x1b" not in message
    assert "isoformat" not in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-13-01", "no such day"),
        ("2026-02-29", "no such day"),
        ("2026-11-24T25:00Z", "no such day, hour"),
        ("2026-11-24T10:00+24:00", "no such day, hour or offset"),
        ("2026-11-24T10:00:00", "must have an offset from UTC, for example 2026-11-24T10:00:00Z"),
        ("2026-11-24 10:00", "must have an offset"),
        ("1790000000", "looks like seconds or milliseconds"),
        ("1790000000000", "looks like seconds or milliseconds"),
        ("7258118400000001", "between 1970 and 2200"),
        ("9" * 5_000, "between 1970 and 2200"),
        ("1969-12-31", "between 1970 and 2200"),
        ("2200-01-02", "between 1970 and 2200"),
        ("0001-01-01T00:00:00+14:00", "between 1970 and 2200"),
        ("99999d", "between 1970 and 2200"),
    ],
)
def test_a_time_that_cannot_be_meant_says_why(text: str, reason: str) -> None:
    with pytest.raises(TimeError, match=reason) as refused:
        parse_time(text, NOW)
    assert len(str(refused.value)) < 400


@given(st.text(max_size=30))
def test_any_text_is_a_time_in_bounds_or_refused_in_one_printable_line(text: str) -> None:
    try:
        outcome: int | str = parse_time(text, NOW)
    except TimeError as error:
        outcome = str(error)
    assert outcome.isprintable() if isinstance(outcome, str) else BEGINNING <= outcome <= END
