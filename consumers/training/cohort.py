"""What can be said of a whole cohort of finished journeys, converted and not: population numbers and insights.

Invariant: memory is the sufficient statistics, the distinct channel paths, and eight bytes a conversion for its lag;
beyond `MOST_PATHS` paths all but the statistics are dropped, the insights that need them are left out, and the report
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from attributary.attribution_core.analysis.insights import population_insights
from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import Ints, JourneyBatch, Outcomes
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import JourneyTable

from .channel_report import population

MOST_PATHS = 200_000
_DRAWS = 200

Path = tuple[str, ...]


class Cohort:
    """Counts of the journeys of a cohort.

    Those without touches are there only if they converted: nobody sees the others.
    """

    def __init__(self) -> None:
        self._state = JourneyState.empty()
        self._paths: dict[Path, list[int]] | None = {}
        self._lags: list[Ints] = []  # microseconds from first touch to conversion

    def add(self, batch: JourneyBatch, outcomes: Outcomes) -> None:
        """Count some journeys."""
        self._state = self._state.add(JourneyState.fit(batch, outcomes))
        if self._paths is None:
            return
        converted = (outcomes.conversions > 0) & (batch.lengths > 0)
        self._lags.append(batch.converted_at[converted] - batch.times[batch.offsets[:-1][converted]])
        names = [batch.index.names[code] for code in batch.channels.tolist()]
        offsets = batch.offsets.tolist()
        ends = zip(outcomes.conversions.tolist(), outcomes.nulls.tolist(), outcomes.value_micros.tolist(), strict=True)
        for place, counts in enumerate(ends):
            entry = self._paths.setdefault(tuple(names[offsets[place] : offsets[place + 1]]), [0, 0, 0])
            for kind, number in enumerate(counts):
                entry[kind] += number
        if len(self._paths) > MOST_PATHS:
            self._paths = None
            self._lags.clear()

    def report(self, before: Cohort | None = None) -> dict[str, Any]:
        """Return population numbers and insights, ready for JSON.

        Args:
            before: the journeys of an earlier period, for the rule on shifts.
        """
        found: dict[str, Any] = {"population": population(self._state), "distinct_paths": None, "insights": None}
        if self._paths is not None:
            found["distinct_paths"] = len(self._paths)
            lags = np.concatenate(self._lags) if self._lags else None
            earlier = None if before is None else before.table()
            insights = population_insights(_table(self._paths), before=earlier, lags_micros=lags, draws=_DRAWS)
            found["insights"] = [plain(asdict(insight)) for insight in insights if insight.text is not None]
        return found

    def table(self) -> JourneyTable | None:
        """Return the distinct paths with their counts; None when there were too many."""
        return None if self._paths is None else _table(self._paths)


def _table(paths: Mapping[Path, list[int]]) -> JourneyTable:
    ordered = sorted(paths)
    counts = np.array([paths[path] for path in ordered], dtype=np.int64).reshape(-1, 3)
    outcomes = Outcomes(counts[:, 0].copy(), counts[:, 1].copy(), counts[:, 2].copy())
    return JourneyTable(JourneyBatch.of_paths(ordered), outcomes)
