"""Event tables as people have them: times, flags, refunds and repeated rows in every form that a frame may bring."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from attributary.attribution_core import analyze, read_events
from attributary.attribution_core.analysis.analyze import ANALYSES
from attributary.attribution_core.tables.paths import TableError
from tests.core.test_core_reading import NA

NEW_YEAR = 1_767_225_600  # 2026-01-01, seconds since 1970


def events(*rows: tuple[Any, ...]) -> dict[str, list[Any]]:
    """Rows of user, time, channel, conversion and value; later fields may be left out."""
    wide = [(*row, *("", 0, "")[len(row) - 2 :]) for row in rows]
    names = ("user", "time", "channel", "conversion", "value")
    return {name: [row[place] for row in wide] for place, name in enumerate(names)}


def names_of(columns: dict[str, list[Any]]) -> list[list[str]]:
    batch = read_events(columns).batch
    names = [batch.index.names[code] for code in batch.channels]
    return [names[low:high] for low, high in zip(batch.offsets, batch.offsets[1:], strict=False)]


def test_blanks_make_no_other_person_and_no_other_channel() -> None:
    columns = events(("u1", 0, " search"), (" u1", 1, "search"), ("u1 ", 2, "search ", 1))
    assert names_of(columns) == [["search"] * 3]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (("u", 0, " "), "row 2: neither a channel nor a conversion"),
        ((" ", 0, "a"), "row 2: user: must not be empty"),
        ((NA, 0, "a"), "row 2: user: must not be empty"),
        (("u", 0, "a >"), "row 2: channel: channel 'a >' begins or ends with '>'"),
        (("u", 0, "a\x00"), r"row 2: channel: channel 'a\\x00' holds a control character"),
        (("u", 0, "a", 0, 99), "row 2: value: without a conversion"),
        (("u", 0, "a", "", "-1"), "row 2: value: without a conversion"),
        (("u", "", "a"), "row 2: time: must not be empty"),
        (("u", None, "a"), "row 2: time: must not be empty"),
        (("u", NA, "a"), "row 2: time: must not be empty"),
        (("u", math.nan, "a"), "row 2: time: must not be empty"),
        (("u", np.datetime64("NaT"), "a"), "row 2: time: must not be empty"),
        (("u", "soon", "a"), "row 2: time: 'soon' must be ISO 8601 or seconds since 1970"),
        (("u", "1_767_225_600", "a"), "row 2: time: '1_767_225_600' must be ISO"),
        (("u", True, "a"), "row 2: time: 'True' must be ISO"),
        (("u", "1712050112345", "a"), "row 2: time: '1712050112345' is outside .*milliseconds: divide by 1,000$"),
        (("u", 1_712_050_112_345, "a"), "row 2: time: .*looks like milliseconds"),
        (("u", 1_712_050_112_345_678.0, "a"), "row 2: time: .*looks like microseconds: divide by 1,000,000$"),
        (("u", "1712050112345678901", "a"), "row 2: time: .*looks like nanoseconds"),
        (("u", "9" * 5000, "a"), "row 2: time: '9{37}"),
        (("u", "1e999999999", "a"), "row 2: time: '1e999999999' must be ISO 8601"),
        (("u", "1e30", "a"), "row 2: time: '1e30' is outside of 1970 to 2099$"),
        (("u", -5, "a"), "row 2: time: '-5' is outside of 1970 to 2099$"),
        (("u", "1712-05-01", "a"), "row 2: time: '1712-05-01' is outside of 1970 to 2099$"),
        (("u", "2100-01-01", "a"), "row 2: time: '2100-01-01' is outside"),
        (("u", 0, "a", "maybe"), "row 2: conversion: 'maybe' is neither yes nor no"),
    ],
)
@pytest.mark.parametrize("first", [0, "2026-01-01"])
def test_bad_rows_are_refused_with_row_column_and_rule(row: tuple[Any, ...], rule: str, first: Any) -> None:
    with pytest.raises(TableError, match=rule) as caught:
        read_events(events(("u", first, "a"), row))
    assert caught.value.row == 2


def test_values_without_a_column_of_conversions_are_refused() -> None:
    columns = events(("u", 0, "a", 0, ""), ("u", 1, "a", 0, "5"))
    del columns["conversion"]
    with pytest.raises(TableError, match="row 2: value: without a conversion"):
        read_events(columns)


@pytest.mark.parametrize(
    "cell", [True, np.True_, 1, 1.0, "1", "1.0", "1.00", " TRUE ", "t", "Yes", "y", Decimal("1.00"), np.int64(1)]
)
def test_a_conversion_is_what_says_so(cell: Any) -> None:
    assert read_events(events(("u", 0, "a", cell))).outcomes.conversions.tolist() == [1]


@pytest.mark.parametrize(
    "cell",
    [
        False,
        np.False_,
        0,
        0.0,
        "0",
        "0.00",
        "-0",
        "False",
        "f",
        "no",
        "N",
        "",
        " ",
        None,
        math.nan,
        NA,
        Decimal("0.00"),
    ],
)
def test_a_touch_is_what_says_no_or_nothing(cell: Any) -> None:
    assert read_events(events(("u", 0, "a", cell))).outcomes.conversions.tolist() == [0]


@pytest.mark.parametrize("cell", [-1, 2, "2", 0.5, "off", "on", "nein", "nan", "x", "1_0", [1]])
def test_any_other_flag_is_refused(cell: Any) -> None:
    with pytest.raises(TableError, match=r"row 1: conversion: .* is neither yes nor no"):
        read_events(events(("u", 0, "a", cell)))


def test_times_in_columns_of_one_form_are_the_same_moments() -> None:
    moments = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)]
    micros = [NEW_YEAR * 1_000_000, (NEW_YEAR + 97_445) * 1_000_000 + 6]
    east = [moment + timedelta(hours=2) for moment in moments]
    forms: list[Any] = [
        moments,
        [moment.replace(tzinfo=None) for moment in moments],
        [moments[0], moments[1].replace(tzinfo=None)],
        [moment.isoformat() for moment in moments],
        [f" {moment:%Y-%m-%d %H:%M:%S.%f} " for moment in moments],
        [f"{moment:%Y-%m-%dT%H:%M:%S.%f}+02:00" for moment in east],
        [date(2026, 1, 1), moments[1]],
        ["20260101", moments[1].isoformat()],
        [NEW_YEAR, Decimal(micros[1]) / 1_000_000],
        [str(NEW_YEAR), "1767323045.000006"],
        np.array(micros, dtype="datetime64[us]"),
        np.array(micros, dtype="datetime64[us]").astype("datetime64[ns]"),
        list(np.array(micros, dtype="datetime64[us]")),
    ]
    for form in forms:
        table = read_events({"user": ["u", "u"], "time": form, "channel": ["a", "b"]})
        assert table.batch.times.tolist() == micros, form
    assert read_events({"user": ["u"], "time": [date(2026, 1, 1)], "channel": ["a"]}).batch.times[0] == micros[0]


@pytest.mark.parametrize("cells", [np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"), ["2026-01-01", None]])
def test_a_missing_time_in_any_column_is_named(cells: Any) -> None:
    with pytest.raises(TableError, match="row 2: time: must not be empty"):
        read_events({"user": ["u", "u"], "time": cells, "channel": ["a", "b"]})


@pytest.mark.parametrize("name", ["user", "time", "channel", "conversion"])
@pytest.mark.parametrize("cell", [date(2026, 1, 1), "2026-01-01"])
def test_a_single_cell_in_the_place_of_a_column_is_named(name: str, cell: Any) -> None:
    columns: dict[str, Any] = {"user": ["u"], "time": [NEW_YEAR], "channel": ["a"], "conversion": [1], name: cell}
    with pytest.raises(TypeError, match=rf"{name}: must be a column, as a list is, not {type(cell).__name__}"):
        read_events(columns)


def test_times_that_are_all_long_ago_are_said() -> None:
    assert any("before 1990" in note for note in read_events(events(("u", 45_000, "a"))).notes)
    assert read_events(events(("u", NEW_YEAR, "a"))).notes == ()


def test_a_refund_takes_from_the_conversion_before_and_is_none() -> None:
    columns = events(
        ("u", 0, "a"),
        ("u", 10, "", 1, 50),
        ("u", 20, "b"),
        ("u", 30, "", 1, -20),
        ("u", 40, "", 1, 7),
        ("u", 40, "", 1, -7),
    )
    table = read_events(columns)
    assert names_of(columns) == [["a"], ["b"]]  # the refund did not end the second journey
    assert table.outcomes.conversions.tolist() == [1, 1]
    assert table.outcomes.value_micros.tolist() == [30_000_000, 0]  # at equal times a refund comes after its purchase
    assert table.notes[-1] == "refunds: 2, taken from the conversion before"
    shares = {row["channel"]: row["value"] for row in analyze(columns, ["last"])["last"].channels}
    assert shares == {"a": 30, "b": 0}


@pytest.mark.parametrize("model", ANALYSES)
def test_a_refund_of_nothing_stays_unattributed_and_is_counted(model: str) -> None:
    columns = events(
        *[("u", 86_400 * day, "ab"[day % 2], day % 3 == 0, "5" if day % 3 == 0 else "") for day in range(12)],
        ("v", 86_400, "a"),
        ("v", 86_401, "", 1, -5),
    )
    said = analyze(columns, [model], intervals=True, draws=10)[model]
    assert said.diagnostics["conversions"] == 4
    assert said.diagnostics["journeys"] == 6  # four converted; of u and of v one is left open
    assert said.diagnostics["value"] == 15
    assert said.diagnostics["unattributed_value"] == -5
    assert said.diagnostics["unattributed_conversions"] == 0
    assert said.diagnostics["refunds_without_conversion"] == 1
    if model not in {"poisson", "shapley_rate"}:
        assert sum(row["value"] for row in said.channels) == pytest.approx(20)
    assert any("refunds without a conversion before: 1" in note for note in said.diagnostics["notes"])


def test_repeated_rows_are_kept_and_said() -> None:
    columns = events(("u", 5, "a"), ("u", 5, "a"), ("u", 5, " a "), ("u", 9, "", 1, "3.0"), ("u", 9, "", True, 3))
    table = read_events(columns)
    assert table.outcomes.conversions.tolist() == [1, 1]
    assert table.batch.lengths.tolist() == [3, 0]
    assert any(note.startswith("rows that say the same as another: 3; all of them count") for note in table.notes)


def test_a_lookback_is_a_number_of_micros() -> None:
    with pytest.raises(ValueError, match="lookback_micros: must not be negative"):
        read_events(events(("u", 0, "a")), lookback_micros=-1)


def test_unknown_columns_of_events_are_said() -> None:
    columns = {**events(("u", NEW_YEAR, "a")), "valeu": ["1"]}
    del columns["value"]
    assert read_events(columns).notes == ("columns that are not used: valeu (did you mean value?)",)


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_nullable_columns_of_frames_are_read(module: str) -> None:
    frames = pytest.importorskip(module, reason=f"{module} is not needed")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    columns: dict[str, list[Any]] = {
        "user": ["u", "u", "v"],
        "time": [moment, moment + timedelta(days=1), moment],
        "channel": ["a", None, "b"],
        "conversion": [None, True, False],
        "value": [None, 12.5, None],
    }
    frame = frames.DataFrame(columns)
    for each in (frame, *([frame.convert_dtypes()] if module == "pandas" else [])):
        assert analyze(each, ["linear", "time_decay"]).to_json() == analyze(columns, ["linear", "time_decay"]).to_json()
    gap = frames.DataFrame({**columns, "time": [moment, None, moment]})
    with pytest.raises(TableError, match="row 2: time: must not be empty"):
        analyze(gap)
