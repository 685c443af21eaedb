from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core import analyze, read_events
from attributary.attribution_core.domain.journeys import (
    ChannelIndex,
    Floats,
    Ints,
    JourneyBatch,
    JourneyError,
    Outcomes,
)
from attributary.attribution_core.domain.money import split_with_baseline
from attributary.attribution_core.domain.segments import segment_counts
from attributary.attribution_core.models.channel_totals import Weights
from attributary.attribution_core.models.model_set import MODELS, ModelError, TrainedState, model_set
from attributary.attribution_core.models.poisson import (
    PoissonFit,
    PoissonTotals,
    eliminate_backwards,
    fit,
    fit_counts,
    fit_raising,
)
from attributary.attribution_core.models.poisson_credit import PoissonModel, PoissonSettings, Rates, RatesError
from attributary.attribution_core.statistics import histories
from attributary.attribution_core.statistics.exposure_rows import Exposures
from attributary.attribution_core.statistics.exposures import ExposureCounts
from attributary.attribution_core.statistics.histories import AGE_BOUNDS, pieces
from attributary.attribution_core.statistics.likelihood import Design, FitError
from attributary.attribution_core.statistics.state import StateError

DAY = 86_400_000_000
SECOND = 1_000_000
NAMES = ("mail", "search")
BETA = np.array([[0.6, 0.2, 0.0], [1.5, 0.8, 0.3]])
ALPHA = np.log(0.01)


class World(NamedTuple):
    batch: JourneyBatch
    outcomes: Outcomes
    watched_until: Ints


def world(people: int, seed: int, beta: Floats = BETA) -> World:
    """People with random touches over 20 days, watched for 40 days; the first conversion of each ends the journey."""
    generator = np.random.default_rng(seed)
    journeys, ends, converted = [], [], []
    bounds = [0, *AGE_BOUNDS]
    for _ in range(people):
        touches = sorted(
            (int(when), str(number), NAMES[int(generator.integers(2))])
            for number, when in enumerate(generator.integers(0, 20 * DAY, generator.integers(1, 4)))
        )
        cuts = sorted({when + bound for when, _, _ in touches for bound in bounds} | {40 * DAY})
        end, flag = 40 * DAY, False
        for low, high in pairwise(cuts):
            logs = ALPHA
            for when, _, channel in touches:
                if when <= low < when + AGE_BOUNDS[-1]:
                    place = int(np.searchsorted(AGE_BOUNDS, low - when, side="right"))
                    logs += beta[NAMES.index(channel), place]
            wait = generator.exponential(1 / np.exp(logs)) * DAY
            if wait < min(high, 40 * DAY) - low:
                end, flag = low + int(wait), True
                break
            if high >= 40 * DAY:
                break
        journeys.append([touch for touch in touches if touch[0] <= end])
        ends.append(end)
        converted.append(flag)
    batch = JourneyBatch.of(journeys, ends)
    return World(batch, Outcomes.of(converted, [10_000_000 * flag for flag in converted]), batch.converted_at)


@pytest.fixture(scope="module")
def known() -> World:
    return world(6_000, seed=2)


