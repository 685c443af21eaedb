"""What the report page shows beside credit: days, paths, and why the net value changed since a moment.

Invariants: all of it is about the conversions of one report (`credit_report`) in one currency. Days and paths sum to
its totals; the value at the moment plus the changes by reason is the net value now, to the micro.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from .credit_report import REPORTED, ReportQuery

_DAYS = f"""{REPORTED}
SELECT to_char(to_timestamp(converted_at_us / 1000000) AT TIME ZONE %(zone)s, 'YYYY-MM-DD'), count(*),
       sum(net_value_micros)::int8, count(*) FILTER (WHERE is_final)
FROM reported GROUP BY 1 ORDER BY 1
"""
_PATHS = f"""{REPORTED}, paths AS (
    SELECT (
        SELECT array_agg(COALESCE(t.touch ->> 'channel', '') ORDER BY t.place)
        FROM jsonb_array_elements(r.touchpoints) WITH ORDINALITY AS t (touch, place)
    ) AS steps, r.net_value_micros
    FROM reported r
)
SELECT COALESCE(steps, ARRAY[]::text[]), count(*), sum(net_value_micros)::int8
FROM paths GROUP BY 1 ORDER BY 2 DESC, 3 DESC, 1
"""
# A version's change is against the version before it that is kept, so that the changes sum to the newest net value.
_CHANGES = f"""{REPORTED}, versions AS (
    SELECT a.version_reason, a.computed_at_us, a.net_value_micros - COALESCE(
               lag(a.net_value_micros) OVER (PARTITION BY a.conversion_id ORDER BY a.version), 0) AS change
    FROM reported r JOIN attribution_results a ON a.tenant_id = %(tenant)s AND a.conversion_id = r.conversion_id
    WHERE a.computed_at_us <= %(as_of_us)s
)
SELECT CASE WHEN computed_at_us > %(since_us)s THEN version_reason END, count(*), sum(change)::int8
FROM versions GROUP BY 1 ORDER BY 1 NULLS FIRST
"""


class Day(NamedTuple):
    """A day of a report: YYYY-MM-DD, conversions, net value in micros, and how many cannot change any more."""

    day: str
    conversions: int
    net_micros: int
    final: int


class Path(NamedTuple):
    """Conversions with credited touchpoints of these channels, in the order of time; none: no touchpoint."""

    steps: Sequence[str]
    conversions: int
    net_micros: int


class Change(NamedTuple):
    """Versions of one reason, and by how much they changed the net value; None: all versions up to the moment."""

    reason: str | None
    versions: int
    net_micros: int


def read_days(connection: psycopg.Connection, query: ReportQuery, zone: str = "UTC") -> list[Day]:
    """Return the days with a conversion, in order; they begin in a zone, by its IANA name."""
    return [Day(*row) for row in connection.execute(_DAYS, query.parameters() | {"zone": zone}).fetchall()]


def read_paths(connection: psycopg.Connection, query: ReportQuery) -> list[Path]:
    """Return all paths, the most frequent first."""
    return [Path(*row) for row in connection.execute(_PATHS, query.parameters()).fetchall()]


def read_changes(connection: psycopg.Connection, query: ReportQuery, since_us: int) -> list[Change]:
    """Return what stood at a moment (reason None), and what changed since by reason.

    Args:
        connection: in a snapshot.
        query: which conversions.
        since_us: the moment, microseconds UTC.
    """
    values = query.parameters() | {"since_us": since_us}
    return [Change(*row) for row in connection.execute(_CHANGES, values).fetchall()]
