"""Totals scaled by what experiments measured."""

import numpy as np
import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.calibration import Lift, calibrate
from attributary.attribution_core.lifts import (
    Experiment,
    ExperimentError,
    Totals,
    calibrate_totals,
    calibration_document,
    read_experiments,
)
from tests.core.unequal import UNEQUAL, Columns

DAY = 86_400_000_000

NAMES = ("mail", "search", "social")
TOTALS = np.array([100.0, 400.0, 50.0])
ERRORS = np.array([5.0, 8.0, 4.0])


def test_a_single_experiment_scales_its_own_channel_only() -> None:
    found = calibrate(NAMES, TOTALS, ERRORS, {"search": Lift(200, 20)}, 600)
    mail, search, social = found.channels
    assert (mail.basis, search.basis, social.basis) == ("uncalibrated", "measured", "uncalibrated")
    assert search.calibrated == pytest.approx(200)
    assert search.standard_error == pytest.approx(np.hypot(20, 0.5 * 8))
    assert (mail.calibrated, mail.standard_error) == (100, 5)
    assert found.remainder == pytest.approx(600 - 100 - 200 - 50)


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


def test_experiments_are_checked() -> None:
    with pytest.raises(ValueError, match="no channel"):
        calibrate(NAMES, TOTALS, ERRORS, {"radio": Lift(1, 1)}, 600)
    with pytest.raises(ValueError, match="nothing"):
        calibrate(NAMES, np.zeros(3), ERRORS, {"mail": Lift(1, 1)}, 600)
    for conversions, error in ((1.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="standard error"):
            Lift(conversions, error)
    unchanged = calibrate(NAMES, TOTALS, ERRORS, {}, 600)
    assert [channel.calibrated for channel in unchanged.channels] == TOTALS.tolist()


LIFTS = {"search": Lift(200, 20), "mail": Lift(80, 10)}


def test_the_spread_between_channels_is_that_of_dersimonian_and_laird() -> None:
    found = calibrate(NAMES, TOTALS, np.zeros(3), LIFTS, 600)
    weights, ratios = 1 / np.array([0.1, 0.05]) ** 2, np.array([0.8, 0.5])
    mean = weights @ ratios / weights.sum()
    q, c = weights @ (ratios - mean) ** 2, weights.sum() - weights @ weights / weights.sum()
    assert (q, c) == (pytest.approx(7.2), pytest.approx(160))
    assert found.between == pytest.approx((q - 1) / c)


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


def test_experiments_are_read_with_their_time_in_micros() -> None:
    cells: Columns = {
        "channel": ["a"],
        "standard_error": [1],
        "share": [0.1],
        "from": ["100000000"],
        "to": ["200000000"],
    }
    (found,) = read_experiments(cells)
    assert (found.since, found.until) == (100_000_000, 200_000_000)


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
