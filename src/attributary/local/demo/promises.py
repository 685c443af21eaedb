"""The promises, checked on what was published, what is stored and what a subscriber saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from attributary.local.demo.publish import Published
    from attributary.local.demo.subscriber import Seen

_TABLES = {
    TOUCHPOINTS: "attribution_touchpoints",
    CONVERSIONS: "attribution_conversion_events",
    IDENTITIES: "attribution_identity_links",
}


@dataclass(frozen=True)
class Promise:
    """One promise, whether it held, and the number that shows it."""

    text: str
    held: bool
    evidence: str


def check_promises(connection: psycopg.Connection, published: Published, seen: Sequence[Seen]) -> list[Promise]:
    """Check what can be checked from outside the stages.

    Args:
        connection: the store.
        published: all events that were acknowledged.
        seen: every result that a read_committed subscriber saw, in log order per partition.
    """
    lost, doubled, stored = 0, 0, 0
    for topic, table in _TABLES.items():
        rows = connection.execute(f"SELECT tenant_id, event_id FROM {table}").fetchall()
        keys = set(rows)
        stored += len(rows)
        doubled += len(rows) - len(keys)
        lost += len(published.distinct[topic] - keys)
    total = sum(len(keys) for keys in published.distinct.values())
    behind = _count(connection, "SELECT count(*) FROM attribution_conversions WHERE observed_version < version")
    conversions = _count(connection, "SELECT count(*) FROM attribution_conversions WHERE version > 0")
    strangers = _count(connection, _TWO_PEOPLE)
    versions = [(result.tenant_id, result.conversion_id, result.version) for result in seen]
    falling = _falling(seen)
    unbalanced = sum(not result.balanced for result in seen)
    return [
        Promise("every acknowledged event is stored", lost == 0, f"{total:,} events published, {lost} lost"),
        Promise("none is stored twice", doubled == 0 and stored == total, f"{stored:,} stored, {doubled} doubled"),
        Promise(
            "every conversion has its newest result", behind == 0, f"{conversions:,} conversions, {behind} waiting"
        ),
        Promise(
            "no (conversion, version) is seen twice, versions rise",
            len(set(versions)) == len(versions) and falling == 0,
            f"{len(versions):,} results seen, {len(versions) - len(set(versions))} doubled, {falling} falling",
        ),
        Promise(
            "credits sum to net value, every model, to the micro",
            unbalanced == 0,
            f"{len(versions):,} results, {unbalanced} out of balance",
        ),
        Promise("no touchpoint is credited to two people", strangers == 0, f"{strangers} credited twice"),
    ]


# A touchpoint that two newest results name must belong to one person.
_TWO_PEOPLE = """
WITH newest AS (
    SELECT DISTINCT ON (tenant_id, conversion_id) tenant_id, journey_key, touchpoints
    FROM attribution_results ORDER BY tenant_id, conversion_id, version DESC
)
SELECT count(*) FROM (
    SELECT tenant_id, touch ->> 'event_id' FROM newest, jsonb_array_elements(touchpoints) AS touch
    GROUP BY 1, 2 HAVING count(DISTINCT journey_key) > 1
) AS shared
"""


def _count(connection: psycopg.Connection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def _falling(seen: Sequence[Seen]) -> int:
    highest: dict[tuple[str, str], int] = {}
    falling = 0
    for result in sorted(seen):
        key = (result.tenant_id, result.conversion_id)
        falling += result.version < highest.get(key, 0)
        highest[key] = max(result.version, highest.get(key, 0))
    return falling
