"""A version whose channel totals are scaled by experiments.

Calibrated are the totals of the window, where a population is what the experiment measured. The statistics and the
settings are the parent's, so single journeys are credited exactly as by the parent: nobody has experimented on one
journey. Invariant: a new version; the parent stays as it is, and the new one names it, the experiments and the factors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import psycopg

from attributary.attribution_core.lifts import Experiment, Totals, calibration_document
from attributary.consumers.store.model_states import NewState, StateSummary, show_state

from .training import TrainingError

_MICROS = 1_000_000


def calibrated(
    connection: psycopg.Connection, tenant_id: str, model: str, version: int, experiments: Sequence[Experiment]
) -> NewState:
    """Return a version like another one, with its totals scaled; not stored yet.

    Args:
        connection: anywhere.
        tenant_id: whose.
        model: which.
        version: the parent.
        experiments: at least one; all of them must measure the same, a share is one of conversions.

    Raises:
        ModelStateError: the parent is not stored.
        TrainingError: the parent has no totals to scale, or the experiments mix conversions and value.
        ExperimentError: an experiment does not fit.
    """
    summary, state = show_state(connection, tenant_id, model, version)
    measures: set[Literal["conversions", "value"]] = {
        "value" if each.measure == "value" else "conversions" for each in experiments
    }
    if len(measures) != 1:
        raise TrainingError("experiments: conversions and value cannot be mixed in one version")
    of = measures.pop()
    document = calibration_document(_totals(summary, of), experiments, of)
    diagnostics = {**summary.metadata["diagnostics"], "calibration": {"from_version": version, **document}}
    metadata = {**summary.metadata, "diagnostics": diagnostics}
    return NewState(tenant_id, model, state.document, state.settings, metadata)


def _totals(summary: StateSummary, of: Literal["conversions", "value"]) -> Totals:
    """Return a version's totals by its own model, with their standard errors."""
    model, diagnostics = summary.model, summary.metadata["diagnostics"]
    rows: Sequence[Mapping[str, Any]] = diagnostics["channels"]
    if not rows or any(row[model]["share"] is None or row[model]["error"] is None for row in rows):
        raise TrainingError(f"{model} {summary.version} has no totals to scale: {diagnostics['status']}")
    if of == "value" and "value_micros" not in rows[0][model]:
        raise TrainingError(f"{model} counts conversions, not value")
    if of == "value":
        amounts = np.array([row[model]["value_micros"] for row in rows], dtype=np.float64) / _MICROS
        whole = float(amounts.sum())  # removal effects share out the value of the conversions with touches
    else:
        amounts = np.array([row[model]["conversions"] for row in rows], dtype=np.float64)
        whole = float(diagnostics["conversions"] - diagnostics.get("conversions_without_touches", 0))
    errors = np.array([row[model]["error"] for row in rows], dtype=np.float64) * abs(whole)
    window = summary.metadata["window"]
    until = window["until"] if window["until"] is not None else summary.metadata.get("watched_until")
    return Totals(tuple(row["channel"] for row in rows), amounts, errors, whole, window["since"], until)
