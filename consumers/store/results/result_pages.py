"""Published results page by page, for readers outside.

Invariant: the tenant is the first predicate of every statement. A page begins behind a place in the order and not at a
row number, so that results that arrive meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg.rows import class_row

from .results import RESULT_COLUMNS

Order = Literal["time", "conversion"]


class PublishedResult(NamedTuple):
    """One version of a conversion's result, as the results topic had it. Times in microseconds UTC, money in micros."""

    tenant_id: str
    conversion_id: str
    version: int
    version_reason: str
    is_final: bool
    conversion_type: str
    converted_at_us: int
    journey_key: str
    net_value_micros: int
    gross_value_micros: int
    delta_micros: int
    currency: str
    policy_version: str
    touchpoint_count: int
    touchpoints: Sequence[Mapping[str, Any]]
    models: Sequence[Mapping[str, Any]]
    insights: Sequence[Mapping[str, Any]]
    computed_at_us: int
    content_hash: str


class Place(NamedTuple):
    """Where a page ends: time of the conversion (0 in the order of conversions), its id, and the version."""

    converted_at_us: int
    conversion_id: str
    version: int


BEGINNING = Place(-1, "", 0)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What is asked for.

    Attributes:
        tenant_id: the tenant.
        period_us: time of the conversions, from (included) to (excluded), microseconds UTC.
        as_of_us: versions computed later are not looked at, microseconds UTC.
        is_every_version: all versions; else the newest one of each conversion at that moment.
        order: by time of the conversion, or by conversion id.
        conversion_type: None: all.
        currency: None: all.
        after: where the last page ended.
        limit: most results.
    """

    tenant_id: str
    period_us: tuple[int, int]
    as_of_us: int
    is_every_version: bool = False
    order: Order = "time"
    conversion_type: str | None = None
    currency: str | None = None
    after: Place = BEGINNING
    limit: int = 100


_COLUMNS = ", ".join(f"r.{column}" for column in RESULT_COLUMNS)
_FILTER = """
  AND (%(type)s::text IS NULL OR r.conversion_type = %(type)s)
  AND (%(currency)s::text IS NULL OR r.currency = %(currency)s)
"""
# The conversion's own time orders the pages of newest results: a later version may have another.
_NEWEST = f"""
SELECT {_COLUMNS}, c.converted_at_us AS place_us
FROM attribution_conversions c CROSS JOIN LATERAL (
    SELECT * FROM attribution_results r
    WHERE r.tenant_id = %(tenant)s AND r.conversion_id = c.conversion_id AND r.computed_at_us <= %(as_of)s
    ORDER BY r.version DESC LIMIT 1
) AS r
WHERE c.tenant_id = %(tenant)s AND c.converted_at_us >= %(since)s AND c.converted_at_us < %(until)s
  AND {{behind}} {_FILTER}
ORDER BY {{order}} LIMIT %(limit)s
"""
_EVERY = f"""
SELECT {_COLUMNS}, r.converted_at_us AS place_us
FROM attribution_results r
WHERE r.tenant_id = %(tenant)s AND r.converted_at_us >= %(since)s AND r.converted_at_us < %(until)s
  AND r.computed_at_us <= %(as_of)s AND {{behind}} {_FILTER}
ORDER BY {{order}} LIMIT %(limit)s
"""
_STATEMENTS: Mapping[tuple[bool, Order], str] = {
    (False, "time"): _NEWEST.format(
        behind="(c.converted_at_us, c.conversion_id) > (%(after_us)s, %(after_id)s)",
        order="c.converted_at_us, c.conversion_id",
    ),
    (False, "conversion"): _NEWEST.format(behind="c.conversion_id > %(after_id)s", order="c.conversion_id"),
    (True, "time"): _EVERY.format(
        behind="(r.converted_at_us, r.conversion_id, r.version) > (%(after_us)s, %(after_id)s, %(after_version)s)",
        order="r.converted_at_us, r.conversion_id, r.version",
    ),
    (True, "conversion"): _EVERY.format(
        behind="(r.conversion_id, r.version) > (%(after_id)s, %(after_version)s)", order="r.conversion_id, r.version"
    ),
}
_ONE = f"""
SELECT {_COLUMNS} FROM attribution_results r
WHERE r.tenant_id = %(tenant)s AND r.conversion_id = %(conversion)s
  AND (%(version)s::int8 IS NULL OR r.version = %(version)s) AND r.computed_at_us <= %(as_of)s
ORDER BY r.version DESC LIMIT 1
"""


class Page(NamedTuple):
    """Results in order, and where the next page begins; None: this was the last one."""

    results: Sequence[PublishedResult]
    following: Place | None


def result_page(connection: psycopg.Connection, query: PageQuery) -> Page:
    """Return one page of results; reads `limit` + 1 rows."""
    parameters = {
        "tenant": query.tenant_id, "since": query.period_us[0], "until": query.period_us[1], "as_of": query.as_of_us,
        "type": query.conversion_type, "currency": query.currency, "limit": query.limit + 1,
        "after_us": query.after.converted_at_us, "after_id": query.after.conversion_id,
        "after_version": query.after.version,
    }  # fmt: skip
    rows = connection.execute(_STATEMENTS[query.is_every_version, query.order].encode(), parameters).fetchall()
    shown = rows[: query.limit]
    results = [PublishedResult(*row[:-1]) for row in shown]
    if len(rows) <= query.limit:
        return Page(results, None)
    last, place_us = results[-1], shown[-1][-1]
    return Page(results, Place(place_us if query.order == "time" else 0, last.conversion_id, last.version))


def published_result(
    connection: psycopg.Connection, tenant_id: str, conversion_id: str, *, version: int | None, as_of_us: int
) -> PublishedResult | None:
    """Return one result of a conversion; None: there is none.

    Args:
        connection: reads.
        tenant_id: the tenant.
        conversion_id: the conversion.
        version: this one; None: the newest at the moment.
        as_of_us: the moment; versions computed later are not looked at, microseconds UTC.
    """
    parameters = {"tenant": tenant_id, "conversion": conversion_id, "version": version, "as_of": as_of_us}
    with connection.cursor(row_factory=class_row(PublishedResult)) as cursor:
        return cursor.execute(_ONE.encode(), parameters).fetchone()
