"""The questions of ``StoredResults``, answered from the roll-up: sums over days, in place of every result.

Invariants: what is asked in days of another time zone, between two midnights or as of an earlier moment is refused with
the reason, never answered nearly. Counts and micros are those of the results, credits too, to the billionth.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

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

from .cells import UNATTRIBUTED, local_day

if TYPE_CHECKING:
    import psycopg

MAX_CHECKED = 20_000  # touchpoints and conversions of the report on data quality
_BILLION = 1e9
_SQUARES = 1e12  # squares are of millionths
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
_WHERE = """tenant_id = %(tenant)s AND day >= %(from_day)s AND day < %(to_day)s
  AND (%(types)s::text[] IS NULL OR conversion_type = ANY (%(types)s))"""
_OF_COUNTS = f"FROM attribution_rollup_counts WHERE {_WHERE} AND currency = %(currency)s"
_TOTALS = f"""
SELECT currency, sum(conversions)::int8, sum(value_micros)::int8,
       COALESCE(sum(conversions) FILTER (WHERE part = 'final'), 0)::int8
FROM attribution_rollup_counts WHERE {_WHERE} AND kind = 'conversion' AND model = ''
GROUP BY 1 HAVING sum(conversions) <> 0 ORDER BY 2 DESC, 1
"""
_MODELS = f"""
SELECT model {_OF_COUNTS} AND kind = 'use' GROUP BY 1 HAVING sum(conversions) <> 0 ORDER BY 1
"""
_CREDITS = f"""
SELECT model, channel || platform || campaign, sum(journeys)::int8, sum(credit_billionths)::int8, sum(squares)::float8,
       sum(value_micros)::int8
FROM attribution_rollup_days WHERE {_WHERE} AND grain = %(grain)s AND dating = 'cash' AND currency = %(currency)s
  AND model = ANY (%(models)s)
