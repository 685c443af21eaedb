"""Events into a real Postgres by the stitcher's own code, without a broker: for tests of what is read afterwards."""

from __future__ import annotations

from contextlib import closing
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, MICROS_PER_DAY, LookbackPolicy
from attributary.consumers.runtime.records import Outbound, Record
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link"}
POLICY = LookbackPolicy.parse(DEFAULT_POLICY)
MICROS_PER_MILLI = 1_000
NOW = 1_790_000_000_000_000
DAY = MICROS_PER_DAY


class Feed:
    """A stitcher that is fed batch after batch.

    Args:
        dsn: a migrated database.
        policy: lookback policy.
    """

    _offsets = count()

    def __init__(self, dsn: str, *, policy: LookbackPolicy = POLICY) -> None:
        self._codec = Codec()
        self._stage = StitcherStage(dsn, self._codec, policy, 1.0)
        self.close = self._stage.close

    def send(
        self, events: Iterable[tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], int]]
    ) -> list[Outbound]:
        """Stitch (topic, record) pairs as one batch, each with its log-append time if that is not its event time."""
        records = []
        for topic, fields, *arrived_at in events:
            at = arrived_at[0] if arrived_at else fields.get("occurred_at") or fields["linked_at"]
            value = self._codec.encode(NAMES[topic], fields)
            records.append(Record(topic, 0, next(self._offsets), b"", value, at // MICROS_PER_MILLI))
        outcome = self._stage.handle(records)
        assert outcome.dead_letters == []
        return outcome.messages


def feed(
    dsn: str,
    events: Iterable[tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], int]],
    *,
    policy: LookbackPolicy = POLICY,
    batch_size: int = 5_000,
) -> list[Outbound]:
    """Stitch (topic, record) pairs in this order; returns the commands.

    Args:
        dsn: a migrated database.
        events: the records, each with its log-append time (microseconds UTC) behind it if that is not its event time.
        policy: lookback policy.
        batch_size: records a batch.
    """
    commands: list[Outbound] = []
    with closing(Feed(dsn, policy=policy)) as stitcher:
        waiting = iter(events)
        while batch := list(islice(waiting, batch_size)):
            commands += stitcher.send(batch)
    return commands


def touchpoint(person: str, day: float, channel: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A click of an anonymous person of tenant acme, so many days after NOW."""
    record = {
        "tenant_id": "acme",
        "event_id": f"touch-{person}-{day}",
        "user_id": None,
        "anonymous_id": person,
        "occurred_at": NOW + int(day * DAY),
        "platform": "google",
        "channel": channel,
        "interaction": "click",
    }
    return TOUCHPOINTS, record | fields


def order(person: str, day: float, euros: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A purchase of an anonymous person of tenant acme."""
    record = {
        "tenant_id": "acme",
        "event_id": f"order-{person}",
        "user_id": None,
        "anonymous_id": person,
        "occurred_at": NOW + int(day * DAY),
        "conversion_type": "purchase",
        "value_micros": euros * 1_000_000,
        "currency": "EUR",
    }
    return CONVERSIONS, record | fields


def link(person: str, user: str, day: float) -> tuple[str, dict[str, Any]]:
    """A statement that an anonymous person of tenant acme is a user."""
    record = {
        "tenant_id": "acme",
        "event_id": f"link-{person}-{user}",
        "anonymous_id": person,
        "user_id": user,
        "linked_at": NOW + int(day * DAY),
    }
    return IDENTITIES, record