def test_known_rates_are_recovered_within_their_errors(known: World) -> None:
    counts = ExposureCounts.fit(known.batch, known.outcomes.conversions, known.watched_until)
    found = fit_counts(counts)
    assert found.alpha == pytest.approx(ALPHA, abs=0.1)
    z = (found.beta - BETA) / found.beta_error
    assert (np.abs(z) < 3).all()
    assert float((z**2).mean()) < 2.5
    assert counts.conversions.sum() == known.outcomes.conversions.sum()
    began = known.batch.times[known.batch.offsets[:-1]]
    assert counts.seconds.sum() == (known.watched_until // SECOND - began // SECOND).sum()


def test_credits_and_baseline_sum_to_one(known: World) -> None:
    fitted = PoissonFit(ALPHA, BETA, BETA)
    credits_, baseline = eliminate_backwards(known.batch, fitted)
    assert known.batch.sums(credits_) + baseline == pytest.approx(1, abs=1e-12)
    assert (credits_ >= -1e-15).all()  # no effect is negative here
    assert ((baseline > 0) & (baseline <= 1)).all()
    weights = Weights.observed(known.outcomes)
    totals = PoissonTotals(known.batch, known.watched_until).totals(weights)
    assert 0 < totals[0].sum() < known.outcomes.conversions.sum()
    assert totals[1] == pytest.approx(totals[0] * 10_000_000)
    # half of the touches are searches, and they raise the rate most
    assert totals[0, 1] > 2 * totals[0, 0]


def test_backwards_elimination_on_a_known_journey() -> None:
    batch = JourneyBatch.of([[(0, "1", "mail"), (10 * DAY, "2", "search")], []], [10 * DAY + 5, 0])
    credits_, baseline = eliminate_backwards(batch, PoissonFit(0.0, np.log([[8, 4, 2], [3, 1, 1]]), BETA))
    # mail is 10 days old (x2), search is fresh (x3): rates 1, 2, 6
    assert credits_ == pytest.approx([1 / 6, 4 / 6])
    assert baseline == pytest.approx([1 / 6, 1])
    edge = JourneyBatch.of([[(0, "1", "mail")]], [AGE_BOUNDS[-1]])
    assert eliminate_backwards(edge, PoissonFit(0.0, BETA, BETA))[0].tolist() == [0.0]  # grown out


def test_a_touch_that_lowers_the_rate_gets_a_negative_credit() -> None:
    batch = JourneyBatch.of([[(0, "1", "mail")]], [5])
    credits_, baseline = eliminate_backwards(batch, PoissonFit(0.0, np.array([[-1.0, 0, 0]]), BETA))
    assert credits_[0] < 0
    assert credits_[0] + baseline[0] == pytest.approx(1)


JOURNEYS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 50 * DAY), st.just(""), st.sampled_from("abc")), max_size=5),
        st.booleans(),
        st.integers(0, 60 * DAY),
    ),
    min_size=1,
    max_size=6,
)


def counted(rows: list[tuple[list[tuple[int, str, str]], bool, int]]) -> ExposureCounts:
    ends = [max([touch[0] for touch in touches], default=0) for touches, _, _ in rows]
    batch = JourneyBatch.of([touches for touches, _, _ in rows], ends)
    until = np.array([end + more for end, (_, _, more) in zip(ends, rows, strict=True)], dtype=np.int64)
    return ExposureCounts.fit(batch, np.array([int(flag) for _, flag, _ in rows], dtype=np.int64), until)


@settings(max_examples=40, deadline=None)
@given(JOURNEYS, JOURNEYS)
def test_exposure_counts_add_and_subtract_exactly(one: list, two: list) -> None:  # type: ignore[type-arg]
    a, b, both = counted(one), counted(two), counted(one + two)
    total = a.add(b)
    assert total.to_document() == both.to_document() == b.add(a).to_document()
    document = json.loads(json.dumps(total.to_document()))
    if document["channels"]:
        assert ExposureCounts.from_document(document).to_document() == document
        with pytest.raises(JourneyError):
            ExposureCounts.from_document({**document, "seconds": [1, *document["seconds"]]})
    with pytest.raises(JourneyError, match="schema"):
        ExposureCounts.from_document({**document, "schema": 0})
    assert total.subtract(b).to_document() == a.to_document()
    with pytest.raises(JourneyError):
        a.subtract(total.add(counted([([(0, "", "a")], True, 5)])))


@settings(max_examples=40, deadline=None)
@given(JOURNEYS)
def test_pieces_cover_each_history_once(rows: list) -> None:  # type: ignore[type-arg]
    ends = [max([touch[0] for touch in touches], default=0) for touches, _, _ in rows]
    batch = JourneyBatch.of([touches for touches, _, _ in rows], ends)
    until = np.array([end + more for end, (_, _, more) in zip(ends, rows, strict=True)], dtype=np.int64)
    found = pieces(batch, until)
    watched = np.bincount(found.journey, found.until - found.since, len(batch))
    began = [min([touch[0] for touch in touches], default=int(until[n])) for n, (touches, _, _) in enumerate(rows)]
    assert watched.tolist() == (until - np.array(began)).tolist()
    for journey, (touches, _, _) in enumerate(rows):
        before = [(when, channel) for when, _, channel in touches if when < until[journey]]
        if not before:
            assert found.at_end[journey] == -1
            continue
        wanted = np.zeros((len(batch.index), len(AGE_BOUNDS) + 1))
        for when, channel in before:  # up to the end: an age that is a bound there was below it before
            age = int(np.searchsorted(AGE_BOUNDS, until[journey] - when, side="left"))
            wanted[batch.index.code(channel), age] += 1
        held = found.exposures.dense(wanted[:, :-1].size)[found.at_end[journey]].reshape(len(batch.index), -1)
        assert held.tolist() == np.minimum(wanted[:, :-1], 5).tolist()


