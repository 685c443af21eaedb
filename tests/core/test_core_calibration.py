"""Totals scaled by what experiments measured."""

import numpy as np
import pytest

from attributary.attribution_core.calibration import Lift, calibrate

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
