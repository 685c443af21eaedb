"""A new policy file must not leave results behind that the policy they pin would compute otherwise."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.stitcher import policies as policies_module
from attributary.consumers.stitcher.decode import Decoder
from attributary.consumers.stitcher.policies import Policies
from attributary.consumers.store.events.rows import TouchedConversion
from attributary.schemas.topics import TOUCHPOINTS
from tests.factories.samples import DAY_US, START_US, codec, records, sale, touch
from tests.pipeline_harness import InProcess

DAYS = 24


def policy(days: int, lateness: int = 7) -> LookbackPolicy:
    return LookbackPolicy.parse(
        {"name": "p", "lateness_days": lateness, "inactivity_days": 30, "windows": [{"days": days}]}
    )


@pytest.mark.postgres
def test_a_touchpoint_that_counts_by_the_pinned_policy_alone_raises_the_version(database: str) -> None:
    with InProcess(database, policy(60)) as before:
        (first,) = before.publish(sale("c1", 40 * DAYS))
        assert first["policy_version"] == policy(60).version
    with InProcess(database, policy(7)) as after:
        (second,) = after.publish(touch("t1", 10 * DAYS))
        assert (second["version"], second["version_reason"], second["touchpoint_count"]) == (2, "late_touchpoint", 0)
        assert second["policy_version"] == policy(7).version
        assert after.publish(touch("t2", 11 * DAYS)) == []  # pinned now: the narrow one alone decides


@pytest.mark.postgres
def test_a_policy_that_joins_the_group_later_is_learnt_at_the_rebalance(database: str) -> None:
    with InProcess(database, policy(7)) as old, InProcess(database, policy(60)) as new:
        new.publish(sale("c1", 40 * DAYS))
        old.stitcher.stored_positions([(TOUCHPOINTS, 0)])
        old._offsets["input"] = new._offsets["input"]
        (result,) = old.publish(touch("t1", 10 * DAYS))
        assert (result["version"], result["policy_version"]) == (2, policy(7).version)


@pytest.mark.parametrize(
    ("pinned", "known", "expected"),
    [(7, (), False), (60, (60,), True), (60, (), True), (20, (20,), False)],
    ids=["in-force", "pinned-is-wider", "pinned-is-unknown", "counts-by-neither"],
)
def test_which_policies_are_asked(pinned: int, known: tuple[int, ...], *, expected: bool) -> None:
    (row,) = Decoder(codec()).decode(records([touch("t1", 0)])).touchpoints
    at = START_US + 30 * DAY_US
    found = TouchedConversion(0, "c1", "purchase", at, at, policy(pinned).version)
    policies = Policies(policy(7), {policy(days).version: policy(days) for days in known})
    assert policies.may_count(row, found) is expected
    assert policies.longest_window_micros == max(7, *known, 0) * DAY_US


POLICIES = [
    LookbackPolicy.parse(
        {"name": "p", "lateness_days": lateness, "inactivity_days": 30, "windows": [{"days": days}, *more]}
    )
    for days, lateness, more in (
        (7, 2, [{"interaction": "view", "days": 1}]),
        (3, 4, [{"conversion_type": "signup", "days": 9}, {"channel": "email", "days": 0}]),
    )
]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_many_pairs_are_decided_as_few_are(data: st.DataObject) -> None:
    days = st.integers(0, 20).map(lambda half: START_US + half * DAY_US // 2)
    (blank,) = Decoder(codec()).decode(records([touch("t1", 0)])).touchpoints
    rows = [
        blank._replace(occurred_at=at, received_at=at + delay, channel=channel, interaction=interaction)
        for at, delay, channel, interaction in data.draw(
            st.lists(
                st.tuples(
                    days, st.sampled_from([0, DAY_US, 5 * DAY_US]), st.sampled_from(["email", "direct"]),
                    st.sampled_from(["click", "view"]),
                ),
                min_size=1, max_size=6,
            )
        )
    ]  # fmt: skip
    versions = [POLICIES[0].version, POLICIES[1].version, "unknown"]
    conversions = [
        TouchedConversion(0, f"c{number}", kind, at, at + delay, version)
        for number, (kind, at, delay, version) in enumerate(
            data.draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(["purchase", "signup", "other"]), days, st.sampled_from([0, DAY_US]),
                        st.sampled_from(versions),
                    ),
                    max_size=6,
                )
            )
        )
    ]  # fmt: skip
    policies = Policies(POLICIES[0], {POLICIES[1].version: POLICIES[1]})
    few = policies.counting(rows, conversions)
    with patch.object(policies_module, "_FEW_PAIRS", -1), patch.object(policies_module, "_MAX_CELLS", 8):
        many = policies.counting(rows, conversions)
    assert sorted(many[0]) == sorted(few[0])
    assert many[1] == few[1]
