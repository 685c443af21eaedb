from __future__ import annotations

import ast
import inspect
import re
from itertools import permutations
from math import comb, factorial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.analysis import insights
from attributary.attribution_core.analysis import journey_insights as journey_insights_module
from attributary.attribution_core.analysis.insights import Insight, population_insights
from attributary.attribution_core.analysis.journey_insights import journey_insights
from attributary.attribution_core.analysis.positions import Positions, assists
from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.models.poisson_credit import Rates
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import JourneyTable

DAY = 86_400_000_000
CAUSE = re.compile(r"caus|increment|would lose|drove|driv|led to|because|impact|effective(?!ly)|generat", re.IGNORECASE)


def table(rows: list[tuple[list[str], int, int]]) -> JourneyTable:
    batch = JourneyBatch.of_paths([path for path, _, _ in rows])
    conversions, nulls = (np.array([row[place] for row in rows], dtype=np.int64) for place in (1, 2))
    return JourneyTable(batch, Outcomes(conversions, nulls, conversions * 1_000_000))


OPENING = table(
    [
        (["social", "search"], 300, 900),
        (["social", "mail", "search"], 120, 200),
        (["search"], 150, 3_000),
        (["social"], 40, 3_000),
        (["mail"], 50, 2_000),
        (["mail", "search"], 90, 2_000),
        (["rare"], 2, 10),
    ]
)


def by_rule(found: list[Insight], rule: str) -> dict[tuple[str, ...], Insight]:
    return {insight.subject: insight for insight in found if insight.rule_id == rule}


@pytest.fixture(scope="module")
def found() -> list[Insight]:
    return population_insights(OPENING, draws=120)


def test_every_finding_has_an_estimate_in_its_interval_and_n(found: list[Insight]) -> None:
    assert {insight.rule_id for insight in found} == {
        "channel.opener_closer", "channel.assist", "pair.synergy", "pair.rank", "population.concentration",
        "population.length", "population.length_p90",
    }  # fmt: skip
    for insight in found:
        assert insight.n >= 0
        assert insight.low is not None
        assert insight.high is not None
        assert not insight.low > insight.high
        if insight.text is not None:
            assert insight.n >= 30
            assert insight.low <= insight.estimate <= insight.high
            assert not CAUSE.search(insight.text), insight.text


def test_openers_closers_and_assists(found: list[Insight]) -> None:
    ratios = by_rule(found, "channel.opener_closer")
    social, search = ratios["social",], ratios["search",]
    assert social.text is not None
    assert "opens" in social.text
    assert search.text is not None
    assert "closes" in search.text
    assert social.estimate == 1  # of its own journeys with others it closes none
    assert social.low is not None
    assert 0.98 < social.low < 1
    assert social.text == (
        "of the converting journeys that social opens or closes, but not both, it opens 100 % (90 % interval 99 to 100)"
    )
    assert search.estimate == 0
    assists = by_rule(found, "channel.assist")
    assert assists["social",].text is not None
    assert assists["search",].text is None
    assert assists["social",].estimate == pytest.approx(1 - 40 / (300 / 2 + 120 / 3 + 40))


def test_rare_channels_get_numbers_but_no_sentences(found: list[Insight]) -> None:
    for insight in found:
        if "rare" in insight.subject:
            assert insight.text is None


def test_channels_without_any_effect_have_no_synergy() -> None:
    generator = np.random.default_rng(6)
    paths = [generator.choice(list("abcdef"), generator.integers(1, 6)).tolist() for _ in range(4_000)]
    flags = generator.random(4_000) < 0.2
    nothing = JourneyTable(JourneyBatch.of_paths(paths), Outcomes.of(flags, flags * 1))
    found = population_insights(nothing, draws=100)
    assert len(by_rule(found, "pair.synergy")) == 15
    assert sum(insight.text is not None for insight in found if insight.rule_id == "pair.synergy") <= 1


def test_ranks_are_claimed_only_when_draws_agree() -> None:
    close = table([(["a"], 100, 900), (["b"], 101, 900), (["c"], 400, 900)])
    ranks = by_rule(population_insights(close, draws=120), "pair.rank")
    assert ranks["c", "b"].text == "c receives more credit than b by removal effects"
    assert ranks["b", "a"].text is None


