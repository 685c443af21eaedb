"""The versions of results through time: what was reported at a moment, and which versions are kept.

Invariant: of every conversion the newest version stays for good, so does its newest final one, and so does every
version that was the newest at any moment since the time from which on versions are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg


class Reported(NamedTuple):
    """What one channel got in a report: money in micros of the currency."""

    currency: str
    channel: str
    conversions: int
    value_micros: int


class ReportedTotal(NamedTuple):
    """What a report is about: conversions and their net value in micros."""

    currency: str
    conversions: int
    net_micros: int


_AS_OF = """
WITH reported AS (
    SELECT DISTINCT ON (r.conversion_id) r.conversion_id, r.currency, r.net_value_micros, r.touchpoints, r.models
    FROM attribution_results r
    WHERE r.tenant_id = %(tenant)s AND r.converted_at_us >= %(from_us)s AND r.converted_at_us < %(to_us)s
      AND r.computed_at_us <= %(as_of_us)s
    ORDER BY r.conversion_id, r.version DESC
)
"""
_TOTALS = f"{_AS_OF} SELECT currency, count(*), sum(net_value_micros)::int8 FROM reported GROUP BY currency ORDER BY 1"
_CHANNELS = f"""{_AS_OF}, parts AS (
    SELECT r.currency, r.conversion_id, r.touchpoints -> (m.number::int - 1) ->> 'channel' AS channel,
           (m.micros #>> '{{}}')::int8 AS micros
    FROM reported r, jsonb_array_elements(r.models) AS model (document),
         jsonb_array_elements(model.document -> 'micros') WITH ORDINALITY AS m (micros, number)
    WHERE model.document ->> 'model' = %(model)s
    UNION ALL
    SELECT r.currency, r.conversion_id, '(unattributed)', (model.document ->> 'unattributed_micros')::int8
    FROM reported r, jsonb_array_elements(r.models) AS model (document)
    WHERE model.document ->> 'model' = %(model)s AND jsonb_array_length(r.touchpoints) = 0
)
SELECT currency, channel, count(DISTINCT conversion_id), sum(micros)::int8 FROM parts
GROUP BY currency, channel ORDER BY currency, sum(micros) DESC, channel
"""

_PAGE = """
SELECT tenant_id, conversion_id FROM attribution_conversions
WHERE (tenant_id, conversion_id) > (%s, %s) ORDER BY tenant_id, conversion_id LIMIT %s
"""

# A version that another one followed before that time was reported on no day since.
_EXPIRE = """
DELETE FROM attribution_results r
USING unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
WHERE r.tenant_id = k.tenant_id AND r.conversion_id = k.conversion_id
  AND EXISTS (
      SELECT FROM attribution_results l
      WHERE l.tenant_id = r.tenant_id AND l.conversion_id = r.conversion_id AND l.version > r.version
        AND l.computed_at_us < %s)
  AND NOT (r.is_final AND NOT EXISTS (
      SELECT FROM attribution_results l
      WHERE l.tenant_id = r.tenant_id AND l.conversion_id = r.conversion_id AND l.version > r.version AND l.is_final))
"""


def reported(
    connection: psycopg.Connection, tenant_id: str, model: str, period_us: tuple[int, int], as_of_us: int
) -> tuple[list[ReportedTotal], list[Reported]]:
    """Return what a report on a period said at a moment: totals, and each channel's part.

    Args:
        connection: in a snapshot.
        tenant_id: the tenant.
        model: which model's credits.
        period_us: event time of the conversions, from (included) to (excluded), microseconds UTC.
        as_of_us: the moment, microseconds UTC; versions that were computed later are not looked at.
    """
    parameters = {
        "tenant": tenant_id, "model": model, "from_us": period_us[0], "to_us": period_us[1], "as_of_us": as_of_us,
    }  # fmt: skip
    totals = [ReportedTotal(*row) for row in connection.execute(_TOTALS, parameters).fetchall()]
    return totals, [Reported(*row) for row in connection.execute(_CHANNELS, parameters).fetchall()]


def expire_versions(
    connection: psycopg.Connection, before_us: int, after: tuple[str, str], limit: int
) -> tuple[int, tuple[str, str] | None]:
    """Delete versions that were not the newest at any moment since a time, of the next conversions in order.

    Args:
        connection: in a transaction.
        before_us: the time from which on every version that was reported is kept, microseconds UTC.
        after: (tenant, conversion id) of the last conversion that was looked at; two empty texts to begin.
        limit: look at so many conversions.

    Returns:
        How many versions were deleted, and the last conversion looked at; None: it was the last of all.
    """
    page = connection.execute(_PAGE, (*after, limit)).fetchall()
    if not page:
        return 0, None
    columns = ([tenant for tenant, _ in page], [conversion for _, conversion in page])
    deleted = connection.execute(_EXPIRE, (*columns, before_us)).rowcount
    return deleted, page[-1] if len(page) == limit else None
