"""What can be said of a whole cohort of finished journeys, converted and not: population numbers and insights.

Invariant: memory is the sufficient statistics and the distinct channel paths; beyond `MOST_PATHS` of these the paths
are dropped, the insights that need them are left out, and the report says so.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from attributary.attribution_core.insights import population_insights
from attributary.attribution_core.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.paths import JourneyTable
from attributary.attribution_core.report import plain
from attributary.attribution_core.state import JourneyState

from .population import population

MOST_PATHS = 200_000
_DRAWS = 200

Path = tuple[str, ...]


class Cohort:
    """Counts of the journeys of a cohort."""

    def __init__(self) -> None:
        self._state = JourneyState.empty()
        self._paths: dict[Path, list[int]] | None = {}

    def add(self, batch: JourneyBatch, outcomes: Outcomes) -> None:
        """Count some journeys."""
        self._state = self._state.add(JourneyState.fit(batch, outcomes))
        if self._paths is None:
            return
        names = [batch.index.names[code] for code in batch.channels.tolist()]
        offsets = batch.offsets.tolist()
        ends = zip(outcomes.conversions.tolist(), outcomes.nulls.tolist(), outcomes.value_micros.tolist(), strict=True)
        for place, counts in enumerate(ends):
            entry = self._paths.setdefault(tuple(names[offsets[place] : offsets[place + 1]]), [0, 0, 0])
            for kind, number in enumerate(counts):
                entry[kind] += number
        if len(self._paths) > MOST_PATHS:
            self._paths = None

    def report(self) -> dict[str, Any]:
        """Return population numbers and insights, ready for JSON."""
        found: dict[str, Any] = {"population": population(self._state), "distinct_paths": None, "insights": None}
        if self._paths is not None:
            found["distinct_paths"] = len(self._paths)
            found["insights"] = [
                plain(asdict(insight)) for insight in population_insights(self._table(self._paths), draws=_DRAWS)
                if insight.text is not None
            ]  # fmt: skip
        return found

    @staticmethod
    def _table(paths: dict[Path, list[int]]) -> JourneyTable:
        ordered = sorted(paths)
        counts = np.array([paths[path] for path in ordered], dtype=np.int64).reshape(-1, 3)
        outcomes = Outcomes(counts[:, 0].copy(), counts[:, 1].copy(), counts[:, 2].copy())
        return JourneyTable(JourneyBatch.of_paths(ordered), outcomes)
