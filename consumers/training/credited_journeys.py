"""Converted journeys with their conversions and touches, and the values of the conversions, split by credits.

Invariant: what the touches of a journey get, and what they do not, sum to its value, to the micro.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attributary.attribution_core.domain.journeys import Flags, Ints, JourneyBatch
from attributary.attribution_core.domain.money import split_micros, split_with_baseline
from attributary.attribution_core.models.model_set import Attribution
from attributary.consumers.store.models.timelines import TimelineRow
from attributary.schemas.limits import MINOR_UNIT_MICROS

from .journeys import FinishedJourneys


def part_of(journeys: FinishedJourneys, kept: Flags) -> tuple[JourneyBatch, list[TimelineRow], list[TimelineRow]]:
    """Return the chosen converted journeys, bool[n], with their conversions and, journey by journey, their touches."""
    inside = np.repeat(kept, journeys.converted.lengths)
    conversions = [row for row, keep in zip(journeys.conversions, kept.tolist(), strict=True) if keep]
    touches = [row for row, keep in zip(journeys.touches, inside.tolist(), strict=True) if keep]
    return journeys.converted.select(kept), conversions, touches


def split_values(said: Attribution, batch: JourneyBatch, conversions: Sequence[TimelineRow]) -> tuple[Ints, Ints]:
    """Return the micros of every touch, and those of every journey that touches do not get although there are some."""
    values = np.fromiter((row.value_micros for row in conversions), np.int64, len(conversions))
    units = np.fromiter((MINOR_UNIT_MICROS.get(row.group, 1) for row in conversions), np.int64, len(conversions))
    if said.baseline is None:
        return split_micros(said.credits, batch.offsets, values, units), np.zeros_like(values)
    return split_with_baseline(said.credits, said.baseline, batch.offsets, values, units)
