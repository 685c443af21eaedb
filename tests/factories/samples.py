"""Events for tests as the topics carry them: short to write, every field valid unless the test says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from attributary.consumers.runtime.records import Record
from attributary.producers.records import Conversion, IdentityLink, Touchpoint
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 11, 1, tzinfo=UTC)
START_US = int(START.timestamp() * 1e6)
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
_TOPICS = {Touchpoint: TOUCHPOINTS, Conversion: CONVERSIONS, IdentityLink: IDENTITIES}
SampleEvent = Touchpoint | Conversion | IdentityLink


@cache
def codec() -> Codec:
    return Codec()


def touch(event_id: str, hours: float = 0, *, who: str = "a:d1", channel: str = "email", **more: Any) -> Touchpoint:
    """A touchpoint, so many hours after the start, of `a:<device>` or `u:<user>`."""
    event = {"tenant_id": "acme", "platform": channel, **_whose(who), **more}
    return Touchpoint(event_id=event_id, occurred_at=START + timedelta(hours=hours), channel=channel, **event)


def sale(event_id: str, hours: float = 0, *, who: str = "a:d1", value: int = 10_000_000, **more: Any) -> Conversion:
    """An event about a conversion; a purchase of 10 EUR, unless told otherwise."""
    event = {"tenant_id": "acme", "conversion_type": "purchase", "currency": "EUR", **_whose(who), **more}
    return Conversion(event_id=event_id, occurred_at=START + timedelta(hours=hours), value_micros=value, **event)


def link(event_id: str, device: str, user: str, hours: float = 0, tenant_id: str = "acme") -> IdentityLink:
    """A link of a device and a user."""
    at = START + timedelta(hours=hours)
    return IdentityLink(event_id=event_id, anonymous_id=device, user_id=user, linked_at=at, tenant_id=tenant_id)


def _whose(who: str) -> dict[str, str]:
    return {"user_id" if who.startswith("u:") else "anonymous_id": who[2:]}


def records(events: Sequence[SampleEvent], first: int = 0) -> list[Record]:
    """The events as consumed records, each appended to the log at its own event time."""
    found = []
    for offset, event in enumerate(events, start=first):
        at = event.linked_at if isinstance(event, IdentityLink) else event.occurred_at
        value = codec().encode(event.NAME, event.to_record())
        micros = int(at.timestamp() * 1e6) if isinstance(at, datetime) else int(at)
        found.append(Record(_TOPICS[type(event)], 0, offset, None, value, micros // 1000))
    return found
