"""Credit of the newest results beside what touchpoints call their campaigns: the sums that ratios are made of.

Invariants: of every conversion the version counts that was the newest at the moment of the report. By cash its value
lies on the day of the order, by accrual on the day of each touchpoint. Values are converted at the rate of the order's
day in either case, refunds with them. Sums of squares are over persons, each person's part added up first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import psycopg

from attributary.attribution_core.spend.campaigns import Named

Dating = Literal["cash", "accrual"]

_ORDER_DAY = "(to_timestamp(r.converted_at_us / 1e6) AT TIME ZONE %(zone)s)::date"
_TOUCH_DAY = "(to_timestamp((t.touch ->> 'occurred_at')::int8 / 1e6) AT TIME ZONE %(zone)s)::date"
# A conversion of the period by cash is one of its days; by accrual any that came after a touchpoint of the period.
_REPORTED = """
WITH reported AS MATERIALIZED (
    SELECT n.* FROM (
        SELECT DISTINCT conversion_id FROM attribution_results
        WHERE tenant_id = %(tenant)s AND converted_at_us >= %(from_us)s
          AND (%(is_accrual)s OR converted_at_us < %(to_us)s)
    ) AS c CROSS JOIN LATERAL (
        SELECT r.conversion_id, r.conversion_type, r.journey_key, r.currency, r.converted_at_us, r.net_value_micros,
               r.gross_value_micros, r.touchpoints, r.models, r.is_final
        FROM attribution_results r
        WHERE r.tenant_id = %(tenant)s AND r.conversion_id = c.conversion_id AND r.computed_at_us <= %(as_of_us)s
        ORDER BY r.version DESC LIMIT 1
    ) AS n
    WHERE n.converted_at_us >= %(from_us)s AND (%(is_accrual)s OR n.converted_at_us < %(to_us)s)
      AND (%(types)s::text[] IS NULL OR n.conversion_type = ANY (%(types)s))
)
"""
_PLATFORM = "COALESCE(t.touch ->> 'platform', '')"
_ID = "COALESCE(NULLIF(t.touch ->> 'campaign_id', ''), p.details ->> 'campaign_id', '')"
_NAME = "COALESCE(NULLIF(t.touch ->> 'campaign', ''), p.details ->> 'utm_campaign', '')"
_CHANNEL = "CASE WHEN %(is_by_channel)s THEN COALESCE(t.touch ->> 'channel', '') ELSE '' END"
_TOUCHED = """
    FROM reported r
    CROSS JOIN LATERAL jsonb_to_recordset(r.models) AS m (model text, credits jsonb, micros jsonb)
    CROSS JOIN LATERAL ROWS FROM (
        jsonb_array_elements(r.touchpoints), jsonb_array_elements_text(m.credits), jsonb_array_elements_text(m.micros)
    ) AS t (touch, credit, micros)
    LEFT JOIN attribution_touchpoints p
      ON p.tenant_id = %(tenant)s AND p.event_id = (t.touch ->> 'event_id') COLLATE "C"
    WHERE m.model = ANY (%(models)s)
      AND (NOT %(is_accrual)s
           OR ((t.touch ->> 'occurred_at')::int8 >= %(from_us)s AND (t.touch ->> 'occurred_at')::int8 < %(to_us)s))
"""
_SAID = f"""{_REPORTED}
SELECT {_PLATFORM}, {_ID}, {_NAME}, {_CHANNEL}, r.currency, count(DISTINCT r.conversion_id), sum(t.credit::float8),
       sum(t.micros::int8)::int8 {_TOUCHED} GROUP BY 1, 2, 3, 4, 5
