"""The questions of ``StoredResults``, answered from the roll-up: sums over days, in place of every result.

Invariants: what is asked in days of another time zone, between two midnights or as of an earlier moment is refused with
the reason, never answered nearly. Counts and micros are those of the results, credits too, to the billionth.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.consumers.store.results.credit_report import ModelUse
from attributary.consumers.store.results.report_reads import (
    CurrencyTotal,
    Lags,
    Lengths,
    Path,
    Quality,
    ReportRequest,
    Rest,
    StoredResults,
)
from attributary.schemas.topics import group_name

from .cells import UNATTRIBUTED, local_day

if TYPE_CHECKING:
    import psycopg

MAX_CHECKED = 20_000  # touchpoints and conversions of the report on data quality
_BILLION = 1e9
_SQUARES = 1e12  # squares are of millionths
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_BEHIND = 5_000
"""Results that a roll-up may lack to answer: what the reporter takes in a few batches."""
_STATE = """
SELECT s.time_zone, s.is_counted, s.revision, s.reported_until_us, (
    SELECT COALESCE(sum(GREATEST(a.next_offset - COALESCE(p.next_offset, 0), 0)), 0)::int8
    FROM attribution_positions a LEFT JOIN attribution_positions p
      ON p.tenant_id = a.tenant_id AND p.consumer_group = %(reporter)s AND p.topic = a.topic
     AND p.partition = a.partition
    WHERE a.tenant_id = '*' AND a.consumer_group = %(auditor)s
)
FROM attribution_rollup_state s WHERE s.tenant_id = %(tenant)s
"""
_WHERE = """r.tenant_id = %(tenant)s AND r.day >= %(from_day)s AND r.day < %(to_day)s
  AND (%(types)s::text[] IS NULL OR r.conversion_type = ANY (%(types)s))"""
_CURRENCY = f"{_WHERE} AND r.currency = %(currency)s"
_OF_COUNTS = f"FROM attribution_rollup_counts r WHERE {_CURRENCY} AND r.kind = %(kind)s"
# Rows with the models that are asked for: the sums of each stand in the arrays at its number.
_BY_MODEL = """FROM attribution_rollup_{} r
JOIN attribution_rollup_models m ON m.tenant_id = r.tenant_id AND m.model = ANY (%(models)s)"""
_COUNTS_BY_MODEL = f"{_BY_MODEL.format('counts')} WHERE {_CURRENCY}"
_NAMES_BY_MODEL = f"{_BY_MODEL.format('names')} WHERE {_CURRENCY} AND r.grain = %(grain)s"
_TOTALS = f"""
SELECT r.currency, sum(r.conversions[1])::int8, sum(r.value_micros[1])::int8,
       COALESCE(sum(r.conversions[1]) FILTER (WHERE r.part = 'final'), 0)::int8
