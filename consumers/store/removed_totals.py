"""Revenue of conversions that are no longer kept one by one: what was erased, what was retired.

Invariant: the sum of the conversions' net values and of these totals, by tenant and currency, is changed by no removal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

import psycopg

Bucket = Literal["(erased)", "(retired)"]
ERASED, RETIRED = "(erased)", "(retired)"
_KEYS = {
    "day": "to_char(day, 'YYYY-MM-DD')",
    "week": "to_char(day, 'IYYY-\"W\"IW')",
    "month": "to_char(day, 'YYYY-MM')",
    "conversion_type": "conversion_type",
    "currency": "currency",
}
"""Dimensions of these totals; of every other one they have none."""


class Removed(NamedTuple):
    """What is added to the totals of a day; negative where something is taken off. Amounts are micros."""

    tenant_id: str
    day: date  # UTC
    conversion_type: str
    currency: str
    conversions: int
    gross_micros: int
    net_micros: int


# Sorted, so that two writers lock the rows in one order; the totals are the last rows that a transaction locks.
_ADD = """
INSERT INTO attribution_removed_totals AS t (
    tenant_id, bucket, day, conversion_type, currency, conversions, gross_micros, net_micros)
SELECT tenant_id, %s, day, conversion_type, currency, sum(conversions), sum(gross_micros), sum(net_micros)
FROM unnest(%s::text[], %s::date[], %s::text[], %s::text[], %s::int8[], %s::int8[], %s::int8[])
    AS n (tenant_id, day, conversion_type, currency, conversions, gross_micros, net_micros)
GROUP BY tenant_id, day, conversion_type, currency
ORDER BY tenant_id COLLATE "C", day, conversion_type COLLATE "C", currency COLLATE "C"
ON CONFLICT (tenant_id, bucket, day, conversion_type, currency) DO UPDATE SET
    conversions = t.conversions + excluded.conversions, gross_micros = t.gross_micros + excluded.gross_micros,
    net_micros = t.net_micros + excluded.net_micros, updated_at = now()
"""


def add_removed(connection: psycopg.Connection, bucket: Bucket, removed: Iterable[Removed]) -> None:
    """Add to the totals, in the caller's transaction, as its last write.

    Args:
        connection: in a transaction.
        bucket: erased or retired.
        removed: any number of rows of one day, type and currency are summed.
    """
    rows = list(removed)
    if rows:
        connection.execute(_ADD, (bucket, *([*column] for column in zip(*rows, strict=True))))


class RemovedSum(NamedTuple):
    """A sum of these totals. Amounts are micros.

    Attributes:
        keys: values of the dimensions; of one that these totals do not have it is the bucket.
    """

    bucket: Bucket
    currency: str
    keys: tuple[str, ...]
    conversions: int
    gross_micros: int
    net_micros: int


_READ = """
SELECT bucket, currency, {keys}sum(conversions)::int8, sum(gross_micros)::int8, sum(net_micros)::int8
FROM attribution_removed_totals
WHERE tenant_id = %(tenant)s AND EXTRACT(epoch FROM day)::int8 * 1000000 >= %(from_us)s
  AND EXTRACT(epoch FROM day)::int8 * 1000000 < %(to_us)s
  AND (%(currency)s::text IS NULL OR currency = %(currency)s)
  AND (%(types)s::text[] IS NULL OR conversion_type = ANY (%(types)s))
GROUP BY {places} HAVING sum(conversions) <> 0 OR sum(gross_micros) <> 0 OR sum(net_micros) <> 0
ORDER BY {places}
"""


def read_removed(
    connection: psycopg.Connection,
    tenant_id: str,
    period_us: tuple[int, int],
    by: Sequence[str] = (),
    currency: str | None = None,
    conversion_types: Sequence[str] = (),
) -> list[RemovedSum]:
    """Return what was erased and retired, summed up; sums of nothing are left out.

    Args:
        connection: to read from.
        tenant_id: the tenant.
        period_us: days (UTC) that begin in it count, from (included) to (excluded), microseconds UTC. So periods that
            follow each other count each day once.
        by: dimensions of a report, of conversions or of touchpoints.
        currency: in it only; None: all.
        conversion_types: of these only; empty: all.
    """
    keys = [_KEYS.get(name, "bucket") for name in by]
    places = ", ".join(str(place) for place in range(1, 3 + len(keys)))
    parameters: dict[str, Any] = {
        "tenant": tenant_id, "from_us": period_us[0], "to_us": period_us[1], "currency": currency,
        "types": list(conversion_types) or None,
    }  # fmt: skip
    statement = _READ.format(keys="".join(f"{key}, " for key in keys), places=places)
    rows = connection.execute(statement, parameters).fetchall()
    return [RemovedSum(row[0], row[1], tuple(row[2:-3]), *row[-3:]) for row in rows]
