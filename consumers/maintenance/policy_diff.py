"""What a lookback policy would change, computed without writing: the attributor's own code under both policies.

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
from attributary.attribution_core.models.model_set import lenient_model_set
from attributary.consumers.adapters.people_settings import PeopleSettings
from attributary.consumers.attributor.credits import CreditedResult, results, within_policy
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.events.attribution_inputs import PendingConversion, conversions_by_id
from attributary.consumers.store.events.policies import fetch_policies
from attributary.consumers.store.models.model_states import fetch_model_sets
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

_MODEL_SET = "SELECT COALESCE(max(model_set), 0) FROM attribution_model_sets WHERE tenant_id = %s"


@dataclass(slots=True)
class PolicyDiff:
    """What would change.

    Attributes:
        conversions: of the period.
        looked_at: of these; fewer is a sample.
        changed: of these, whose credits change.
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
    """
    parameters: dict[str, Any] = {"tenant": tenant, "from_us": period_us[0], "to_us": period_us[1]}
    diff = PolicyDiff()
    row = connection.execute(_COUNT, parameters).fetchone()
    diff.conversions = int(row[0]) if row else 0
    parameters |= {"share": min(1.0, most / max(1, diff.conversions)), "limit": _PAGE, "after": ""}
    policies = {**fetch_policies(connection), policy.version: policy}
    found = connection.execute(_MODEL_SET, (tenant,)).fetchone()
    model_set = int(found[0]) if found else 0
    max_devices = load(PeopleSettings).max_devices
    while ids := connection.execute(_IDS, parameters).fetchall():
        parameters["after"] = ids[-1][1]
        stored = list(conversions_by_id(connection, ids, max_devices))
        wanted = [each._replace(policy_version=policy.version, model_set=model_set) for each in stored]
        old = _records(connection, stored, policies)
        new = _records(connection, wanted, policies)
        for conversion in stored:
            _compare(diff, old[conversion.conversion_id], new[conversion.conversion_id])
    return diff


def _records(
    connection: psycopg.Connection,
    conversions: Sequence[PendingConversion],
    policies: Mapping[str, LookbackPolicy],
) -> dict[str, CreditedResult]:
    """Return the result of each conversion by its id, as the attributor would compute it."""
    found: dict[str, CreditedResult] = {}
    for part, touchpoints in in_parts(connection, conversions, policies):
        pin = (part[0].tenant_id, part[0].model_set)
        models, _ = lenient_model_set(fetch_model_sets(connection, [pin]).get(pin, {}))
        credited = within_policy(part, touchpoints, policies)
        made = results(part, credited, models, lambda currency: MINOR_UNIT_MICROS.get(currency, 1))
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
            found[model.name, touch.channel, currency] += micros
        found[model.name, UNATTRIBUTED, currency] += net - sum(model.micros)
    return found