FROM attribution_rollup_counts r WHERE {_WHERE} AND r.kind = 'conversion'
GROUP BY 1 HAVING sum(r.conversions[1]) <> 0 ORDER BY 2 DESC, 1
"""
_MODELS = f"""
SELECT m.model FROM attribution_rollup_counts r JOIN attribution_rollup_models m ON m.tenant_id = r.tenant_id
WHERE {_CURRENCY} AND r.kind = 'use' GROUP BY 1 HAVING sum(r.conversions[m.number]) <> 0 ORDER BY 1
"""
_CREDITS = f"""
SELECT m.model, r.name, sum(r.journeys[m.number])::int8, sum(r.credit_billionths[m.number])::int8,
       sum(r.squares[m.number])::float8, sum(r.value_micros[m.number])::int8
{_NAMES_BY_MODEL} GROUP BY 1, 2 HAVING sum(r.journeys[m.number]) <> 0
"""
_USES = f"""
SELECT m.model, sum(r.conversions[m.number])::int8,
       COALESCE(sum(r.conversions[m.number]) FILTER (WHERE r.part <> ''), 0)::int8
{_COUNTS_BY_MODEL} AND r.kind = 'use' GROUP BY 1 HAVING sum(r.conversions[m.number]) <> 0 ORDER BY 1
"""
_MODEL_USES = f"""
SELECT m.model, r.name, NULLIF(r.part, ''), sum(r.conversions[m.number])::int8
{_COUNTS_BY_MODEL} AND r.kind = 'use'
GROUP BY 1, 2, 3 HAVING sum(r.conversions[m.number]) <> 0 ORDER BY 1, 4 DESC, 2, 3 NULLS FIRST
"""
_RESTS = f"""
SELECT m.model, r.part, COALESCE(sum(r.credit_billionths[m.number]), 0)::int8,
       COALESCE(sum(r.value_micros[m.number]), 0)::int8
{_COUNTS_BY_MODEL} AND r.kind = 'rest' GROUP BY 1, 2
"""
_POSITIONS = f"""
WITH named AS (
    SELECT r.name, sum(r.credit_billionths[m.number]) AS credit, sum(r.value_micros[m.number]) AS micros,
           sum(r.touches[m.number]) AS touches, sum(r.early_billionths[m.number]) AS early_credit,
           sum(r.early_micros[m.number]) AS early_micros, sum(r.early_touches[m.number]) AS early,
           sum(r.late_billionths[m.number]) AS late_credit, sum(r.late_micros[m.number]) AS late_micros,
           sum(r.late_touches[m.number]) AS late
    {_NAMES_BY_MODEL} AND r.name <> %(unattributed)s GROUP BY 1
)
SELECT n.name, p.part, p.credit::float8 / {_BILLION:.0f}, p.micros::int8
FROM named n CROSS JOIN LATERAL (VALUES
    ('early', n.early_credit, n.early_micros, n.early), ('late', n.late_credit, n.late_micros, n.late),
    ('mid', n.credit - n.early_credit - n.late_credit, n.micros - n.early_micros - n.late_micros,
     n.touches - n.early - n.late)) AS p (part, credit, micros, touches)
WHERE p.touches <> 0
"""
_ASSISTS = f"""
SELECT r.name, sum(r.assists[1])::int8, sum(r.assists[2])::int8, sum(r.assists[3])::int8, sum(r.assists[4])::int8
FROM attribution_rollup_names r WHERE {_CURRENCY} AND r.grain = %(grain)s
GROUP BY 1 HAVING sum(r.assists[1]) <> 0
"""
_NUMBERS = f"""
SELECT r.number, sum(r.conversions[1])::int8, sum(r.value_micros[1])::int8
{_OF_COUNTS} GROUP BY 1 HAVING sum(r.conversions[1]) <> 0
"""
_PATHS = f"""
SELECT r.name, r.number, sum(r.conversions[1])::int8, sum(r.value_micros[1])::int8
{_OF_COUNTS} GROUP BY 1, 2 HAVING sum(r.conversions[1]) <> 0
"""
_DAYS = f"""
SELECT cash, accrual, sum(credit)::float8 / {_BILLION:.0f}, sum(micros)::int8 FROM (
    SELECT r.day AS cash, r.day + r.number AS accrual, sum(r.conversions[m.number]) AS touches,
           sum(r.credit_billionths[m.number]) AS credit, sum(r.value_micros[m.number]) AS micros
    {_COUNTS_BY_MODEL} AND r.kind = 'accrual' GROUP BY 1, 2
) AS dated GROUP BY GROUPING SETS ((cash), (accrual)) HAVING sum(touches) <> 0
"""
_CONVERSION_DAYS = f"""
WITH conversions AS (
    SELECT r.day, sum(r.conversions[1])::int8 AS conversions,
           COALESCE(sum(r.conversions[1]) FILTER (WHERE r.part = 'final'), 0)::int8 AS final,
           sum(r.value_micros[1])::int8 AS micros
    FROM attribution_rollup_counts r WHERE {_CURRENCY} AND r.kind = 'conversion'
    GROUP BY 1 HAVING sum(r.conversions[1]) <> 0
), rests AS (
    SELECT r.day, sum(r.value_micros[m.number])::int8 AS micros, sum(r.credit_billionths[m.number]) AS credit
    {_COUNTS_BY_MODEL} AND r.kind = 'rest' GROUP BY 1
)
SELECT c.day, c.conversions, c.final, c.micros, COALESCE(r.micros, 0),
       COALESCE(r.credit, 0)::float8 / {_BILLION:.0f}
