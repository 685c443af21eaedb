"""Revenue of conversions that are no longer kept one by one: what was erased, what was retired.

Invariant: the sum of the conversions' net values and of these totals, by tenant and currency, is changed by no removal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Literal, NamedTuple

import psycopg

Bucket = Literal["(erased)", "(retired)"]


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
