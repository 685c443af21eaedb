"""Trained models by version, and the model sets that are in force.

Invariants: a stored state never changes, so a pinned model set gives the same models for as long as it is kept. At most
one version of a model is active per tenant. The active versions together have a number, the model set. It rises by one
with every change and is never used again; set 0 means "no trained model". A lock puts all writers of a tenant in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from attributary.consumers.store.audit import note_action

if TYPE_CHECKING:
    from attributary.attribution_core.models.model_set import TrainedState

OK = "ok"
"""The status of a version that may credit conversions."""
_MAX_VERSION = (1 << 63) - 1

Pin = tuple[str, int]
States = dict[str, "TrainedState"]


class ModelStateError(LookupError):
    """A version or a model set that is not stored, or a change that is not possible; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class NewState:
    """A state to store: the statistics (`JourneyState.to_document`), the model's settings, and facts about both."""

    tenant_id: str
    model: str
    document: Mapping[str, Any]
    settings: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StateSummary:
    """A stored version without its statistics."""

    tenant_id: str
    model: str
    version: int
    metadata: Mapping[str, Any]
    trained_at: datetime
    is_active: bool
    activated_at: datetime | None

    @property
    def status(self) -> str | None:
        """The verdict of its training in one line: `OK` or what is wrong; None for versions of old code."""
        status = self.metadata.get("diagnostics", {}).get("status")
        return None if status is None else str(status)


@dataclass(frozen=True, slots=True)
class Activation:
    """The versions in force after a change.

    Attributes:
        model_set: number of the set; 0 while nothing was ever active.
        versions: model name to version.
        changed: False when they were in force already and nothing was written.
    """

    model_set: int
    versions: Mapping[str, int]
    changed: bool


class ModelSetRow(NamedTuple):
    """One model set of a tenant: what was in force together, since when, and who said so."""

    model_set: int
    versions: Mapping[str, int]
    activated_at: datetime
    activated_by: str | None


# One writer per tenant at a time; released at the end of the transaction.
_TAKE_TURNS = "SELECT pg_advisory_xact_lock(hashtextextended('attribution_models|' || %s, 0))"

_SAVE = """
INSERT INTO attribution_model_states (tenant_id, model, version, state, metadata)
SELECT %(tenant)s, %(model)s, COALESCE(max(version), 0) + 1, %(state)s, %(metadata)s
FROM attribution_model_states WHERE tenant_id = %(tenant)s AND model = %(model)s
RETURNING version
"""

_FETCH = """
SELECT k.tenant_id, k.model_set, s.model_set IS NOT NULL, v.model, v.version, m.state
FROM unnest(%s::text[], %s::int8[]) AS k (tenant_id, model_set)
LEFT JOIN attribution_model_sets s USING (tenant_id, model_set)
LEFT JOIN LATERAL jsonb_each_text(s.versions) AS v (model, version) ON true
LEFT JOIN attribution_model_states m
  ON m.tenant_id = k.tenant_id AND m.model = v.model AND m.version = v.version::bigint
"""

_IN_FORCE = """
SELECT model_set, versions FROM attribution_model_sets WHERE tenant_id = %s ORDER BY model_set DESC LIMIT 1
"""

_LIST = """
SELECT tenant_id, model, version, metadata, trained_at, is_active, activated_at FROM attribution_model_states
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(model)s::text IS NULL OR model = %(model)s)
ORDER BY tenant_id, model, version DESC
"""

_SHOW = """
SELECT tenant_id, model, version, metadata, trained_at, is_active, activated_at, state FROM attribution_model_states
WHERE tenant_id = %s AND model = %s AND version = %s
"""

# First off, then on: the unique index allows one active version at any moment.
_SWITCH_OFF = """
UPDATE attribution_model_states SET is_active = false, updated_at = now()
WHERE tenant_id = %(tenant)s AND is_active AND (%(versions)s::jsonb ->> model) IS DISTINCT FROM version::text
"""
_SWITCH_ON = """
UPDATE attribution_model_states SET is_active = true, activated_at = now(), updated_at = now()
WHERE tenant_id = %(tenant)s AND NOT is_active AND (%(versions)s::jsonb ->> model) = version::text
"""
_HISTORY = """
SELECT model_set, versions, created_at, activated_by FROM attribution_model_sets
WHERE tenant_id = %s ORDER BY model_set DESC
"""
_NEXT_SET = "INSERT INTO attribution_model_sets (tenant_id, model_set, versions) VALUES (%s, %s, %s)"

_EVER_ACTIVE_BEFORE = """
SELECT max((s.versions ->> %(model)s)::bigint) FROM attribution_model_sets s
WHERE s.tenant_id = %(tenant)s AND (s.versions ->> %(model)s)::bigint < %(version)s
"""