FROM conversions c LEFT JOIN rests r USING (day)
"""
_COHORTS = f"""
SELECT date_trunc('month', r.day)::date, r.name, r.number, sum(r.conversions[2])::int8, sum(r.conversions[1])::int8,
       sum(r.value_micros[1])::int8
{_OF_COUNTS} GROUP BY 1, 2, 3 HAVING sum(r.conversions[1]) <> 0 ORDER BY 1, 2, 3
"""
_CASH_DELAYS = f"""
SELECT r.day, r.delay, sum(r.conversions[1])::float8 {_OF_COUNTS} GROUP BY 1, 2
HAVING sum(r.conversions[1]) <> 0 ORDER BY 1, 2
"""
_ACCRUAL_DELAYS = f"""
SELECT r.day + r.number, r.delay - r.number, sum(r.credit_billionths[m.number])::float8 / {_BILLION:.0f}
{_COUNTS_BY_MODEL} AND r.kind = 'accrual' GROUP BY 1, 2 HAVING sum(r.conversions[m.number]) <> 0 ORDER BY 1, 2
"""
_CHANGES = f"""
WITH touched AS (
    SELECT r.name, r.reason, sum(r.versions)::int8 AS versions
    FROM attribution_rollup_restatements r
    WHERE {_CURRENCY} AND r.grain = %(grain)s AND r.reported_day >= %(since_day)s
    GROUP BY 1, 2 HAVING sum(r.versions) <> 0
), moved AS (
    SELECT r.name, r.reason, sum(r.credit_billionths[m.number]) AS credit, sum(r.value_micros[m.number]) AS micros
    {_BY_MODEL.format("restatements")}
    WHERE {_CURRENCY} AND r.grain = %(grain)s AND r.reported_day >= %(since_day)s
    GROUP BY 1, 2
)
SELECT t.name, t.reason, t.versions, COALESCE(m.credit, 0)::float8 / {_BILLION:.0f}, COALESCE(m.micros, 0)::int8
FROM touched t LEFT JOIN moved m USING (name, reason)
"""


class RollupState(NamedTuple):
    """How far the roll-up of a tenant is.

    Attributes:
        time_zone: of its days.
        is_counted: every conversion of it is in the counts for reports.
        revision: rises with every change.
        reported_until_us: computing time of the newest result in it, microseconds UTC.
        behind: results at most that are stored and not in it.
    """

    time_zone: str
    is_counted: bool
    revision: int
    reported_until_us: int
    behind: int


def read_state(connection: psycopg.Connection, tenant_id: str) -> RollupState | None:
    """Return how far the roll-up of a tenant is; None: it has none.

    Args:
        connection: a connection.
        tenant_id: the tenant.
    """
    values = {"tenant": tenant_id, "reporter": group_name("reporter"), "auditor": group_name("auditor")}
    row = connection.execute(_STATE, values).fetchone()
    return RollupState(*row) if row else None


def is_midnight(micros: int, zone: str) -> bool:
    """Tell whether a day begins at this moment, microseconds UTC."""
    return local_day(micros, zone) != local_day(micros - 1, zone)


class RolledUp:
    """Answers from the roll-up; ``StoredResults`` says what each returns.

    Args:
        connection: in a snapshot.
        request: what is asked, in whole days of its time zone.
        days: from and to of the request as days; the second one is not in it.
    """

    def __init__(self, connection: psycopg.Connection, request: ReportRequest, days: tuple[date, date]) -> None:
        self._connection = connection
        self._request = request
        self._values = request.parameters() | {
            "from_day": days[0], "to_day": days[1], "grain": request.by, "unattributed": UNATTRIBUTED,
            "since_day": local_day(max(request.since_us, 0), request.time_zone),
        }  # fmt: skip
        connection.execute("SET LOCAL jit = off")

    def totals(self) -> list[CurrencyTotal]:  # noqa: D102
        return [CurrencyTotal(*row) for row in self._rows(_TOTALS)]

    def known_models(self) -> list[str]:  # noqa: D102
        return [name for (name,) in self._rows(_MODELS)]

    def credits(self) -> list[tuple[str, str, int, float, float, int]]:  # noqa: D102
        return [
            (model, name, touched, credit / _BILLION, squares / _SQUARES, micros)
            for model, name, touched, credit, squares, micros in self._credits(self._request.by)
            if name != UNATTRIBUTED
        ]

    def rests(self) -> list[Rest]:  # noqa: D102
        squares = {row[0]: row[4] / _SQUARES for row in self._credits("channel") if row[1] == UNATTRIBUTED}
        parts = {(model, part): (credit / _BILLION, micros) for model, part, credit, micros in self._rows(_RESTS)}
        return [
            Rest(
                model, conversions, fallbacks, *parts.get((model, "untouched"), (0.0, 0)),
                *parts.get((model, "baseline"), (0.0, 0)), squares.get(model, 0.0),
            )
            for model, conversions, fallbacks in self._rows(_USES)
        ]  # fmt: skip

    def uses(self) -> list[ModelUse]:  # noqa: D102
        return [ModelUse(*row) for row in self._rows(_MODEL_USES)]

    def positions(self) -> list[tuple[str, str, float, int]]:  # noqa: D102
        return self._rows(_POSITIONS)

    def assists(self) -> list[tuple[str, int, int, int, int]]:  # noqa: D102
        return self._rows(_ASSISTS)

    def paths(self) -> list[Path]:  # noqa: D102
        return [
            Path(tuple(json.loads(name)) if name else (), steps, conversions, micros)
            for name, steps, conversions, micros in self._rows(_PATHS, kind=f"path:{self._request.by}")
        ]

    def lengths(self) -> Lengths:  # noqa: D102
        # The lengths of paths of channels and platforms are those of the paths themselves.
        steps = self._rows(
            _NUMBERS, kind=f"{'length' if self._request.by == 'campaign' else 'path'}:{self._request.by}"
        )
        return Lengths(self._rows(_NUMBERS, kind="length"), [(number, conversions) for number, conversions, _ in steps])

    def lags(self) -> Lags:  # noqa: D102
        last = self._rows(_NUMBERS, kind="lag:last")
        return Lags(self._rows(_NUMBERS, kind="lag:first"), [(days, conversions) for days, conversions, _ in last])

    def days(self) -> list[tuple[Any, Any, float, int]]:  # noqa: D102
        return self._rows(_DAYS)

    def conversion_days(self) -> list[tuple[Any, int, int, int, int, float]]:  # noqa: D102
        return self._rows(_CONVERSION_DAYS)

    def cohorts(self) -> list[tuple[Any, str, int, int, int, int]]:  # noqa: D102
        return self._rows(_COHORTS, kind="cohort")

    def cash_delays(self) -> list[tuple[Any, int, float]]:  # noqa: D102
        return self._rows(_CASH_DELAYS, kind="conversion")

    def accrual_delays(self) -> list[tuple[Any, int, float]]:  # noqa: D102
        return self._rows(_ACCRUAL_DELAYS)

    def changes(self) -> list[tuple[str, str, int, float, int]]:  # noqa: D102
        return self._rows(_CHANGES)

    def removed(self) -> list[tuple[str, int, int]]:
        """Return what is no longer stored one by one; it never was in the roll-up."""
        return StoredResults(self._connection, self._request).removed()

    def quality(self) -> Quality:
        """Return counts of rows that no roll-up has: of the first ``MAX_CHECKED`` that are found."""
        return StoredResults(self._connection, self._request).quality(MAX_CHECKED)

    def _credits(self, grain: str) -> list[Any]:
        return self._rows(_CREDITS, grain=grain)

    def _rows(self, statement: str, **values: object) -> list[Any]:
        return self._connection.execute(statement.encode(), self._values | values).fetchall()


def days_of(period_us: tuple[int, int], zone: str) -> tuple[date, date] | None:
    """Return a period as days, the second one excluded; None: it begins or ends between two midnights.

    Args:
        period_us: from and to, microseconds UTC; 0 and what is after the year 2199 bound nothing.
        zone: IANA name.
    """
    start, end = period_us
    since, until = date.min, date.max
    if start > 0:
        if not is_midnight(start, zone):
            return None
        since = local_day(start, zone)
    if end < (datetime(2199, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1):
        if not is_midnight(end, zone):
            return None
        until = local_day(end, zone)
    return since, until
