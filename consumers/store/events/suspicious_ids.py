"""Ids that collect more than one person does: what no list of placeholders knows.

Reads only. Contract: a day is a calendar day UTC of event time. Of a user the distinct anonymous ids of links and of
events that name both count; of any person the touchpoints that are no robot's count. The verdict depends on the set of
stored events alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from attributary.consumers.store.identity_sql import user_key

MICROS_PER_DAY = 86_400_000_000


class SuspiciousId(NamedTuple):
    """An id and its worst day."""

    tenant_id: str
    kind: str  # user_id, anonymous_id
    id: str
    rule: str  # touchpoints, anonymous_ids
    most_a_day: int
    day: str  # 2026-11-30, the day with most
    days: int  # how many days are above the limit


_TOUCHPOINTS = """
SELECT tenant_id, identity_key, occurred_at_us / %(day)s AS day, count(*) AS number
FROM attribution_touchpoints
WHERE occurred_at_us >= %(from_us)s AND occurred_at_us < %(to_us)s AND NOT is_bot
  AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
GROUP BY 1, 2, 3 HAVING count(*) > %(most)s
"""
_ANONYMOUS_IDS = f"""
SELECT tenant_id, identity_key, day, count(DISTINCT anonymous_id) AS number FROM (
    SELECT tenant_id, {user_key("user_id")} AS identity_key, anonymous_id, linked_at_us / %(day)s AS day
    FROM attribution_identity_links WHERE linked_at_us >= %(from_us)s AND linked_at_us < %(to_us)s
    UNION ALL
    SELECT tenant_id, identity_key, anonymous_id, occurred_at_us / %(day)s FROM attribution_touchpoints
    WHERE occurred_at_us >= %(from_us)s AND occurred_at_us < %(to_us)s AND anonymous_id IS NOT NULL
    UNION ALL
    SELECT tenant_id, identity_key, anonymous_id, occurred_at_us / %(day)s FROM attribution_conversion_events
    WHERE occurred_at_us >= %(from_us)s AND occurred_at_us < %(to_us)s AND anonymous_id IS NOT NULL
) AS named
WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
GROUP BY 1, 2, 3 HAVING count(DISTINCT anonymous_id) > %(most)s
"""


def _found(rule: str, days: str) -> str:
    return f"""
    SELECT tenant_id, CASE left(identity_key, 2) WHEN 'u:' THEN 'user_id' ELSE 'anonymous_id' END,
           substr(identity_key, 3), '{rule}', max(number),
           to_char(to_timestamp((array_agg(day ORDER BY number DESC, day))[1] * 86400) AT TIME ZONE 'UTC',
                   'YYYY-MM-DD'),
           count(*)
    FROM ({days}) AS days GROUP BY tenant_id, identity_key
    """


_STATEMENTS = {
    "touchpoints": _found("touchpoints", _TOUCHPOINTS),
    "anonymous_ids": _found("anonymous_ids", _ANONYMOUS_IDS),
}
RULES = tuple(_STATEMENTS)


def suspicious_ids(
    connection: psycopg.Connection,
    limits: dict[str, int],
    period_us: tuple[int, int],
    *,
    tenant_id: str | None = None,
    limit: int = 10_000,
) -> Sequence[SuspiciousId]:
    """Return the ids that are above a limit on some day, the worst first.

    Args:
        connection: any.
        limits: most a day by rule, of ``RULES``; a rule that is missing or 0 is off.
        period_us: event time, from (included) to (excluded), microseconds UTC.
        tenant_id: one tenant's only.
        limit: how many at most of each rule.
    """
    found: list[SuspiciousId] = []
    for rule, statement in _STATEMENTS.items():
        most = limits.get(rule, 0)
        if not most:
            continue
        parameters = {
            "day": MICROS_PER_DAY, "from_us": period_us[0], "to_us": period_us[1], "tenant": tenant_id, "most": most,
            "limit": limit,
        }  # fmt: skip
        rows = connection.execute(
            f"{statement} ORDER BY 5 DESC, tenant_id, identity_key LIMIT %(limit)s", parameters
        ).fetchall()
        found += [SuspiciousId(*row) for row in rows]
    return sorted(found, key=lambda each: (-each.most_a_day, each.tenant_id, each.kind, each.id, each.rule))
