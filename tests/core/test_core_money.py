from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import JourneyBatch
from attributary.attribution_core.domain.money import MAX_VALUE_MICROS, split_micros, split_with_baseline
from attributary.attribution_core.models.rules import linear, position_based

MINOR = st.sampled_from([1, 1_000, 10_000, 1_000_000])


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[list[float]], list[int], list[int]]:
    credits_, values, minors = [], [], []
    for _ in range(draw(st.integers(1, 5))):
        weights = draw(st.lists(st.integers(0, 1_000), max_size=7))
        if weights and not any(weights):
            weights[0] = 1
        whole = sum(weights)
        credits_.append([weight / whole for weight in weights])
        values.append(draw(st.integers(-(10**13), 10**13) | st.integers(-MAX_VALUE_MICROS, MAX_VALUE_MICROS)))
        minors.append(draw(MINOR))
    return credits_, values, minors


def split(credits_: list[list[float]], values: list[int], minors: list[int]) -> list[list[int]]:
    offsets = np.cumsum([0, *map(len, credits_)]).astype(np.int64)
    parts = split_micros(
        np.array([credit for row in credits_ for credit in row], dtype=np.float64),
        offsets,
        np.array(values, dtype=np.int64),
        np.array(minors, dtype=np.int64),
    )
    return [parts[low:high].tolist() for low, high in pairwise(offsets.tolist())]


@settings(max_examples=150, deadline=None)
@given(splits())
def test_parts_sum_to_the_value_exactly(case: tuple[list[list[float]], list[int], list[int]]) -> None:
    credits_, values, minors = case
    for row, value, parts in zip(credits_, values, split(*case), strict=True):
        assert sum(parts) == (value if row else 0)
        assert all(part == 0 or (part > 0) == (value > 0) for part in parts)
        assert all(part == 0 for part, credit in zip(parts, row, strict=True) if credit == 0)
    for row, value, minor, parts in zip(credits_, values, minors, split(*case), strict=True):
        if value % minor == 0:
            assert all(part % minor == 0 for part in parts), row


@settings(max_examples=100, deadline=None)
@given(splits())
def test_no_part_is_a_whole_unit_away_from_its_quota(case: tuple[list[list[float]], list[int], list[int]]) -> None:
    for row, value, minor, parts in zip(*case, split(*case), strict=True):
        if abs(value) < 2**50:
            for credit, part in zip(row, parts, strict=True):
                # one unit for the remainder, one micro for a rest of micros
                assert abs(part - Fraction(credit) * value) < minor + 1 + abs(value) * Fraction(1, 2**50)


@settings(max_examples=50, deadline=None)
@given(splits())
def test_a_refund_mirrors_its_purchase_and_neighbours_do_not_matter(
    case: tuple[list[list[float]], list[int], list[int]],
) -> None:
    credits_, values, minors = case
    whole = split(credits_, values, minors)
    assert split(credits_, [-value for value in values], minors) == [[-part for part in row] for row in whole]
    for place, parts in enumerate(whole):
        assert split([credits_[place]], [values[place]], [minors[place]]) == [parts]


def test_equal_remainders_go_to_the_earlier_touch() -> None:
    third = 1 / 3
    assert split([[third, third, third]], [1_000_000], [10_000]) == [[340_000, 330_000, 330_000]]
    assert split([[third, third, third]], [2_000_000], [1_000_000]) == [[1_000_000, 1_000_000, 0]]  # JPY 2
    assert split([[0.5, 0.5]], [3_000], [1_000]) == [[2_000, 1_000]]  # KWD 0.003
    # noise in the last bits of equal credits decides nothing
    assert split([[0.3, 0.1 + 0.2, 0.4 - 1e-17]], [10_000], [10_000])[0] == [0, 0, 10_000]
    assert split([[0.1 * 3, 0.3, 0.3, 0.1]], [20_000], [10_000])[0] == [10_000, 10_000, 0, 0]


def test_a_rest_below_the_minor_unit_is_split_in_micros() -> None:
    assert split([[0.5, 0.5]], [10_003], [10_000]) == [[10_002, 1]]


def test_journeys_without_touches_get_nothing() -> None:
    assert split([[], [1.0], []], [5, 7, 9], [1, 1, 1]) == [[], [7], []]
    assert split([[]], [5], [1]) == [[]]