def drawn_orders(generator: np.random.Generator, channels: str, journeys: int) -> JourneyTable:
    """Journeys that hold equal channels by chance, in any order, and convert by how many they hold."""
    paths = [list(path) for size in range(1, len(channels) + 1) for path in permutations(channels, size)]
    sizes = np.array([len(path) for path in paths])
    ways = np.array([comb(len(channels), size) * factorial(size) for size in sizes])
    chances = np.array([comb(len(channels), size) for size in sizes]) / ways / (2 ** len(channels) - 1)
    counts = generator.multinomial(journeys, chances)
    conversions = generator.binomial(counts, 1 - 0.98 * 0.92**sizes).astype(np.int64)
    return JourneyTable(
        JourneyBatch.of_paths(paths), Outcomes(conversions, (counts - conversions).astype(np.int64), conversions * 1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("channels", ["ab", "abcd"])
def test_equal_channels_are_seldom_told_apart(channels: str) -> None:
    generator = np.random.default_rng(17)
    claimed: dict[str, int] = {}
    for _ in range(300):
        found = population_insights(drawn_orders(generator, channels, 2_000), draws=60)
        for rule in {each.rule_id for each in found if each.text is not None}:
            claimed[rule] = claimed.get(rule, 0) + 1
    assert claimed["population.concentration"] == 300
    for rule in ("pair.rank", "pair.synergy", "channel.opener_closer", "channel.assist"):
        assert claimed.get(rule, 0) <= 30


def test_who_is_named_first_by_chance_is_not_ranked() -> None:
    close = table([(["a"], 128, 872), (["b"], 100, 900)])
    (rank,) = by_rule(population_insights(close, draws=400), "pair.rank").values()
    assert rank.subject == ("a", "b")
    assert rank.low is not None
    assert rank.low > 0  # a is above b in more than 95 of 100 draws
    assert rank.text is None  # but so would one of the two be in one of ten analyses, were they equal


def test_a_channel_that_never_closes_is_reported_like_one_that_seldom_does() -> None:
    never, seldom = (
        population_insights(
            table([(["x", "y"], 1_000 - closed, 9_000), (["y", "x"], closed, 0), (["y"], 100, 900)]), draws=5
        )
        for closed in (0, 5)
    )
    for rule in ("channel.assist", "channel.opener_closer"):
        one, other = (by_rule(found, rule)["x",] for found in (never, seldom))
        assert one.text is not None
        assert other.text is not None
        assert one.low is not None
        assert other.low is not None
        assert one.estimate == one.high == 1
        assert 0.97 < other.low < one.low < 1
        assert one.n == other.n == 1_000
    assert "100 % less by last touch" in str(by_rule(never, "channel.assist")["x",].text)


def test_no_tendency_where_a_channel_is_alone() -> None:
    found = population_insights(table([(["x"], 100, 100), (["x", "x"], 100, 100), (["y"], 50, 50)]), draws=5)
    assert "channel.opener_closer" not in {each.rule_id for each in found}
    assist = by_rule(found, "channel.assist")["x",]
    assert (assist.estimate, assist.low, assist.high, assist.n, assist.text) == (0, 0, 0, 0, None)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0, 1.6])
def test_the_interval_of_an_assist_holds_its_truth(ratio: float) -> None:
    generator = np.random.default_rng(19)
    rest, inside = ["y", "z"], 0
    for _ in range(400):
        last = generator.binomial([600, 900], [ratio / 2, ratio / 3])
        rows = [
            (["y", "x"], int(last[0]), 0), (["x", "y"], 600 - int(last[0]), 0),
            ([*rest, "x"], int(last[1]), 0), (["x", *rest], 900 - int(last[1]), 0), (["x"], 250, 0),
        ]  # fmt: skip
        counts = Positions.of(table(rows).batch, table(rows).outcomes)
        found, truth = assists(counts), 1 - (250 + ratio * 600) / (250 + 600)
        inside += bool(found.low[0] <= truth <= found.high[0])
    assert inside >= 0.87 * 400


