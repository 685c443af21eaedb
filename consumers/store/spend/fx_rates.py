"""Exchange rates in Postgres: revisions that are only added.

Invariant: imports take turns by an advisory lock; a rate that is as before makes no
revision.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import NamedTuple

import psycopg

from attributary.attribution_core.spend.rates import PIVOT, Quote, RateTable

# Not a lock of the table: that would need a right which nobody has but its owner.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('attribution_fx_rates'))"
_STAGE = """
WITH given AS (
    SELECT * FROM unnest(%(days)s::date[], %(bases)s::text[], %(quotes)s::text[], %(rates)s::numeric[])
        AS g (day, base, quote, rate)
), newest AS (
    SELECT DISTINCT ON (base, quote, day) base, quote, day, revision, rate FROM attribution_fx_rates
    WHERE tenant_id = '*' ORDER BY base, quote, day, revision DESC
)
INSERT INTO attribution_fx_rates (base, quote, day, revision, rate, source)
SELECT g.base, g.quote, g.day, COALESCE(n.revision, 0) + 1, g.rate, %(source)s
FROM given g LEFT JOIN newest n USING (base, quote, day)
WHERE n.rate IS DISTINCT FROM g.rate
RETURNING revision
"""
_RATES = """
SELECT DISTINCT ON (base, quote, day) day, base, quote, rate FROM attribution_fx_rates
WHERE tenant_id = '*' AND base = ANY (%(currencies)s) AND quote = ANY (%(currencies)s) AND day <= %(last)s
  AND created_at <= COALESCE(%(as_of)s::timestamptz, 'infinity')
ORDER BY base, quote, day, revision DESC
"""
_PAIRS = """
SELECT base, quote, count(DISTINCT day), min(day), max(day), count(*) - count(DISTINCT day),
       (array_agg(source ORDER BY day DESC, revision DESC))[1]
FROM attribution_fx_rates WHERE tenant_id = '*' GROUP BY base, quote ORDER BY base, quote
"""


class StoredRates(NamedTuple):
    """What an import of rates changed."""

    new: int
    corrected: int
    unchanged: int


class Pair(NamedTuple):
    """What is stored of a pair of currencies."""

    base: str
    quote: str
    days: int
    first_day: date
    last_day: date
    corrections: int
    source: str


def store_rates(connection: psycopg.Connection, quotes: Sequence[Quote], source: str) -> StoredRates:
    """Add rates, in the caller's transaction.

    Args:
        connection: in a transaction at READ COMMITTED.
        quotes: of each pair and day one.
        source: where they are from, for people.
    """
    connection.execute(_LOCK)
    parameters = {
        "days": [each.day for each in quotes], "bases": [each.base for each in quotes],
        "quotes": [each.quote for each in quotes], "rates": [each.rate for each in quotes], "source": source,
    }  # fmt: skip
    revisions = [row[0] for row in connection.execute(_STAGE, parameters).fetchall()]
    new = sum(revision == 1 for revision in revisions)
    return StoredRates(new, len(revisions) - new, len(quotes) - len(revisions))


def rate_table(
    connection: psycopg.Connection, currencies: Collection[str], last: date, as_of: datetime | None = None
) -> RateTable:
    """Return the rates that currencies need, up to a day.

    Args:
        connection: any.
        currencies: of amounts and of the report.
        last: no later day.
        as_of: as they were imported by then; None: as they are now.
    """
    parameters = {"currencies": [*currencies, PIVOT], "last": last, "as_of": as_of}
    return RateTable.of(Quote(*row) for row in connection.execute(_RATES, parameters).fetchall())


def pairs(connection: psycopg.Connection) -> list[Pair]:
    """Return which pairs have rates, in order."""
    return [Pair(*row) for row in connection.execute(_PAIRS).fetchall()]