def test_nothing_to_fit_is_refused_and_shown_as_unavailable() -> None:
    with pytest.raises(FitError):
        fit(Design.of(Exposures.checked([0], [], [], 3), 3), np.zeros(1), np.zeros(1), 3)
    columns: dict[str, list[Any]] = {"user": ["u", "u"], "time": [0, 90_000], "channel": ["a", "b"]}
    report = analyze(read_events(columns), ["poisson"], intervals=True, draws=10)["poisson"]
    assert report.diagnostics["status"] == "unavailable: no conversions"
    assert report.to_dict()["channels"][0]["share"] is None


def test_the_analysis_of_events_has_baseline_intervals_and_rate_ratios(known: World) -> None:
    part = known.batch.slice(0, 1_500)
    columns: dict[str, list[Any]] = {"user": [], "time": [], "channel": [], "conversion": [], "value": []}
    for journey in range(len(part)):
        low, high = int(part.offsets[journey]), int(part.offsets[journey + 1])
        rows = [(int(part.times[n]) / 1e6, NAMES[part.channels[n]], 0) for n in range(low, high)]
        if known.outcomes.conversions[journey]:
            rows.append((int(part.converted_at[journey]) / 1e6, "", 1))
        for when, channel, flag in rows:
            for name, cell in zip(columns, (str(journey), when, channel, flag, 10 * flag), strict=True):
                columns[name].append(cell)
    report = analyze(read_events(columns), ["poisson"], intervals=True, draws=30)["poisson"]
    mail, search = report.channels
    assert search["rate_ratio_0_1_days"] > mail["rate_ratio_0_1_days"] > 1
    assert search["interval"][0] < search["share"] < search["interval"][1]
    assert report.diagnostics["baseline_share"] == pytest.approx(1 - mail["share"] - search["share"])


def test_histories_cut_in_several_parts_are_the_same(known: World, monkeypatch: pytest.MonkeyPatch) -> None:
    part = known.batch.slice(0, 300)
    until = known.watched_until[:300]
    whole = pieces(part, until)
    monkeypatch.setattr(histories, "_ENTRIES", 500)
    cut = pieces(part, until)
    assert cut.exposures.words.tolist() == whole.exposures.words.tolist()
    assert cut.exposures.offsets.tolist() == whole.exposures.offsets.tolist()
    for name in ("exposure", "journey", "since", "until", "at_end"):
        assert getattr(cut, name).tolist() == getattr(whole, name).tolist()
    nothing = pieces(JourneyBatch.of([], [], part.index), np.zeros(0, dtype=np.int64))
    assert nothing.journey.size == 0
    with pytest.raises(JourneyError, match="one entry per journey"):
        pieces(part, until[:-1])


def test_counts_of_other_age_classes_cannot_be_added() -> None:
    one = counted([([(0, "", "a")], True, 5)])
    other = ExposureCounts(one.index, (5,), Exposures.checked([1], [0], [1], 1), one.seconds[:1], one.conversions[:1])
    with pytest.raises(JourneyError, match="bounds"):
        one.add(other)
    with pytest.raises(JourneyError, match="damaged"):
        ExposureCounts.from_document({**one.to_document(), "bounds": ["x"]})


RATES = Rates(
    ChannelIndex.of(NAMES),
    AGE_BOUNDS,
    BETA,
    np.stack([BETA, BETA * 1.2, np.maximum(BETA - 0.2, 0)]),
    np.array([50, 99]),
)


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 50 * DAY), st.just(""), st.sampled_from(("mail", "search", "?"))), max_size=9
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60)
def test_published_shares_do_not_depend_on_neighbours(
    journeys: list[list[tuple[int, str, str]]],
) -> None:
    batch = JourneyBatch.of(journeys, [60 * DAY] * len(journeys))
    model = PoissonModel("3", Rates.from_document(json.loads(json.dumps(RATES.to_document()))), PoissonSettings())
    credits_, baseline, confidence = model.credits(batch), model.baseline(batch), model.confidence(batch)
    filled = batch.lengths > 0
    assert (credits_ >= 0).all()
    assert ((baseline >= 0) & (baseline <= 1)).all()
    assert (batch.sums(credits_) + baseline)[filled] == pytest.approx(1, abs=1e-12)
    unknown = [any(name == "?" for _, _, name in journey) for journey in journeys]
    assert model.fallback(batch).tolist() == unknown
    assert np.isnan(confidence).tolist() == (np.array(unknown) | ~filled).tolist()
    values, units = np.full(len(batch), -12_345_678), np.full(len(batch), 10_000)
    micros, rest = split_with_baseline(credits_, baseline, batch.offsets, values, units)
    assert (segment_counts(micros, batch.offsets) + rest == values)[filled].all()
    assert not rest[~filled].any()
    for place in range(len(batch)):
        alone = batch.slice(place, place + 1)
        assert model.credits(alone).tolist() == credits_[batch.journey_of_touch == place].tolist()
        assert model.baseline(alone).tolist() == baseline[place : place + 1].tolist()
        assert np.array_equal(model.confidence(alone), confidence[place : place + 1], equal_nan=True)


