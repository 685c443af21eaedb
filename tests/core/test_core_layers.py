import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.calibration import Lift, ScalingError, calibrate
from attributary.attribution_core.forgetting import EffectiveCount, Forgetting, PeriodState, weigh
from attributary.attribution_core.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.markov import first_order_chain, first_order_removal
from attributary.attribution_core.pooling import Z_90, Pooled, student_90
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
    assert search.standard_error == 20
    assert (mail.calibrated, mail.standard_error) == (100, 5)
    assert found.remainder == pytest.approx(600 - 100 - 200 - 50)
    half = Z_90 * (20 + 5 + 4)  # of the totals of mail and social nobody knows how they go together
    assert found.remainder_interval == pytest.approx((250 - half, 250 + half))


def test_a_measured_total_is_the_lift_and_the_error_of_the_model_cancels() -> None:
    found = calibrate(("a", "b"), np.array([100.0, 400.0]), np.array([50.0, 20.0]), {"a": Lift(50, 5)}, 500)
    assert found.channels[0].interval == pytest.approx((50 - Z_90 * 5, 50 + Z_90 * 5))
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
def test_borrowed_totals_cover_the_truth_where_experiments_err_as_much_as_channels_differ(
    experiments: int, least: float
) -> None:
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


def test_without_errors_another_member_has_the_prediction_interval_of_student() -> None:
    values = np.array([0.3, 0.5, 0.9, 0.6])
    pooled = Pooled(values, np.full(4, 1e-12))
    assert pooled.between == pytest.approx(values.var(ddof=1))
    mean, between = pooled.another
    drawn = mean + between * np.random.default_rng(0).standard_normal(mean.size)
    half = student_90(3) * values.std(ddof=1) * np.sqrt(1 + 1 / 4)
    assert np.quantile(drawn, (0.05, 0.95)) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.04)
    assert student_90(None) == pytest.approx(1.645, abs=1e-3)
    assert student_90(16) == pytest.approx(1.746, abs=0.01)


def test_the_spread_between_solves_the_equation_of_paule_and_mandel() -> None:
    values, variances = np.array([10.0, 90.0, 30.0]), np.array([4.0, 9.0, 400.0])
    pooled = Pooled(values, variances)
    weights = 1 / (variances + pooled.between)
    assert weights @ (values - pooled.mean) ** 2 == pytest.approx(2)
    assert pooled.variance == pytest.approx(1 / weights.sum())
    same = Pooled(np.full(3, 7.0), variances)
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
