"""What can be said about a single journey: by rules with ids, from its touches and the models' credits.

A journey is one observation, so nothing here generalises. Numbers with sampling error are those of estimated models and
come with the interval of their parameter draws; the range over models is named as such in the text and is no interval.
Invariant: texts claim association only; a rule is silent where its test does not pass. "The largest share" is larger
than all others: channels with equal shares have none. A model that fell back on a journey has no say in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attributary.attribution_core.analysis.insights import Insight
from attributary.attribution_core.domain.confidence import TAILS
from attributary.attribution_core.domain.journeys import Flags, Floats, Ints, JourneyBatch
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.markov_credit import MarkovModel
from attributary.attribution_core.models.model_set import Attribution, ModelSet
from attributary.attribution_core.models.poisson_credit import PoissonModel

DISAGREEMENT = 0.5  # models differ by half of the conversion: a reader of one model must know
RANK_PROBABILITY = 0.95
_EQUAL = 1e-12  # shares closer than rounding are equal


def journey_insights(
    batch: JourneyBatch, models: ModelSet, attributions: Mapping[str, Attribution]
) -> list[list[Insight]]:
    """Return the insights of each journey of a batch; none for a journey without touches.

    Args:
        batch: journeys.
        models: the models that credited it.
        attributions: what they said, by name.
    """
    found: list[list[Insight]] = [[] for _ in range(len(batch))]
    if batch.channels.size == 0 or not attributions:
        return found
    cells, places = np.unique(batch.journey_of_touch * len(batch.index) + batch.channels, return_inverse=True)
    journeys, channels = np.divmod(cells, len(batch.index))
    # a model with a baseline answers another question: its shares are not those of the whole
    dividing = [said for said in attributions.values() if said.baseline is None]
    totals = np.array([np.bincount(places, said.credits, cells.size) for said in dividing], dtype=np.float64)
    spoke = np.array([_spoke(said, journeys) for said in dividing], dtype=np.bool_)
    _single_channels(batch, journeys, channels, len(dividing) == len(attributions), found)
    _lead_times(batch, found)
    if len(dividing) > 1:
        _agreement(batch, (journeys, channels), (totals, spoke), found)
    for model in models.models:
        said = attributions.get(model.name)
        if said is not None and said.fallback is not None:
            for journey in np.flatnonzero(said.fallback).tolist():
                text = (
                    f"{model.name} has insufficient data on this journey; {model.fallback_rule} is shown in its place"
                )
                touches = int(batch.lengths[journey])
                found[journey].append(Insight("journey.fallback", (), 1.0, None, None, touches, text))
        if isinstance(model, MarkovModel):
            _leading_channels(batch, model, (cells, places), found)
        elif isinstance(model, PoissonModel):
            _baselines(batch, model, found)
    return found


def _single_channels(
    batch: JourneyBatch, journeys: Ints, channels: Ints, is_whole: bool, found: list[list[Insight]]
) -> None:
    credit = "the whole credit under every model" if is_whole else "all that touches receive under every model"
    distinct = np.bincount(journeys, minlength=len(batch))
    only = dict(zip(journeys.tolist(), channels.tolist(), strict=True))
    for journey in np.flatnonzero((distinct == 1) & (batch.lengths > 1)).tolist():
        name, touches = batch.index.names[only[journey]], int(batch.lengths[journey])
        text = f"all {touches} touches are of {name}: it receives {credit}"
        found[journey].append(Insight("journey.single_channel", (name,), 1.0, None, None, touches, text))


def _lead_times(batch: JourneyBatch, found: list[list[Insight]]) -> None:
    filled = np.flatnonzero(batch.lengths)
    days = (batch.converted_at[filled] - batch.times[batch.offsets[filled]]) / MICROS_PER_DAY
    lengths = batch.lengths[filled].tolist()
    for journey, lead, touches in zip(filled.tolist(), days.tolist(), lengths, strict=True):
        text = f"from the first of {touches} touch{'es' if touches > 1 else ''} to the conversion: {lead:.1f} days"
        found[journey].append(Insight("journey.lead_time", (), lead, None, None, touches, text))


def _spoke(said: Attribution, journeys: Ints) -> Flags:
    """Tell for the journey of each cell whether the model credited it by itself: not by its fallback rule."""
    return np.ones(journeys.size, dtype=np.bool_) if said.fallback is None else ~said.fallback[journeys]


def _leads(shares: Floats, starts: Ints, sizes: Ints) -> Flags:
    """Tell which cells have the largest share of their journey and share it with no other, bool[..., cells]."""
    at_top = shares >= np.repeat(np.maximum.reduceat(shares, starts, axis=-1), sizes, axis=-1) - _EQUAL
    is_single = np.add.reduceat(at_top, starts, axis=-1, dtype=np.int64) == 1
    leads: Flags = at_top & np.repeat(is_single, sizes, axis=-1)
    return leads


def _agreement(
    batch: JourneyBatch, cells: tuple[Ints, Ints], said: tuple[Floats, Flags], found: list[list[Insight]]
) -> None:
    """Tell where all models put the same channel first, and the channel on which they are farthest apart.

    Args:
        batch: journeys.
        cells: journey and channel of each share, in order.
        said: the shares of each model, float64[models, cells], and whether it has a say, bool[models, cells].
        found: takes the insights.
    """
    journeys, channels = cells
    totals, spoke = said
    starts = np.flatnonzero(np.diff(journeys, prepend=-1))
    sizes = np.diff(np.append(starts, journeys.size))
    voices = spoke.sum(axis=0)
    wins = (_leads(totals, starts, sizes) | ~spoke).all(axis=0)
    compared = voices > 1
    low = np.where(compared, np.where(spoke, totals, np.inf).min(axis=0), 0.0)
    high = np.where(compared, np.where(spoke, totals, -np.inf).max(axis=0), 0.0)
    several = np.repeat(sizes, sizes) > 1
    for place in np.flatnonzero(wins & several & (low > 0)).tolist():
        name, models = batch.index.names[channels[place]], int(voices[place])
        text = (
            f"{name} receives the largest share under all {models} models, "
            f"from {100 * low[place]:.0f} % to {100 * high[place]:.0f} %"
        )
        found[int(journeys[place])].append(
            Insight("journey.models_agree", (name,), float(low[place]), None, None, models, text)
        )
    spread = high - low
    widest = np.flatnonzero(spread >= np.repeat(np.maximum.reduceat(spread, starts), sizes))
    _, first = np.unique(journeys[widest], return_index=True)  # of equally wide ones the first by name
    for place in widest[first][spread[widest[first]] >= DISAGREEMENT].tolist():
        name, models = batch.index.names[channels[place]], int(voices[place])
        text = f"the models differ on {name}: from {100 * low[place]:.0f} % to {100 * high[place]:.0f} %"
        found[int(journeys[place])].append(
            Insight("journey.models_differ", (name,), float(spread[place]), None, None, models, text)
        )


def _baselines(batch: JourneyBatch, model: PoissonModel, found: list[list[Insight]]) -> None:
    """Tell how much of the fitted rate at the conversion is the base rate, with the interval of the draws."""
    usable = np.flatnonzero(~model.fallback(batch) & (batch.lengths > 0))
    if not usable.size:
        return
    baseline = model.baseline(batch)
    drawn = np.concatenate([rest[:, usable] for _, rest in model.drawn_credits(batch)])
    low, high = np.quantile(drawn, TAILS, axis=0)
    for order, journey in enumerate(usable.tolist()):
        share, ends = float(baseline[journey]), (float(low[order]), float(high[order]))
        text = (
            f"the base rate is {100 * share:.0f} % of the rate that {model.name} fits at the conversion "
            f"(90 % interval {100 * ends[0]:.0f} to {100 * ends[1]:.0f}): no touch receives it"
        )
        found[journey].append(Insight("journey.baseline", (), share, *ends, int(batch.lengths[journey]), text))


def _leading_channels(
    batch: JourneyBatch, model: MarkovModel, cells: tuple[Ints, Ints], found: list[list[Insight]]
) -> None:
    """Name the channel with the largest share by removal effects, if parameter draws agree in 95 of 100 cases."""
    numbers, places = cells
    journeys = numbers // len(batch.index)
    starts = np.flatnonzero(np.diff(journeys, prepend=-1))
    sizes = np.diff(np.append(starts, journeys.size))
    usable = ~model.fallback(batch)[journeys[starts]] & (sizes > 1)
    if not usable.any():
        return
    shares = np.bincount(places, model.credits(batch), numbers.size)
    drawn = np.array(
        [np.bincount(places, credits_, numbers.size) for block in model.drawn_credits(batch) for credits_ in block],
        dtype=np.float64,
    )
    led = _leads(drawn, starts, sizes).mean(axis=0)
    claimed = np.flatnonzero((led >= RANK_PROBABILITY) & np.repeat(usable, sizes))
    if not claimed.size:
        return
    low, high = np.quantile(drawn[:, claimed], TAILS, axis=0)
    for order, place in enumerate(claimed.tolist()):
        journey = int(journeys[place])
        name = batch.index.names[int(numbers[place]) % len(batch.index)]
        text = (
            f"{name} receives the largest share by removal effects: {100 * shares[place]:.0f} % "
            f"(90 % interval {100 * low[order]:.0f} to {100 * high[order]:.0f})"
        )
        found[journey].append(
            Insight(
                "journey.leading_channel",
                (name,),
                float(shares[place]),
                float(low[order]),
                float(high[order]),
                int(batch.lengths[journey]),
                text,
            )
        )