def test_shifts_need_a_change_beyond_noise() -> None:
    same = population_insights(OPENING, before=OPENING, draws=80)
    assert all(insight.text is None for insight in by_rule(same, "channel.shift").values())
    other = table([(["social"], 600, 2_000), (["search"], 150, 3_000), (["mail"], 100, 2_000)])
    shifts = by_rule(population_insights(other, before=OPENING, draws=80), "channel.shift")
    social = shifts["social",]
    assert social.text is not None
    assert "risen" in social.text


def test_medians_of_length_and_lag() -> None:
    journeys = [[(n * DAY, str(n), "a") for n in range(length)] for length in (1, 2, 3, 4, 5) for _ in range(20)]
    batch = JourneyBatch.of(journeys, [10 * DAY] * len(journeys))
    outcomes = Outcomes.of([True] * len(journeys), [0] * len(journeys))
    timed = population_insights(JourneyTable(batch, outcomes, batch.converted_at), draws=20)
    length = by_rule(timed, "population.length")[()]
    assert (length.estimate, length.low, length.high) == (3, 3, 3)
    assert length.text == "the median converting journey has 3 touches"
    assert by_rule(timed, "population.lag")[()].estimate == 10
    tail = by_rule(timed, "population.length_p90")[()]
    assert (tail.estimate, tail.text) == (5, None)  # a hundred journeys have but ten beyond the ninth decile
    untimed = JourneyTable(batch, outcomes)
    lags = np.arange(1, 1_001, dtype=np.int64) * DAY
    found = population_insights(untimed, lags_micros=lags, draws=20)
    assert by_rule(found, "population.lag_p90")[()].text == "nine in ten converting journeys take at most 900.0 days"
    assert "population.lag" not in {insight.rule_id for insight in population_insights(untimed, draws=20)}
    assert population_insights(table([(["a"], 0, 5)])) == []


def trained() -> TrainedState:
    return TrainedState("v", JourneyState.fit(OPENING.batch, OPENING.outcomes).to_document(), {})


def said(journeys: list[list[str]]) -> list[dict[str, Insight]]:
    touches: list[list[Any]] = [[(n * DAY, str(n), name) for n, name in enumerate(path)] for path in journeys]
    batch = JourneyBatch.of(touches, [9 * DAY] * len(journeys))
    models = model_set(states={"markov": trained()})
    found = journey_insights(batch, models, models.attribute(batch))
    return [{insight.rule_id: insight for insight in each} for each in found]


def test_insights_of_single_journeys() -> None:
    one, two, unknown, nothing = said([["mail", "mail"], ["social", "search", "search"], ["new", "search"], []])
    assert one["journey.single_channel"].subject == ("mail",)
    assert one["journey.lead_time"].estimate == 9
    assert "journey.leading_channel" not in one
    assert two["journey.models_differ"].estimate == 1  # first against last
    leading = two["journey.leading_channel"]
    assert leading.subject == ("search",)
    assert leading.low is not None
    assert leading.high is not None
    assert leading.low < leading.estimate < leading.high
    assert "linear is shown" in str(unknown["journey.fallback"].text)
    assert nothing == {}
    for each in (one, two, unknown):
        for insight in each.values():
            assert insight.text is not None
            assert not CAUSE.search(insight.text), insight.text


def test_agreement_names_the_channel_all_models_put_first() -> None:
    touches = [[(0, "1", "social"), (8 * DAY, "2", "search")]]
    batch = JourneyBatch.of(touches, [9 * DAY])
    models = model_set(["last", "time_decay"])
    (found,) = journey_insights(batch, models, models.attribute(batch))
    (agreed,) = (insight for insight in found if insight.rule_id == "journey.models_agree")
    assert agreed.subject == ("search",)
    assert agreed.n == 2
    assert journey_insights(batch, models, {}) == [[]]


