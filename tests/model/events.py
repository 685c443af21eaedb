"""Small random histories in which everything that can collide does: few people, few ids, times close together.

Times are microseconds; the log's clock runs apart from the events' own, so that some touches are too late.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.models.model_set import model_set
from attributary.schemas.schema_catalog import defaults
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS
from tests.expected_results import NAMES, codec

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

    from attributary.attribution_core.models.model_set import ModelSet

BASE = 1_760_000_000_000_000
DAY = 86_400_000_000
USERS = ("ann", "bob")
DEVICES = ("d1", "d2", "d3")
CHANNELS = ("paid_search", "email", "direct")


@cache
def policy() -> LookbackPolicy:
    """Windows and lateness so short that events fall on both sides of them."""
    return LookbackPolicy.parse(
        {
            "name": "model",
            "lateness_days": 6,
            "inactivity_days": 30,
            "windows": [{"days": 5}, {"channel": "email", "days": 2}, {"interaction": "view", "days": 1}],
        }
    )


@cache
def models() -> ModelSet:
    return model_set(("linear", "last"))


def random_event(chance: random.Random, number: int, *, erasing: Collection[str] = ()) -> tuple[str, dict[str, Any]]:
    """One event: topic and fields. Ids come from small pools, so contents under one event id may differ.

    Of tenants with erasures no two contents share an event id, no two people a conversion id, and no two events a time:
    what such cases come to depends on what is erased first (docs/reference/reliability.md, limits).
    """
    topic = chance.choices((TOUCHPOINTS, CONVERSIONS, IDENTITIES), (5, 4, 3))[0]
    tenant = chance.choices(("t1", "t2"), (4, 1))[0]
    with_erasures = tenant in erasing
    # One in ten takes an id that another event may have, too.
    event_id = f"e{number}" if chance.random() < 0.9 or with_erasures else f"e{chance.randrange(number + 1)}"
    at = BASE + chance.randrange(8) * DAY + (number if with_erasures else chance.randrange(3))
    user, device = chance.choice(USERS), chance.choice(DEVICES)
    fields: dict[str, Any] = {"tenant_id": tenant, "event_id": event_id}
    if topic == IDENTITIES:
        return topic, fields | {"linked_at": at, "user_id": user, "anonymous_id": device, "source": None}
    known = chance.random()
    fields |= {"user_id": user if known > 0.6 else None, "anonymous_id": device if known < 0.75 else None}
    fields |= {"occurred_at": at}
    if topic == TOUCHPOINTS:
        interaction = chance.choice(("click", "click", "view"))
        fields |= {"platform": "meta", "channel": chance.choice(CHANNELS), "interaction": interaction}
        return topic, defaults("touchpoint") | fields | {"is_bot": chance.random() < 0.1}
    kind = chance.choices(("conversion", "refund", "cancellation", "restatement"), (6, 2, 1, 1))[0]
    conversion_id = f"c{chance.randrange(3)}"
    if with_erasures:
        conversion_id = f"{fields['user_id'] or fields['anonymous_id']}-{conversion_id}"
    fields |= {"kind": kind, "conversion_id": conversion_id, "conversion_type": "purchase"}
    fields |= {"currency": "EUR", "value_micros": 0 if kind == "cancellation" else chance.randrange(1, 40) * 10_000}
    return topic, defaults("conversion") | fields


def random_request(chance: random.Random, number: int, *, by_order: bool = False, tenant: str = "t1") -> dict[str, Any]:
    """One request to erase somebody, or to suppress what comes of somebody."""
    kind = "order" if by_order else chance.choice(("user", "user", "anonymous"))
    person = chance.choice(USERS if kind == "user" else DEVICES if kind == "anonymous" else (*USERS, *DEVICES))
    return {
        "tenant_id": tenant,
        "request_id": f"r{number}",
        "kind": kind,
        "identifier": f"{person}-c{chance.randrange(3)}" if kind == "order" else person,
        "mode": chance.choices(("delete", "delete-and-suppress", "suppress"), (4, 1, 1))[0],
        "requested_at": BASE,
    }


def encoded(topic: str, fields: dict[str, Any]) -> bytes:
    return codec().encode(NAMES[topic], fields)
