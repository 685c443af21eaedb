"""What a policy would change, computed without writing: the attributor's own code under both policies.

All parts count: windows, lateness, rules, which models credit, trained versions, names of channels.

Invariant: over all conversions of the period the differences are, to the micro, what activation with a refit publishes,
as long as nothing new arrives in between. Over a sample they are estimates, with an interval.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.models.model_set import ModelSet, lenient_model_set
from attributary.consumers.adapters.people_settings import PeopleSettings
from attributary.consumers.attributor.credits import CreditedResult, results, within_policy
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.events.attribution_inputs import PendingConversion, conversions_by_id
from attributary.consumers.store.events.policies import fetch_policies
from attributary.consumers.store.models.model_states import fetch_model_sets, states_with
from attributary.schemas.limits import MINOR_UNIT_MICROS

from .recompute import in_parts

Cell = tuple[str, str, str]  # model, channel, currency
UNATTRIBUTED = "(unattributed)"

_PAGE = 1_000
_EXAMPLES = 10
_Z95 = 1.959964

_IDS = """
SELECT tenant_id, conversion_id FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND version > 0 AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
  AND conversion_id > %(after)s
  AND (%(share)s >= 1 OR hashtextextended(conversion_id, 0) & 1048575 < (%(share)s * 1048576)::int8)
ORDER BY conversion_id LIMIT %(limit)s
"""

_COUNT = """
SELECT count(*) FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND version > 0 AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
"""

_WANTED = -1  # stands for the model set that activation would bring into force: no number of a stored one


@dataclass(slots=True)
class PolicyDiff:
    """What would change.

    Attributes:
        conversions: of the period.
        looked_at: of these; fewer is a sample.
        changed: of these, those with other credits.
        touchpoints_in: credited by the new policy alone, over all conversions looked at.
        touchpoints_out: credited by the old policy alone.
        old: credited micros by model, channel and currency, as their versions pin.
        new: the same under the new policy and the models in force.
        squares: of the differences by conversion, for the interval.
        examples: ids of conversions that change.
    """

    conversions: int = 0
    looked_at: int = 0
    changed: int = 0
    touchpoints_in: int = 0
    touchpoints_out: int = 0
    old: Counter[Cell] = field(default_factory=Counter)
    new: Counter[Cell] = field(default_factory=Counter)
    squares: defaultdict[Cell, float] = field(default_factory=lambda: defaultdict(float))
    examples: list[str] = field(default_factory=list)

    @property
    def is_sample(self) -> bool:
        """Whether not all conversions were looked at."""
        return self.looked_at < self.conversions

    def rows(self) -> Iterator[tuple[Cell, int, int, float]]:
        """Yield cell, old and new micros for all conversions, and half of the 95 % interval of the difference.

        Of a sample: the sum times N/n, with the normal approximation for a total under simple random sampling
        (Cochran, Sampling Techniques, section 2.9); 0 when all were looked at.
        """
        scale = self.conversions / self.looked_at if self.looked_at else 1.0
        for cell in sorted({*self.old, *self.new}):
            old, new, half = self.old[cell], self.new[cell], 0.0
            if self.is_sample and self.looked_at > 1:
                mean = (new - old) / self.looked_at
                variance = max(0.0, self.squares[cell] / self.looked_at - mean * mean)
                left = 1 - self.looked_at / self.conversions
                half = _Z95 * self.conversions * math.sqrt(variance * left / (self.looked_at - 1))
            yield cell, round(old * scale), round(new * scale), half


def policy_diff(
    connection: psycopg.Connection,
    tenant: str,
    policy: LookbackPolicy,
    period_us: tuple[int, int],
    *,
    most: int = 100_000,
) -> PolicyDiff:
    """Compare the credits of a period with those under another policy.

    Args:
        connection: in a snapshot (REPEATABLE READ); nothing is written.
        tenant: the tenant.
        policy: the new one; need not be stored.
        period_us: event time of the conversions, from (included) to (excluded), microseconds UTC.
        most: of more conversions about so many are looked at, chosen by a hash of their ids.

    Raises:
        ModelStateError: the policy names a version of a model that is not stored, or that may not be activated.
    """
    parameters: dict[str, Any] = {"tenant": tenant, "from_us": period_us[0], "to_us": period_us[1]}
    diff = PolicyDiff()
    row = connection.execute(_COUNT, parameters).fetchone()
    diff.conversions = int(row[0]) if row else 0
    parameters |= {"share": min(1.0, most / max(1, diff.conversions)), "limit": _PAGE, "after": ""}
    policies = {**fetch_policies(connection), policy.version: policy}
    models = _Models(connection, policies)
    models.built[_WANTED, policy.version], _ = lenient_model_set(
        states_with(connection, tenant, policy.parts.trained), policy
    )
    max_devices = load(PeopleSettings).max_devices
    while ids := connection.execute(_IDS, parameters).fetchall():
        parameters["after"] = ids[-1][1]
        stored = list(conversions_by_id(connection, ids, max_devices))
        wanted = [each._replace(policy_version=policy.version, model_set=_WANTED) for each in stored]
        old = _records(models, stored)
        new = _records(models, wanted)
        for conversion in stored:
            _compare(diff, old[conversion.conversion_id], new[conversion.conversion_id])
    return diff


@dataclass(slots=True)
class _Models:
    """The models of one tenant by what versions pin, built once each."""

    connection: psycopg.Connection
    policies: Mapping[str, LookbackPolicy]
    built: dict[tuple[int, str], ModelSet] = field(default_factory=dict)

    def of(self, conversion: PendingConversion) -> ModelSet:
        key = (conversion.model_set, conversion.policy_version)
        if key not in self.built:
            pin = (conversion.tenant_id, conversion.model_set)
            states = fetch_model_sets(self.connection, [pin])[pin]
            self.built[key], _ = lenient_model_set(states, self.policies[conversion.policy_version])
        return self.built[key]


def _records(models: _Models, conversions: Sequence[PendingConversion]) -> dict[str, CreditedResult]:
    """Return the result of each conversion by its id, as the attributor would compute it."""
    found: dict[str, CreditedResult] = {}
    for part, touchpoints in in_parts(models.connection, conversions, models.policies):
        credited = within_policy(part, touchpoints, models.policies)
        made = results(part, credited, models.of(part[0]), lambda currency: MINOR_UNIT_MICROS.get(currency, 1))
        found |= {each.conversion.conversion_id: each for each in made}
    return found


def _compare(diff: PolicyDiff, old: CreditedResult, new: CreditedResult) -> None:
    before, after = _credits(old), _credits(new)
    diff.looked_at += 1
    diff.old.update(before)
    diff.new.update(after)
    for cell in {*before, *after}:
        diff.squares[cell] += float(after[cell] - before[cell]) ** 2
    was, is_now = ({touch.event_id for touch in each.touchpoints} for each in (old, new))
    diff.touchpoints_in += len(is_now - was)
    diff.touchpoints_out += len(was - is_now)
    if before != after or was != is_now:
        diff.changed += 1
        if len(diff.examples) < _EXAMPLES:
            diff.examples.append(new.conversion.conversion_id)


def _credits(result: CreditedResult) -> Counter[Cell]:
    found: Counter[Cell] = Counter()
    net, currency = result.conversion.net_value_micros, result.conversion.currency
    for model in result.models:
        for touch, micros in zip(result.touchpoints, model.micros, strict=True):
            found[model.name, touch.reported_channel, currency] += micros
        found[model.name, UNATTRIBUTED, currency] += net - sum(model.micros)
    return found