def test_equal_shares_are_led_by_nobody() -> None:
    batch = JourneyBatch.of([[(0, "1", "a"), (DAY, "2", "b")]], [2 * DAY])
    models = model_set(["linear", "shapley"])
    (found,) = journey_insights(batch, models, models.attribute(batch))
    assert "journey.models_agree" not in {insight.rule_id for insight in found}
    # both always occur together, so every draw gives them the same effect
    together = table([(["a", "b"], 60, 100), (["b", "a"], 60, 100), (["c"], 50, 50)])
    state = TrainedState("v", JourneyState.fit(together.batch, together.outcomes).to_document(), {})
    models = model_set(["markov"], {"markov": state})
    (found,) = journey_insights(batch, models, models.attribute(batch))
    assert "journey.leading_channel" not in {insight.rule_id for insight in found}


def test_a_model_that_fell_back_has_no_say_in_agreement() -> None:
    touches = [[(0, "1", "social"), (8 * DAY, "2", "search"), (8 * DAY + 1, "3", "search")], [(0, "4", "a")]]
    batch = JourneyBatch.of(touches, [9 * DAY] * 2)
    models = model_set(["last", "linear", "markov"])  # markov is untrained: linear is shown in its place
    found = journey_insights(batch, models, models.attribute(batch))[0]
    (agreed,) = (insight for insight in found if insight.rule_id == "journey.models_agree")
    assert (agreed.n, agreed.text) == (2, "search receives the largest share under all 2 models, from 67 % to 100 %")
    models = model_set(["last", "markov"])
    found = journey_insights(batch, models, models.attribute(batch))[0]
    assert {insight.rule_id for insight in found} == {"journey.lead_time", "journey.fallback"}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from("pqr"), st.sampled_from(["social", "search", "mail", "new"])),
            max_size=12,
        ),
        min_size=2,
        max_size=5,
    )
)
def test_what_is_said_of_a_journey_does_not_depend_on_its_neighbours(rows: list[list[tuple[int, str, str]]]) -> None:
    journeys = [sorted((day * DAY, event, name) for day, event, name in row) for row in rows]
    models = model_set(states={"markov": trained()})
    batch = JourneyBatch.of(journeys, [9 * DAY] * len(journeys))
    together = models.attribute(batch)
    insights = journey_insights(batch, models, together)
    for number, touches in enumerate(journeys):
        alone = JourneyBatch.of([touches], [9 * DAY])
        said_alone = models.attribute(alone)
        assert journey_insights(alone, models, said_alone)[0] == insights[number]
        low, high = batch.offsets[number], batch.offsets[number + 1]
        for name, attribution in together.items():
            assert said_alone[name].credits.tobytes() == attribution.credits[low:high].tobytes()
            if attribution.confidence is not None:
                confidence = said_alone[name].confidence
                assert confidence is not None
                assert confidence.tobytes() == attribution.confidence[number : number + 1].tobytes()


@pytest.mark.parametrize("module", [insights, journey_insights_module])
def test_no_sentence_can_claim_a_cause(module: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(module))
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    texts = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } - docstrings
    assert len(texts) > 20
    assert [text for text in texts if CAUSE.search(text)] == []


def test_a_baseline_is_said_and_takes_no_part_in_agreement() -> None:
    index = ChannelIndex.of(["mail", "search"])
    beta = np.log(np.array([[2.0, 2.0, 2.0], [4.0, 4.0, 4.0]]))
    rates = Rates(index, AGE_BOUNDS, beta, np.stack([beta * 0.9, beta * 1.1]), np.array([99, 99]))
    batch = JourneyBatch.of(
        [[(0, "1", "mail"), (DAY, "2", "search")], [(0, "1", "mail"), (DAY, "2", "mail")]], [2 * DAY] * 2
    )
    models = model_set(["last", "poisson"], {"poisson": TrainedState("1", rates.to_document(), {})})
    both, single = (
        {insight.rule_id: insight for insight in each}
        for each in journey_insights(batch, models, models.attribute(batch))
    )
    baseline = both["journey.baseline"]
    assert baseline.estimate == pytest.approx(1 / 8)
    assert baseline.low is not None
    assert baseline.low < 1 / 8
    assert baseline.text is not None
    assert baseline.text.startswith(
        "the base rate is 12 % of the rate that poisson fits at the conversion (90 % interval"
    )
    assert "journey.models_agree" not in both  # one model that hands out the whole cannot agree with itself
    assert single["journey.single_channel"].text == (
        "all 2 touches are of mail: it receives all that touches receive under every model"
    )