def test_published_credits_equal_the_free_fit_if_no_effect_is_negative(known: World) -> None:
    counts = ExposureCounts.fit(known.batch, known.outcomes.conversions, known.watched_until)
    beta, draws = fit_raising(counts, draws=200, seed=1)
    free = fit_counts(counts)
    assert (beta >= 0).all()
    assert beta[free.beta > 0.1] == pytest.approx(free.beta[free.beta > 0.1], abs=0.05)
    clear = free.beta > 3 * free.beta_error
    assert draws.std(axis=0)[clear] == pytest.approx(free.beta_error[clear], rel=0.25)
    rates = Rates(counts.index, counts.bounds, beta, draws, counts.conversions_with())
    model = PoissonModel("1", rates, PoissonSettings())
    expected, baseline = eliminate_backwards(known.batch, PoissonFit(0.0, beta, beta))
    assert model.credits(known.batch) == pytest.approx(expected, abs=1e-9)
    assert model.baseline(known.batch) == pytest.approx(baseline, abs=1e-9)
    assert float(np.nanmean(model.confidence(known.batch))) > 0.9


def test_the_raising_fit_is_the_constrained_maximum() -> None:
    """Karush, Kuhn, Tucker: no effect above 0 has a slope, and none at 0 would raise the posterior by leaving it."""
    for seed in range(8):
        some = world(300, seed=seed, beta=np.array([[-0.3, 0.1, 0.0], [0.2, -0.2, 0.0]]))
        counts = ExposureCounts.fit(some.batch, some.outcomes.conversions, some.watched_until)
        beta, _ = fit_raising(counts, draws=2, seed=0)
        design, days = Design.of(counts.exposures, beta.size), counts.days
        exposed = np.exp(design.logs(np.append(0.0, beta.ravel())))
        alpha = np.log(counts.conversions.sum() / (days @ exposed))  # no prior on the intercept
        slopes = design.sums(counts.conversions - days * np.exp(alpha) * exposed) - beta.ravel() / 9
        free = beta.ravel() > 0
        assert slopes[free] == pytest.approx(0, abs=1e-5)
        assert (slopes[~free] < 1e-3).all()


def test_the_baseline_interval_reaches_1_where_touches_have_no_effect() -> None:
    held = []
    for seed in range(25):
        some = world(1_000, seed=seed, beta=np.zeros((2, 3)))
        counts = ExposureCounts.fit(some.batch, some.outcomes.conversions, some.watched_until)
        beta, draws = fit_raising(counts, draws=64, seed=0)
        model = PoissonModel(
            "1", Rates(counts.index, counts.bounds, beta, draws, np.array([99, 99])), PoissonSettings()
        )
        journeys = some.batch.select(some.outcomes.conversions > 0)
        held.append(float((np.quantile(model.drawn_baselines(journeys), 0.95, axis=0) > 0.999).mean()))
    assert np.mean(held) > 0.85


