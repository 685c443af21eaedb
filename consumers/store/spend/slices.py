"""Storing what ads cost: revisions that are only added.

Invariant: the row of a slice is locked before its revisions are read, slices in sorted order; so imports at the same
time wait for each other, and each adds to what the one before it left. The command line and the spender write by this
module alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.spend.slices import LEVELS, Given, SliceKey, SpendRow, Stored, changes

_ROW = tuple(each.name for each in fields(SpendRow))
_KEYS = """unnest(%(platforms)s::text[], %(accounts)s::text[], %(days)s::date[], %(levels)s::text[])"""
# Sorted, so that two writers of several slices wait in one order and never in a circle.
_LOCK = """
INSERT INTO attribution_spend_slices (tenant_id, platform, account, day, level, time_zone, report_id)
SELECT %(tenant)s, g.platform, g.account, g.day, g.level, g.time_zone, g.report_id
FROM unnest(%(platforms)s::text[], %(accounts)s::text[], %(days)s::date[], %(levels)s::text[], %(zones)s::text[],
            %(reports)s::text[]) AS g (platform, account, day, level, time_zone, report_id)
ORDER BY g.platform COLLATE "C", g.account COLLATE "C", g.day, g.level COLLATE "C"
ON CONFLICT (tenant_id, platform, account, day, level) DO UPDATE SET
    imported_at = clock_timestamp(), updated_at = now()
RETURNING platform, account, day, level, revision, complete_reported_at_us
"""
_NEWEST = f"""
SELECT g.platform, g.account, g.day, g.level, n.reported_at_us, {", ".join(f"n.{name}" for name in _ROW)}
FROM {_KEYS} AS g (platform, account, day, level)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (s.entity) s.* FROM attribution_spend s
    WHERE s.tenant_id = %(tenant)s AND s.platform = g.platform AND s.account = g.account AND s.day = g.day
      AND s.level = g.level
    ORDER BY s.entity, s.revision DESC
) AS n
"""
_CLOSE = """
UPDATE attribution_spend_slices s SET
    revision = g.revision,
    time_zone = CASE WHEN g.time_zone <> '' AND (g.is_newest OR s.time_zone = '') THEN g.time_zone ELSE s.time_zone END,
    report_id = CASE WHEN g.is_newest THEN g.report_id ELSE s.report_id END,
    complete_at = CASE WHEN g.is_complete THEN COALESCE(s.complete_at, clock_timestamp()) ELSE s.complete_at END,
    complete_reported_at_us = CASE WHEN g.is_complete THEN greatest(s.complete_reported_at_us, g.reported_at_us)
                                   ELSE s.complete_reported_at_us END
FROM unnest(%(platforms)s::text[], %(accounts)s::text[], %(days)s::date[], %(levels)s::text[], %(revisions)s::int[],
            %(completes)s::bool[], %(moments)s::int8[], %(zones)s::text[], %(reports)s::text[], %(newest)s::bool[])
    AS g (platform, account, day, level, revision, is_complete, reported_at_us, time_zone, report_id, is_newest)
WHERE s.tenant_id = %(tenant)s AND s.platform = g.platform AND s.account = g.account AND s.day = g.day
  AND s.level = g.level
"""
_CONFIRM = """
UPDATE attribution_spend s SET reported_at_us = g.reported_at_us, updated_at = now()
FROM unnest(%(platforms)s::text[], %(accounts)s::text[], %(days)s::date[], %(levels)s::text[], %(entities)s::text[],
            %(moments)s::int8[]) AS g (platform, account, day, level, entity, reported_at_us)
WHERE s.tenant_id = %(tenant)s AND s.platform = g.platform AND s.account = g.account AND s.day = g.day
  AND s.level = g.level AND s.entity = g.entity AND s.reported_at_us < g.reported_at_us
  AND s.revision = (SELECT max(n.revision) FROM attribution_spend n
                    WHERE n.tenant_id = s.tenant_id AND n.platform = s.platform AND n.account = s.account
                      AND n.day = s.day AND n.level = s.level AND n.entity = s.entity)
"""
_SHARED = ("tenant_id", "platform", "account", "day", "level", "revision", "report_id", "reported_at_us")
_TYPES = {"str": "text[]", "int": "int8[]", "Decimal": "numeric[]", "bool": "bool[]"}
# Not COPY: Postgres has none into a table with row security, which `attributary roles apply` turns on.
_ADD = f"""
INSERT INTO attribution_spend ({", ".join((*_SHARED, *_ROW))})
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::date[], %s::text[], %s::int4[], %s::text[], %s::int8[],
                     {", ".join(f"%s::{_TYPES[str(each.type)]}" for each in fields(SpendRow))})
"""
_ACCOUNTS = """
SELECT platform, account, level, max(time_zone) AS time_zone, count(*) AS days, min(day) AS first_day,
       max(day) AS last_day, count(*) FILTER (WHERE complete_at IS NOT NULL) AS complete_days, max(imported_at) AS at
