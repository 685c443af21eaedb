"""Analysis of one conversion: its credits touch by touch, by all models of the tenant.

Invariant: for every model the values of the touches, with what the model leaves unattributed, sum to the net value of
the conversion, to the micro.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.journey_insights import journey_insights
from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import Flags, Ints, JourneyBatch
from attributary.attribution_core.domain.money import split_micros, split_with_baseline
from attributary.attribution_core.models.model_set import Attribution, ModelSet
from attributary.consumers.store.models.timelines import TimelineRow, person_of_conversion
from attributary.schemas.limits import MINOR_UNIT_MICROS

from .journeys import FinishedJourneys
from .read_journeys import Window, read_journeys


def select_converted(
    journeys: FinishedJourneys, kept: Flags
) -> tuple[JourneyBatch, list[TimelineRow], list[TimelineRow]]:
    """Return the chosen converted journeys, bool[n], with their conversions and, journey by journey, their touches."""
    inside = np.repeat(kept, journeys.converted.lengths)
    conversions = [row for row, keep in zip(journeys.conversions, kept.tolist(), strict=True) if keep]
    touches = [row for row, keep in zip(journeys.touches, inside.tolist(), strict=True) if keep]
    return journeys.converted.select(kept), conversions, touches


def split_values(said: Attribution, batch: JourneyBatch, conversions: Sequence[TimelineRow]) -> tuple[Ints, Ints]:
    """Split the values of conversions by credits.

    Returns:
        Micros of every touch, int64[touches], and micros that each journey with touches leaves to the baseline,
        int64[journeys]. Together they sum to the values.
    """
    values = np.fromiter((row.value_micros for row in conversions), np.int64, len(conversions))
    units = np.fromiter((MINOR_UNIT_MICROS.get(row.group, 1) for row in conversions), np.int64, len(conversions))
    if said.baseline is None:
        return split_micros(said.credits, batch.offsets, values, units), np.zeros_like(values)
    return split_with_baseline(said.credits, said.baseline, batch.offsets, values, units)


class UnknownConversionError(LookupError):
    """There is no such conversion, or only corrections of it have arrived."""


def analyze_journey(
    connection: psycopg.Connection, tenant_id: str, conversion_id: str, models: ModelSet, inactivity_micros: int
) -> dict[str, Any]:
    """Credit one conversion, touch by touch.

    Args:
        connection: in a snapshot.
        tenant_id: the tenant.
        conversion_id: the conversion.
        models: the models in force.
        inactivity_micros: see `read_journeys`.

    Raises:
        UnknownConversionError: there is no such conversion.
    """
    person = person_of_conversion(connection, tenant_id, conversion_id)
    if person is None:
        raise UnknownConversionError(f"there is no conversion {conversion_id}")
    for journeys in read_journeys(connection, Window(tenant_id, journey_key=person), inactivity_micros):
        only = np.fromiter((row.id == conversion_id for row in journeys.conversions), np.bool_)
        if only.any():
            batch, conversions, touches = select_converted(journeys, only)
            return _journey(batch, conversions[0], touches, models)
    raise UnknownConversionError(f"the conversion {conversion_id} moved to another person meanwhile; ask again")


def _journey(
    batch: JourneyBatch, conversion: TimelineRow, touches: Sequence[TimelineRow], models: ModelSet
) -> dict[str, Any]:
    credited = []
    said = models.attribute(batch)
    for model in models.models:
        of_model = said[model.name]
        fallen, confidence = of_model.fallback, of_model.confidence
        micros, rest = split_values(of_model, batch, [conversion])
        credited.append(
            {
                "model": model.name,
                "version": model.version,
                "fallback": model.fallback_rule if fallen is not None and fallen[0] else None,
                "confidence": None if confidence is None else confidence[0],
                "credits": of_model.credits.tolist(),
                "value_micros": micros.tolist(),
                "baseline": None if of_model.baseline is None else of_model.baseline[0],
                "unattributed_micros": rest.tolist()[0] if touches else conversion.value_micros,
            }
        )
    report: dict[str, Any] = plain(
        {
            "conversion_id": conversion.id,
            "conversion_type": conversion.kind,
            "converted_at": conversion.at,
            "net_value_micros": conversion.value_micros,
            "currency": conversion.group,
            "journey_key": conversion.journey_key,
            "touchpoints": [
                {
                    "event_id": row.id,
                    "channel": row.kind,
                    "platform": row.group,
                    "campaign": row.campaign,
                    "interaction": row.detail,
                    "occurred_at": row.at,
                }
                for row in touches
            ],
            "models": credited,
            "insights": [asdict(insight) for insight in journey_insights(batch, models, said)[0]],
        }
    )
    return report
