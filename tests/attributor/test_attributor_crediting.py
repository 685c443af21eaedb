"""From a conversion's row to its result: exact sums, the same bytes in any company, fallbacks that are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.models.model_set import MODELS, TrainedState, model_set
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.adapters.result_checks import disagreement, imbalance
from attributary.consumers.attributor.credits import by_model_set, results, within_policy, within_size
from attributary.consumers.attributor.result_encoding import encode_result
from attributary.consumers.store.events.attribution_inputs import PendingConversion, ReachedTouchpoint
from attributary.schemas.limits import MINOR_UNIT_MICROS
from attributary.schemas.result_layout import roll_up_result
from tests.attributor.records import encode_record
from tests.factories.samples import DAY_US, START_US, codec

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICY = LookbackPolicy.parse(
    {
        "name": "p",
        "lateness_days": 2,
        "inactivity_days": 30,
        "windows": [{"days": 5}, {"interaction": "view", "days": 1}],
    }
)
POLICIES = {POLICY.version: POLICY}
CHANNELS = ["email", "paid_search", "direct", "organic_social"]
UNTRAINED = model_set()
LONGEST_IDS = dict.fromkeys(("campaign_id", "ad_set_id", "ad_id"), "\U0001f600" * 200)
_PATHS = [["email"], ["paid_search", "email"], ["direct", "email"], ["organic_social"], ["paid_search"]] * 20
_STATE = JourneyState.fit(
    JourneyBatch.of_paths(_PATHS), Outcomes.of([True, True, False, True, False] * 20, [5, 5, 0, 5, 0] * 20)
)
TRAINED = model_set(states={"markov": TrainedState("7", _STATE.to_document(), {"minimum_conversions": 1})})


def pending(number: int, net: int = 10_000_000, currency: str = "EUR", **more: Any) -> PendingConversion:
    fields = {
        "tenant_id": "acme", "conversion_id": f"c{number}", "conversion_type": "purchase", "journey_key": "u:jane",
        "converted_at": START_US + 6 * DAY_US, "received_at": START_US + 6 * DAY_US, "gross_value_micros": abs(net),
        "net_value_micros": net, "previous_net_micros": 0, "currency": currency, "version": 1, "version_reason": "new",
        "is_final": False, "policy_version": POLICY.version, "model_set": 0, "observed_version": 0,
        "raised_at": START_US,
    }  # fmt: skip
    return PendingConversion(
        **{name: value for name, value in {**fields, **more}.items() if name in PendingConversion._fields}
    )


def reached(conversion: int, event_id: str, days: float, channel: str = "email", **more: Any) -> ReachedTouchpoint:
    at = START_US + int(days * DAY_US)
    fields = {
        "conversion": conversion, "event_id": event_id, "occurred_at": at, "received_at": at, "platform": channel[:4],
        "channel": channel, "interaction": "click", "campaign": "", "is_bot": False,
    }  # fmt: skip
    return ReachedTouchpoint(**{**fields, **more})


def credit(
    conversions: Sequence[PendingConversion], touchpoints: Sequence[ReachedTouchpoint], models: Any = UNTRAINED
) -> list[dict[str, Any]]:
    credited = within_policy(conversions, touchpoints, POLICIES)
    found = results(conversions, credited, models, lambda currency: int(MINOR_UNIT_MICROS.get(currency, 1)))
    records = [result.record() for result in found]
    for result, record in zip(found, records, strict=True):  # the writer and the codec, in every test of this file
        assert encode_result(codec(), result, 7) == encode_record(codec(), dict(record), 7)
    return records


journeys_ = st.lists(
    st.tuples(
        st.integers(-(10**15), 10**15),
        st.sampled_from(["EUR", "JPY", "KWD", "XXX"]),
        st.lists(st.tuples(st.floats(0.5, 6.5), st.sampled_from(CHANNELS), st.booleans()), max_size=7),
    ),
    min_size=1,
    max_size=6,
)


def build(drawn: Any) -> tuple[list[PendingConversion], list[ReachedTouchpoint]]:
    conversions, touchpoints = [], []
    for number, (net, currency, touches) in enumerate(drawn):
        conversions.append(pending(number, net, currency))
        for place, (days, channel, is_bot) in enumerate(sorted(touches)):
            touchpoints.append(reached(number, f"t{number}.{place}", days, channel, is_bot=is_bot))
    return conversions, touchpoints


@given(journeys_, st.sampled_from([UNTRAINED, TRAINED]))
@settings(max_examples=60, deadline=None)
def test_the_credits_of_every_model_sum_to_the_net_value(drawn: Any, models: Any) -> None:
    conversions, touchpoints = build(drawn)
    for conversion, record in zip(conversions, credit(conversions, touchpoints, models), strict=True):
        assert (imbalance(record), disagreement(record)) == (None, None)
        assert [model["model"] for model in record["models"]] == list(MODELS)
        for model in record["models"]:
            total = sum(model["micros"]) + model["unattributed_micros"]
            assert total == conversion.net_value_micros == record["net_value_micros"]
            assert len(model["credits"]) == len(record["touchpoints"]) == record["touchpoint_count"]
            if model["credits"]:
                assert sum(model["credits"]) == pytest.approx(1.0)
                assert model["unattributed_micros"] == 0


@given(journeys_, st.sampled_from([UNTRAINED, TRAINED]))
@settings(max_examples=60, deadline=None)
def test_a_result_has_the_same_bytes_alone_and_in_any_company(drawn: Any, models: Any) -> None:
    """A replay cuts batches elsewhere: a result that depended on its neighbours would contradict itself."""
    conversions, touchpoints = build(drawn)
    together = credit(conversions, touchpoints, models)
    for number, record in enumerate(together):
        own = [touch._replace(conversion=0) for touch in touchpoints if touch.conversion == number]
        (alone,) = credit([conversions[number]], own, models)
        assert encode_record(codec(), alone, 1) == encode_record(codec(), record, 1)
        assert alone["content_hash"] == record["content_hash"]


def test_the_seal_covers_all_but_the_time_of_computing() -> None:
    (first,), (second,), (other,) = (credit([pending(1, net)], [reached(0, "t", 5)]) for net in (10, 10, 20))
    values = [encode_record(codec(), first, 1), encode_record(codec(), second, 2**50)]
    encode_record(codec(), other, 1)
    assert first["content_hash"] == second["content_hash"] != other["content_hash"]
    for value, computed_at in zip(values, (1, 2**50), strict=True):
        read = codec().decode("result", value)
        assert (read["computed_at"], read["content_hash"]) == (computed_at, first["content_hash"])
        assert codec().encode("result", read) == value


def test_a_conversion_without_touchpoints_is_unattributed() -> None:
    (record,) = credit([pending(1, -3_000_000)], [])
    assert record["touchpoint_count"] == 0
    for model in record["models"]:
        assert (model["credits"], model["micros"], model["unattributed_micros"]) == ([], [], -3_000_000)
        assert (model["fallback"], model["confidence"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"days": 1.0}, True),  # exactly the window of 5 days
        ({"days": 0.999}, False),
        ({"days": 6.0}, True),  # the moment of the conversion
        ({"days": 6.001}, False),
        ({"days": 4.5, "interaction": "view"}, False),
        ({"days": 5.0, "interaction": "view"}, True),
        ({"days": 3.0, "is_bot": True}, False),
        ({"days": 3.0, "received_at": START_US + 8 * DAY_US}, True),  # exactly the lateness of 2 days
        ({"days": 3.0, "received_at": START_US + 8 * DAY_US + 1}, False),
    ],
)
def test_what_the_pinned_policy_lets_in(changes: dict[str, Any], *, counts: bool) -> None:
    conversions = [pending(0), pending(1)]
    credited = within_policy(conversions, [reached(1, "t", **changes)], POLICIES)
    assert credited.offsets.tolist() == [0, 0, int(counts)]


def test_each_conversion_is_judged_by_the_policy_that_it_pins() -> None:
    short = LookbackPolicy.parse({"lateness_days": 2, "inactivity_days": 30, "windows": [{"days": 1}]})
    conversions = [pending(0), pending(1, policy_version=short.version)]
    touches = [reached(0, "a", 3), reached(1, "a", 3), reached(1, "b", 5.5)]
    credited = within_policy(conversions, touches, {**POLICIES, short.version: short})
    assert [touch.event_id for touch in credited.touchpoints] == ["a", "b"]
    assert credited.offsets.tolist() == [0, 1, 2]


def test_a_model_without_a_state_shows_its_fallback() -> None:
    (record,) = credit([pending(1)], [reached(0, "t1", 2), reached(0, "t2", 3)])
    by_name = {model["model"]: model for model in record["models"]}
    assert by_name["markov"]["fallback"] == "linear"
    assert by_name["markov"]["credits"] == by_name["linear"]["credits"]
    assert by_name["linear"]["fallback"] is None
    (record,) = credit([pending(1)], [reached(0, "t1", 2), reached(0, "t2", 3, "paid_search")], TRAINED)
    markov = {model["model"]: model for model in record["models"]}["markov"]
    assert (markov["fallback"], markov["model_version"]) == (None, "7")


@pytest.mark.parametrize(
    ("count", "names"),
    [(5_000, {}), (800, {"campaign": "\u00fc" * 500, "channel": "c" * 100, "platform": "p" * 100})],
)
def test_a_journey_that_fits_into_no_record_is_credited_by_its_newest_touchpoints(
    count: int, names: dict[str, str]
) -> None:
    touches = [reached(0, f"{number:0200d}", 2 + number / count, **names) for number in range(count)]
    (record,) = credit([pending(1, 9_990_000)], touches, TRAINED)
    assert 40 < record["touchpoint_count"] < count
    assert (imbalance(record), disagreement(record)) == (None, None)
    kept = [touch["event_id"] for touch in record["touchpoints"]]
    assert kept == [touch.event_id for touch in touches[-len(kept) :]]
    assert len(encode_record(codec(), record, 2**50)) < 1_000_000
    neighbours = [*touches, reached(1, "other", 3)]
    together = credit([pending(1, 9_990_000), pending(2)], neighbours, TRAINED)
    encode_record(codec(), together[0], 1)
    assert together[0]["content_hash"] == record["content_hash"]
    assert together[1]["touchpoint_count"] == 1


def test_a_result_names_campaign_ad_set_and_ad_by_their_ids_beside_the_name() -> None:
    ids: dict[str, Any] = {"campaign_id": "120", "ad_set_id": "77", "ad_id": None}
    touches = [reached(0, "t1", 2, campaign="Spring", **ids), reached(0, "t2", 3, campaign="Spring sale", **ids)]
    (record,) = credit([pending(1)], touches)
    assert [{name: touch[name] for name in ids} for touch in record["touchpoints"]] == [ids, ids]
    assert [touch["campaign"] for touch in record["touchpoints"]] == ["Spring", "Spring sale"]


def test_whatever_surely_fits_is_kept_whole() -> None:
    names = {"campaign": "\U0001f600" * 500, "channel": "c" * 100, "platform": "p" * 100} | LONGEST_IDS
    touches = [reached(0, f"{number:0200d}", 3, **names) for number in range(100)]
    (record,) = credit([pending(1)], touches)
    assert record["touchpoint_count"] == 100
    assert len(encode_record(codec(), record, 2**50)) < 2**20


@pytest.mark.parametrize("models", [8, 20, 100, 101, 300])
@pytest.mark.parametrize("count", [1, 99, 100, 101, 150, 400])
def test_s3_the_longest_names_fit_however_many_models_credit_them(models: int, count: int) -> None:
    wide = "\U0001f600"
    names = {"campaign": wide * 500, "channel": wide * 99, "platform": wide * 99} | LONGEST_IDS
    touches = [reached(0, f"{number:03d}" + wide * 197, 2 + number / 1000, **names) for number in range(count)]
    kept = within_size(within_policy([pending(1)], touches, POLICIES), models)
    assert kept.touchpoints
    (record,) = credit([pending(1)], kept.touchpoints)
    assert record["touchpoint_count"] == len(kept.touchpoints)
    one = max(record["models"], key=lambda model: len(str(model)))
    record["models"] += [{**one, "model": f"model_{number}"} for number in range(8, models)]
    assert len(encode_record(codec(), record, 2**50)) < 2**20
    assert models > 100 or count > 100 or len(kept.touchpoints) == count


def test_rollups_are_sums_by_name_in_order() -> None:
    touches = [
        reached(0, "t1", 2, "email", campaign="b"),
        reached(0, "t2", 3, "direct", campaign="a"),
        reached(0, "t3", 4, "email", campaign="a"),
    ]
    (record,) = credit([pending(1, 9_000_000)], touches)
    rows = [row for row in roll_up_result(record) if row["model"] == "linear"]
    found = [(row["dimension"], row["name"], row["value_micros"]) for row in rows]
    assert found == [
        ("platform", "dire", 3_000_000), ("platform", "emai", 6_000_000),
        ("channel", "direct", 3_000_000), ("channel", "email", 6_000_000),
        ("campaign", "a", 6_000_000), ("campaign", "b", 3_000_000),
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "delta"), [(1, 0), (2, -4_000_000)])
def test_the_first_version_has_no_delta(version: int, delta: int) -> None:
    (record,) = credit([pending(1, 6_000_000, version=version, previous_net_micros=10_000_000)], [])
    assert record["delta_micros"] == delta


def test_conversions_are_grouped_by_what_they_pin() -> None:
    found = by_model_set(
        [pending(1, model_set=2), pending(2), pending(3, model_set=2), pending(4, model_set=2, tenant_id="a")]
    )
    assert [[conversion.conversion_id for conversion in group] for group in found] == [["c4"], ["c2"], ["c1", "c3"]]


def tampered(change: str) -> dict[str, Any]:
    (record,) = credit([pending(1, 9_000_000)], [reached(0, "t1", 2), reached(0, "t2", 3, "direct")])
    model = record["models"][3]
    match change:
        case "touchpoint":
            model["micros"][0] += 1
        case "unattributed":
            model["unattributed_micros"] = 1
        case "net value":
            record["net_value_micros"] += 1
    return record


@pytest.mark.parametrize("change", ["touchpoint", "unattributed", "net value"])
def test_the_auditor_sees_every_tampering(change: str) -> None:
    assert imbalance(tampered("nothing")) is None
    assert imbalance(tampered(change)) is not None


@pytest.mark.parametrize("array", ["credits", "micros"])
def test_the_auditor_sees_models_that_credit_other_touchpoints(array: str) -> None:
    record = tampered("nothing")
    record["models"][2][array].append(0)
    assert disagreement(record) == record["models"][2]["model"]
    assert disagreement({"touchpoints": [], "models": []}) is None
