"""Named steps that change what counts as a touch, before any model sees the journeys.

Nothing is collapsed silently: a chain of second order over ``a, a, b`` is another one than over ``a, b``. Repeats are
collapsed only where a transform says so.

Invariant: a transform keeps the number of journeys, their ends and the order of the touches that remain. It never
moves a touch to another journey.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Flags, Ints, JourneyBatch
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY

# Ages at which a touch counts as less recent, in days; a convention, wide enough to hold many touches each.
_AGES = ((1, "0-1d"), (7, "1-7d"), (14, "7-14d"), (30, "14-30d"), (90, "30-90d"))


OTHER = "(other)"
"""The channel that rare channels are pooled into, as analytics tools call it."""


class TransformError(ValueError):
    """No transform of that name."""


def unique(batch: JourneyBatch) -> JourneyBatch:
    """Every touch counts: the identity."""
    return batch


def exposure(batch: JourneyBatch) -> JourneyBatch:
    """Repeats of a channel in direct succession count as one touch, at the time of the first: a, a, b, a -> a, b, a."""
    kept = np.ones(batch.channels.size, dtype=np.bool_)
    journey = batch.journey_of_touch
    kept[1:] = (batch.channels[1:] != batch.channels[:-1]) | (journey[1:] != journey[:-1])
    return _keep(batch, kept)


def first(batch: JourneyBatch) -> JourneyBatch:
    """Only the first touch of each channel counts: a, b, a -> a, b."""
    cells = batch.journey_of_touch * len(batch.index) + batch.channels
    kept = np.zeros(batch.channels.size, dtype=np.bool_)
    kept[np.unique(cells, return_index=True)[1]] = True
    return _keep(batch, kept)


def last(batch: JourneyBatch) -> JourneyBatch:
    """Only the last touch of each channel counts: a, b, a -> b, a."""
    cells = batch.journey_of_touch * len(batch.index) + batch.channels
    kept = np.zeros(batch.channels.size, dtype=np.bool_)
    kept[batch.channels.size - 1 - np.unique(cells[::-1], return_index=True)[1]] = True
    return _keep(batch, kept)


def frequency(batch: JourneyBatch) -> JourneyBatch:
    """Only the first touch of each channel counts, under a name that says how many there were: a, b, a -> a(2), b."""
    cells = batch.journey_of_touch * len(batch.index) + batch.channels
    _, places, counts = np.unique(cells, return_index=True, return_counts=True)
    repeats = np.zeros(batch.channels.size, dtype=np.int64)
    repeats[places] = counts
    kept = repeats > 0
    names = [batch.index.names[code] for code in batch.channels[kept]]
    return _renamed(
        _keep(batch, kept), [f"{name}({count})" for name, count in zip(names, repeats[kept].tolist(), strict=True)]
    )


def recency(batch: JourneyBatch) -> JourneyBatch:
    """Every touch counts, under a name that says how long before the end it was: ``a(1-7d)``."""
    ages = np.repeat(batch.converted_at, batch.lengths) - batch.times
    bounds = np.array([days * MICROS_PER_DAY for days, _ in _AGES], dtype=np.int64)
    labels = [*(label for _, label in _AGES), "90d+"]
    classes = np.searchsorted(bounds, ages, side="left")
    names = [batch.index.names[code] for code in batch.channels]
    return _renamed(batch, [f"{name}({labels[place]})" for name, place in zip(names, classes.tolist(), strict=True)])


def pool_rare(batch: JourneyBatch, weights: Ints, limit: int, keep: Collection[str] = ()) -> tuple[JourneyBatch, int]:
    """Pool rare channels into `OTHER`, so that at most `limit` channels are left.

    The channels in the most weighted touches stay; of equal ones the first by name. Models of all channels take time
    and memory with the square or the cube of their number.

    Args:
        batch: journeys.
        weights: int64[n], how many journeys each row stands for.
        limit: channels to be left, `OTHER` among them, from 2.
        keep: names that stay, whatever their number.

    Returns:
        The journeys, and how many channels were pooled; 0 where there are no more than the limit.
    """
    index = batch.index
    if len(index) <= limit:
        return batch, 0
    seen = np.bincount(batch.channels, weights[batch.journey_of_touch], len(index))
    seen[[index.code(name) for name in keep if index.code(name) >= 0]] = np.inf
    chosen = np.argsort(-seen, kind="stable")[: limit - 1]
    names = [OTHER] * len(index)
    for code in chosen.tolist():
        names[code] = index.names[code]
    pooled = ChannelIndex.of(names)
    channels = pooled.encode(names)[batch.channels]
    moved = JourneyBatch(batch.offsets, channels, batch.times, batch.converted_at, batch.direct, pooled)
    return moved, names.count(OTHER)


TRANSFORMS: dict[str, Callable[[JourneyBatch], JourneyBatch]] = {
    "unique": unique,
    "exposure": exposure,
    "first": first,
    "last": last,
    "frequency": frequency,
    "recency": recency,
}


def apply(batch: JourneyBatch, steps: Iterable[str]) -> JourneyBatch:
    """Apply named transforms one after the other.

    Raises:
        TransformError: for a name that is not in `TRANSFORMS`.
    """
    for step in known_transforms(steps):
        batch = TRANSFORMS[step](batch)
    return batch


def known_transforms(steps: Iterable[str]) -> list[str]:
    """Return the names of transforms as they are.

    Raises:
        TransformError: for a name that is not in `TRANSFORMS`.
    """
    names = list(steps)
    for name in names:
        if name not in TRANSFORMS:
            raise TransformError(f"no transform {name!r}; there are {', '.join(TRANSFORMS)}")
    return names


def _keep(batch: JourneyBatch, kept: Flags) -> JourneyBatch:
    running = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(kept, dtype=np.int64)))
    return JourneyBatch(
        running[batch.offsets],
        batch.channels[kept],
        batch.times[kept],
        batch.converted_at,
        batch.direct[kept],
        batch.index,
    )


def _renamed(batch: JourneyBatch, names: list[str]) -> JourneyBatch:
    index = ChannelIndex.of(names)
    return JourneyBatch(batch.offsets, index.encode(names), batch.times, batch.converted_at, batch.direct, index)
