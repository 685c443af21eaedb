"""Campaigns of the spend: their names, the aliases by which touchpoints call them, what each cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

import psycopg

from attributary.attribution_core.spend.campaigns import Campaign, CampaignMatcher
from attributary.consumers.store.audit import note_action

NOT_BROKEN_DOWN = "(not broken down)"

_NAMES = """
SELECT DISTINCT platform, account, campaign_id, campaign_name FROM attribution_spend
WHERE tenant_id = %s AND campaign_id <> ''
"""
# The name of a campaign is its newest one: of the last day, and of that day the last revision.
_NEWEST_NAMES = """
SELECT DISTINCT ON (platform, account, campaign_id) platform, account, campaign_id, campaign_name
FROM attribution_spend WHERE tenant_id = %s AND campaign_id <> ''
ORDER BY platform, account, campaign_id, day DESC, revision DESC
"""
_ALIASES = """
SELECT platform, kind, value, account, campaign_id FROM attribution_campaign_aliases WHERE tenant_id = %s
ORDER BY platform, kind, value
"""
_SET_ALIAS = """
INSERT INTO attribution_campaign_aliases (tenant_id, platform, kind, value, account, campaign_id)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, platform, kind, value) DO UPDATE SET
    account = excluded.account, campaign_id = excluded.campaign_id, updated_at = now()
"""
_DROP_ALIAS = """
DELETE FROM attribution_campaign_aliases WHERE tenant_id = %s AND platform = %s AND kind = %s AND value = %s
"""
_SPEND = """
SELECT platform, account, campaign_id, day, currency, sum(spend) AS net, sum(tax) AS tax, sum(claimed_conversions),
       sum(claimed_value), max(time_zone)
