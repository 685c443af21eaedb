"""Which touchpoints may share a conversion: lookback windows and lateness, from a versioned policy.

A policy may say more: parameters of rules, models, names of channels (``policy_parts``).

Invariant: eligibility is a function of the stored touchpoint, the stored conversion and the policy alone. A touch
counts when ``0 <= converted_at - occurred_at <= window`` (both ends included), it arrived in the log no later than
``lateness`` after the conversion did, and it is no robot's. Two policies with the same version have the same rules:
the version ends in a hash of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.domain.policy_parts import PolicyError, PolicyParts, parse_parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MICROS_PER_DAY = 86_400_000_000
ANY = "*"
_MAX_DAYS = 730
_MOST_RESOLVED = 10_000
_PARTS = frozenset({"rules", "models", "trained", "channels"})
_NO_PARTS = parse_parts({})


@dataclass(frozen=True)
class LookbackPolicy:
    """Lookback windows per channel x conversion type x interaction.

    Attributes:
        version: name and hash of the rules, for example ``default-1f0c9a52``.
        lateness_micros: how long after the conversion's arrival a touchpoint may still arrive, microseconds.
        inactivity_micros: how long a person must be silent until the journey is closed, microseconds.
        windows: (channel, conversion type, interaction) to window in microseconds; ``*`` stands for any. The entry
            with the most named parts wins; of equally many, channel before conversion type before interaction.
        parts: parameters of rules, models that credit, names of channels.
    """

    version: str
    lateness_micros: int
    inactivity_micros: int
    windows: Mapping[tuple[str, str, str], int]
    document: Mapping[str, Any]
    parts: PolicyParts = _NO_PARTS
    _resolved: dict[tuple[str, str, str], int] = field(default_factory=dict, repr=False, compare=False)
    _named: dict[tuple[str, str, str], str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> LookbackPolicy:
        """Read a policy document (see ``docs/how-to/attribution-policy.md``).

        Raises:
            PolicyError: when a key is unknown, a number is out of range or no catch-all window exists.
        """
        unknown = set(document) - {"name", "lateness_days", "inactivity_days", "windows"} - _PARTS
        if unknown:
            raise PolicyError(f"policy: unknown key {min(unknown)!r}")
        name = str(document.get("name", "policy"))
        lateness = _days(document, "lateness_days", "policy")
        inactivity = _days(document, "inactivity_days", "policy")
        windows: dict[tuple[str, str, str], int] = {}
        rows = document.get("windows")
        if not isinstance(rows, list):
            raise PolicyError("policy: windows must be a list")
        for number, row in enumerate(rows, start=1):
            place = f"policy: windows[{number}]"
            if not isinstance(row, Mapping) or set(row) - {
                "channel",
                "conversion_type",
                "interaction",
                "days",
            }:
                raise PolicyError(f"{place}: keys are channel, conversion_type, interaction, days")
            key = tuple(str(row.get(part, ANY)) for part in ("channel", "conversion_type", "interaction"))
            if key in windows:
                raise PolicyError(f"{place}: the same combination stands twice")
            windows[key] = _days(row, "days", place)  # type: ignore[index]  # three parts by construction
        if (ANY, ANY, ANY) not in windows:
            raise PolicyError("policy: windows need one entry with only days, for everything else")
        parts = parse_parts(document)
        canonical = json.dumps(
            {
                "lateness": lateness,
                "inactivity": inactivity,
                "windows": sorted([*k, v] for k, v in windows.items()),
                **parts.canonical,
            },
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return cls(f"{name}-{digest}", lateness, inactivity, windows, dict(document), parts)

    @property
    def longest_window_micros(self) -> int:
        """The longest window of all, microseconds: what a store must look through."""
        return max(self.windows.values())

    def window_micros(self, channel: str, conversion_type: str, interaction: str) -> int:
        """Return the window that applies, microseconds."""
        key = (channel, conversion_type, interaction)
        found = self._resolved.get(key)
        if found is None:
            if len(self._resolved) >= _MOST_RESOLVED:  # names come from outside and may be any number
                self._resolved.clear()
            found = self._resolved[key] = self._resolve(key)
        return found

    def _resolve(self, key: tuple[str, str, str]) -> int:
        for mask in ((1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
            candidate = tuple(part if named else ANY for part, named in zip(key, mask, strict=True))
            if candidate in self.windows:
                return self.windows[candidate]  # type: ignore[index]  # three parts by construction
        raise AssertionError("a policy always has a catch-all window")

    def reported_channel(self, platform: str, channel: str, campaign: str) -> str:
        """Return under which channel a touchpoint's credit is reported; empty: as it was published."""
        if not self.parts.channels:
            return ""
        key = (platform, channel, campaign)
        found = self._named.get(key)
        if found is None:
            if len(self._named) >= _MOST_RESOLVED:
                self._named.clear()
            found = self._named[key] = next((rule.name for rule in self.parts.channels if rule.fits(*key)), "")
        return found

    def differing_parts(self, other: LookbackPolicy) -> tuple[str, ...]:
        """Return the names of the parts in which two policies differ."""
        pairs = {
            "windows": (self.windows, other.windows),
            "lateness": (self.lateness_micros, other.lateness_micros),
            "inactivity": (self.inactivity_micros, other.inactivity_micros),
        } | {name: (self.parts.canonical.get(name), other.parts.canonical.get(name)) for name in sorted(_PARTS)}
        return tuple(name for name, (mine, theirs) in pairs.items() if mine != theirs)

    def counts(self, *, age: int, window: int, delay: int, is_bot: bool) -> bool:
        """Tell whether a touchpoint may share a conversion.

        Args:
            age: converted_at - occurred_at, microseconds.
            window: the window that applies, microseconds.
            delay: the touchpoint's received_at - the conversion's received_at, microseconds.
            is_bot: whether the touchpoint is a robot's.
        """
        return not is_bot and 0 <= age <= window and delay <= self.lateness_micros

    def counts_many(
        self,
        ages: NDArray[np.int64],
        windows: NDArray[np.int64],
        delays: NDArray[np.int64],
        bots: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Do as ``counts`` does, for arrays of one shape: ages, windows and delays in microseconds, bots as flags."""
        return (ages >= 0) & (ages <= windows) & (delays <= self.lateness_micros) & ~bots


def _days(row: Mapping[str, Any], key: str, place: str) -> int:
    days = row.get(key)
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 <= days <= _MAX_DAYS:
        raise PolicyError(f"{place}: {key} must be a number of days from 0 to {_MAX_DAYS}")
    return round(days * MICROS_PER_DAY)


__all__ = ["ANY", "DEFAULT_POLICY", "MICROS_PER_DAY", "LookbackPolicy", "PolicyError"]

DEFAULT_POLICY: Mapping[str, Any] = {
    "name": "default",
    "lateness_days": 7,
    "inactivity_days": 30,
    "windows": [
        {"days": 30},
        {"interaction": "impression", "days": 1},
        {"interaction": "view", "days": 1},
    ],
}
