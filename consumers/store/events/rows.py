"""The rows that stages hand to the store, as plain tuples in the order of the staging columns.

Times are integer microseconds UTC. ``Place`` is where a record stands in Kafka.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX

Key = tuple[str, str]  # tenant, and a key in it
Bounds = tuple[int, int, int]
"""Earliest and latest event time and latest arrival of a person's events."""

# Of a person who is locked for an event of somebody else: no bound of a journey is widened by them. (The end of the
# year 9999: what every timestamp can show.)
LOCKS_ONLY: Bounds = (253_402_300_799_999_999, 0, 0)


def widen(bounds: dict[Key, Bounds], key: Key, occurred_at: int, received_at: int) -> None:
    """Take an event into the bounds of a person."""
    known = bounds.get(key)
    if known is None:
        bounds[key] = occurred_at, occurred_at, received_at
        return
    first, last, received = known
    if occurred_at < first or occurred_at > last or received_at > received:
        bounds[key] = min(first, occurred_at), max(last, occurred_at), max(received, received_at)


class Place(NamedTuple):
    """Coordinates of a record."""

    topic: str
    partition: int
    offset: int


class TouchpointRow(NamedTuple):
    """One touchpoint as it is stored; ``details`` is JSON text."""

    tenant_id: str
    event_id: str
    identity_key: str
    anonymous_id: str | None
    occurred_at: int
    received_at: int
    platform: str
    channel: str
    interaction: str
    campaign: str
    is_bot: bool
    details: str
    content_hash: int
    topic: str
    partition: int
    offset: int


class ConversionEventRow(NamedTuple):
    """One event about a conversion as it is stored; ``details`` is JSON text."""

    tenant_id: str
    event_id: str
    conversion_id: str
    kind: str
    conversion_type: str
    identity_key: str
    anonymous_id: str | None
    occurred_at: int
    received_at: int
    value_micros: int
    currency: str
    order_id: str | None
    details: str
    content_hash: int
    topic: str
    partition: int
    offset: int


class LinkRow(NamedTuple):
    """One explicit identity link as it is stored."""

    tenant_id: str
    event_id: str
    anonymous_id: str
    user_id: str
    linked_at: int
    source: str | None
    received_at: int
    content_hash: int
    topic: str
    partition: int
    offset: int


EventRow = TouchpointRow | ConversionEventRow | LinkRow


class LinkCandidate(NamedTuple):
    """A statement that an anonymous id is a user's, from a link event or from an event that names both."""

    tenant_id: str
    anonymous_id: str
    user_id: str
    linked_at: int
    event_id: str

    @property
    def order(self) -> tuple[int, str, str]:
        """The smallest decides (attribution_core.domain.identity)."""
        return self.linked_at, self.event_id, self.user_id


class StoredEvent(NamedTuple):
    """What decides between a new content of an event id and the stored one; the last three are of conversions only."""

    event_id: str
    tenant_id: str
    identity_key: str
    content_hash: int
    received_at: int
    topic: str
    partition: int
    offset: int
    conversion_id: str | None = None
    value_micros: int | None = None
    currency: str | None = None


class ConflictRow(NamedTuple):
    """A content that was set aside because an earlier record of the log has its event id; no personal data."""

    tenant_id: str
    record_name: str  # touchpoint, conversion, identity_link
    event_id: str
    content_hash: int
    conversion_id: str | None
    value_micros: int | None
    currency: str | None
    received_at: int
    topic: str
    partition: int
    offset: int


class IdentityMove(NamedTuple):
    """An anonymous id that got its first or another owner."""

    tenant_id: str
    anonymous_id: str
    old_user_id: str | None
    new_user_id: str  # empty: it belongs to nobody any more
    event_id: str

    @property
    def old_key(self) -> str:
        """The journey that it belonged to."""
        return USER_PREFIX + self.old_user_id if self.old_user_id else ANONYMOUS_PREFIX + self.anonymous_id

    @property
    def new_key(self) -> str:
        """The journey that it belongs to now."""
        return USER_PREFIX + self.new_user_id if self.new_user_id else ANONYMOUS_PREFIX + self.anonymous_id


class TouchedPerson(NamedTuple):
    """A person with new touchpoints and with conversions in their reach."""

    tenant_id: str
    journey_key: str
    first_at: int  # event times of the earliest and the latest of the touchpoints
    last_at: int
    touches: Sequence[int]  # indexes of the touchpoints in the batch
    conversions: int  # how many


class TouchedConversion(NamedTuple):
    """A conversion in reach of new touchpoints of its person."""

    person: int  # index of the person
    conversion_id: str
    conversion_type: str
    converted_at: int
    received_at: int
    policy_version: str  # pinned by its newest version


class ConversionRow(NamedTuple):
    """A conversion with its identity and state, as raising a version writes it."""

    tenant_id: str
    conversion_id: str
    conversion_type: str
    identity_key: str
    journey_key: str
    converted_at: int
    received_at: int
    gross_value_micros: int
    net_value_micros: int
    currency: str
    order_id: str | None


class Raise(NamedTuple):
    """A version to raise: the conversion, why, and its cause (the last new event of the batch that changed it)."""

    tenant_id: str
    conversion_id: str
    reason: str
    cause: Place
    published_at: int


class RaisedVersion(NamedTuple):
    """A version with a pending result: the command is made from it."""

    tenant_id: str
    conversion_id: str
    version: int
    reason: str
    published_at: int


Positions = Mapping[tuple[str, int], int]
