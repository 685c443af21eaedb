from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.journeys import JourneyBatch
from attributary.attribution_core.tables.events import read_events, touches_at_equal_times
from attributary.attribution_core.tables.paths import TableError, encode_paths, read_paths
from attributary.attribution_core.tables.times import time_micros
from attributary.attribution_core.tables.transforms import TRANSFORMS, TransformError, apply

DAY = 86_400_000_000


def paths_of(batch: JourneyBatch) -> list[list[str]]:
    names = [batch.index.names[code] for code in batch.channels]
    return [names[low:high] for low, high in zip(batch.offsets, batch.offsets[1:], strict=False)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b c", "direct", "é"]), max_size=6), max_size=8))
def test_encoding_keeps_every_path(paths: list[list[str]]) -> None:
    batch = encode_paths([" > ".join(path) for path in paths])
    assert paths_of(batch) == paths
    assert batch.direct.tolist() == [name == "direct" for path in paths for name in path]
    built = JourneyBatch.of_paths(paths)
    assert built.channels.tolist() == batch.channels.tolist()
    assert built.times.tolist() == batch.times.tolist()


def test_a_path_table_is_read_exactly() -> None:
    table = read_paths(
        {
            "path": ["a > b", "", None],
            "total_conversions": ["2", 0, 1.0],
            "total_conversion_value": ["0.1000005", "", "-3"],
            "total_null": [1, None, float("nan")],
        }
    )
    assert paths_of(table.batch) == [["a", "b"], [], []]
    assert table.outcomes.conversions.tolist() == [2, 0, 1]
    assert table.outcomes.value_micros.tolist() == [100_000, 0, -3_000_000]
    assert table.outcomes.nulls.tolist() == [1, 0, 0]
    assert not table.timed


@settings(max_examples=100, deadline=None)
@given(st.lists(st.decimals(-(10**10), 10**10, allow_nan=False, places=7) | st.integers(0, 10**9), max_size=8))
def test_amounts_are_read_to_the_micro(amounts: list[Any]) -> None:
    wanted = [int((Decimal(amount) * 1_000_000).to_integral_value()) for amount in amounts]
    columns: dict[str, list[Any]] = {"path": ["a"] * len(amounts), "total_conversions": [1] * len(amounts)}
    for cells in (amounts, [str(amount) for amount in amounts]):
        table = read_paths({**columns, "total_conversion_value": cells})
        assert table.outcomes.value_micros.tolist() == wanted


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"total_conversions": [1, 2]}, "one entry per row"),
        ({"total_conversion_value": []}, "one entry per row"),
        ({"total_conversion_value": ["inf"]}, "must be a number"),
        ({"path": ["a > "]}, "row 1: path: empty channel"),
        ({"path": [5]}, "row 1: path: must be text"),
        ({"total_conversions": ["1.5"]}, "whole number"),
        ({"total_conversions": ["-1"]}, "from 0 to"),
        ({"total_conversions": ["many"]}, "whole number"),
        ({"total_conversions": ["1e99"]}, "whole number"),
        ({"total_conversions": ["Infinity"]}, "whole number"),
        ({"total_conversion_value": ["x"]}, "total_conversion_value: 'x' must be a number"),
        ({"total_conversion_value": ["1e30"]}, "too large"),
        ({"total_conversions": [0], "total_conversion_value": [5]}, "without total_conversions"),
    ],
)
def test_bad_path_tables_are_refused_with_row_and_rule(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(TableError, match=rule):
        read_paths({"path": ["a"], "total_conversions": [1], **change})


def test_missing_columns_are_named() -> None:
    with pytest.raises(TableError, match="total_conversions"):
        read_paths({"path": ["a"]})
    with pytest.raises(TableError, match="the columns time, channel are missing; there are user"):
        read_events({"user": ["a"]})


EVENTS: dict[str, list[Any]] = {
    "user": ["u", "u", "u", "v", "u", "v"],
    "time": [
        "2026-01-01T00:00:00Z",
        "2026-01-03",
        "2026-01-03T12:00:00+00:00",
        "2026-01-01",
        1_768_000_000,
        "2026-01-09",
    ],
    "channel": ["search", "mail", "", "direct", "search", None],
    "conversion": ["0", "", "true", "no", None, "1"],
    "value": [None, None, "19.99", None, None, ""],
}


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)))
def test_events_become_journeys_whatever_their_order(order: list[int]) -> None:
    table = read_events({name: [cells[row] for row in order] for name, cells in EVENTS.items()})
    assert table.timed
    assert paths_of(table.batch) == [["search", "mail"], ["search"], ["direct"]]
    assert table.outcomes.conversions.tolist() == [1, 0, 1]
    assert table.outcomes.value_micros.tolist() == [19_990_000, 0, 0]


def days_only(names: tuple[str, str], seed: int = 5) -> dict[str, list[Any]]:
    """Four hundred users with a touch of each channel on the day of their conversion, in random order."""
    generator = np.random.default_rng(seed)
    rows = [
        (f"u{user}", name, name == "") for user in range(400) for name in (*generator.permutation(names).tolist(), "")
    ]
    return {
        "user": [user for user, _, _ in rows],
        "time": ["2026-01-01"] * len(rows),
        "channel": [name for _, name, _ in rows],
        "conversion": [bought for _, _, bought in rows],
    }


def test_names_of_channels_do_not_order_equal_times() -> None:
    for names in (("a", "z"), ("z", "a")):
        found = analyze(days_only(names), ["first", "last"])
        for report in found:
            assert 0.4 < report.channels[0]["share"] < 0.6
            assert report.diagnostics["touches_at_equal_times"] == 800
        assert "800 touches are at the time of one of another channel" in str(found)