GROUP BY 1, 2 HAVING sum(journeys) <> 0
"""
_USES = f"""
SELECT model, sum(conversions)::int8, COALESCE(sum(conversions) FILTER (WHERE part <> ''), 0)::int8
{_OF_COUNTS} AND kind = 'use' AND model = ANY (%(models)s) GROUP BY 1 HAVING sum(conversions) <> 0 ORDER BY 1
"""
_RESTS = f"""
SELECT model, part, sum(credit_billionths)::int8, sum(value_micros)::int8
{_OF_COUNTS} AND kind = 'rest' AND model = ANY (%(models)s) GROUP BY 1, 2
"""
_POSITIONS = f"""
SELECT name, part, sum(credit_billionths)::float8 / {_BILLION:.0f}, sum(value_micros)::int8
{_OF_COUNTS} AND kind = %(kind)s AND model = ANY (%(models)s) GROUP BY 1, 2 HAVING sum(conversions) <> 0
"""
_ASSISTS = f"""
SELECT name, sum(conversions) FILTER (WHERE part = 'touched')::int8,
       COALESCE(sum(conversions) FILTER (WHERE part = 'assisted'), 0)::int8,
       COALESCE(sum(conversions) FILTER (WHERE part = 'closed'), 0)::int8,
       COALESCE(sum(conversions) FILTER (WHERE part = 'only'), 0)::int8
{_OF_COUNTS} AND kind = %(kind)s AND model = '' GROUP BY 1
HAVING sum(conversions) FILTER (WHERE part = 'touched') <> 0
"""
_NUMBERS = f"""
SELECT number, sum(conversions)::int8, sum(value_micros)::int8
{_OF_COUNTS} AND kind = %(kind)s AND model = '' GROUP BY 1 HAVING sum(conversions) <> 0
"""
_PATHS = f"""
SELECT name, number, sum(conversions)::int8, sum(value_micros)::int8
{_OF_COUNTS} AND kind = %(kind)s AND model = '' GROUP BY 1, 2 HAVING sum(conversions) <> 0
"""
_DAYS = f"""
SELECT cash, accrual, sum(credit)::float8 / {_BILLION:.0f}, sum(micros)::int8 FROM (
    SELECT day AS cash, day + number AS accrual, sum(conversions) AS touches, sum(credit_billionths) AS credit,
           sum(value_micros) AS micros
    {_OF_COUNTS} AND kind = 'accrual' AND model = ANY (%(models)s) GROUP BY 1, 2
) AS dated GROUP BY GROUPING SETS ((cash), (accrual)) HAVING sum(touches) <> 0
"""
_CONVERSION_DAYS = f"""
SELECT day, sum(conversions) FILTER (WHERE kind = 'conversion')::int8,
       COALESCE(sum(conversions) FILTER (WHERE part = 'final'), 0)::int8,
       sum(value_micros) FILTER (WHERE kind = 'conversion')::int8,
       COALESCE(sum(value_micros) FILTER (WHERE kind = 'rest'), 0)::int8,
       COALESCE(sum(credit_billionths) FILTER (WHERE kind = 'rest'), 0)::float8 / {_BILLION:.0f}
{_OF_COUNTS} AND (kind = 'conversion' AND model = '' OR kind = 'rest' AND model = ANY (%(models)s))
GROUP BY 1 HAVING sum(conversions) FILTER (WHERE kind = 'conversion') <> 0
"""
_COHORTS = f"""
SELECT date_trunc('month', day)::date, name, number,
       sum(conversions) FILTER (WHERE part = 'person')::int8,
       sum(conversions) FILTER (WHERE part = 'conversion')::int8, sum(value_micros)::int8
{_OF_COUNTS} AND kind = 'cohort' AND model = '' GROUP BY 1, 2, 3
HAVING sum(conversions) FILTER (WHERE part = 'conversion') <> 0 ORDER BY 1, 2, 3
"""
_CASH_DELAYS = f"""
SELECT day, delay, sum(conversions)::float8 {_OF_COUNTS} AND kind = 'conversion' AND model = ''
GROUP BY 1, 2 HAVING sum(conversions) <> 0
"""
_ACCRUAL_DELAYS = f"""
SELECT day + number, delay - number, sum(credit_billionths)::float8 / {_BILLION:.0f}
{_OF_COUNTS} AND kind = 'accrual' AND model = ANY (%(models)s) GROUP BY 1, 2 HAVING sum(conversions) <> 0
"""
_CHANGES = f"""
WITH touched AS (
    SELECT name, part AS reason, sum(conversions)::int8 AS versions
    {_OF_COUNTS} AND kind = %(kind)s AND model = '' AND day + delay >= %(since_day)s GROUP BY 1, 2
), moved AS (
    SELECT name, reason, sum(credit_billionths) AS credit, sum(value_micros) AS micros
    FROM attribution_rollup_restatements
    WHERE {_WHERE} AND currency = %(currency)s AND grain = %(grain)s AND model = ANY (%(models)s)
      AND reported_day >= %(since_day)s
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


def read_state(connection: psycopg.Connection, tenant_id: str, groups: tuple[str, str]) -> RollupState | None:
    """Return how far the roll-up of a tenant is; None: it has none.

    Args:
        connection: a connection.
        tenant_id: the tenant.
        groups: of the reporter and of the auditor.
    """
    values = {"tenant": tenant_id, "reporter": groups[0], "auditor": groups[1]}
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
            "from_day": days[0], "to_day": days[1], "grain": request.by,
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

    def positions(self) -> list[tuple[str, str, float, int]]:  # noqa: D102
        return self._rows(_POSITIONS, kind=f"position:{self._request.by}")

    def assists(self) -> list[tuple[str, int, int, int, int]]:  # noqa: D102
        return self._rows(_ASSISTS, kind=f"assist:{self._request.by}")

    def paths(self) -> list[Path]:  # noqa: D102
        return [
            Path(tuple(json.loads(name)) if name else (), steps, conversions, micros)
            for name, steps, conversions, micros in self._rows(_PATHS, kind=f"path:{self._request.by}")
        ]

    def lengths(self) -> Lengths:  # noqa: D102
        steps = self._rows(_NUMBERS, kind=f"length:{self._request.by}")
        return Lengths(self._rows(_NUMBERS, kind="length"), [(number, conversions) for number, conversions, _ in steps])

    def lags(self) -> Lags:  # noqa: D102
        last = self._rows(_NUMBERS, kind="lag:last")
        return Lags(self._rows(_NUMBERS, kind="lag:first"), [(days, conversions) for days, conversions, _ in last])

    def days(self) -> list[tuple[Any, Any, float, int]]:  # noqa: D102
        return self._rows(_DAYS)

    def conversion_days(self) -> list[tuple[Any, int, int, int, int, float]]:  # noqa: D102
        return self._rows(_CONVERSION_DAYS)

    def cohorts(self) -> list[tuple[Any, str, int, int, int, int]]:  # noqa: D102
        return self._rows(_COHORTS)

    def cash_delays(self) -> list[tuple[Any, int, float]]:  # noqa: D102
        return self._rows(_CASH_DELAYS)

    def accrual_delays(self) -> list[tuple[Any, int, float]]:  # noqa: D102
        return self._rows(_ACCRUAL_DELAYS)

    def changes(self) -> list[tuple[str, str, int, float, int]]:  # noqa: D102
        return self._rows(_CHANGES, kind=f"touched:{self._request.by}")

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
