"""Sentences about the journeys of a trained version's window.

Invariant: the journeys are read anew, as the store holds them now, by the window and the closing that the version was
trained with; what arrived since is in. A version keeps sums, and sentences on first touches and pairs need the paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from attributary.consumers.store.models.timelines import Selection, conversions_by_currency

from .cohort import Cohort
from .read_journeys import Closing, Progress, Window, converted_outcomes, no_progress, null_outcomes, read_journeys


def window_of(tenant_id: str, metadata: Mapping[str, Any]) -> Window:
    """Return the window of a version from its metadata."""
    window = metadata["window"]
    return Window(
        tenant_id,
        window["since"],
        window["until"],
        frozenset(window["conversion_types"]),
        closing=Closing(window["closing"]),
    )


def cohort_of(
    connection: psycopg.Connection, window: Window, inactivity_micros: int, progress: Progress = no_progress
) -> Cohort:
    """Return the finished journeys of a window as a cohort.

    Args:
        connection: in a snapshot.
        window: which.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: told of how many people of how many.
    """
    selection = Selection(window.tenant_id, since=window.since, until=window.until)
    currency = next(iter(conversions_by_currency(connection, selection)), None)
    cohort = Cohort()
    for journeys in read_journeys(connection, window, inactivity_micros, progress):
        cohort.add(journeys.converted, converted_outcomes(journeys.conversions, currency))
        cohort.add(journeys.nulls, null_outcomes(len(journeys.nulls)))
    return cohort
