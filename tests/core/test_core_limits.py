"""Sums that 64 bits cannot hold are refused by name, and documents are read to the letter; nothing wraps or is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.journeys import JourneyBatch, JourneyError, Outcomes
from attributary.attribution_core.domain.limits import LARGEST, magnitude
from attributary.attribution_core.models.rules import linear
from attributary.attribution_core.statistics.credit_sums import CreditSums, CreditSumsError
from attributary.attribution_core.statistics.exposures import ExposureCounts
from attributary.attribution_core.statistics.forgetting import UNIT
from attributary.attribution_core.statistics.state import JourneyState, StateError
from attributary.attribution_core.tables.paths import TableError, read_paths


def ints(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


def one_path(path: str, conversions: int, value_micros: int) -> JourneyState:
    return JourneyState.fit(
        JourneyBatch.of_paths([list(path)]), Outcomes(ints(conversions), ints(0), ints(value_micros))
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-LARGEST, LARGEST) | st.integers(-9, 9), max_size=6))
def test_a_magnitude_passes_the_limit_only_where_the_sum_does(numbers: list[int]) -> None:
    wanted = sum(map(abs, numbers))
    found = magnitude(ints(*numbers))
    assert found >= wanted
    assert (wanted > LARGEST) == (found > LARGEST)


def test_values_of_a_large_currency_are_refused_instead_of_wrapping() -> None:
    rows: dict[str, list[Any]] = {
        "path": ["a", "b", "c"],
        "total_conversions": [1] * 3,
        "total_conversion_value": [4 * 10**12] * 3,
    }
    with pytest.raises(
        TableError, match=r"paths: value_micros: .* 9\.2e12 units of currency; give values in thousands"
    ):
        analyze(rows, ["last"])
    fewer = analyze({name: cells[:2] for name, cells in rows.items()}, ["last"])["last"]
    assert fewer.diagnostics["value"] == 8e12
    events: dict[str, list[Any]] = {
        "user": ["u"] * 3,
        "time": [1, 2, 3],
        "channel": ["a"] * 3,
        "conversion": [1] * 3,
        "value": [4e12] * 3,
    }
    with pytest.raises(TableError, match="events: value_micros"):
        analyze(events, ["last"])
    with pytest.raises(TableError, match=r"row 2: total_conversion_value: .*too large: .* 4\.6e12 units"):
        read_paths({**rows, "total_conversion_value": [0, 5 * 10**12, 0]})


def test_refunds_do_not_make_room_for_what_does_not_fit() -> None:
    """Grouped otherwise, the same rows would pass 64 bits: the limit is on magnitudes."""
    half = 2**62
    with pytest.raises(JourneyError, match="value_micros: the magnitudes"):
        Outcomes(ints(1, 1, 1), ints(0, 0, 0), ints(half, half, -half))
    assert len(Outcomes(ints(1, 1), ints(0, 0), ints(half, 1 - half))) == 2
    with pytest.raises(JourneyError, match="conversions, nulls"):
        Outcomes(ints(half), ints(half), ints(0))


def test_a_state_that_does_not_fit_is_refused_and_never_wraps() -> None:
    worth = one_path("a", 1, 2**62)
    with pytest.raises(StateError, match=r"9\.2e12 units of currency"):
        worth.add(worth)
    with pytest.raises(StateError, match="of currency"):
        one_path("a", 1, -(2**62)).add(one_path("a", 1, -(2**62)))
    with pytest.raises(StateError, match="of currency"):  # no channel's value wraps, but the sum would
        worth.add(one_path("b", 1, 2**62))
    many = one_path("ab", 2**62, 0)
    with pytest.raises(StateError, match=r"more than 2\^63 - 1"):
        many.add(many)
    with pytest.raises(JourneyError, match="steps of all journeys"):
        one_path("abab", 2**62, 0)
    assert one_path("ab", 2**62, 0).add(one_path("ab", 2**61, 0)).conversions == 3 * 2**61


def test_a_weighted_sum_that_does_not_fit_is_refused() -> None:
    state = one_path("ab", 2**44 + 5, 0)
    with pytest.raises(StateError, match=r"weighted, are more than 2\^63 - 1"):
        JourneyState.weighted_sum([(UNIT, state)])
    state = one_path("a", 1, 2**61)
    assert JourneyState.weighted_sum([(2, state)], value_shift=1).value_micros == 2**61
    with pytest.raises(StateError, match="weighted values"):
        JourneyState.weighted_sum([(9, state)], value_shift=1)
    with pytest.raises(StateError, match="weighted values"):
        JourneyState.weighted_sum([(4, state)])


def test_a_journey_is_not_retracted_with_another_value() -> None:
    with pytest.raises(StateError, match=r"a value stands where nobody converted; .* not with this value"):
        one_path("a", 1, 5).subtract(one_path("a", 1, 3))
    with pytest.raises(JourneyError, match="value_micros: must be 0 where nobody converted"):
        one_path("a", 0, 5)
    left = one_path("a", 1, 5).add(one_path("b", 1, 0)).subtract(one_path("a", 1, 5))
    assert left == one_path("b", 1, 0)
    sums = [
        CreditSums.fit("linear", batch, linear(batch), Outcomes(ints(1), ints(0), ints(value)))
        for batch, value in [(JourneyBatch.of_paths([["a"]]), value) for value in (5, 3)]
    ]
    with pytest.raises(CreditSumsError, match="nobody converted; rows were taken out"):
        sums[0].subtract(sums[1])


STATE = one_path("aab", 4, 40).add(one_path("b", 2, -6)).add(one_path("ab", 1, 3)).add(one_path("c", 3, 0))
Change = Callable[[dict[str, Any]], None]


def _put(part: str, *place: int) -> Callable[[Any], Change]:
    def with_value(value: Any) -> Change:
        def change(document: dict[str, Any]) -> None:
            found = document[part]
            for step in place[:-1]:
                found = found[step]
            found[place[-1]] = value

        return change

    return with_value


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_put("sets", 0, 0)([-1]), r"sets\[0\]: no channel has this code"),
        (_put("sets", 0, 0)([1, 0]), r"sets\[0\]: channels must be in order"),
        (_put("sets", 1, 0)([0, 1]), r"sets\[1\]: .* no set twice"),
        (_put("sets", 0, 1)(1.9), r"sets\[0\]: 1\.9 is no whole number"),
        (_put("sets", 0, 2)(-1), r"sets\[0\]: -1 is below 0"),
        (_put("sets", 0, 3)(2**63), r"sets\[0\]: .* of 64 bits"),
        (_put("sets", 0, 1)(6), "conversions or nulls of chain and sets differ"),
        (_put("sets", 0, 3)(99), "values of chain and sets differ"),
        (_put("steps", 0)([0, 1, 2.5]), r"steps\[0\]: 2\.5 is no whole number"),
        (_put("steps", 0)([0, -1, 2]), r"steps\[0\]: -1 is below 0"),
        (_put("steps", 0)([0, 0, 2]), r"steps\[0\]: no step between two channels"),
        (_put("steps", 0)([0, 1, 4]), "'a' is not left as often as it is entered"),
        (_put("opens", 1)(True), r"opens\[1\]: True is no whole number"),
        (_put("nulls", 0)(-1), r"nulls\[0\]: -1 is below 0"),
        (_put("nulls", 0)(1), "'a' is not left as often as it is entered"),
        (_put("value_micros", 0)(3), "a value stands where nobody converted"),
        (lambda document: document["steps"].append([0, 1, 5]), r"steps\[1\]: the same step twice"),
        (lambda document: document["opens"].pop(), "one number per channel"),
        (lambda document: document.pop("nulls"), "nulls: missing"),
        (lambda document: document.update(opens=5), "opens: must be a list"),
    ],
)
def test_a_damaged_state_is_refused_at_the_place_of_damage(change: Change, rule: str) -> None:
    document = json.loads(json.dumps(STATE.to_document()))
    assert JourneyState.from_document(document) == STATE
    change(document)
    with pytest.raises(StateError, match="damaged document .*" + rule):
        JourneyState.from_document(document)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"by_size": [[1, 4, 0, -6], [1, 1, 0, 0]]}, "others.by_size of 1: twice"),
        ({"by_size": [[1, 4, 0.5, -6]]}, "others.by_size of 1: 0.5 is no whole number"),
        ({"by_size": [[1, 4, 0, -6, 1]]}, "others.by_size of 1: conversions, nulls and value are needed"),
        ({"by_channel": [[1, -1, 2, 0, -6]]}, "others.by_channel of 1, -1: no channel has this code"),
        ({"by_channel": [[1, 1, 2, 0, -6], [1, 1, 3, 0, 0]]}, "others.by_channel of 1, 1: twice"),
        ({"by_channel": [[1, 1, 2, 0, -6]]}, "others: by_size and by_channel differ"),
        ({"sets": 0}, "others.sets: 0 is below 1"),
    ],
)
def test_a_damaged_rest_of_a_bounded_state_is_refused(change: dict[str, Any], rule: str) -> None:
    document = json.loads(json.dumps(STATE.bounded(1).to_document()))
    assert document["others"]["by_size"] == [[1, 5, 0, -6]]
    assert JourneyState.from_document(document).conversions == STATE.conversions
    document["others"].update(change)
    with pytest.raises(StateError, match="damaged document .*" + rule):
        JourneyState.from_document(document)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"seconds": [1.5]}, r"seconds\[0\]: 1\.5 is no whole number"),
        ({"seconds": [-1]}, r"seconds\[0\]: -1 is below 0"),
        ({"conversions": []}, "lengths, seconds, conversions: one number"),
        ({"bounds": [0]}, r"bounds\[0\]: 0 is below 1"),
        ({"channels": ["a", "a"]}, "channels: must be sorted and distinct"),
        ({"touches": [True]}, r"touches\[0\]: True"),
        ({"cells": None}, "cells: must be a list"),
    ],
)
def test_damaged_exposures_are_refused_at_the_place_of_damage(change: dict[str, Any], rule: str) -> None:
    batch = JourneyBatch.of([[(0, "", "a")]], [5_000_000])
    document = ExposureCounts.fit(batch, ints(1), batch.converted_at).to_document()
    assert ExposureCounts.from_document(document).to_document() == document
    with pytest.raises(JourneyError, match="damaged document .*" + rule):
        ExposureCounts.from_document({**document, **change})
    del document["seconds"]
    with pytest.raises(JourneyError, match="seconds: missing"):
        ExposureCounts.from_document(document)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sums": [1.0, 5, 25]}, "sums: 3 whole numbers"),
        ({"sums": [-1, 5, 25]}, "negative"),
        ({"sums": [0, 5, 25]}, "nobody converted"),
        ({"channels": {"a": [1, 1, 1, 1]}}, "channels.a: 5 whole numbers"),
        ({"channels": {"a": [-1, 1, 1, 1, 1]}}, "credits of 'a' are negative"),
    ],
)
def test_damaged_credit_sums_are_refused_at_the_place_of_damage(change: dict[str, Any], rule: str) -> None:
    batch = JourneyBatch.of_paths([["a"]])
    document = CreditSums.fit("linear", batch, linear(batch), Outcomes(ints(1), ints(0), ints(5))).to_document()
    with pytest.raises(CreditSumsError, match="damaged document .*" + rule):
        CreditSums.from_document({**document, **change})