"""
_SOME = """
SELECT count(*) FROM (
    SELECT FROM attribution_results WHERE tenant_id = %(tenant)s AND converted_at_us >= %(from_us)s
      AND (%(is_accrual)s OR converted_at_us < %(to_us)s) LIMIT %(most)s
) AS found
"""
_CURRENCY_DAYS = f"{_REPORTED} SELECT DISTINCT r.currency, {_ORDER_DAY} FROM reported r ORDER BY 1, 2"
_BUCKETS = {
    "": "''",
    "day": "to_char({day}, 'YYYY-MM-DD')",
    "week": "to_char({day}, 'IYYY-\"W\"IW')",
    "month": "to_char({day}, 'YYYY-MM')",
}
_SUMS = f"""{_REPORTED}, groups AS MATERIALIZED (
    SELECT * FROM unnest(
        %(platforms)s::text[], %(ids)s::text[], %(names)s::text[], %(channels)s::text[], %(groups)s::int[]
    ) AS g (platform, id, name, channel, number)
), rates AS MATERIALIZED (
    SELECT * FROM unnest(%(currencies)s::text[], %(days)s::date[], %(rates)s::numeric[], %(targets)s::text[])
        AS f (currency, day, rate, target)
), persons AS (
    SELECT g.number, {{bucket}} AS bucket, m.model, f.target, r.journey_key,
           sum(t.micros::int8 * f.rate) AS value, sum(t.credit::float8) AS credit,
           COALESCE(sum(t.credit::float8) FILTER (WHERE NOT EXISTS (
               SELECT FROM attribution_conversions c
               WHERE c.tenant_id = %(tenant)s AND c.journey_key = r.journey_key
                 AND c.conversion_type = r.conversion_type AND c.converted_at_us < r.converted_at_us
                 AND c.version > 0
           )), 0.0) AS new_credit
    {{touched}}
    GROUP BY g.number, bucket, m.model, f.target, r.journey_key
)
SELECT number, bucket, model, target, sum(value), sum(value * value), max(value), sum(credit), sum(credit * credit),
       sum(new_credit), sum(new_credit * new_credit), count(*)
FROM persons GROUP BY number, bucket, model, target
"""
_GROUPED = f"""
    JOIN groups g ON g.platform = {_PLATFORM} AND g.id = {_ID} AND g.name = {_NAME} AND g.channel = {_CHANNEL}
    JOIN rates f ON f.currency = r.currency AND f.day = {_ORDER_DAY}
"""
_REVENUE = f"""{_REPORTED}
SELECT f.target, count(*), sum(r.net_value_micros * f.rate), count(*) FILTER (WHERE NOT r.is_final),
       COALESCE(sum(r.net_value_micros * f.rate) FILTER (WHERE NOT r.is_final), 0)
FROM reported r
JOIN unnest(%(currencies)s::text[], %(days)s::date[], %(rates)s::numeric[], %(targets)s::text[])
    AS f (currency, day, rate, target) ON f.currency = r.currency AND f.day = {_ORDER_DAY}
