"""Drift: differences of channel shares between two trained states, and those that are more than noise.

Invariant: a function of the two states. The test takes the journeys of the two for different ones; where they overlap
it errs towards "no change".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import ChannelIndex, Floats
from attributary.attribution_core.inference.multiple_testing import drift
from attributary.attribution_core.models.markov import shares
from attributary.attribution_core.models.posterior import dirichlet_removal, summarize_draws
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.models.model_states import (
    ModelStateError,
    NewState,
    in_force,
    list_states,
    show_state,
)

from .channel_report import removal_shares, shapley_shares

_DRAWS = 400


def share_changes(
    before: JourneyState, after: JourneyState, journeys_per_count: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Any]:
    """Return, for removal effects ("markov") and Shapley values ("shapley"), the change of every channel's share.

    A change passes ("changed") at a false discovery rate of 10 % over all channels.

    Args:
        before: a state.
        after: another one.
        journeys_per_count: effective journeys that one count of each stands for; below 1 where a training forgot.
    """
    index = ChannelIndex.of((*before.index.names, *after.index.names))
    report: dict[str, Any] = plain(
        {
            "markov": _drift(
                index,
                _removal(before, index, journeys_per_count[0]),
                _removal(after, index, journeys_per_count[1]),
            ),
            "shapley": _drift(
                index,
                _shapley(before, index, journeys_per_count[0]),
                _shapley(after, index, journeys_per_count[1]),
            ),
        }
    )
    return report


def version_changes(
    model: str, before: tuple[Mapping[str, Any], Mapping[str, Any]], after: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the changes between two versions of a model, by method.

    Args:
        model: the model.
        before: metadata and document of a version.
        after: of another one.
    """
    if model != "poisson":
        states = [JourneyState.from_document(document) for _, document in (before, after)]
        scales = [metadata.get("forgetting", {}).get("journeys_per_count", 1.0) for metadata, _ in (before, after)]
        return share_changes(states[0], states[1], (scales[0], scales[1]))
    return rate_changes(before[0]["diagnostics"], after[0]["diagnostics"])


def rate_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change of every share between two reports of the time-aware model, that of the baseline among them."""
    known = [_rate_shares(diagnostics) for diagnostics in (before, after)]
    index = ChannelIndex.of((*known[0], *known[1]))
    columns = []
    for shares_ in known:
        wide = np.zeros((2, len(index)), dtype=np.float64)
        for name, (share, error) in shares_.items():
            wide[:, index.code(name)] = share, error
        columns.append((wide[0], wide[1]))
    report: dict[str, Any] = plain({"poisson": _drift(index, columns[0], columns[1])})
    return report


def stored_version_changes(
    connection: psycopg.Connection, tenant_id: str, model: str, before: int, after: int
) -> dict[str, Any]:
    """Return the changes between two stored versions, by method.

    Raises:
        ModelStateError: a version is not stored.
    """
    (old_summary, old), (new_summary, new) = (
        show_state(connection, tenant_id, model, version) for version in (before, after)
    )
    return version_changes(model, (old_summary.metadata, old.document), (new_summary.metadata, new.document))


def versions_to_compare(
    connection: psycopg.Connection, tenant_id: str, model: str, before: int | None, after: int | None
) -> tuple[int, int]:
    """Return the versions of a drift check: by default the active one and the newest.

    Raises:
        ModelStateError: no version is active and none is named, or both are the same one.
    """
    rows = list_states(connection, tenant_id, model)
    old = before if before is not None else next((row.version for row in rows if row.is_active), None)
    new = after if after is not None else next((row.version for row in rows), None)
    if old is None or new is None:
        raise ModelStateError(f"{model} has no active version for tenant {tenant_id}; name one: --before VERSION")
    if old == new:
        raise ModelStateError(f"{model} {new} is in force and the newest; train again, or name another: --before")
    return old, new


def drift_from_active(connection: psycopg.Connection, state: NewState) -> dict[str, Any] | None:
    """Return which channels of a fresh training differ by more than noise from the version in force.

    Args:
        connection: anywhere.
        state: as trained.

    Returns:
        The version in force, the changed channels, and the total variation by method; None when none is in force.
    """
    version = in_force(connection, state.tenant_id).versions.get(state.model)
    if version is None:
        return None
    summary, active = show_state(connection, state.tenant_id, state.model, version)
    changes = version_changes(state.model, (summary.metadata, active.document), (state.metadata, state.document))
    return {
        "from_version": version,
        "changed": changed_channels(changes),
        "total_variation": {method: found["total_variation"] for method, found in changes.items()},
    }


def changed_channels(changes: Mapping[str, Any]) -> list[str]:
    """Return the channels that changed by any method, by name."""
    return sorted({row["channel"] for found in changes.values() for row in found["channels"] if row["changed"]})


def _rate_shares(diagnostics: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return share and standard error of the channels of a time-aware version, its baseline among them."""
    rows = {row["channel"]: row["poisson"] for row in diagnostics["channels"]} | {"(baseline)": diagnostics["baseline"]}
    return {name: (row["share"], row["error"]) for name, row in rows.items()}


def _removal(state: JourneyState, index: ChannelIndex, journeys_per_count: float) -> tuple[Floats, Floats]:
    share = removal_shares(state)[1][0]
    drawn = summarize_draws(
        shares(dirichlet_removal(state, draws=_DRAWS, seed=0, journeys_per_count=journeys_per_count)), share
    )
    return _laid_out(state, index, share, drawn.error)


def _shapley(state: JourneyState, index: ChannelIndex, journeys_per_count: float) -> tuple[Floats, Floats]:
    _, share, error = shapley_shares(state, journeys_per_count)
    return _laid_out(state, index, share, error)


def _laid_out(state: JourneyState, index: ChannelIndex, *columns: Floats) -> tuple[Floats, Floats]:
    """Map the values of a state to a larger index; a channel that the state lacks has 0."""
    places = state.index.translation(index)
    wide = np.zeros((2, len(index)), dtype=np.float64)
    for row, column in enumerate(columns):
        wide[row, places] = column
    return wide[0], wide[1]


def _drift(index: ChannelIndex, before: tuple[Floats, Floats], after: tuple[Floats, Floats]) -> dict[str, Any]:
    found = drift(after[0], after[1], before[0], before[1])
    return {
        "total_variation": 0.5 * float(np.abs(found.change).sum()),
        "channels": [
            {
                "channel": name,
                "before": before[0][code],
                "after": after[0][code],
                "change": found.change[code],
                "error": found.error[code],
                "p_value": found.p_value[code],
                "changed": bool(found.changed[code]),
            }
            for code, name in enumerate(index.names)
        ],
    }
