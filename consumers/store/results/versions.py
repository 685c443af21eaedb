"""The versions of results through time: which are kept.

Invariant: of every conversion the newest version stays for good, so does its newest final one, and so does every
version that was the newest at any moment since the time from which on versions are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

_PAGE = """
SELECT tenant_id, conversion_id FROM attribution_conversions
WHERE (tenant_id, conversion_id) > (%(tenant)s, %(conversion)s)
  AND (%(tenants)s::text[] IS NULL OR tenant_id = ANY (%(tenants)s))
ORDER BY tenant_id, conversion_id LIMIT %(limit)s
"""

# A version that another one followed before that time was reported on no day since.
_EXPIRE = """
DELETE FROM attribution_results r
USING unnest(%s::text[], %s::text[], %s::int8[]) AS k (tenant_id, conversion_id, before_us)
WHERE r.tenant_id = k.tenant_id AND r.conversion_id = k.conversion_id
  AND EXISTS (
      SELECT FROM attribution_results l
      WHERE l.tenant_id = r.tenant_id AND l.conversion_id = r.conversion_id AND l.version > r.version
        AND l.computed_at_us < k.before_us)
  AND NOT (r.is_final AND NOT EXISTS (
      SELECT FROM attribution_results l
      WHERE l.tenant_id = r.tenant_id AND l.conversion_id = r.conversion_id AND l.version > r.version AND l.is_final))
"""


def expire_versions(
    connection: psycopg.Connection,
    before_us: int | None,
    after: tuple[str, str],
    limit: int,
    of_tenants: Mapping[str, int] | None = None,
) -> tuple[int, tuple[str, str] | None]:
    """Delete versions that were not the newest at any moment since a time, of the next conversions in order.

    Args:
        connection: in a transaction.
        before_us: the time from which on every version that was reported is kept, microseconds UTC; None: all are kept.
        after: (tenant, conversion id) of the last conversion that was looked at; two empty texts to begin.
        limit: look at so many conversions.
        of_tenants: the same time of tenants that have one of their own.

    Returns:
        How many versions were deleted, and the last conversion looked at; None: it was the last of all.
    """
    own = of_tenants or {}
    tenants = sorted(own) if before_us is None else None
    values = {"tenant": after[0], "conversion": after[1], "tenants": tenants, "limit": limit}
    page = connection.execute(_PAGE, values).fetchall()
    if not page:
        return 0, None
    columns = ([tenant for tenant, _ in page], [conversion for _, conversion in page])
    deleted = connection.execute(_EXPIRE, (*columns, [own.get(tenant, before_us) for tenant, _ in page])).rowcount
    return deleted, page[-1] if len(page) == limit else None
