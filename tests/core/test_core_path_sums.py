"""A path table that is added part by part is the table of its distinct paths."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core import analyze
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import PathSums, TableError, read_paths

_PATHS = st.lists(st.sampled_from(["a", "b c", "direct", "é"]), max_size=4).map(" > ".join)
_ROWS = st.lists(st.tuples(_PATHS, st.integers(0, 3), st.integers(-5, 10**6), st.integers(0, 3)), max_size=30)


def columns(rows: list[tuple[str, int, int, int]]) -> dict[str, list[Any]]:
    return {
        "path": [row[0] for row in rows],
        "total_conversions": [row[1] for row in rows],
        "total_conversion_value": [Decimal(row[2]) / 1_000_000 if row[1] else 0 for row in rows],
        "total_null": [row[3] for row in rows],
    }


@settings(max_examples=100, deadline=None)
@given(_ROWS, st.integers(1, 7))
def test_parts_have_the_state_of_the_whole(rows: list[tuple[str, int, int, int]], size: int) -> None:
    whole = read_paths(columns(rows))
    sums = PathSums()
    added = [sums.add(columns(rows[start : start + size])) for start in range(0, len(rows), size)]
    table = sums.table()
    assert sum(added) == len(rows)
    assert len(table.batch) == len(sums) == len({row[0] for row in rows})
    assert JourneyState.fit(table.batch, table.outcomes) == JourneyState.fit(whole.batch, whole.outcomes)


def test_every_model_gives_the_numbers_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    names = ["ads", "mail", "direct", "shop", "social"]
    paths = [" > ".join(rng.choice(names, size=rng.integers(0, 5))) for _ in range(4_000)]
    ended = rng.integers(0, 2, size=4_000)
    rows = [
        (path, int(one), int(rng.integers(1, 9)) * 1_000_000, 1 - int(one))
        for path, one in zip(paths, ended, strict=True)
    ]
    sums = PathSums()
    for start in range(0, 4_000, 700):
        sums.add(columns(rows[start : start + 700]))
    assert len(sums) < 1_000
    for whole, summed in zip(analyze(columns(rows)).models, analyze(sums.table()).models, strict=True):
        assert whole.model == summed.model
        for one, other in zip(whole.channels, summed.channels, strict=True):
            assert one["channel"] == other["channel"]
            for field in ("conversions", "value", "share"):
                assert one[field] == pytest.approx(other[field], rel=1e-9, abs=1e-12), (whole.model, field)


def test_a_bad_row_is_named_among_those_just_added() -> None:
    sums = PathSums()
    sums.add(columns([("a", 1, 0, 0)] * 5))
    with pytest.raises(TableError, match=r"^row 2: path: "):
        sums.add(columns([("a", 1, 0, 0), ("a >  > b", 1, 0, 0)]))
    with pytest.raises(TableError, match=r"^row 1: total_conversions: "):
        sums.add(columns([("a", -1, 0, 0)]))


def test_sums_beyond_64_bits_are_refused() -> None:
    sums = PathSums()
    largest: dict[str, list[Any]] = {
        "path": ["a"],
        "total_conversions": [1],
        "total_conversion_value": [Decimal(2**62) / 1_000_000],
    }
    sums.add(largest)
    with pytest.raises(TableError, match="more than 64 bits"):
        sums.add(largest)
    assert sums.table().outcomes.value_micros.tolist() == [2**62]


def test_no_rows_are_an_empty_table() -> None:
    assert len(PathSums().table().batch) == 0
