"""The back-test of the time-aware model, by hand and on a real Postgres."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import ChannelIndex
from attributary.attribution_core.models.poisson import fit_counts
from attributary.attribution_core.statistics.exposure_rows import Exposures
from attributary.attribution_core.statistics.exposures import SECONDS_PER_DAY, ExposureCounts
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training.backtest_rates import backtest_rates, compare_rates
from attributary.consumers.training.read_exposures import ObservedExposures
from attributary.consumers.training.read_journeys import Window
from attributary.consumers.training.train import TrainingError
from tests.factories.training_events import DAY, NOW, feed, touchpoint
from tests.trainer.test_trainer_poisson import world

if TYPE_CHECKING:
    from typing import Any


def observed(names: str, cells: dict[int, tuple[int, int]], nothing: tuple[int, int]) -> ObservedExposures:
    """One touch in each of some cells, and no touch: (days, conversions) under each."""
    days = np.array([nothing[0], *(each[0] for each in cells.values())])
    conversions = np.array([nothing[1], *(each[1] for each in cells.values())])
    rows = Exposures.checked([0] + [1] * len(cells), list(cells), [1] * len(cells), 3 * len(names))
    counts = ExposureCounts(ChannelIndex.of(names), AGE_BOUNDS, rows, days * SECONDS_PER_DAY, conversions)
    paths = Counter({((names[cell // 3], cell % 3),): each[1] for cell, each in cells.items()})
    return ObservedExposures(counts, 0, people=5, paths=paths + Counter({(): nothing[1]}))


def test_rates_are_scored_on_what_came_after() -> None:
    statistics = observed("ac", {0: (1_000, 80), 3: (1_000, 20)}, (10_000, 100))
    seen = observed("abc", {0: (500, 45), 3: (100, 7), 6: (500, 8)}, (5_000, 60))  # b was not learned
    report = compare_rates(statistics, seen)
    fitted = fit_counts(statistics.counts)
    base, fresh_a, fresh_c = (float(np.exp(fitted.alpha + log)) for log in (0.0, fitted.beta[0, 0], fitted.beta[1, 0]))
    assert (base, fresh_a, fresh_c) == pytest.approx((0.01, 0.08, 0.02), rel=0.02)
    said = report["prediction"]
    expected = 500 * fresh_a + 100 * base + 500 * fresh_c + 5_000 * base
    assert said["expected_conversions"] == pytest.approx(expected)
    logs = 45 * np.log(fresh_a) + 7 * np.log(base) + 8 * np.log(fresh_c) + 60 * np.log(base)
    assert said["log_loss"] == pytest.approx((expected - logs) / 120)
    one = 200 / 12_000
    assert said["log_loss_one_rate"] == pytest.approx((6_100 * one - 120 * np.log(one)) / 120)
    assert said["log_loss"] < said["log_loss_one_rate"]
    assert said["unknown_channel_conversions"] == 7
    low, middle, high = said["by_rate"]
    assert (low["conversions"], middle["conversions"], high["conversions"]) == (67, 8, 45)  # b is like no touch
    assert low["rate_per_day"] == pytest.approx([base, base])
    assert high["expected_conversions"] == pytest.approx(500 * fresh_a)
    assert (report["learned_from"], report["tested_on"]["conversions"]) == (
        {"people": 5, "days": 12_000, "conversions": 200},
        120,
    )


def test_rates_that_are_noise_do_not_beat_one_rate() -> None:
    statistics = observed("ab", {0: (100, 4), 3: (100, 1)}, (1_000, 20))  # true: 0.02 everywhere
    seen = observed("ab", {0: (10_000, 200), 3: (10_000, 200)}, (10_000, 200))
    said = compare_rates(statistics, seen)["prediction"]
    assert said["log_loss"] > said["log_loss_one_rate"]


@pytest.mark.postgres
def test_known_rates_predict_the_second_half(database: str) -> None:
    events = [*world(3_000, seed=8), touchpoint("end", 20, "mail")]
    feed(database, events)
    window = Window("acme")
    done: list[tuple[int, int | None]] = []
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        report: dict[str, Any] = backtest_rates(connection, window, NOW + 6 * DAY, lambda *one: done.append(one))
        for split, why in (
            (NOW + 99 * DAY, "at or after the split"),
            (NOW + 21 * DAY, "at or after the split"),  # the data end before, some touches are of the last 30 days
            (NOW + 45 * DAY, "at or after the split"),
            (NOW + DAY // 1_000, "no conversions, .* before the split"),
        ):
            with pytest.raises(TrainingError, match=why):
                backtest_rates(connection, window, split)
    said = report["prediction"]
    assert said["log_loss"] < said["log_loss_one_rate"] - 0.05
    seen = report["tested_on"]["conversions"]
    assert seen > 200
    assert said["expected_conversions"] == pytest.approx(seen, rel=0.25)
    assert sum(row["conversions"] for row in said["by_rate"]) == seen
    assert {row["channel"] for row in report["shares"]["poisson"]["channels"]} == {"(baseline)", "mail", "search"}
    assert sum(1 for at, _ in done if at == 0) == 2


def test_shares_need_conversions_after_the_split() -> None:
    report = compare_rates(observed("a", {0: (10, 5)}, (100, 9)), observed("a", {0: (10, 0)}, (100, 0)))
    assert report["shares"] is None
    assert report["prediction"]["log_loss"] is None
    assert report["prediction"]["expected_conversions"] > 10
