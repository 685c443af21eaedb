"""A new policy file must not leave results behind that the policy they pin would compute otherwise."""

from __future__ import annotations

import pytest

from attributary.attribution_core.domain.lookback import LookbackPolicy
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
