"""Every event about a conversion has a verdict, and what is ignored does not change the worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.domain.conversion import (
    IGNORED_VERDICTS,
    ConversionEvent,
    EventVerdict,
    Kind,
    fold,
    judge_events,
)

if TYPE_CHECKING:
    import random

V = EventVerdict
events = st.lists(
    st.tuples(
        st.builds(
            ConversionEvent, st.integers(0, 5), st.uuids().map(str), st.sampled_from([*map(str, Kind)]),
            st.integers(0, 50), st.sampled_from(["EUR", "USD"]),
        ),
        st.sampled_from(["u:ann", "u:bob"]),
    ),
    max_size=8,
)  # fmt: skip


@given(events, st.randoms(use_true_random=False))
def test_b20_without_the_ignored_events_the_worth_is_the_same(
    found: list[tuple[ConversionEvent, str]], chance: random.Random
) -> None:
    verdicts = judge_events(found)
    kept = [event for (event, _), verdict in zip(found, verdicts, strict=True) if verdict not in IGNORED_VERDICTS]
    state, again = fold(event for event, _ in found), fold(kept)
    assert (state.opened_by, state.gross_value_micros, state.net_value_micros) == (
        again.opened_by, again.gross_value_micros, again.net_value_micros
    )  # fmt: skip
    order = list(range(len(found)))
    chance.shuffle(order)
    assert judge_events([found[place] for place in order]) == [verdicts[place] for place in order]
    assert (V.NOT_OPENED in verdicts) == (state.opened_by is None and bool(found))


@given(events)
def test_b20_an_event_without_effect_can_be_left_out(found: list[tuple[ConversionEvent, str]]) -> None:
    net = fold(event for event, _ in found).net_value_micros
    for place, verdict in enumerate(judge_events(found)):
        if verdict in IGNORED_VERDICTS | {V.CANCELLED}:
            rest = [event for number, (event, _) in enumerate(found) if number != place]
            assert fold(rest).net_value_micros == net


@pytest.mark.parametrize(
    ("correction", "verdict"),
    [
        (ConversionEvent(2, "r", "refund", 5, "USD"), V.OTHER_CURRENCY),
        (ConversionEvent(2, "r", "restatement", 5, "USD"), V.OTHER_CURRENCY),
        (ConversionEvent(2, "r", "cancellation", 0, "USD"), V.COUNTS),
        (ConversionEvent(2, "r", "refund", 5, "EUR"), V.COUNTS),
        (ConversionEvent(0, "r", "refund", 5, "EUR"), V.COUNTS),
        (ConversionEvent(2, "r", "conversion", 5, "EUR"), V.REPEAT),
    ],
)
def test_b20_what_a_correction_does(correction: ConversionEvent, verdict: EventVerdict) -> None:
    opening = ConversionEvent(1, "c", "conversion", 20, "EUR")
    assert judge_events([(opening, "u:ann"), (correction, "u:ann")]) == [V.OPENS, verdict]


def test_b20_corrections_together() -> None:
    told = [
        (ConversionEvent(1, "c", "conversion", 20, "EUR"), "u:ann"),
        (ConversionEvent(2, "c2", "conversion", 30, "EUR"), "u:bob"),
        (ConversionEvent(3, "r1", "restatement", 25, "EUR"), "u:ann"),
        (ConversionEvent(4, "x1", "cancellation", 0, "EUR"), "u:ann"),
        (ConversionEvent(5, "r2", "restatement", 10, "EUR"), "u:ann"),
        (ConversionEvent(6, "f1", "refund", 1, "EUR"), "u:ann"),
        (ConversionEvent(7, "x2", "cancellation", 0, "EUR"), "u:ann"),
        (ConversionEvent(8, "f2", "refund", 2, "EUR"), "u:ann"),
    ]
    assert judge_events(told) == [
        V.OPENS, V.OTHER_PERSON, V.SUPERSEDED, V.SUPERSEDED, V.CANCELLED, V.CANCELLED, V.COUNTS, V.CANCELLED
    ]  # fmt: skip
