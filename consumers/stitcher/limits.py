"""What a batch may cost the stitcher, and what is left to the sweeper: pure.

Invariant: whatever a person holds, a batch reads at most so many of its conversions; what is left aside is described,
so that each conversion that it may count for gets its version later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attributary.consumers.store.events.reopenings import MAX_REOPENED, PutOff
from attributary.consumers.store.events.rows import TouchedPerson, TouchpointRow

from .policies import Policies

_ALWAYS = 2**62  # microseconds: before and after every event
_ANY_NUMBER = 2**31 - 2  # one more is still an integer of Postgres


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch may cost; above the second and third the stage stitches fewer records at once.

    Attributes:
        reopened: conversions of a person in reach of its new touchpoints, or at all where an anonymous id moves or a
            content gives way; of who has more, the sweeper raises the versions.
        conversions: of all people together, in reach likewise.
        pairs: touchpoints of a person times conversions in their reach, summed over the people.
    """

    reopened: int = MAX_REOPENED
    conversions: int = 20_000
    pairs: int = 20_000_000

    def for_one_record(self) -> Limits:
        """Return the limits of a batch that cannot be made smaller."""
        return replace(self, conversions=_ANY_NUMBER, pairs=_ANY_NUMBER)


NO_LIMITS = Limits(_ANY_NUMBER, _ANY_NUMBER, _ANY_NUMBER)


def later(person: TouchedPerson, rows: Sequence[TouchpointRow], policies: Policies) -> PutOff:
    """Describe the conversions that touchpoints may count for, by any policy."""
    return PutOff(
        person.tenant_id,
        person.journey_key,
        person.first_at,
        person.last_at + policies.longest_window_micros,
        min(row.received_at for row in rows) - policies.longest_lateness_micros,
        max(row.received_at for row in rows),
        len(rows),
        person.conversions,
    )


def all_later(person: tuple[str, str], reason: str, published_at: int, changes: int, conversions: int) -> PutOff:
    """Describe all conversions of a person (tenant, journey key): an anonymous id moved, or a content gave way."""
    return PutOff(*person, -_ALWAYS, _ALWAYS, -_ALWAYS, published_at, 0, conversions, changes, reason)