def test_event_id_then_row_order_decides_at_equal_times() -> None:
    columns = {**days_only(("a", "z")), "event_id": [f"{number * 7919 % 1201:04}" for number in range(1200)]}
    by_rows = read_events({name: cells for name, cells in columns.items() if name != "event_id"})
    assert paths_of(by_rows.batch)[0] == columns["channel"][:2]
    by_id = read_events(columns)
    assert paths_of(by_id.batch) != paths_of(by_rows.batch)
    order = np.random.default_rng(1).permutation(1200).tolist()
    again = read_events({name: [cells[row] for row in order] for name, cells in columns.items()})
    assert paths_of(again.batch) == paths_of(by_id.batch)
    with pytest.raises(TableError, match="row 2: event_id: must not be empty"):
        read_events({**columns, "event_id": ["1", None, *columns["event_id"][2:]]})


def test_only_touches_of_different_channels_are_at_equal_times() -> None:
    batch = JourneyBatch.of(
        [
            [(1, "1", "a"), (1, "2", "a"), (2, "3", "a"), (2, "4", "a"), (2, "5", "b"), (3, "6", "b")],
            [],
            [(3, "7", "a")],
        ],
        [3, 3, 3],
    )
    assert touches_at_equal_times(batch) == 3
    assert touches_at_equal_times(JourneyBatch.of([], [])) == 0
    report = analyze(EVENTS, ["last"])["last"]
    assert "touches_at_equal_times" not in report.diagnostics


def test_lookback_drops_old_touches_and_keeps_the_journey() -> None:
    table = read_events(EVENTS, lookback_micros=DAY)
    assert paths_of(table.batch) == [["mail"], ["search"], []]
    wider = read_events(EVENTS, lookback_micros=400 * DAY)
    assert paths_of(wider.batch) == paths_of(read_events(EVENTS).batch)
    # the boundary counts
    edge: dict[str, list[Any]] = {"user": ["u", "u"], "time": [0, 86_400], "channel": ["a", ""], "conversion": [0, 1]}
    assert paths_of(read_events(edge, lookback_micros=DAY).batch) == [["a"]]
    assert paths_of(read_events(edge, lookback_micros=DAY - 1).batch) == [[]]


def test_times_in_every_form_are_the_same_moment() -> None:
    moment = datetime(2026, 1, 3, 12, tzinfo=UTC)
    micros = int(moment.timestamp()) * 1_000_000
    forms = [
        moment,
        moment.replace(tzinfo=None),
        "2026-01-03T12:00:00Z",
        "2026-01-03T13:00:00+01:00",
        micros // 1_000_000,
    ]
    forms += [np.datetime64("2026-01-03T12:00:00"), f"{micros // 1_000_000}.0"]
    assert {time_micros(form, 1) for form in forms} == {micros}
    assert time_micros("1.000001", 1) == 1_000_001


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"time": ["soon"]}, "row 1: time: .* must be ISO"),
        ({"time": [""]}, "row 1: time: must not be empty"),
        ({"time": [None]}, "row 1: time: must not be empty"),
        ({"time": ["1e30"]}, "outside of 1970 to 2099"),
        ({"user": [""]}, "row 1: user"),
        ({"channel": [""]}, "neither"),
        ({"channel": ["a", "b"]}, "same length"),
    ],
)
def test_bad_event_tables_are_refused_with_row_and_rule(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(TableError, match=rule):
        read_events({"user": ["u"], "time": [1], "channel": ["a"], **change})


def test_transforms_on_a_known_journey() -> None:
    batch = JourneyBatch.of_paths([["a", "a", "b", "a"], [], ["a"]])
    found = {name: paths_of(apply(batch, [name])) for name in TRANSFORMS}
    assert found["unique"] == [["a", "a", "b", "a"], [], ["a"]]
    assert found["exposure"] == [["a", "b", "a"], [], ["a"]]
    assert found["first"] == [["a", "b"], [], ["a"]]
    assert found["last"] == [["b", "a"], [], ["a"]]
    assert found["frequency"] == [["a(3)", "b(1)"], [], ["a(1)"]]
    assert found["recency"] == [["a(0-1d)"] * 2 + ["b(0-1d)", "a(0-1d)"], [], ["a(0-1d)"]]
    assert paths_of(apply(batch, ["exposure", "frequency"])) == [["a(2)", "b(1)"], [], ["a(1)"]]
    with pytest.raises(TransformError, match="best"):
        apply(batch, ["best"])


def test_recency_names_the_age_of_a_touch() -> None:
    journey = [(0, "1", "a"), (90 * DAY, "2", "a"), (99 * DAY, "3", "direct")]
    found = apply(JourneyBatch.of([journey], [100 * DAY]), ["recency"])
    assert paths_of(found) == [["a(90d+)", "a(7-14d)", "direct(0-1d)"]]
    assert found.direct.tolist() == [False, False, True]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=6),
    st.lists(st.sampled_from(sorted(TRANSFORMS)), max_size=3),
)
def test_transforms_keep_journeys_and_the_order_of_times(paths: list[list[str]], steps: list[str]) -> None:
    batch = JourneyBatch.of_paths(paths)
    found = apply(batch, steps)  # a batch that exists is valid: the order of times is checked by its constructor
    assert len(found) == len(batch)
    assert ((found.lengths > 0) == (batch.lengths > 0)).all()
    assert (found.lengths <= batch.lengths).all()
