"""Storing what ads cost: revisions that are only added.

Invariant: the row of a slice is locked before its revisions are read, slices in sorted order; so imports at the same
time wait for each other, and each adds to what the one before it left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from attributary.attribution_core.spend.slices import LEVELS, SliceKey, SpendRow, changes

_ROW = tuple(each.name for each in fields(SpendRow))
_LOCK = """
INSERT INTO attribution_spend_slices (tenant_id, platform, account, day, level, time_zone, report_id)
VALUES (%(tenant)s, %(platform)s, %(account)s, %(day)s, %(level)s, %(time_zone)s, %(report_id)s)
ON CONFLICT (tenant_id, platform, account, day, level) DO UPDATE SET
    time_zone = COALESCE(NULLIF(excluded.time_zone, ''), attribution_spend_slices.time_zone),
    report_id = excluded.report_id, imported_at = clock_timestamp(), updated_at = now()
RETURNING revision
"""
_NEWEST = f"""
SELECT DISTINCT ON (entity) {", ".join(_ROW)} FROM attribution_spend
WHERE tenant_id = %(tenant)s AND platform = %(platform)s AND account = %(account)s AND day = %(day)s
  AND level = %(level)s
ORDER BY entity, revision DESC
"""
_CLOSE = """
UPDATE attribution_spend_slices SET
    revision = %(revision)s,
    complete_at = CASE WHEN %(is_complete)s THEN COALESCE(complete_at, clock_timestamp()) ELSE complete_at END
WHERE tenant_id = %(tenant)s AND platform = %(platform)s AND account = %(account)s AND day = %(day)s
  AND level = %(level)s
"""
_SHARED = ("tenant_id", "platform", "account", "day", "level", "revision", "report_id")
_ADD = f"COPY attribution_spend ({', '.join((*_SHARED, *_ROW))}) FROM STDIN"
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
        rows: each entity once.
        time_zone: IANA name of the account's zone; empty: not known.
        is_complete: the report has all that cost anything.
    """

    key: SliceKey
    rows: Sequence[SpendRow]
    time_zone: str = ""
    is_complete: bool = False


class Stored(NamedTuple):
    """What an import changed, in rows."""

    new: int
    changed: int
    unchanged: int
    removed: int


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


def store_slices(connection: psycopg.Connection, tenant_id: str, slices: Iterable[Slice], report_id: str) -> Stored:
    """Add the revisions of an import, in the caller's transaction.

    Args:
        connection: in a transaction at READ COMMITTED.
        tenant_id: the owner.
        slices: each key once.
        report_id: which report it is, for people.
    """
    total = [0, 0, 0, 0]
    for each in sorted(slices, key=lambda one: one.key):
        key = {"tenant": tenant_id, **each.key._asdict()}
        parameters = key | {"time_zone": each.time_zone, "report_id": report_id}
        revision = connection.execute(_LOCK, parameters).fetchall()[0][0]
        found = changes(_newest(connection, key), each.rows, is_complete=each.is_complete)
        revision += bool(found.rows)
        if found.rows:
            with connection.cursor().copy(_ADD) as copy:
                for row in found.rows:
                    shared = (tenant_id, *each.key, revision, report_id)
                    copy.write_row((*shared, *(getattr(row, name) for name in _ROW)))
        connection.execute(_CLOSE, key | {"revision": revision, "is_complete": each.is_complete})
        for place, part in enumerate(found[1:]):
            total[place] += part
    return Stored(*total)


def _newest(connection: psycopg.Connection, key: Mapping[str, Any]) -> dict[str, SpendRow]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return {row["entity"]: SpendRow(**row) for row in cursor.execute(_NEWEST, key).fetchall()}


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
