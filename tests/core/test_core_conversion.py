"""What a conversion is worth: a fold over the set of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.conversion import MOST_NET_MICROS, ConversionEvent, Kind, fold

if TYPE_CHECKING:
    from random import Random

events = st.builds(
    ConversionEvent,
    st.integers(0, 4),
    st.sampled_from("abcdefgh"),
    st.sampled_from([kind.value for kind in Kind]),
    st.integers(0, 50),
    st.sampled_from(["EUR", "EUR", "USD"]),
)
histories = st.lists(events, max_size=8, unique_by=lambda event: event.event_id)


def event(at: int, kind: str, value: int = 0, currency: str = "EUR", event_id: str | None = None) -> ConversionEvent:
    return ConversionEvent(at, event_id or f"e{at}", kind, value, currency)


@given(histories, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_state_does_not_depend_on_the_order_of_arrival(history: list[ConversionEvent], random: Random) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)
    assert fold(shuffled) == fold(history)


@given(histories)
@settings(max_examples=100)
def test_a_repeat_of_the_conversion_changes_nothing(history: list[ConversionEvent]) -> None:
    state = fold(history)
    if state.opened_by is None:
        return
    opening = next(one for one in history if one.event_id == state.opened_by)
    repeat = ConversionEvent(opening.occurred_at + 1, "zz", Kind.CONVERSION, 999, "JPY")
    assert fold([*history, repeat]) == state


@given(histories)
@settings(max_examples=100)
def test_only_corrections_wait_and_are_worth_nothing(history: list[ConversionEvent]) -> None:
    corrections = [one for one in history if one.kind != Kind.CONVERSION]
    state = fold(corrections)
    assert (state.opened_by, state.gross_value_micros, state.net_value_micros, state.currency) == (None, 0, 0, "XXX")


@given(histories)
@settings(max_examples=100)
def test_corrections_in_another_currency_change_nothing_but_the_count(history: list[ConversionEvent]) -> None:
    state = fold(history)
    own = [one for one in history if one.currency == state.currency or one.kind in (Kind.CONVERSION, Kind.CANCELLATION)]
    if state.opened_by is not None:
        assert fold(own) == state.__class__(
            state.opened_by, state.gross_value_micros, state.net_value_micros, state.currency, 0, state.last_kind
        )
        assert state.ignored == len(history) - len(own)


@pytest.mark.parametrize(
    ("history", "gross", "net", "last"),
    [
        ([], 100, 100, "conversion"),
        ([("refund", 30)], 100, 70, "refund"),
        ([("refund", 30), ("refund", 90)], 100, -20, "refund"),  # more was given back than was paid
        ([("cancellation", 0)], 100, 0, "cancellation"),
        ([("refund", 30), ("cancellation", 0)], 100, 0, "cancellation"),
        ([("restatement", 80)], 80, 80, "restatement"),
        ([("restatement", 80), ("restatement", 60)], 60, 60, "restatement"),
        ([("refund", 30), ("restatement", 80)], 80, 50, "restatement"),  # a restatement keeps refunds
        ([("cancellation", 0), ("restatement", 80)], 80, 80, "restatement"),  # and revives
        ([("restatement", 80), ("cancellation", 0)], 80, 0, "cancellation"),
    ],
)
def test_corrections_in_their_order_of_time(history: list[tuple[str, int]], gross: int, net: int, last: str) -> None:
    found = [event(0, "conversion", 100), *(event(at, *one) for at, one in enumerate(history, start=1))]
    state = fold(reversed(found))
    assert (state.gross_value_micros, state.net_value_micros, state.last_kind) == (gross, net, last)
    assert state.opened_by == "e0"


def test_a_cancellation_counts_in_whatever_currency_it_names() -> None:
    state = fold([event(0, "conversion", 100), event(1, "cancellation", 0, "XXX")])
    assert (state.net_value_micros, state.ignored) == (0, 0)


def test_a_correction_before_its_conversion_counts() -> None:
    assert fold([event(5, "conversion", 100), event(1, "refund", 40)]).net_value_micros == 60


def test_no_number_of_refunds_leaves_what_can_be_stored_and_split() -> None:
    flood = [event(at, "refund", 10**17) for at in range(1, 200)]
    state = fold([event(0, "conversion", 1), *flood])
    assert state.net_value_micros == -MOST_NET_MICROS
    assert 2 * MOST_NET_MICROS < 2**63  # the difference of two versions is stored in 64 bits as well
