"""Batch analysis on a real Postgres: what is summed up is what single journeys say, to the micro."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import MODELS, model_set
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training import batch_analysis, cohort
from attributary.consumers.training.backtest import backtest, compare
from attributary.consumers.training.batch_analysis import JourneyFilter, analyze_batch
from attributary.consumers.training.journey_analysis import UnknownConversionError, analyze_journey
from attributary.consumers.training.read_journeys import Closing, Window
from attributary.consumers.training.train import TrainingError
from tests.factories.training_events import DAY, NOW, POLICY, feed, link, order, touchpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres

EVENTS = [
    touchpoint("a", 1, "search", campaign_name="spring"),
    touchpoint("a", 2, "mail", platform="email"),
    order("a", 3, 10),
    touchpoint("b", 1, "search", campaign_name="summer"),
    touchpoint("b", 2, "search"),
    touchpoint("b", 3, "social", platform="meta"),
    order("b", 4, 100, currency="JPY"),
    order("c", 5, 7),
    touchpoint("phone", 1, "social", platform="meta"),
    touchpoint("laptop", 2, "mail", platform="email"),
    link("phone", "dora", 1),
    link("laptop", "dora", 2),
    order("laptop", 3, 1),
    touchpoint("e", 9, "search"),
]


@pytest.fixture
def snapshot(database: str) -> Iterator[psycopg.Connection]:
    feed(database, EVENTS)
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        yield connection


def analyzed(connection: psycopg.Connection, window: Window | None = None, **chosen: str) -> dict[str, Any]:
    wanted = window or Window("acme")
    return analyze_batch(connection, wanted, JourneyFilter(**chosen), model_set(), POLICY.inactivity_micros)


def model(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in report["models"] if row["model"] == name)
    return found


def credits_of(report: dict[str, Any], name: str, dimension: str = "channels") -> dict[str, float]:
    """Credits by name, without the names that got none."""
    return {row["name"]: row["credit"] for row in model(report, name)[dimension] if row["credit"] > 0}


def test_credits_are_summed_over_conversions(snapshot: psycopg.Connection) -> None:
    report = analyzed(snapshot)
    assert (report["conversions"], report["conversions_with_touches"]) == (4, 3)
    assert report["touches_per_conversion"] == pytest.approx(7 / 3)
    assert report["net_value_micros"] == {"EUR": 18_000_000, "JPY": 100_000_000}
    assert report["unattributed_micros"] == {"EUR": 7_000_000}
    assert [row["model"] for row in report["models"]] == list(MODELS)
    assert credits_of(report, "first") == {"search": 2.0, "social": 1.0}
    assert credits_of(report, "last") == {"mail": 2.0, "social": 1.0}
    assert credits_of(report, "linear") == pytest.approx({"search": 7 / 6, "social": 5 / 6, "mail": 1.0})
    assert credits_of(report, "linear", "platforms") == pytest.approx({"google": 7 / 6, "meta": 5 / 6, "email": 1.0})
    assert credits_of(report, "first", "campaigns") == {"spring": 1.0, "summer": 1.0, "": 1.0}
    assert model(report, "markov")["fallback"] == {"rule": "linear", "conversions": 3}
    assert model(report, "linear")["fallback"] is None


@pytest.mark.parametrize("dimension", ["channels", "platforms", "campaigns"])
def test_every_dimension_sums_to_the_revenue(snapshot: psycopg.Connection, dimension: str) -> None:
    report = analyzed(snapshot)
    for each in report["models"]:
        sums = {"EUR": 0, "JPY": 0}
        for row in each[dimension]:
            for currency, value in row["value_micros"].items():
                sums[currency] += value
        assert sums == {"EUR": 11_000_000, "JPY": 100_000_000}
        assert all(low <= row["share"] <= high for row in each[dimension] for low, high in [row["interval"]])


def test_filters_choose_whole_conversions(snapshot: psycopg.Connection) -> None:
    report = analyzed(snapshot, platform="meta")
    assert (report["conversions"], report["population"]["conversions"]) == (2, 2)
    assert credits_of(analyzed(snapshot, campaign="spring"), "first") == {"search": 1.0}
    assert analyzed(snapshot, platform="meta", campaign="summer")["net_value_micros"] == {"JPY": 100_000_000}
    assert analyzed(snapshot, platform="nowhere")["models"] == []
    assert analyzed(snapshot, Window("acme", since=NOW + 4 * DAY))["conversions"] == 2
    assert analyzed(snapshot, Window("acme", until=NOW + 4 * DAY))["conversions"] == 2
    assert credits_of(analyzed(snapshot, Window("acme", journey_key="u:dora")), "first") == {"social": 1.0}
    assert analyzed(snapshot, Window("other"))["touches_per_conversion"] is None


def test_many_names_are_summed_up(snapshot: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_analysis, "MAX_NAMES", 1)
    rows = model(analyzed(snapshot), "linear")["channels"]
    assert [row["name"] for row in rows] == ["search", "(other)"]
    assert (rows[1]["names"], rows[1]["credit"]) == (2, pytest.approx(11 / 6))
    assert sum(row["value_micros"].get("EUR", 0) for row in rows) == 11_000_000


def test_one_journey_touch_by_touch(snapshot: psycopg.Connection) -> None:
    report = analyze_journey(snapshot, "acme", "order-b", model_set(), POLICY.inactivity_micros)
    assert [row["channel"] for row in report["touchpoints"]] == ["search", "search", "social"]
    assert report["journey_key"] == "a:b"
    linear = next(row for row in report["models"] if row["model"] == "linear")
    assert linear["credits"] == pytest.approx([1 / 3] * 3)
    assert sorted(linear["value_micros"]) == [33_000_000, 33_000_000, 34_000_000]  # whole yen
    shapley = next(row for row in report["models"] if row["model"] == "shapley")
    assert shapley["credits"] == pytest.approx([0.25, 0.25, 0.5])
    bare = analyze_journey(snapshot, "acme", "order-c", model_set(), POLICY.inactivity_micros)
    assert (bare["touchpoints"], bare["models"][0]["credits"]) == ([], [])
    insights = {row["rule_id"]: row["text"] for row in report["insights"]}
    assert insights["journey.lead_time"] == "from the first of 3 touches to the conversion: 3.0 days"
    with pytest.raises(UnknownConversionError):
        analyze_journey(snapshot, "other", "order-b", model_set(), POLICY.inactivity_micros)


def test_a_cohort_has_population_numbers_of_its_own(
    snapshot: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = analyzed(snapshot, Window("acme", closing=Closing.ALL))
    assert (report["currency"], report["distinct_paths"]) == ("EUR", 5)
    channel_report = report["population"]
    assert (channel_report["conversions"], channel_report["nulls"], channel_report["value_micros"]) == (
        4,
        1,
        18_000_000,
    )
    social = analyzed(snapshot, Window("acme", closing=Closing.ALL), platform="meta")["population"]
    assert (social["conversions"], social["nulls"]) == (2, 0)
    assert analyzed(snapshot, Window("acme", closing=Closing.ALL), platform="google")["population"]["nulls"] == 1
    assert [row["rule_id"] for row in report["insights"]] == []  # four conversions carry no sentence
    monkeypatch.setattr(cohort, "MAX_PATHS", 2)
    bounded = analyzed(snapshot, Window("acme", closing=Closing.ALL))
    assert (bounded["distinct_paths"], bounded["insights"], bounded["population"]) == (None, None, channel_report)


def test_a_large_cohort_carries_sentences() -> None:
    many = cohort.Cohort()
    number = 400
    batch = JourneyBatch.of_paths([["search", "mail"]] * number + [["social"]] * number)
    half = np.arange(2 * number) % 4 == 0
    many.add(batch, Outcomes.of(half | (np.arange(2 * number) < number // 2), np.zeros(2 * number, dtype=np.int64)))
    texts = [row["text"] for row in many.report()["insights"]]
    assert any("search" in text for text in texts)
    assert not any("caused" in text or "incremental" in text for text in texts)


def test_a_back_test_needs_both_halves(snapshot: psycopg.Connection) -> None:
    window = Window("acme", closing=Closing.ALL)
    report = backtest(snapshot, window, NOW + 4 * DAY, POLICY.inactivity_micros)
    assert report["learned_from"]["conversions"] == 2
    assert report["tested_on"]["conversions"] == 2
    with pytest.raises(TrainingError, match="at or after"):
        backtest(snapshot, window, NOW + 99 * DAY, POLICY.inactivity_micros)
    with pytest.raises(TrainingError, match="before the split"):
        backtest(snapshot, window, NOW, POLICY.inactivity_micros)


def state(**counts: tuple[int, int]) -> JourneyState:
    batch = JourneyBatch.of_paths([[name] for name in counts])
    numbers = [list(column) for column in zip(*counts.values(), strict=True)]
    zero = JourneyBatch.of_paths([[]] * len(counts)).converted_at
    return JourneyState.fit(batch, Outcomes(zero + numbers[0], zero + numbers[1], zero))


def test_a_back_test_tells_change_from_noise() -> None:
    before = state(mail=(500, 500), search=(500, 4_500))
    same = compare(before, state(mail=(260, 240), search=(240, 2_260)))
    assert same["prediction"]["log_loss"] < same["prediction"]["log_loss_one_rate"]
    assert not any(row["changed"] for row in same["shares"]["shapley"]["channels"])
    moved = compare(before, state(mail=(100, 900), search=(900, 4_100), new=(5, 5)))
    changed = {row["channel"]: row["changed"] for row in moved["shares"]["shapley"]["channels"]}
    assert changed["mail"]
    assert changed["search"]
    assert moved["prediction"]["unknown_last_channel"] == 10
    assert moved["shares"]["shapley"]["total_variation"] == pytest.approx(0.4, abs=0.01)
