"""Totals scaled by what experiments measured."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis.experiment_lifts import Totals, calibrate_totals, calibration_document
from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE
from attributary.attribution_core.inference.calibration import Lift, ScalingError, calibrate
from attributary.attribution_core.inference.meta_analysis import RandomEffects, student_90
from attributary.attribution_core.tables.experiments import Experiment, ExperimentError
from tests.core.unequal import UNEQUAL

DAY = 86_400_000_000

NAMES = ("mail", "search", "social")
TOTALS = np.array([100.0, 400.0, 50.0])
ERRORS = np.array([5.0, 8.0, 4.0])


def test_a_single_experiment_scales_its_own_channel_only() -> None:
    found = calibrate(NAMES, TOTALS, ERRORS, {"search": Lift(200, 20)}, 600)
    mail, search, social = found.channels
    assert (mail.basis, search.basis, social.basis) == ("uncalibrated", "measured", "uncalibrated")
    assert search.calibrated == pytest.approx(200)
    assert search.standard_error == 20
    assert (mail.calibrated, mail.standard_error) == (100, 5)
    assert found.remainder == pytest.approx(600 - 100 - 200 - 50)
    half = NORMAL_QUANTILE * (20 + 5 + 4)  # of the totals of mail and social nobody knows how they go together
    assert found.remainder_interval == pytest.approx((250 - half, 250 + half))


def test_a_measured_total_is_the_lift_and_the_error_of_the_model_cancels() -> None:
    found = calibrate(("a", "b"), np.array([100.0, 400.0]), np.array([50.0, 20.0]), {"a": Lift(50, 5)}, 500)
    assert found.channels[0].interval == pytest.approx((50 - NORMAL_QUANTILE * 5, 50 + NORMAL_QUANTILE * 5))
    generator, hits = np.random.default_rng(4), 0
    for _ in range(2_000):
        total, lift = generator.normal(100, 30), float(generator.normal(60, 6))
        found = calibrate(("a",), np.array([max(total, 1.0)]), np.array([30.0]), {"a": Lift(lift, 6.0)}, 100)
        low, high = found.channels[0].interval
        hits += low <= 60 <= high
    assert 0.88 <= hits / 2_000 <= 0.92


def test_other_channels_borrow_the_common_ratio_with_more_doubt() -> None:
    lifts = {"search": Lift(200, 20), "mail": Lift(80, 10)}
    found = calibrate(NAMES, TOTALS, ERRORS, lifts, 600)
    mail, search, social = found.channels
    assert social.basis == "borrowed"
    assert 0.5 < found.common_factor < 0.8
    assert found.between > 0
    assert social.factor == found.common_factor
    assert social.standard_error / social.calibrated > search.standard_error / search.calibrated
    assert (search.factor, mail.factor) == (0.5, 0.8)  # a measurement stands
    low, high = social.interval
    assert low < social.calibrated < high


def test_a_channel_that_receives_nothing_borrows_nothing() -> None:
    lifts = {"a": Lift(80.0, 8.0), "b": Lift(55.0, 5.0)}
    found = calibrate(("a", "b", "c"), np.array([100.0, 50.0, 0.0]), np.array([1.0, 1.0, 0.0]), lifts, 200.0)
    none = found.channels[2]
    assert (none.basis, none.factor, none.calibrated) == ("uncalibrated", 1.0, 0.0)


@pytest.mark.slow
def test_intervals_of_calibrated_channels_cover_the_truth() -> None:
    generator = np.random.default_rng(3)
    hits = np.zeros(2)
    for _ in range(400):
        ratios = generator.normal(0.6, 0.15, 6)
        totals = np.full(6, 200.0)
        truth = ratios * totals
        lifts = {str(n): Lift(float(generator.normal(truth[n], 20)), 20.0) for n in range(4)}
        found = calibrate(tuple("012345"), totals, np.full(6, 1e-9), lifts, 1_200)
        for place, channel in enumerate(found.channels):
            hits[int(place >= 4)] += channel.interval[0] <= truth[place] <= channel.interval[1]
    measured, borrowed = hits / (1_600, 800)
    assert 0.86 <= measured <= 0.94
    assert 0.84 <= borrowed <= 0.96


@pytest.mark.parametrize(("experiments", "least"), [(5, 0.88), (10, 0.85)])
def test_borrowed_totals_cover_the_truth_at_their_level(experiments: int, least: float) -> None:
    generator, hits, whole_hits = np.random.default_rng(11), 0, 0
    names, totals = tuple(f"{place:02d}" for place in range(experiments + 2)), np.full(experiments + 2, 200.0)
    for _ in range(250):
        truth = 200 * generator.normal(0.6, 0.15, totals.size)
        lifts = {name: Lift(float(generator.normal(truth[place], 30)), 30.0) for place, name in enumerate(names[:-2])}
        found = calibrate(names, totals, np.full(totals.size, 1e-9), lifts, 2_000)
        for place in (-2, -1):
            hits += found.channels[place].interval[0] <= truth[place] <= found.channels[place].interval[1]
        whole_hits += found.remainder_interval[0] <= 2_000 - truth.sum() <= found.remainder_interval[1]
    assert least <= hits / 500 <= 0.94
    assert 0.89 <= whole_hits / 250 <= 0.98


def test_without_errors_the_prediction_interval_is_students() -> None:
    values = np.array([0.3, 0.5, 0.9, 0.6])
    pooled = RandomEffects(values, np.full(4, 1e-12))
    assert pooled.between == pytest.approx(values.var(ddof=1))
    mean, between = pooled.another
    drawn = mean + between * np.random.default_rng(0).standard_normal(mean.size)
    half = student_90(3) * values.std(ddof=1) * np.sqrt(1 + 1 / 4)
    assert np.quantile(drawn, (0.05, 0.95)) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.04)
    assert student_90(None) == pytest.approx(1.645, abs=1e-3)
    assert student_90(16) == pytest.approx(1.746, abs=0.01)


def test_the_spread_between_solves_the_equation_of_paule_and_mandel() -> None:
    values, variances = np.array([10.0, 90.0, 30.0]), np.array([4.0, 9.0, 400.0])
    pooled = RandomEffects(values, variances)
    weights = 1 / (variances + pooled.between)
    assert weights @ (values - pooled.mean) ** 2 == pytest.approx(2)
    assert pooled.variance == pytest.approx(1 / weights.sum())
    same = RandomEffects(np.full(3, 7.0), variances)
    assert (same.between, same.q, same.contradict) == (0, 0, False)
    assert same.another[1].max() == 0


def test_experiments_are_checked() -> None:
    with pytest.raises(ValueError, match="no channel"):
        calibrate(NAMES, TOTALS, ERRORS, {"radio": Lift(1, 1)}, 600)
    with pytest.raises(ScalingError, match="nothing"):
        calibrate(NAMES, np.zeros(3), ERRORS, {"mail": Lift(1, 1)}, 600)
    with pytest.raises(ScalingError, match="not known"):
        calibrate(NAMES, TOTALS, np.full(3, np.nan), {"mail": Lift(1, 1)}, 600)
    for conversions, error in ((1.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="standard error"):
            Lift(conversions, error)
    unchanged = calibrate(NAMES, TOTALS, ERRORS, {}, 600)
    assert [channel.calibrated for channel in unchanged.channels] == TOTALS.tolist()


LIFTS = {"search": Lift(200, 20), "mail": Lift(80, 10)}


def test_the_error_of_a_borrowing_channel_s_own_total_is_carried_through() -> None:
    sure, unsure = (
        calibrate(NAMES, TOTALS, np.array([5.0, 8.0, error]), LIFTS, 600).channels[2] for error in (0.0, 4.0)
    )
    assert unsure.standard_error**2 - sure.standard_error**2 == pytest.approx((unsure.factor * 4.0) ** 2)


TWO = Totals(("mail", "search"), np.array([100.0, 50.0]), np.array([4.0, 3.0]), 200.0, 0, 40 * DAY)


def test_experiments_of_value_do_not_calibrate_conversions() -> None:
    mixed = [Experiment("mail", "conversions", 60, 10), Experiment("search", "value", 9_000, 10)]
    found = calibrate_totals(TWO, mixed, "conversions")
    assert [channel.basis for channel in found.channels] == ["measured", "uncalibrated"]


def test_totals_of_nothing_have_no_shares() -> None:
    nothing = Totals(TWO.channels, TWO.amounts, TWO.errors, 0.0)
    document = calibration_document(nothing, [Experiment("mail", "conversions", 60, 10)], "conversions")
    assert [row["share"] for row in document["channels"]] == [None, None]


def test_a_share_is_not_carried_to_another_time() -> None:
    share = Experiment("mail", "share", 0.3, 0.05, 10 * DAY, 20 * DAY)
    assert calibration_document(TWO, [share], "conversions")["experiments"][0]["carried"] == 1


def test_an_amount_cannot_be_carried_to_totals_without_an_end() -> None:
    half = Totals(TWO.channels, TWO.amounts, TWO.errors, 200.0, 0, None)
    with pytest.raises(ExperimentError, match="no begin or no end"):
        calibrate_totals(half, [Experiment("mail", "conversions", 15, 2, 10 * DAY, 20 * DAY)], "conversions")


def test_experiments_on_shares_calibrate_conversions_only() -> None:
    report = analyze(UNEQUAL, ["last"], experiments=(Experiment("a", "share", 0.3, 0.05),), draws=30)["last"]
    assert [each["of"] for each in report.diagnostics["calibration"]] == ["conversions"]
    assert "calibrated_value" not in report.channels[0]


def test_an_experiment_of_a_quarter_of_the_time_is_carried_to_all_of_it() -> None:
    touches = [(f"u{n}", 0, "mail" if n % 2 else "search", 0, 0) for n in range(200)]
    orders = [(f"u{n}", 40 * 86_400, "", 1, 5) for n in range(0, 200, 3)]
    names = ("user", "time", "channel", "conversion", "value")
    events = dict(zip(names, map(list, zip(*touches, *orders, strict=True)), strict=True))
    quarter = Experiment("mail", "conversions", 5.0, 1.0, 10 * DAY, 20 * DAY)
    report = analyze(events, ["last"], experiments=(quarter,), draws=30)["last"]
    assert report.diagnostics["calibration"][0]["experiments"][0]["carried"] == 4