@pytest.mark.parametrize(
    ("credits_", "values", "minors", "rule"),
    [
        ([[1.0]], [MAX_VALUE_MICROS + 1], [1], "2\\^62"),
        ([[1.0]], [-(2**63)], [1], "2\\^62"),
        ([[1.0]], [1], [0], "positive"),
        ([[1.0], [1.0]], [5, 5], [0, 1], "positive"),
        ([[-0.5, 1.5]], [1], [1], "not negative"),
        ([[float("nan")]], [1], [1], "not negative"),
        ([[float("inf")]], [1], [1], "finite"),
        ([[0.0, 0.0]], [1], [1], "sum to 1"),
        ([[0.3, 0.2]], [1_000_000], [10_000], "sum to 1"),  # 55 % and 45 % of the money
        ([[0.3, 0.2], [], [0.9, 0.6]], [1, 1, 1], [1, 1, 1], "sum to 1"),
        ([[1.0], [0.5, 0.5 + 1e-8]], [0, 0], [1, 1], "sum to 1"),
        ([[1.0]], [1, 2], [1], "fit the offsets"),
    ],
)
def test_refuses_what_it_cannot_split(
    credits_: list[list[float]], values: list[int], minors: list[int], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        split(credits_, values, minors)


def test_rounding_of_many_credits_is_no_fault() -> None:
    credits_ = [1 / 50_001] * 50_001
    assert sum(split([credits_], [10**15], [10_000])[0]) == 10**15
    with pytest.raises(ValueError, match="sum to 1"):
        split_with_baseline(
            np.array([0.5]), np.array([0.3]), np.array([0, 1]), np.array([1_000_000]), np.array([10_000])
        )


def test_many_journeys_with_left_over_units_take_the_lexicographic_path() -> None:
    size = 1 << 21
    offsets = np.arange(0, 2 * size + 1, 2, dtype=np.int64)
    parts = split_micros(
        np.full(2 * size, 0.5), offsets, np.full(size, 1, dtype=np.int64), np.ones(size, dtype=np.int64)
    )
    assert parts[::2].sum() == size


def test_the_largest_values_are_split_and_no_larger_ones() -> None:
    assert split([[1.0], [1.0]], [MAX_VALUE_MICROS, -MAX_VALUE_MICROS], [1, 1]) == [
        [MAX_VALUE_MICROS],
        [-MAX_VALUE_MICROS],
    ]


def exact_parts(shares: list[Fraction], units: int) -> list[int]:
    """Largest remainder in fractions, of equal remainders the earlier touch first."""
    quotas = [share * units for share in shares]
    parts = [int(quota) for quota in quotas]
    order = sorted(
        (place for place, share in enumerate(shares) if share), key=lambda place: parts[place] - quotas[place]
    )
    for place in order[: units - sum(parts)]:
        parts[place] += 1
    return parts


def rule_shares(rule: str, touches: int) -> list[Fraction]:
    if rule == "linear" or touches < 3:
        return [Fraction(1, touches)] * touches
    return [Fraction(2, 5), *[Fraction(1, 5) / (touches - 2)] * (touches - 2), Fraction(2, 5)]


def rule_parts(rule: str, touches: int, value: int, minor: int) -> list[int]:
    batch = JourneyBatch.of_paths([["a"] * touches])
    credits_ = linear(batch) if rule == "linear" else position_based(batch)
    return split([credits_.tolist()], [value], [minor])[0]


def test_d6_the_case_of_the_field() -> None:
    parts = rule_parts("position_based", 5, 81_485_822_709 * 1_000_000, 1_000_000)
    assert [part // 1_000_000 for part in parts] == exact_parts(rule_shares("position_based", 5), 81_485_822_709)


@pytest.mark.parametrize("rule", ["linear", "position_based"])
@settings(max_examples=300, deadline=None)
@given(touches=st.integers(1, 60), bits=st.integers(20, 62), data=st.data(), minor=MINOR)
def test_d6_largest_remainder_is_exact_for_rules_of_any_value(
    rule: str, touches: int, bits: int, data: st.DataObject, minor: int
) -> None:
    units = data.draw(st.integers(0, min(1 << bits, MAX_VALUE_MICROS // minor)))
    found = rule_parts(rule, touches, units * minor, minor)
    assert [part // minor for part in found] == exact_parts(rule_shares(rule, touches), units)


@settings(max_examples=300, deadline=None)
@given(weights=st.lists(st.integers(0, 1_000), min_size=1, max_size=12), units=st.integers(2**28, 10**13))
def test_d6_largest_remainder_is_exact_for_fractions_of_weights(weights: list[int], units: int) -> None:
    if not any(weights):
        weights[0] = 1
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    (found,) = split([[weight / sum(weights) for weight in weights]], [units * 10_000], [10_000])
    assert [part // 10_000 for part in found] == exact_parts(shares, units)


def test_d6_at_the_border_of_the_two_ways_both_are_exact() -> None:
    for units in range(2**30 - 40, 2**30 + 40):
        for touches in (3, 7, 15, 30):
            found = rule_parts("position_based", touches, units * 10_000, 10_000)
            assert [part // 10_000 for part in found] == exact_parts(rule_shares("position_based", touches), units)
