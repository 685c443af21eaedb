"""A cohort of finished journeys, converted and not: its population numbers and insights.

Invariant: memory is the sufficient statistics, the distinct channel paths, and eight bytes a conversion for its lag.
Beyond `MAX_PATHS` paths only the statistics are kept, the insights are left out, and the report says so. A version has
sums only, so its cohort is read again from the store: events that arrived since the training are included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.insights import population_insights
from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import Ints, JourneyBatch, Outcomes
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import JourneyTable
from attributary.consumers.store.models.model_states import show_state
from attributary.consumers.store.models.timelines import Selection, conversions_by_currency

from .channel_report import channel_report
from .incremental_state import snapshot
from .journeys import pooled
from .name_limits import channel_limit, check_sets
from .read_journeys import Closing, Progress, Window, converted_outcomes, no_progress, null_outcomes, read_journeys

MAX_PATHS = 200_000
_MAX_PATH_TOUCHES = 5_000_000  # of all distinct paths: 40 MB
_DRAWS = 200

Path = tuple[str, ...]


class Cohort:
    """Counts of the journeys of a cohort.

    Journeys without touches are there only if they converted: nobody can see the others.
    """

    def __init__(self) -> None:
        self._state = JourneyState.empty()
        self._paths: dict[Path, list[int]] | None = {}
        self._touches = 0  # of the distinct paths
        self._lags: list[Ints] = []  # microseconds from first touch to conversion

    def add(self, batch: JourneyBatch, outcomes: Outcomes) -> None:
        """Add journeys.

        Raises:
            TooLargeError: they have too many distinct sets of channels.
        """
        self._state = check_sets(self._state.add(JourneyState.fit(batch, outcomes)))
        if self._paths is None:
            return
        converted = (outcomes.conversions > 0) & (batch.lengths > 0)
        self._lags.append(batch.converted_at[converted] - batch.times[batch.offsets[:-1][converted]])
        names = [batch.index.names[code] for code in batch.channels.tolist()]
        offsets = batch.offsets.tolist()
        ends = zip(outcomes.conversions.tolist(), outcomes.nulls.tolist(), outcomes.value_micros.tolist(), strict=True)
        for place, counts in enumerate(ends):
            path = tuple(names[offsets[place] : offsets[place + 1]])
            entry = self._paths.get(path)
            if entry is None:
                entry = self._paths[path] = [0, 0, 0]
                self._touches += len(path)
            for kind, number in enumerate(counts):
                entry[kind] += number
        if len(self._paths) > MAX_PATHS or self._touches > _MAX_PATH_TOUCHES:
            self._paths = None
            self._lags.clear()

    def report(self, before: Cohort | None = None) -> dict[str, Any]:
        """Return population numbers and insights, ready for JSON.

        Args:
            before: the journeys of an earlier period, for the rule on shifts.
        """
        found: dict[str, Any] = {"population": channel_report(self._state), "distinct_paths": None, "insights": None}
        if self._paths is not None:
            found["distinct_paths"] = len(self._paths)
            lags = np.concatenate(self._lags) if self._lags else None
            earlier = None if before is None else before.table()
            insights = population_insights(_table(self._paths), before=earlier, lags_micros=lags, draws=_DRAWS)
            found["insights"] = [plain(asdict(insight)) for insight in insights if insight.text is not None]
        return found

    def table(self) -> JourneyTable | None:
        """Return the distinct paths with their counts; None beyond `MAX_PATHS`."""
        return None if self._paths is None else _table(self._paths)


def _table(paths: Mapping[Path, list[int]]) -> JourneyTable:
    ordered = sorted(paths)
    counts = np.array([paths[path] for path in ordered], dtype=np.int64).reshape(-1, 3)
    outcomes = Outcomes(counts[:, 0].copy(), counts[:, 1].copy(), counts[:, 2].copy())
    return JourneyTable(JourneyBatch.of_paths(ordered), outcomes)


def window_of(tenant_id: str, metadata: Mapping[str, Any]) -> Window:
    """Return the window that a version was trained on, from its metadata."""
    window = metadata["window"]
    return Window(
        tenant_id,
        window["since"],
        window["until"],
        frozenset(window["conversion_types"]),
        closing=Closing(window["closing"]),
    )


def version_cohort(
    connection: psycopg.Connection, tenant_id: str, model: str, version: int, progress: Progress = no_progress
) -> Cohort:
    """Return the cohort of a version: the journeys of its window as the store has them now.

    Args:
        connection: not in a transaction.
        tenant_id: the tenant.
        model: the model.
        version: the version.
        progress: called with people read and people in all.

    Raises:
        ModelStateError: the version is not stored.
    """
    with snapshot(connection, read_only=True):
        metadata = show_state(connection, tenant_id, model, version)[0].metadata
        window = window_of(tenant_id, metadata)
        return cohort_of(connection, window, metadata["window"]["inactivity_micros"], progress)


def cohort_of(
    connection: psycopg.Connection, window: Window, inactivity_micros: int, progress: Progress = no_progress
) -> Cohort:
    """Return the finished journeys of a window as a cohort.

    Args:
        connection: in a snapshot.
        window: which journeys.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: called with people read and people in all.
    """
    selection = Selection(window.tenant_id, since=window.since, until=window.until)
    currency = next(iter(conversions_by_currency(connection, selection)), None)
    cohort, limit = Cohort(), channel_limit(connection, window.tenant_id)
    for journeys in read_journeys(connection, window, inactivity_micros, progress):
        cohort.add(pooled(journeys.converted, limit), converted_outcomes(journeys.conversions, currency))
        cohort.add(pooled(journeys.nulls, limit), null_outcomes(len(journeys.nulls)))
    return cohort
