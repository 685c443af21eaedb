"""Credit by dimensions from the roll-up: what ``read_report`` returns, without opening every result.

Invariants: the same rows and sums as from the results, credits to the billionth of a conversion. It answers for one
dimension of touchpoints at most, beside those of conversions: it does not know how many journeys have two names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from attributary.consumers.store.removed_totals import read_removed
from attributary.consumers.store.results.credit_report import (
    ModelUse,
    Report,
    ReportQuery,
    ReportTotal,
    assembled,
    is_by_touch,
)

from .cells import UNATTRIBUTED

if TYPE_CHECKING:
    import psycopg

GRAINS = ("channel", "platform", "campaign")
_KEYS = {
    **dict.fromkeys(GRAINS, "r.name"),
    "day": "to_char(r.day, 'YYYY-MM-DD')",
    "week": "to_char(r.day, 'IYYY-\"W\"IW')",
    "month": "to_char(r.day, 'YYYY-MM')",
    "conversion_type": "r.conversion_type",
    "currency": "r.currency",
}
_WHERE = """r.tenant_id = %(tenant)s AND r.day >= %(from_day)s AND r.day < %(to_day)s
  AND (%(types)s::text[] IS NULL OR r.conversion_type = ANY (%(types)s))
  AND (%(currency)s::text IS NULL OR r.currency = %(currency)s)"""
_TOTALS = f"""
SELECT r.currency, sum(r.conversions[1])::int8, sum(r.value_micros[1])::int8
FROM attribution_rollup_counts r WHERE {_WHERE} AND r.kind = 'conversion'
GROUP BY 1 HAVING sum(r.conversions[1]) <> 0 ORDER BY 2 DESC, 1
"""
_USES = f"""
SELECT m.model, r.name, NULLIF(r.part, ''), sum(r.conversions[m.number])::int8
FROM attribution_rollup_counts r
JOIN attribution_rollup_models m ON m.tenant_id = r.tenant_id AND m.model = ANY (%(models)s)
WHERE {_WHERE} AND r.kind = 'use'
GROUP BY 1, 2, 3 HAVING sum(r.conversions[m.number]) <> 0 ORDER BY 1, 4 DESC, 2, 3 NULLS FIRST
"""
# Without a dimension of touchpoints each conversion is in one row with all of its credit, so squares and journeys are
# the credit.
_CREDITS = f"""
SELECT r.currency, m.model, '', NULL, {{is_touch}}, {{journeys}}::int8,
       sum(r.credit_billionths[m.number])::float8 / 1e9, {{squares}}, sum(r.value_micros[m.number])::int8, {{keys}}
FROM attribution_rollup_names r
JOIN attribution_rollup_models m ON m.tenant_id = r.tenant_id AND m.model = ANY (%(models)s)
WHERE {_WHERE} AND r.grain = %(grain)s
GROUP BY {{places}}
HAVING sum(r.journeys[m.number]) <> 0 OR sum(r.credit_billionths[m.number]) <> 0 OR sum(r.value_micros[m.number]) <> 0
"""


def is_answerable(by: Sequence[str]) -> bool:
    """Tell whether the roll-up knows these dimensions together."""
    return set(by) <= set(_KEYS) and sum(name in GRAINS for name in by) <= 1


def read_rolled_report(connection: psycopg.Connection, query: ReportQuery, days: tuple[date, date]) -> Report:
    """Sum up credits.

    Args:
        connection: in a snapshot.
        query: what is asked, as things are now; `is_answerable`.
        days: its period, from (included) to (excluded), in the zone of the roll-up.
    """
    connection.execute("SET LOCAL jit = off")
    grain = next((name for name in query.by if name in GRAINS), GRAINS[0])
    values = query.parameters() | {
        "from_day": days[0], "to_day": days[1], "grain": grain, "unattributed": UNATTRIBUTED,
    }  # fmt: skip
    of_touch = is_by_touch(query.by)
    whole = "sum(r.credit_billionths[m.number]) / 1e9"
    parts = {
        "is_touch": "r.name <> %(unattributed)s" if of_touch else "true",
        "journeys": "sum(r.journeys[m.number])" if of_touch else f"round({whole})",
        "squares": "sum(r.squares[m.number])::float8 / 1e12" if of_touch else f"({whole})::float8",
        "keys": ", ".join(_KEYS[name] for name in query.by),
        "places": ", ".join(map(str, (1, 2, 3, 4, 5, *range(10, 10 + len(query.by))))),
    }  # fmt: skip
    kept = [ReportTotal(*row) for row in connection.execute(_TOTALS, values).fetchall()]
    rows = connection.execute(_CREDITS.format(**parts).encode(), values).fetchall() if kept else []
    uses = [ModelUse(*row) for row in connection.execute(_USES, values).fetchall()] if kept else []
    removed = read_removed(
        connection, query.tenant_id, (query.period_us[0], min(query.period_us[1], query.as_of_us)), query.by,
        query.currency, query.conversion_types,
    )  # fmt: skip
    return assembled(query, kept, removed, rows, uses)
