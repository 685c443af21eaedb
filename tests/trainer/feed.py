"""Events into a real Postgres by the stitcher's own code, without a broker: for tests of what is read afterwards."""

from __future__ import annotations

from contextlib import closing
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.lookback import DEFAULT_POLICY, MICROS_PER_DAY, LookbackPolicy
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
    codec = Codec()
    offsets = count()
    commands: list[Outbound] = []
    with closing(StitcherStage(dsn, codec, policy, 1.0)) as stage:
        waiting = iter(events)
        while batch := list(islice(waiting, batch_size)):
            records = []
            for topic, fields, *arrived_at in batch:
                at = arrived_at[0] if arrived_at else fields.get("occurred_at") or fields["linked_at"]
                value = codec.encode(NAMES[topic], fields)
                records.append(Record(topic, 0, next(offsets), b"", value, at // MICROS_PER_MILLI))
            outcome = stage.handle(records)
            assert outcome.dead_letters == []
            commands += outcome.messages
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