def save_states(connection: psycopg.Connection, states: Sequence[NewState]) -> list[int]:
    """Store states as the next versions of their models, none of them active. Return the versions in order.

    Args:
        connection: in a transaction.
        states: from a training.
    """
    for tenant in sorted({state.tenant_id for state in states}):
        connection.execute(_TAKE_TURNS, (tenant,))
    versions = []
    for state in states:
        row = connection.execute(
            _SAVE,
            {
                "tenant": state.tenant_id,
                "model": state.model,
                "state": Jsonb({"statistics": dict(state.document), "settings": dict(state.settings)}),
                "metadata": Jsonb(dict(state.metadata)),
            },
        ).fetchone()
        versions.append(int(row[0]) if row else 0)
    return versions


def fetch_model_sets(connection: psycopg.Connection, pins: Iterable[Pin]) -> dict[Pin, States]:
    """Return the trained states of many (tenant, model set) in one query.

    The states of a pin never change, so a caller may keep the answer for good.

    Args:
        connection: anywhere.
        pins: as conversions pin them; set 0 has no states.

    Raises:
        ModelStateError: a set, or one of its states, is not stored. Only deleted rows cause it, and credits without
            them would be other numbers than before.
    """
    wanted = sorted(set(pins))
    found: dict[Pin, States] = {pin: {} for pin in wanted}
    asked = [pin for pin in wanted if pin[1] > 0]
    if not asked:
        return found
    rows = connection.execute(_FETCH, ([pin[0] for pin in asked], [pin[1] for pin in asked])).fetchall()
    for tenant, number, exists, model, version, state in rows:
        if not exists:
            raise ModelStateError(f"model set {number} of tenant {tenant} is not stored")
        if model is None:
            continue  # a set in which everything is off
        if state is None:
            raise ModelStateError(f"model set {number} of tenant {tenant} names {model} {version}, which is not stored")
        found[tenant, number][model] = _trained(version, state)
    return found


def in_force(connection: psycopg.Connection, tenant_id: str) -> Activation:
    """Return the model set that new versions of conversions pin."""
    row = connection.execute(_IN_FORCE, (tenant_id,)).fetchone()
    return Activation(row[0], dict(row[1]), changed=False) if row else Activation(0, {}, changed=False)


def model_set_history(connection: psycopg.Connection, tenant_id: str) -> list[ModelSetRow]:
    """Return the model sets of a tenant, the newest first."""
    return [ModelSetRow(*row) for row in connection.execute(_HISTORY, (tenant_id,)).fetchall()]


def states_with(connection: psycopg.Connection, tenant_id: str, changes: Mapping[str, int | None]) -> States:
    """Return the trained states that would be in force after a change; nothing is written.

    Args:
        connection: anywhere.
        tenant_id: the tenant.
        changes: model name to version; None: the model is off.

    Raises:
        ModelStateError: a version is not stored, or may not be activated.
    """
    states = {name: state for name, state in active_states(connection, tenant_id).items() if name not in changes}
    for model, version in changes.items():
        if version is not None:
            states[model] = _allowed(connection, tenant_id, model, version)
    return states


def active_states(connection: psycopg.Connection, tenant_id: str) -> States:
    """Return the trained states in force."""
    pin = (tenant_id, in_force(connection, tenant_id).model_set)
    return fetch_model_sets(connection, [pin])[pin]


def list_states(
    connection: psycopg.Connection, tenant_id: str | None = None, model: str | None = None
) -> list[StateSummary]:
    """Return the stored versions, by tenant and model, newest first.

    Args:
        connection: anywhere.
        tenant_id: of this tenant only.
        model: of this model only.
    """
    rows = connection.execute(_LIST, {"tenant": tenant_id, "model": model}).fetchall()
    return [StateSummary(*row) for row in rows]


def show_state(
    connection: psycopg.Connection, tenant_id: str, model: str, version: int
) -> tuple[StateSummary, TrainedState]:
    """Return a version with its state.

    Raises:
        ModelStateError: it is not stored.
    """
    row = None
    if 0 < version <= _MAX_VERSION:  # a number that Postgres can hold
        row = connection.execute(_SHOW, (tenant_id, model, version)).fetchone()
    if row is None:
        raise ModelStateError(f"{model} has no version {version} for tenant {tenant_id}")
    return StateSummary(*row[:-1]), _trained(version, row[-1])


def choose_version(connection: psycopg.Connection, tenant_id: str, model: str, version: int | None) -> int:
    """Return a version: the given one, else the active one, else the newest.

    Raises:
        ModelStateError: the model has no version.
    """
    if version is not None:
        return version
    rows = list_states(connection, tenant_id, model)
    if not rows:
        raise ModelStateError(f"{model} has no version for tenant {tenant_id}; train it: attributary models train")
    return next((row.version for row in rows if row.is_active), rows[0].version)


