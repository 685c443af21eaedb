"""Whether a new touchpoint changes a conversion's result, also while conversions pin older policies: pure.

Invariant: after every batch, the newest result of a conversion is due for, or holds, every stored touchpoint that
counts by the policy which its newest version pins. So a result is a function of what is stored, whenever it is
computed, and a change of the policy file breaks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.lookback import ANY, LookbackPolicy
from attributary.consumers.store.events.rows import TouchedConversion, TouchpointRow

_FEW_PAIRS = 100  # below, arrays cost more than they save
_MAX_CELLS = 250_000  # of an array of pairs: some megabytes


class PinnedPolicies(Mapping[str, LookbackPolicy]):
    """Policies that versions may pin, looked up when the first is asked for.

    That is after the people are locked: a version that another process raised under a policy which was activated a
    moment ago is seen together with its policy, whatever this process knew before.

    Args:
        known: from before.
        look_up: returns these, or all when there are others by now.
    """

    def __init__(
        self,
        known: Mapping[str, LookbackPolicy],
        look_up: Callable[[Mapping[str, LookbackPolicy]], Mapping[str, LookbackPolicy]],
    ) -> None:
        self._known, self._look_up = known, look_up
        self._found: Mapping[str, LookbackPolicy] | None = None

    @property
    def found(self) -> Mapping[str, LookbackPolicy]:
        """All that are known by now."""
        return self._known if self._found is None else self._found

    def _all(self) -> Mapping[str, LookbackPolicy]:
        if self._found is None:
            self._found = self._look_up(self._known)
        return self._found

    def __getitem__(self, version: str) -> LookbackPolicy:
        return self._all()[version]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


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

    def counting(
        self, rows: Sequence[TouchpointRow], conversions: Sequence[TouchedConversion]
    ) -> tuple[list[tuple[TouchedConversion, TouchpointRow]], int]:
        """Return the conversions that touchpoints of their person may count for, each with the first of these.

        Time and memory are bounded by ``_MAX_CELLS`` and the number of pairs, at a few nanoseconds each.

        Args:
            rows: the person's new touchpoints, none of a robot.
            conversions: the person's, in their reach.

        Returns:
            The pairs, and how many pairs do not count because the touchpoint came too late.
        """
        if len(rows) * len(conversions) > _FEW_PAIRS:
            return self._counting_many(rows, conversions)
        found, too_late = [], 0
        for conversion in conversions:
            first = None
            for row in rows:
                if self.may_count(row, conversion):
                    first = first or row
                elif self.is_too_late(row, conversion):
                    too_late += 1
            if first is not None:
                found.append((conversion, first))
        return found, too_late

    def _counting_many(
        self, rows: Sequence[TouchpointRow], conversions: Sequence[TouchedConversion]
    ) -> tuple[list[tuple[TouchedConversion, TouchpointRow]], int]:
        """Do as ``counting`` does, by arrays: conversions that the same rules apply to at once."""
        occurred = np.fromiter((row.occurred_at for row in rows), np.int64, len(rows))
        received = np.fromiter((row.received_at for row in rows), np.int64, len(rows))
        bots = np.fromiter((row.is_bot for row in rows), np.bool_, len(rows))
        alike: dict[tuple[str, str], list[TouchedConversion]] = {}
        for conversion in conversions:
            conversion_type = conversion.conversion_type if conversion.conversion_type in self._named else ANY
            alike.setdefault((conversion_type, conversion.policy_version), []).append(conversion)
        found: list[tuple[TouchedConversion, TouchpointRow]] = []
        too_late = 0
        step = max(1, _MAX_CELLS // len(rows))
        for (conversion_type, version), group in alike.items():
            rules = self._rules(version)
            windows = [_windows(policy, rows, conversion_type) for policy in rules]
            for start in range(0, len(group), step):
                part = group[start : start + step]
                converted = np.fromiter((one.converted_at for one in part), np.int64, len(part))
                arrived = np.fromiter((one.received_at for one in part), np.int64, len(part))
                ages, delays = converted[:, None] - occurred, received - arrived[:, None]
                is_known = version == self.in_force.version or version in self.pinned
                counts = np.zeros(ages.shape, np.bool_) if is_known else ages >= 0
                for policy, window in zip(rules, windows, strict=True):
                    counts |= policy.counts_many(ages, window, delays, bots)
                too_late += int(np.count_nonzero(~counts & (ages >= 0) & (ages <= windows[0])))
                firsts = counts.argmax(axis=1)
                hits = counts[np.arange(len(part)), firsts]
                found += [(part[n], rows[firsts[n]]) for n in np.flatnonzero(hits).tolist()]
        return found, too_late

    @property
    def _named(self) -> set[str]:
        """The conversion types that a rule names; all others are alike."""
        return {key[1] for policy in (self.in_force, *self.pinned.values()) for key in policy.windows}

    def _rules(self, pinned: str) -> list[LookbackPolicy]:
        """Return the policies by which a touchpoint may count, the one in force first."""
        other = self.pinned.get(pinned) if pinned != self.in_force.version else None
        return [self.in_force] if other is None else [self.in_force, other]

    @property
    def longest_lateness_micros(self) -> int:
        """No policy lets a touchpoint arrive later after its conversion; microseconds."""
        return max(policy.lateness_micros for policy in (self.in_force, *self.pinned.values()))

    def may_count(self, row: TouchpointRow, found: TouchedConversion) -> bool:
        """Tell whether the touchpoint counts by the policy in force or by the pinned one, or may: it is not known."""
        if _counts(self.in_force, row, found):
            return True
        if found.policy_version == self.in_force.version:
            return False
        pinned = self.pinned.get(found.policy_version)
        if pinned is None:
            return found.converted_at >= row.occurred_at
        return _counts(pinned, row, found)

    def is_too_late(self, row: TouchpointRow, found: TouchedConversion) -> bool:
        """Tell of a touchpoint that does not count whether only its delay is to blame."""
        window = self.in_force.window_micros(row.channel, found.conversion_type, row.interaction)
        return 0 <= found.converted_at - row.occurred_at <= window


def _windows(policy: LookbackPolicy, rows: Sequence[TouchpointRow], conversion_type: str) -> NDArray[np.int64]:
    windows = (policy.window_micros(row.channel, conversion_type, row.interaction) for row in rows)
    return np.fromiter(windows, np.int64, len(rows))


def _counts(policy: LookbackPolicy, row: TouchpointRow, found: TouchedConversion) -> bool:
    return policy.counts(
        age=found.converted_at - row.occurred_at,
        window=policy.window_micros(row.channel, found.conversion_type, row.interaction),
        delay=row.received_at - found.received_at,
        is_bot=row.is_bot,
    )
