"""The newest results computed anew from what is stored, with the policies and models that their versions pin.

Invariant: the computation is the attributor's own, in the caller's snapshot; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.models.model_set import lenient_model_set
from attributary.consumers.adapters.people_settings import PeopleSettings
from attributary.consumers.attributor.credits import CreditedResult, by_model_set, results, within_policy
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.events.attribution_inputs import (
    PendingConversion,
    ReachedTouchpoint,
    touchpoints_in_reach,
)
from attributary.consumers.store.events.policies import fetch_policies
from attributary.consumers.store.models.model_states import fetch_model_sets
from attributary.consumers.store.repair.verify_reads import stored_results
from attributary.schemas.limits import MINOR_UNIT_MICROS


class WrongResult(NamedTuple):
    """A conversion with a stored result that differs from what the stored events give."""

    conversion: PendingConversion
    stored: str
    expected: str


def wrong_results(connection: psycopg.Connection, conversions: Sequence[PendingConversion]) -> Iterator[WrongResult]:
    """Yield the conversions with a newest result that is missing or wrong.

    Args:
        connection: in a snapshot.
        conversions: the ones to check; the result of each newest version should be stored.
    """
    versions = {(c.tenant_id, c.conversion_id): c.version for c in conversions}
    stored = stored_results(connection, versions)
    policies = fetch_policies(connection)
    for conversion in conversions:
        if conversion.policy_version not in policies:
            yield WrongResult(conversion, f"pins policy {conversion.policy_version}", "a policy that is stored")
    for group, touchpoints in in_parts(connection, [c for c in conversions if c.policy_version in policies], policies):
        credited = within_policy(group, touchpoints, policies)
        pin = (group[0].tenant_id, group[0].model_set)
        states = fetch_model_sets(connection, [pin]).get(pin, {})
        models, _ = lenient_model_set(states, policies[group[0].policy_version])
        credited_results = results(group, credited, models, lambda currency: MINOR_UNIT_MICROS.get(currency, 1))
        for conversion, result in zip(group, credited_results, strict=True):
            there = stored.get((conversion.tenant_id, conversion.conversion_id))
            expected = _essence(result)
            known = None if there is None else _stored_essence(there)
            if known != expected:
                yield WrongResult(conversion, str(known), str(expected))


def in_parts(
    connection: psycopg.Connection, conversions: Sequence[PendingConversion], policies: Mapping[str, LookbackPolicy]
) -> Iterator[tuple[Sequence[PendingConversion], list[ReachedTouchpoint]]]:
    """Yield conversions of one model set and policy with their touchpoints, as many at once as may be read at once."""
    max_devices = load(PeopleSettings).max_devices
    for group in by_model_set(conversions):
        done = 0
        while done < len(group):
            touchpoints, complete = touchpoints_in_reach(connection, group[done:], policies, max_devices)
            yield group[done : done + complete], touchpoints
            done += complete


def _essence(result: CreditedResult) -> tuple[Any, ...]:
    """What a result says, in the form in which it is compared: net, person, touches, and micros by model."""
    touches = [touch.event_id for touch in result.touchpoints] if result.models else []
    micros = {model.name: list(model.micros) for model in result.models}
    return result.conversion.net_value_micros, result.conversion.journey_key, touches, micros


def _stored_essence(row: tuple[int, str, Any, Any]) -> tuple[Any, ...]:
    net, journey, touchpoints, models = row
    micros = {model["model"]: model["micros"] for model in models}
    return net, journey, [touch["event_id"] for touch in touchpoints], micros