def test_negative_effects_are_fixed_at_0_and_the_rest_is_refitted() -> None:
    counts = ExposureCounts(
        ChannelIndex.of(["a", "b"]),
        (DAY,),
        Exposures.checked([0, 1, 1], [0, 1], [1, 1], 2),
        np.array([1000, 1000, 1000]) * 86_400,
        np.array([200, 50, 600]),
    )
    assert fit_counts(counts).beta[0, 0] < -1
    beta, draws = fit_raising(counts, draws=50, seed=1)
    assert beta[0, 0] == 0
    assert (draws[:, 0] < 0).all()  # fixed, but not known to be nothing
    assert np.exp(beta[1, 0]) == pytest.approx(600 / 125, rel=0.02)  # base rate: (200 + 50) / 2
    rates = Rates(counts.index, counts.bounds, beta, draws, np.array([99, 99]))
    journey = JourneyBatch.of([[(0, "1", "a"), (0, "2", "b")]], [5])
    model = PoissonModel("1", rates, PoissonSettings())
    assert all((credits_ >= 0).all() for credits_, _ in model.drawn_credits(journey))
    assert (model.drawn_baselines(journey) > np.concatenate([rest for _, rest in model.drawn_credits(journey)])).all()
    nothing, _ = fit_raising(
        ExposureCounts(counts.index, counts.bounds, counts.exposures, counts.seconds, np.array([600, 50, 50])),
        draws=5,
        seed=1,
    )
    assert not nothing.any()


def test_a_touch_beyond_the_fifth_of_its_kind_says_nothing_new() -> None:
    batch = JourneyBatch.of([[(place, str(place), "search") for place in range(7)]], [10])
    published = PoissonModel("1", RATES, PoissonSettings()).credits(batch)
    analysed, _ = eliminate_backwards(batch, PoissonFit(0.0, np.log([[2, 1, 1]]), BETA))
    for credits_ in (published, analysed):
        assert (credits_[5:] == 0).all()
        assert (credits_[:5] > 0).all()
    assert analysed[:5] == pytest.approx([1 / 32, 2 / 32, 4 / 32, 8 / 32, 16 / 32])


@pytest.mark.parametrize(
    "change",
    [{"kind": "x"}, {"schema": 9}, {"beta": [[1.0]]}, {"channels": ["b", "a"]}, {"beta": [[-1.0, 0, 0], [0, 0, 0]]}],
)
def test_damaged_rates_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RatesError):
        Rates.from_document(RATES.to_document() | change)
    with pytest.raises(StateError, match="poisson 4"):
        model_set(["poisson"], {"poisson": TrainedState("4", RATES.to_document() | change, {})})


def test_an_optional_model_is_there_only_with_a_state() -> None:
    state = {"poisson": TrainedState("4", RATES.to_document(), {"minimum_conversions": 80})}
    assert [model.name for model in model_set(states=state).models] == [*MODELS, "poisson"]
    assert "poisson" not in [model.name for model in model_set().models]
    batch = JourneyBatch.of([[(0, "", "mail")], [(0, "", "search")]], [10, 10])
    said = model_set(["poisson"], state).attribute(batch)["poisson"]
    assert said.fallback is not None
    assert said.fallback.tolist() == [True, False]  # mail: 50 conversions
    (untrained,) = model_set(["poisson"]).models
    assert (untrained.version, untrained.fallback_rule) == ("untrained", "time_decay")
    with pytest.raises(ModelError, match="unknown setting"):
        model_set(["poisson"], {"poisson": TrainedState("4", RATES.to_document(), {"order": 1})})


def test_confidence_is_how_near_the_draws_are_to_the_credits() -> None:
    beta = np.array([[0.6, 0.2, 0.0]])
    rates = Rates(ChannelIndex.of("a"), AGE_BOUNDS, beta, np.stack([beta * 0.5, beta * 1.5]), np.array([99]))
    confidence = PoissonModel("1", rates, PoissonSettings()).confidence(JourneyBatch.of([[(0, "", "a")]], [5]))
    kept = np.exp([-0.6, -0.3, -0.9])  # of the baseline: by the estimate, and by the draws
    assert confidence[0] == pytest.approx(1 - abs(kept[1:] - kept[0]).mean())


def test_each_journey_is_credited_by_its_own_first_five_touches_of_a_kind() -> None:
    beta = np.array([[0.6, 0.2, 0.1]])
    rates = Rates(ChannelIndex.of("a"), AGE_BOUNDS, beta, beta[None], np.array([99]))
    journey = [(place, str(place), "a") for place in range(7)]
    found = PoissonModel("1", rates, PoissonSettings()).credits(JourneyBatch.of([journey, journey], [10, 10]))
    assert (found > 0).tolist() == 2 * ([True] * 5 + [False] * 2)
    with pytest.raises(RatesError, match="numbers"):
        Rates.from_document(rates.to_document() | {"draws": [[float("nan"), 0.0, 0.0]]})
