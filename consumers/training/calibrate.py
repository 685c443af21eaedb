"""Calibration: a version with channel totals that are scaled by experiments.

Calibrated are the totals of the window, where a population is what the experiment measured. The statistics and the
settings are the parent's, so single journeys are credited exactly as by the parent: nobody has experimented on one
journey. Invariant: a new version; the parent stays as it is, and the new one names it, the experiments and the factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.experiment_lifts import Totals, calibration_document
from attributary.attribution_core.tables.experiments import Experiment
from attributary.consumers.store.models.model_states import NewState, StateSummary, show_state

from .train import TrainingError


def calibrated(
    connection: psycopg.Connection, tenant_id: str, model: str, version: int, experiments: Sequence[Experiment]
) -> NewState:
    """Return a copy of a version with scaled totals; not stored yet.

    Args:
        connection: anywhere.
        tenant_id: the tenant.
        model: the model.
        version: the parent.
        experiments: at least one, of conversions; a share is one of all conversions, those without touches, too.

    Raises:
        ModelStateError: the parent is not stored.
        TrainingError: the parent has no totals to scale, or the experiments measured value, of which a version keeps
            no spread, or conversions, which totals with a half-life are not.
        ExperimentError: an experiment does not fit.
    """
    summary, state = show_state(connection, tenant_id, model, version)
    measures = {"value" if each.measure == "value" else "conversions" for each in experiments}
    if len(measures) != 1:
        raise TrainingError("experiments: conversions and value cannot be mixed in one version")
    if measures == {"value"}:
        raise TrainingError(
            f"{model} {version}: a version keeps no spread of values, so there would be no honest interval; "
            "attributary analyze --calibrate calibrates value, from a table of events"
        )
    if "forgetting" in summary.metadata and any(each.measure != "share" for each in experiments):
        raise TrainingError(
            f"{model} {version}: older journeys weigh less in its totals, to which conversions of an experiment cannot "
            "be compared; give the experiments as shares, or train without a half-life"
        )
    document = calibration_document(_totals(summary), experiments, "conversions")
    diagnostics = {**summary.metadata["diagnostics"], "calibration": {"from_version": version, **document}}
    metadata = {**summary.metadata, "diagnostics": diagnostics}
    return NewState(tenant_id, model, state.document, state.settings, metadata)


def _totals(summary: StateSummary) -> Totals:
    """Return a version's conversions by its own model, with their standard errors."""
    model, diagnostics = summary.model, summary.metadata["diagnostics"]
    rows: Sequence[Mapping[str, Any]] = diagnostics["channels"]
    if not rows or any(row[model]["share"] is None or row[model]["error"] is None for row in rows):
        raise TrainingError(f"{model} {summary.version} has no totals to scale: {diagnostics['status']}")
    # what half of the people did stands for all: an experiment is one of everybody
    people = 1 / diagnostics.get("sampled_share", 1.0)
    amounts = np.array([row[model]["conversions"] for row in rows], dtype=np.float64) * people
    # the whole has the conversions of people without a touch, shares and their errors are of the others
    if "conversions_without_touches" in diagnostics:
        whole = float(diagnostics["conversions"])
        shared = whole - diagnostics["conversions_without_touches"]
    else:
        shared = people * diagnostics["conversions"]
        whole = shared + people * diagnostics.get("conversions_unwatched", 0)
    errors = np.array([row[model]["error"] for row in rows], dtype=np.float64) * shared
    window = summary.metadata["window"]
    until = window["until"] if window["until"] is not None else summary.metadata.get("watched_until")
    return Totals(tuple(row["channel"] for row in rows), amounts, errors, whole, window["since"], until)