FROM attribution_spend_slices WHERE tenant_id = %s
GROUP BY platform, account, level ORDER BY platform, account, min(array_position(%s::text[], level))
"""
_STALE = """
SELECT count(*) FROM (
    SELECT FROM attribution_spend_slices WHERE imported_at > now() - %s * interval '1 day'
    GROUP BY tenant_id, platform, account HAVING max(day) < (now() AT TIME ZONE 'UTC')::date - %s
) AS accounts
"""


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of an account's day at one level, as a report has them.

    Attributes:
        key: which slice.
        given: its rows, whether they are all, and when the report was made.
        time_zone: IANA name of the account's zone; empty: not known.
        report_id: which report it is, for people; of a slice that of its newest report stays.
    """

    key: SliceKey
    given: Given
    time_zone: str = ""
    report_id: str = ""


class Imported(NamedTuple):
    """What an import changed, in rows; `late` ones are of a report that is older than what is stored."""

    new: int
    changed: int
    unchanged: int
    removed: int
    late: int


class Account(NamedTuple):
    """What is stored of an ad account at one level."""

    platform: str
    account: str
    level: str
    time_zone: str
    days: int
    first_day: date
    last_day: date
    complete_days: int
    imported_at: datetime


def store_slices(connection: psycopg.Connection, tenant_id: str, slices: Iterable[Slice]) -> Imported:
    """Add the revisions of an import, in the caller's transaction: five statements, however many slices there are.

    Args:
        connection: in a transaction at READ COMMITTED.
        tenant_id: the owner.
        slices: each key once.
    """
    given = {each.key: each for each in slices}
    if not given:
        return Imported(0, 0, 0, 0, 0)
    keys = _keys(given)
    labels = {
        "zones": [each.time_zone for each in given.values()],
        "reports": [each.report_id for each in given.values()],
    }
    locked = connection.execute(_LOCK, {"tenant": tenant_id, **keys, **labels}).fetchall()
    state = {SliceKey(*row[:4]): row[4:] for row in locked}
    newest = _newest(connection, tenant_id, keys)
    found = {key: changes(newest.get(key, {}), each.given, state[key][1]) for key, each in given.items()}
    revisions = {key: state[key][0] + bool(found[key].rows) for key in given}
    added = [
        (tenant_id, *key, revisions[key], each.report_id, each.given.reported_at_us, *(getattr(row, n) for n in _ROW))
        for key, each in given.items()
        for row in found[key].rows
    ]
    if added:
        connection.execute(_ADD, [list(column) for column in zip(*added, strict=True)])
    _confirm(connection, tenant_id, [(key, given[key], entity) for key in given for entity in found[key].confirmed])
    connection.execute(_CLOSE, {
        "tenant": tenant_id, **keys, **labels, "revisions": list(revisions.values()),
        "completes": [each.given.is_complete for each in given.values()],
        "moments": [each.given.reported_at_us for each in given.values()],
        "newest": [
            all(
                each.given.reported_at_us >= moment
                for moment in (state[key][1], *(stored.reported_at_us for stored in newest.get(key, {}).values()))
            )
            for key, each in given.items()
        ],
    })  # fmt: skip
    return Imported(*(sum(part) for part in zip(*(each[2:] for each in found.values()), strict=True)))


def _keys(keys: Iterable[SliceKey]) -> dict[str, list[Any]]:
    """Return keys as arrays of a statement."""
    names = ("platforms", "accounts", "days", "levels")
    return dict(zip(names, map(list, zip(*keys, strict=True)), strict=True))


def _newest(
    connection: psycopg.Connection, tenant_id: str, keys: Mapping[str, list[Any]]
) -> dict[SliceKey, dict[str, Stored]]:
    found: dict[SliceKey, dict[str, Stored]] = {}
    for platform, account, day, level, reported_at_us, *cells in connection.execute(
        _NEWEST, {"tenant": tenant_id, **keys}
    ).fetchall():
        row = SpendRow(*cells)
        found.setdefault(SliceKey(platform, account, day, level), {})[row.entity] = Stored(row, reported_at_us)
    return found


def _confirm(connection: psycopg.Connection, tenant_id: str, rows: Sequence[tuple[SliceKey, Slice, str]]) -> None:
    """Note that a newer report has rows as they are, so that an older one that comes later changes nothing."""
    if rows:
        connection.execute(_CONFIRM, {
            "tenant": tenant_id, **_keys(key for key, _, _ in rows), "entities": [entity for _, _, entity in rows],
            "moments": [each.given.reported_at_us for _, each, _ in rows],
        })  # fmt: skip


def accounts(connection: psycopg.Connection, tenant_id: str) -> list[Account]:
    """Return which accounts of a tenant have spend, by level from coarse to fine."""
    return [Account(*row) for row in connection.execute(_ACCOUNTS, (tenant_id, list(LEVELS))).fetchall()]


def stale_accounts(connection: psycopg.Connection, used_days: int, behind_days: int) -> int:
    """Return how many accounts of all tenants are behind: imported lately, and without spend of the last days.

    Args:
        connection: any.
        used_days: an account without an import for longer is given up and not counted.
        behind_days: from so many days without spend on it is behind.
    """
    return int(connection.execute(_STALE, (used_days, behind_days)).fetchall()[0][0])