FROM reporting.spend WHERE tenant_id = %(tenant)s AND day >= %(first)s AND day < %(end)s
GROUP BY platform, account, campaign_id, day, currency ORDER BY 1, 2, 3, 4, 5
"""
# Finer rows that sum to more than the coarser one of the same campaign and day.
_CONFLICTS = """
WITH newest AS (
    SELECT DISTINCT ON (platform, account, day, level, entity) platform, account, day, level, campaign_id, currency,
           net_micros
    FROM attribution_spend WHERE tenant_id = %(tenant)s AND day >= %(first)s AND day < %(end)s
    ORDER BY platform, account, day, level, entity, revision DESC
)
SELECT c.platform, c.account, c.campaign_id, c.currency, count(*), sum(f.net_micros - c.net_micros)::int8
FROM newest c JOIN (
    SELECT platform, account, day, campaign_id, currency, level, sum(net_micros) AS net_micros
    FROM newest WHERE level IN ('ad_set', 'ad') GROUP BY 1, 2, 3, 4, 5, 6
) AS f USING (platform, account, day, campaign_id, currency)
WHERE c.level = 'campaign' AND f.net_micros > c.net_micros GROUP BY 1, 2, 3, 4 ORDER BY 6 DESC, 1, 2, 3
"""
# What reports over spend read besides results. A name in a schema without USAGE is an error, so that is asked first.
_MAY_READ = """
SELECT CASE WHEN has_schema_privilege('reporting', 'USAGE') THEN (
    SELECT bool_and(has_table_privilege(name, 'SELECT')) FROM unnest(ARRAY[
        'reporting.spend', 'attribution_spend', 'attribution_spend_slices', 'attribution_campaign_aliases',
        'attribution_fx_rates', 'attribution_rollup_conversions']) AS t (name)
) ELSE false END
"""


class Alias(NamedTuple):
    """What touchpoints of a platform say, by id or by name, and the campaign that they mean."""

    platform: str
    kind: str
    value: str
    account: str
    campaign_id: str


class DaySpend(NamedTuple):
    """What a campaign cost on a day, in one currency; amounts in its units.

    Attributes:
        campaign: the campaign; its id is ``NOT_BROKEN_DOWN`` for what an account cost above its campaigns, and empty
            where only the account's total is known.
        day: of the account's own time zone.
        currency: ISO 4217.
        net: without tax.
        tax: what the report included.
        claimed_conversions: what the platform claims.
        claimed_value: what it claims.
        time_zone: of the account; empty: not known.
    """

    campaign: Campaign
    day: date
    currency: str
    net: Decimal
    tax: Decimal
    claimed_conversions: Decimal
    claimed_value: Decimal
    time_zone: str


class Conflict(NamedTuple):
    """Days on which ads of a campaign cost more than the campaign, by its own report; the difference in micros."""

    campaign: Campaign
    currency: str
    days: int
    micros: int


def may_read(connection: psycopg.Connection) -> bool:
    """Tell whether the login may read spend and what reports over it need."""
    return bool(connection.execute(_MAY_READ).fetchall()[0][0])


def set_as_of(connection: psycopg.Connection, as_of: datetime | None) -> None:
    """Let the transaction in hand see spend as it was imported by a moment; None: as it is now."""
    connection.execute(
        "SELECT set_config('attributary.as_of', %s, true)", ("" if as_of is None else as_of.isoformat(),)
    )


def matcher(connection: psycopg.Connection, tenant_id: str) -> CampaignMatcher:
    """Return what finds the campaign that a touchpoint means."""
    known = {(each.platform, each.kind, each.value): (each.account, each.campaign_id)
             for each in aliases(connection, tenant_id)}  # fmt: skip
    return CampaignMatcher(all_names(connection, tenant_id), known)


def all_names(connection: psycopg.Connection, tenant_id: str) -> dict[Campaign, list[str]]:
    """Return every campaign with all the names that it had."""
    found: dict[Campaign, list[str]] = {}
    for *key, name in connection.execute(_NAMES, (tenant_id,)).fetchall():
        found.setdefault(Campaign(*key), []).append(name)
    return found


def newest_names(connection: psycopg.Connection, tenant_id: str) -> dict[Campaign, str]:
    """Return the newest name of every campaign."""
    return {Campaign(*key): name for *key, name in connection.execute(_NEWEST_NAMES, (tenant_id,)).fetchall()}


def spend_by_day(connection: psycopg.Connection, tenant_id: str, first: date, end: date) -> list[DaySpend]:
    """Return what each campaign cost on each day from `first` up to, without, `end`."""
    rows = connection.execute(_SPEND, {"tenant": tenant_id, "first": first, "end": end}).fetchall()
    return [DaySpend(Campaign(*row[:3]), *row[3:]) for row in rows]


def level_conflicts(connection: psycopg.Connection, tenant_id: str, first: date, end: date) -> list[Conflict]:
    """Return campaigns with ads that cost more than the campaign itself, the largest difference first."""
    rows = connection.execute(_CONFLICTS, {"tenant": tenant_id, "first": first, "end": end}).fetchall()
    return [Conflict(Campaign(*row[:3]), *row[3:]) for row in rows]


def aliases(connection: psycopg.Connection, tenant_id: str) -> Sequence[Alias]:
    """Return the aliases of a tenant, in order."""
    return [Alias(*row) for row in connection.execute(_ALIASES, (tenant_id,)).fetchall()]


def set_alias(connection: psycopg.Connection, tenant_id: str, alias: Alias) -> None:
    """Store an alias, in place of the one with the same platform, kind and value, and note it in the audit."""
    connection.execute(_SET_ALIAS, (tenant_id, *alias))
    note_action(connection, tenant_id, "spend_alias.set", f"{alias.platform}/{alias.account}/{alias.campaign_id}",
                {"kind": alias.kind, "value": alias.value})  # fmt: skip


def drop_alias(connection: psycopg.Connection, tenant_id: str, platform: str, kind: str, value: str) -> bool:
    """Remove an alias; return whether there was one."""
    found = connection.execute(_DROP_ALIAS, (tenant_id, platform, kind, value)).rowcount > 0
    if found:
        note_action(connection, tenant_id, "spend_alias.removed", platform, {"kind": kind, "value": value})
    return found
