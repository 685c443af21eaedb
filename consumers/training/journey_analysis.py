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
from attributary.attribution_core.domain.journeys import JourneyBatch
from attributary.attribution_core.models.model_set import ModelSet
from attributary.consumers.store.models.timelines import TimelineRow, person_of_conversion

from .credited_journeys import part_of, split_values
from .read_journeys import Window, read_journeys


class UnknownConversionError(LookupError):
    """There is no such conversion, or only corrections of it have arrived."""


def analyze_journey(
    connection: psycopg.Connection, tenant_id: str, conversion_id: str, models: ModelSet, inactivity_micros: int
) -> dict[str, Any]:
    """Credit one conversion, touch by touch.

    Args:
        connection: in a snapshot.
        tenant_id: whose.
        conversion_id: which.
        models: to credit with.
        inactivity_micros: see `read_journeys`.

    Raises:
        UnknownConversionError: it is not known.
    """
    person = person_of_conversion(connection, tenant_id, conversion_id)
    if person is None:
        raise UnknownConversionError(f"there is no conversion {conversion_id}")
    for journeys in read_journeys(connection, Window(tenant_id, journey_key=person), inactivity_micros):
        only = np.fromiter((row.id == conversion_id for row in journeys.conversions), np.bool_)
        if only.any():
            batch, conversions, touches = part_of(journeys, only)
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
