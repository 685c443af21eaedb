import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.calibration import Lift, calibrate
from attributary.attribution_core.forgetting import EffectiveCount, Forgetting, PeriodState, weigh
from attributary.attribution_core.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.markov import first_order_chain, first_order_removal
from attributary.attribution_core.state import JourneyState

DAY = 86_400_000_000
WEEK = Forgetting(7 * DAY)


def period(day: int, paths: list[list[str]], converted: list[bool]) -> PeriodState:
    outcomes = Outcomes.of(converted, [int(flag) * 5 for flag in converted])
    return PeriodState(day * DAY, JourneyState.fit(JourneyBatch.of_paths(paths), outcomes))


OLD = period(0, [["a", "b"], ["a"], ["b"]], [True, False, True])
NEW = period(7, [["c", "b"], ["b"]], [True, False])


def test_a_journey_of_one_half_life_ago_weighs_half() -> None:
    counts = weigh([NEW, OLD], WEEK, 7 * DAY)
    assert counts.names == ("a", "b", "c")
    assert counts.opens.tolist() == [1.0, 1.5, 1.0]
    assert counts.weight == 3 * 0.5 + 2
    assert counts.n_eff == pytest.approx(3.5**2 / (3 * 0.25 + 2))
    assert counts.ends[2].tolist() == [0, 0.5 * 10 + 5, 0]
    assert weigh([OLD, NEW], WEEK, 7 * DAY).steps.tobytes() == counts.steps.tobytes()
    scaled = counts.scaled()
    assert scaled.opens.sum() == pytest.approx(scaled.n_eff)


def test_estimates_do_not_depend_on_when_one_looks_and_old_data_fade_out() -> None:
    now, later = weigh([OLD, NEW], WEEK, 7 * DAY), weigh([OLD, NEW], WEEK, 700 * DAY)
    assert first_order_removal(later.chain()).effects == pytest.approx(first_order_removal(now.chain()).effects)
    assert later.n_eff == pytest.approx(now.n_eff)
    forgotten = weigh([OLD, NEW], Forgetting(DAY // 24), 7 * DAY)
    chain = NEW.state.chain
    only_new = first_order_chain(chain.steps, chain.opens, chain.conversions, chain.conversions + chain.nulls)
    effects = first_order_removal(forgotten.chain()).effects
    assert effects[[1, 2]] == pytest.approx(first_order_removal(only_new).effects)
    endless = weigh([OLD, NEW], Forgetting(10**18), 7 * DAY)
    assert endless.n_eff == pytest.approx(5)
    assert weigh([], WEEK, 0).n_eff == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 100)), min_size=1, max_size=8))
def test_the_effective_count_of_a_stream_survives_moving_its_origin(rows: list[tuple[int, int]]) -> None:
    found = EffectiveCount(0)
    for day, journeys in sorted(rows):
        found = found.add(day * DAY, journeys, WEEK)
    newest = max(day for day, _ in rows)
    weights = np.array([2.0 ** ((day - newest) / 7) for day, _ in rows])
    counts = np.array([journeys for _, journeys in rows])
    wanted = (weights @ counts) ** 2 / (weights**2 @ counts)
    assert found.n_eff == pytest.approx(wanted)
    assert 1 - 1e-9 <= found.n_eff <= counts.sum() * (1 + 1e-9)


def test_forgetting_needs_a_half_life() -> None:
    with pytest.raises(ValueError, match="positive"):
        Forgetting(0)


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
