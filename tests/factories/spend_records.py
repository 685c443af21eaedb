"""Reports of spend for the tests: records of the topic, drawn at random or given, and what is stored of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.runtime.records import Record
from attributary.schemas.topics import SPEND, spend_key
from tests.factories.samples import START_US, codec

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    import psycopg

DAY = 20_758  # 2026-11-01
NOW_MS = START_US // 1000
# The newest revision of each entity that is there.
NEWEST = """
SELECT tenant_id, platform, account, day, level, entity, net_micros, campaign_name FROM (
    SELECT DISTINCT ON (tenant_id, platform, account, day, level, entity) * FROM attribution_spend
    ORDER BY tenant_id, platform, account, day, level, entity, revision DESC
) AS newest WHERE NOT is_removed ORDER BY 1, 2, 3, 4, 5, 6
"""


def line(campaign: str, micros: int, **fields: Any) -> dict[str, Any]:
    """A row of a campaign."""
    return {
        "currency": "EUR",
        "net_micros": micros,
        "campaign_id": campaign,
        "campaign_name": campaign.upper(),
    } | fields


def report(at: int, rows: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """A record of spend.

    Args:
        at: when the report was made, microseconds after a start that all have in common.
        rows: its rows.
        fields: other than the usual ones.
    """
    return {
        "tenant_id": "acme", "event_id": f"s-{at}", "platform": "google", "account": "g1", "day": DAY,
        "level": "campaign", "reported_at": START_US - 1_000_000 + at, "rows": list(rows),
    } | fields  # fmt: skip


def record(offset: int, spend: Mapping[str, Any]) -> Record:
    """What the loop hands to a stage."""
    key = spend_key(spend["tenant_id"], spend["platform"], spend["account"], spend["day"])
    return Record(SPEND, 0, offset, key, codec().encode("spend", spend), NOW_MS)


def drawn(chance: random.Random, number: int) -> list[dict[str, Any]]:
    """So many reports about few campaigns of two tenants and two days, each made at another time."""
    return [
        report(
            at,
            [line(name, chance.randrange(-5, 99)) for name in "abc" if chance.random() < 0.6],
            tenant_id=chance.choice(("acme", "beta")),
            day=DAY + chance.randrange(2),
            is_complete=True,
        )
        if chance.random() < 0.3
        else report(at, [line(chance.choice("abc"), chance.randrange(99))], day=DAY + chance.randrange(2))
        for at in range(1, number + 1)
    ]


def fold(reports: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """What is there after all reports in the order in which they were made: (tenant, day, entity, micros)."""
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    for each in sorted(reports, key=lambda one: one["reported_at"]):
        rows = {row["campaign_id"]: row["net_micros"] for row in each["rows"]}
        key = (each["tenant_id"], each["day"])
        found[key] = ({} if each.get("is_complete") else found.get(key, {})) | rows
    return sorted((*key, entity, micros) for key, rows in found.items() for entity, micros in rows.items())


def stored(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """The same of the database."""
    rows = connection.execute(NEWEST).fetchall()
    connection.rollback()
    return sorted((row[0], (row[3].toordinal() - 719_163), row[5], row[6]) for row in rows)