def activate(
    connection: psycopg.Connection, tenant_id: str, versions: Mapping[str, int], *, force: bool = False
) -> Activation:
    """Activate versions, all at once; other models stay as they are. See ``change_versions``."""
    return change_versions(connection, tenant_id, versions, force=force)


def change_versions(
    connection: psycopg.Connection, tenant_id: str, changes: Mapping[str, int | None], *, force: bool = False
) -> Activation:
    """Activate versions and switch models off, all at once; other models stay as they are.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        changes: model name to version; None: the model is off.
        force: also versions with another status than "ok".

    Raises:
        ModelStateError: a version is not stored, or its status is not "ok".
    """
    connection.execute(_TAKE_TURNS, (tenant_id,))
    for model, version in changes.items():
        if version is not None:
            _allowed(connection, tenant_id, model, version, force=force)
    current = in_force(connection, tenant_id)
    versions = {**current.versions, **changes}
    chosen = {model: version for model, version in versions.items() if version is not None}
    return _bring_into_force(connection, tenant_id, current, chosen)


def _allowed(
    connection: psycopg.Connection, tenant_id: str, model: str, version: int, *, force: bool = False
) -> TrainedState:
    summary, state = show_state(connection, tenant_id, model, version)
    if not force and summary.status not in {None, OK}:
        raise ModelStateError(
            f"{model} {version} is not activated, because its status is: {summary.status}. To activate it all the "
            "same: --force, in a job force=true"
        )
    return state


def restore_set(
    connection: psycopg.Connection, tenant_id: str, model_set: int, *, instead_of: int
) -> Activation | None:
    """Bring the versions of an earlier model set into force, as a new set; None: another one is in force by now.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        model_set: the earlier one; 0: no trained model.
        instead_of: the one that must be in force.
    """
    connection.execute(_TAKE_TURNS, (tenant_id,))
    current = in_force(connection, tenant_id)
    if current.model_set != instead_of:
        return None
    earlier = {row.model_set: row.versions for row in model_set_history(connection, tenant_id)}
    return _bring_into_force(connection, tenant_id, current, earlier.get(model_set, {}))


def deactivate(connection: psycopg.Connection, tenant_id: str, models: Iterable[str]) -> Activation:
    """Deactivate models: new versions of conversions are credited by the declared fallback rule.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        models: names; one that is not active stays so.
    """
    connection.execute(_TAKE_TURNS, (tenant_id,))
    current = in_force(connection, tenant_id)
    gone = set(models)
    kept = {model: version for model, version in current.versions.items() if model not in gone}
    return _bring_into_force(connection, tenant_id, current, kept)


def roll_back(
    connection: psycopg.Connection, tenant_id: str, model: str, *, from_version: int | None = None
) -> Activation:
    """Return to the newest older version that was in force before; repeated calls walk back to the first.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        model: the model.
        from_version: roll back only if this version is in force, so that a second call changes nothing.

    Raises:
        ModelStateError: the model is not active, or no older version was ever in force.
    """
    connection.execute(_TAKE_TURNS, (tenant_id,))
    current = in_force(connection, tenant_id)
    active = current.versions.get(model)
    if active is None:
        raise ModelStateError(f"{model} is not active for tenant {tenant_id}")
    if from_version is not None and active != from_version:
        return current
    row = connection.execute(_EVER_ACTIVE_BEFORE, {"tenant": tenant_id, "model": model, "version": active}).fetchone()
    if row is None or row[0] is None:
        raise ModelStateError(f"{model} {active} is the oldest version that was in force; deactivate it instead")
    return _bring_into_force(connection, tenant_id, current, {**current.versions, model: int(row[0])})


def _bring_into_force(
    connection: psycopg.Connection, tenant_id: str, current: Activation, versions: Mapping[str, int]
) -> Activation:
    if versions == current.versions:
        return current
    chosen = dict(sorted(versions.items()))
    parameters = {"tenant": tenant_id, "versions": Jsonb(chosen)}
    connection.execute(_SWITCH_OFF, parameters)
    connection.execute(_SWITCH_ON, parameters)
    number = current.model_set + 1
    connection.execute(_NEXT_SET, (tenant_id, number, Jsonb(chosen)))
    note_action(connection, tenant_id, "models.activated", f"model set {number}", {"versions": chosen})
    return Activation(number, chosen, changed=True)


def _trained(version: int | str, state: Mapping[str, Any]) -> TrainedState:
    from attributary.attribution_core.models.model_set import TrainedState

    # A part that is missing is seen when the model is built, where it stops nobody but its tenant.
    return TrainedState(str(version), state.get("statistics", {}), state.get("settings", {}))
