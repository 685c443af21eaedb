"""A person's journey built anew from the raw events, past everything that stitching derived from them.

Invariant: only the immutable tables are read (touchpoints, conversion events, links), and the rules are those of
``attribution_core``; so what comes out is what stitching must have stored, and a difference is a fault of one of them.
The table of links is read once a call, for it has no index by user: ask for many people at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, Link, journey_key, owner
from attributary.consumers.store.events.bulk_reads import Key, StoredTouchpoint
from attributary.consumers.store.identity_sql import device_key, touchpoints_of, user_key


class RebuiltConversion(NamedTuple):
    """A conversion as its events make it."""

    conversion_id: str
    conversion_type: str
    converted_at: int
    received_at: int
    gross_value_micros: int
    net_value_micros: int
    currency: str


class RebuiltJourney(NamedTuple):
    """A person's touchpoints and conversions, each in the order of time, then id."""

    tenant_id: str
    journey_key: str
    touchpoints: tuple[StoredTouchpoint, ...]
    conversions: tuple[RebuiltConversion, ...]


# Every statement of who an anonymous id is, about ids that somebody links to one of the wanted people, or are wanted.
_LINKS = f"""
WITH wanted AS (SELECT * FROM unnest(%(tenants)s::text[], %(keys)s::text[]) AS w (tenant_id, journey_key)),
links AS (
    SELECT tenant_id, anonymous_id, user_id, linked_at_us, event_id FROM attribution_identity_links
    UNION ALL
    SELECT tenant_id, anonymous_id, substr(identity_key, 3), occurred_at_us, event_id
    FROM attribution_touchpoints WHERE anonymous_id IS NOT NULL
    UNION ALL
    SELECT tenant_id, anonymous_id, substr(identity_key, 3), occurred_at_us, event_id
    FROM attribution_conversion_events WHERE anonymous_id IS NOT NULL
),
concerned AS (
    SELECT DISTINCT l.tenant_id, l.anonymous_id FROM links l
    JOIN wanted w
      ON w.tenant_id = l.tenant_id AND w.journey_key IN ({user_key("l.user_id")}, {device_key("l.anonymous_id")})
)
SELECT l.tenant_id, l.anonymous_id, l.linked_at_us, l.event_id, l.user_id
FROM concerned JOIN links l USING (tenant_id, anonymous_id)
"""

_TOUCHPOINTS = f"""
SELECT k.seq, t.tenant_id, t.event_id, t.identity_key, t.occurred_at_us, t.received_at_us, t.platform, t.channel,
       t.interaction, t.campaign, t.is_bot, t.details
FROM unnest(%s::int4[], %s::text[], %s::text[]) AS k (seq, tenant_id, identity_key)
JOIN attribution_touchpoints t ON {touchpoints_of("t", "k.tenant_id", "k.identity_key")}
"""

_CONVERSION_EVENTS = """
WITH named AS (
    SELECT DISTINCT k.seq, e.tenant_id, e.conversion_id
    FROM unnest(%s::int4[], %s::text[], %s::text[]) AS k (seq, tenant_id, identity_key)
    JOIN attribution_conversion_events e ON e.tenant_id = k.tenant_id AND e.identity_key = k.identity_key COLLATE "C"
)
SELECT n.seq, e.conversion_id, e.identity_key, e.conversion_type, e.received_at_us,
       e.occurred_at_us, e.event_id, e.kind, e.value_micros, e.currency
FROM named n JOIN attribution_conversion_events e USING (tenant_id, conversion_id)
"""


def rebuild_journeys(connection: psycopg.Connection, people: Sequence[Key]) -> list[RebuiltJourney]:
    """Build the journeys of (tenant, journey key) from the raw events.

    Args:
        connection: in a snapshot, where others write.
        people: their keys. An anonymous id that belongs to a user has an empty journey: its events are the user's.

    Returns:
        One journey a person, in the order asked for.
    """
    identities = _identities(connection, people)
    pairs = [(seq, people[seq][0], key) for seq, keys in enumerate(identities) for key in sorted(keys)]
    columns = [list(column) for column in zip(*pairs, strict=True)] or [[], [], []]
    touchpoints: list[list[StoredTouchpoint]] = [[] for _ in people]
    for seq, *row in connection.execute(_TOUCHPOINTS, columns).fetchall():
        touchpoints[seq].append(StoredTouchpoint(*row))
    events: list[dict[str, list[Any]]] = [{} for _ in people]
    for seq, conversion_id, *row in connection.execute(_CONVERSION_EVENTS, columns).fetchall():
        events[seq].setdefault(conversion_id, []).append(row)
    return [
        RebuiltJourney(
            *person,
            tuple(sorted(touchpoints[seq], key=lambda touch: (touch.occurred_at, touch.event_id))),
            tuple(_conversions(events[seq], identities[seq])),
        )
        for seq, person in enumerate(people)
    ]


def _identities(connection: psycopg.Connection, people: Sequence[Key]) -> list[set[str]]:
    """Return the identity keys that are each person's, by the links alone."""
    parameters = {"tenants": [tenant for tenant, _ in people], "keys": [key for _, key in people]}
    links: dict[Key, list[Link]] = {}
    for tenant, anonymous_id, *link in connection.execute(_LINKS, parameters).fetchall():
        links.setdefault((tenant, anonymous_id), []).append(Link(*link))
    keys_of: dict[Key, set[str]] = {}
    moved: set[Key] = set()
    for (tenant, anonymous_id), found in links.items():
        decided = owner(found)
        key = ANONYMOUS_PREFIX + anonymous_id
        person = journey_key(key, decided.user_id if decided else None)
        keys_of.setdefault((tenant, person), set()).add(key)
        moved.add((tenant, key))
    return [keys_of.get(person, set()) | (set() if person in moved else {person[1]}) for person in people]


def _conversions(events: dict[str, list[Any]], identities: set[str]) -> list[RebuiltConversion]:
    """Fold the events of each conversion; keep those with an opening event that names one of the identities."""
    found = []
    for conversion_id, rows in events.items():
        state = fold(ConversionEvent(*row[3:]) for row in rows)
        opening = next((row for row in rows if row[4] == state.opened_by), None)
        if opening is None or opening[0] not in identities:
            continue
        _, conversion_type, received_at, converted_at, *_ = opening
        found.append(
            RebuiltConversion(
                conversion_id, conversion_type, converted_at, received_at,
                state.gross_value_micros, state.net_value_micros, state.currency,
            )
        )  # fmt: skip
    return sorted(found, key=lambda conversion: (conversion.converted_at, conversion.conversion_id))