GROUP BY f.target
"""


@dataclass(frozen=True, slots=True)
class CreditQuery:
    """Which credit is summed up.

    Attributes:
        tenant_id: the tenant; nothing of another one is read.
        models: names of models.
        period_us: from (included) to (excluded), microseconds UTC.
        zone: IANA name of the zone in which days begin.
        dating: where value lies: on the day of the order, or of each touchpoint.
        as_of_us: versions that were computed later are not looked at, microseconds UTC.
        conversion_types: conversions of these only; empty: all.
        is_by_channel: what touchpoints say is told apart by their channel as well.
    """

    tenant_id: str
    models: Sequence[str]
    period_us: tuple[int, int]
    zone: str = "UTC"
    dating: Dating = "accrual"
    as_of_us: int = 2**62
    conversion_types: Sequence[str] = ()
    is_by_channel: bool = False

    def parameters(self) -> dict[str, Any]:
        """Return the values of the statements."""
        return {
            "tenant": self.tenant_id, "models": list(self.models), "from_us": self.period_us[0],
            "to_us": self.period_us[1], "zone": self.zone, "is_accrual": self.dating == "accrual",
            "as_of_us": self.as_of_us, "types": list(self.conversion_types) or None,
            "is_by_channel": self.is_by_channel,
        }  # fmt: skip


class Said(NamedTuple):
    """What touchpoints call a campaign, and what they are credited with, over all models asked for, in one currency.

    How many `conversions` they are of is None where the roll-up, which does not count them, has answered.
    """

    named: Named
    currency: str
    conversions: int | None
    credit: float
    micros: int


class Rate(NamedTuple):
    """By what an amount of a day is multiplied, and the currency that it is in then."""

    currency: str
    day: date
    rate: Decimal
    target: str


class CreditSum(NamedTuple):
    """Sums over the persons of a group, in micros of the target currency.

    Attributes:
        group: number of the group.
        bucket: day, week or month; empty: all of the period.
        model: the model.
        currency: that the amounts are in.
        value: credited net value.
        value_squares: sum of the squares of each person's value.
        value_largest: the largest value of one person.
        credit: conversions.
        credit_squares: sum of the squares of each person's credit.
        new_credit: conversions of new customers: the person's first of that type.
        new_squares: sum of the squares of it.
        persons: how many have credit.
    """

    group: int
    bucket: str
    model: str
    currency: str
    value: Decimal
    value_squares: Decimal
    value_largest: Decimal
    credit: float
    credit_squares: float
    new_credit: float
    new_squares: float
    persons: int


class Revenue(NamedTuple):
    """All conversions of a period in one currency, and those of them that are not final; micros."""

    currency: str
    conversions: int
    micros: Decimal
    open_conversions: int
    open_micros: Decimal


def said(connection: psycopg.Connection, query: CreditQuery) -> list[Said]:
    """Return what touchpoints with credit call their campaigns."""
    rows = connection.execute(_SAID, query.parameters()).fetchall()
    return [Said(Named(*row[:4]), *row[4:]) for row in rows]


def has_more_than(connection: psycopg.Connection, query: CreditQuery, most: int) -> bool:
    """Tell whether more than so many results must be read one by one to answer."""
    return bool(connection.execute(_SOME, query.parameters() | {"most": most + 1}).fetchall()[0][0] > most)


def currency_days(connection: psycopg.Connection, query: CreditQuery) -> list[tuple[str, date]]:
    """Return the currencies of the conversions with the days of their orders."""
    return connection.execute(_CURRENCY_DAYS, query.parameters()).fetchall()


def credit_sums(
    connection: psycopg.Connection, query: CreditQuery, groups: Mapping[Named, int], rates: Sequence[Rate], bucket: str
) -> list[CreditSum]:
    """Sum up credit by groups.

    Args:
        connection: in a snapshot.
        query: what is asked.
        groups: number of the group by what touchpoints say; what is not in it is left out.
        rates: for every currency and day of the conversions; those without are left out.
        bucket: day, week, month, or empty.
    """
    parameters = query.parameters() | _of_rates(rates) | _of_groups(groups)
    day = _TOUCH_DAY if query.dating == "accrual" else _ORDER_DAY
    touched = _TOUCHED.replace("    WHERE m.model", f"{_GROUPED}    WHERE m.model")
    statement = _SUMS.format(bucket=_BUCKETS[bucket].format(day=day), touched=touched)
    return [CreditSum(*row) for row in connection.execute(statement, parameters).fetchall()]


def revenue(connection: psycopg.Connection, query: CreditQuery, rates: Sequence[Rate]) -> list[Revenue]:
    """Return all conversions of the period, credited or not."""
    return [Revenue(*row) for row in connection.execute(_REVENUE, query.parameters() | _of_rates(rates)).fetchall()]


def _of_groups(groups: Mapping[Named, int]) -> dict[str, Any]:
    platforms, ids, names, channels = zip(*groups, strict=True) if groups else ((), (), (), ())
    return {
        "platforms": list(platforms), "ids": list(ids), "names": list(names), "channels": list(channels),
        "groups": list(groups.values()),
    }  # fmt: skip


def _of_rates(rates: Sequence[Rate]) -> dict[str, Any]:
    return {
        "currencies": [each.currency for each in rates], "days": [each.day for each in rates],
        "rates": [each.rate for each in rates], "targets": [each.target for each in rates],
    }  # fmt: skip


# What a platform would claim that saw what we saw: each order as a whole, dated by the last touch of the campaign.
_CLAIMABLE = f"""{_REPORTED}, groups AS MATERIALIZED (
    SELECT * FROM unnest(
        %(platforms)s::text[], %(ids)s::text[], %(names)s::text[], %(channels)s::text[], %(groups)s::int[],
        %(windows)s::int8[]
    ) AS g (platform, id, name, channel, number, window_us)
), rates AS MATERIALIZED (
    SELECT * FROM unnest(%(currencies)s::text[], %(days)s::date[], %(rates)s::numeric[], %(targets)s::text[])
        AS f (currency, day, rate, target)
), orders AS (
    SELECT g.number, g.window_us, f.target, r.conversion_id, r.converted_at_us, r.is_final,
           r.net_value_micros * f.rate AS net, r.gross_value_micros * f.rate AS gross,
           max((t.touch ->> 'occurred_at')::int8) AS last_touch_us,
           bool_or(COALESCE(p.interaction = 'click', true)) AS is_clicked
    FROM reported r
    CROSS JOIN LATERAL jsonb_array_elements(r.touchpoints) AS t (touch)
    LEFT JOIN attribution_touchpoints p
      ON p.tenant_id = %(tenant)s AND p.event_id = (t.touch ->> 'event_id') COLLATE "C"
    {_GROUPED}
    GROUP BY g.number, g.window_us, f.target, r.conversion_id, r.converted_at_us, r.is_final, r.net_value_micros,
             r.gross_value_micros, f.rate
), dated AS (
    SELECT *, converted_at_us - last_touch_us <= window_us AS is_within FROM orders
    WHERE last_touch_us >= %(from_us)s AND last_touch_us < %(to_us)s
)
SELECT number, target, count(*), sum(net), COALESCE(sum(net) FILTER (WHERE NOT is_within), 0),
       COALESCE(sum(gross - net) FILTER (WHERE is_within), 0),
       COALESCE(sum(gross) FILTER (WHERE is_within AND NOT is_clicked), 0),
       COALESCE(sum(net) FILTER (WHERE is_within AND NOT is_final), 0)
