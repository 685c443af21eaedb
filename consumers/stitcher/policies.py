"""Whether a new touchpoint changes a conversion's result, also while conversions pin older policies: pure.

Invariant: after every batch, the newest result of a conversion is due for, or holds, every stored touchpoint that
counts by the policy which its newest version pins. So a result is a function of what is stored, whenever it is
computed, and a change of the policy file breaks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.events.rows import TouchedConversion, TouchpointRow


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy in force, and those that conversions pin since before it was.

    A touchpoint that counts by the pinned policy alone is a reason for a new version, too, which then pins the policy
    in force.

    Attributes:
        in_force: what new versions pin.
        pinned: further policies that are known, by version.
    """

    in_force: LookbackPolicy
    pinned: Mapping[str, LookbackPolicy]

    @property
    def longest_window_micros(self) -> int:
        """No window of any policy is longer; microseconds."""
        return max(policy.longest_window_micros for policy in (self.in_force, *self.pinned.values()))

    def may_count(self, row: TouchpointRow, found: TouchedConversion) -> bool:
        """Tell whether the touchpoint counts by the policy in force or by the pinned one, or may: it is not known."""
        if _counts(self.in_force, row, found):
            return True
        if found.policy_version == self.in_force.version:
            return False
        pinned = self.pinned.get(found.policy_version)
        return pinned is None or _counts(pinned, row, found)

    def is_too_late(self, row: TouchpointRow, found: TouchedConversion) -> bool:
        """Tell of a touchpoint that does not count whether only its delay is to blame."""
        window = self.in_force.window_micros(row.channel, found.conversion_type, row.interaction)
        return found.converted_at - row.occurred_at <= window


def _counts(policy: LookbackPolicy, row: TouchpointRow, found: TouchedConversion) -> bool:
    return policy.counts(
        age=found.converted_at - row.occurred_at,
        window=policy.window_micros(row.channel, found.conversion_type, row.interaction),
        delay=row.received_at - found.received_at,
        is_bot=row.is_bot,
    )