FROM dated GROUP BY number, target
"""


class Claimable(NamedTuple):
    """Orders that a campaign touched, as a whole, by the day of its last touch; micros of the currency.

    Attributes:
        group: number of the group.
        currency: that the amounts are in.
        orders: how many.
        net: their value after refunds.
        late: of it, what came longer after the last touch than the platform's window.
        refunded: refunds of the others, which platforms do not take off.
        viewed: value before refunds of those of the others that no click of the campaign led to.
        open: value of those of the others that are not final.
    """

    group: int
    currency: str
    orders: int
    net: Decimal
    late: Decimal
    refunded: Decimal
    viewed: Decimal
    open: Decimal


def claimable(
    connection: psycopg.Connection, query: CreditQuery, groups: Mapping[Named, int], rates: Sequence[Rate],
    windows: Mapping[int, int],
) -> list[Claimable]:  # fmt: skip
    """Return what platforms could claim of the orders that their campaigns touched: each result is opened once.

    Args:
        connection: in a snapshot.
        query: its models do not matter; its dating must be accrual.
        groups: number of the group by what touchpoints say.
        rates: for every currency and day of the conversions.
        windows: days of the platform's attribution window by group.
    """
    windows_us = [windows[number] * 86_400_000_000 for number in groups.values()]
    parameters = query.parameters() | _of_rates(rates) | _of_groups(groups) | {"windows": windows_us}
    return [Claimable(*row) for row in connection.execute(_CLAIMABLE, parameters).fetchall()]
