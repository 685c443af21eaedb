"""Credit of campaigns from the roll-up: the same sums as `credits`, without opening every result.

Invariants: values, conversions and new customers are the roll-up's own sums, exact. What persons differ by (the sums of
squares behind intervals) comes from what each conversion contributes; of tenants with many conversions from a sample of
people, drawn by their hash, so that all conversions of a person are in it or none. A sample's squares are scaled by the
row's exact sums; a row with few sampled people borrows the ratio of all rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from attributary.attribution_core.spend.campaigns import Named
from attributary.consumers.store.rollup.cells import UNATTRIBUTED, WHOLE, local_day
from attributary.consumers.store.rollup.rolled_up import MAX_BEHIND, read_state

from .credits import CreditQuery, CreditSum, Dating, Rate, Revenue, Said

SAMPLED = 10_000
"""Conversions of which the contributions are read, about; more are sampled by person."""
_FEW = 50  # sampled people of a row, below which it borrows the ratio of all rows
_DAYS = """
SELECT r.platform, r.campaign_id, r.campaign, CASE WHEN %(is_by_channel)s THEN r.channel ELSE '' END, r.currency, r.day,
       m.model, r.is_new, r.channel = %(unattributed)s, sum(r.credit_billionths[m.number])::int8,
       sum(r.value_micros[m.number])::int8
FROM attribution_rollup_days r
JOIN attribution_rollup_models m ON m.tenant_id = r.tenant_id AND m.model = ANY (%(models)s)
WHERE r.tenant_id = %(tenant)s AND r.dating = %(dating)s AND r.day >= %(first)s AND r.day < %(end)s
  AND (%(types)s::text[] IS NULL OR r.conversion_type = ANY (%(types)s))
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
HAVING sum(r.credit_billionths[m.number]) <> 0 OR sum(r.value_micros[m.number]) <> 0
"""
# All days of orders that credit of the period can belong to, of the currencies.
_ORDERS = """
SELECT currency, day, sum(conversions[1])::int8, sum(value_micros[1])::int8 FROM attribution_rollup_counts
WHERE tenant_id = %(tenant)s AND kind = 'conversion' AND day >= %(first)s AND (%(is_accrual)s OR day < %(end)s)
  AND (%(types)s::text[] IS NULL OR conversion_type = ANY (%(types)s))
GROUP BY currency, day HAVING sum(conversions[1]) <> 0 ORDER BY currency, day
"""
_LABELS = "SELECT platform, campaign_id, campaign FROM attribution_rollup_campaigns WHERE tenant_id = %(tenant)s"
_CELLS = """
SELECT person_md5, currency, converted_at_us, is_new, cells FROM attribution_rollup_conversions
WHERE tenant_id = %(tenant)s AND person_md5 <= %(last)s AND converted_at_us >= %(from_us)s
  AND (%(is_accrual)s OR converted_at_us < %(to_us)s)
  AND (%(types)s::text[] IS NULL OR conversion_type = ANY (%(types)s))
"""
_OPEN = """
SELECT currency, (to_timestamp(converted_at_us / 1e6) AT TIME ZONE %(zone)s)::date, count(*), sum(net_value_micros)
FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND NOT is_final AND version > 0 AND converted_at_us >= %(from_us)s
  AND converted_at_us < %(to_us)s AND (%(types)s::text[] IS NULL OR conversion_type = ANY (%(types)s))
GROUP BY 1, 2
"""

Groups = Mapping[Named, Sequence[int]]

_ROWS_AT_ONCE = 5_000
_Key = tuple[str, str, str, str]  # platform, campaign id, campaign; channel, where it is told apart
_RowKey = tuple[int, str, str, str]  # group, bucket, model, currency


class _Sums(NamedTuple):
    value: Decimal
    credit: int
    new_credit: int


class RolledCredits:
    """The sums of a report over spend, from the roll-up.

    Attributes:
        query: what is asked; its days begin in the zone of the roll-up.
        days: from (included) to (excluded).
        complete_to_us: computing time of the newest result in the roll-up, microseconds UTC.
        fraction: share of people that sums of squares come from, since the last call of `sums`.
    """

    def __init__(
        self, connection: psycopg.Connection, query: CreditQuery, days: tuple[date, date], complete_to_us: int
    ) -> None:
        self.query, self.days, self.complete_to_us, self.fraction = query, days, complete_to_us, 1.0
        self._connection = connection
        labels = connection.execute(_LABELS, self._parameters()).fetchall()
        self._labels = {(platform, campaign_id): name for platform, campaign_id, name in labels}
        self._read: dict[Dating, list[tuple[Any, ...]]] = {}

    def said(self, dating: Dating) -> list[Named]:
        """Return what touchpoints with credit call their campaigns."""
        return list(dict.fromkeys(self._named(row[:4]) for row in self._rows(dating) if not row[8]))

    def credit_said(self, dating: Dating, models: Collection[str]) -> list[Said]:
        """Return what touchpoints call their campaigns with their credit, that of some of the query's models added."""
        found: dict[tuple[Named, str], list[int]] = defaultdict(lambda: [0, 0])
        for *key, currency, _, name, _, is_rest, credit, value in self._rows(dating):
            if name in models and not is_rest:
                sums = found[self._named(key), currency]
                sums[0] += credit
                sums[1] += value
        return [Said(named, currency, None, sums[0] / WHOLE, sums[1]) for (named, currency), sums in found.items()]

    def currency_days(self, dating: Dating) -> list[tuple[str, date]]:
        """Return the currencies of the conversions with the days of their orders."""
        return [(currency, day) for currency, day, _, _ in self._orders(dating)]

    def sums(self, groups: Groups, rates: Sequence[Rate], bucket: Callable[[date], str]) -> list[CreditSum]:
        """Sum up credit by groups.

        Args:
            groups: numbers of the groups by what touchpoints say; what is not in it is left out.
            rates: for every currency and day of the conversions.
            bucket: of a day.
        """
        by_day = {(each.currency, each.day): each for each in rates}
        is_accrual = self.query.dating == "accrual"
        is_plain = all(each.rate == 1 and each.target == each.currency for each in rates)
        orders = sum(count for _, _, count, _ in self._orders(self.query.dating))
        exact = self._exact(groups, by_day, bucket) if is_plain or not is_accrual else None
        self.fraction = 1.0 if exact is None else min(1.0, SAMPLED / max(float(orders), 1.0))
        persons = self._persons(groups, by_day, bucket)
        return _joined(exact, persons, is_whole=self.fraction >= 1.0)

    def revenue(self, rates: Sequence[Rate]) -> list[Revenue]:
        """Return all conversions of the period, credited or not."""
        by_day = {(each.currency, each.day): each for each in rates}
        found: dict[str, list[Any]] = defaultdict(lambda: [0, Decimal(0), 0, Decimal(0)])
        for currency, day, count, value in self._orders("cash"):
            rate = by_day.get((currency, day))
            if rate is not None:
                sums = found[rate.target]
                sums[0] += count
                sums[1] += value * rate.rate
        for currency, day, count, value in self._connection.execute(_OPEN, self._parameters()).fetchall():
            rate = by_day.get((currency, day))
            if rate is not None and rate.target in found:
                found[rate.target][2] += count
                found[rate.target][3] += value * rate.rate
        return [Revenue(target, *sums) for target, sums in sorted(found.items())]

    def _parameters(self) -> dict[str, Any]:
        return self.query.parameters() | {
            "first": self.days[0], "end": self.days[1], "unattributed": UNATTRIBUTED, "dating": self.query.dating,
        }  # fmt: skip

    def _rows(self, dating: Dating) -> list[tuple[Any, ...]]:
        if dating not in self._read:
            parameters = self._parameters() | {"dating": dating}
            self._read[dating] = self._connection.execute(_DAYS, parameters).fetchall()
        return self._read[dating]

    def _orders(self, dating: Dating) -> list[tuple[str, date, int, int]]:
        parameters = self._parameters() | {"is_accrual": dating == "accrual"}
        return self._connection.execute(_ORDERS, parameters).fetchall()

    def _named(self, key: Sequence[str]) -> Named:
        platform, campaign_id, campaign, channel = key
        return Named(platform, campaign_id, campaign or self._labels.get((platform, campaign_id), ""), channel)

    def _exact(
        self, groups: Groups, rates: Mapping[tuple[str, date], Rate], bucket: Callable[[date], str]
    ) -> dict[_RowKey, _Sums]:
        """Return the roll-up's own sums."""
        found: dict[_RowKey, list[Any]] = defaultdict(lambda: [Decimal(0), 0, 0])
        is_accrual = self.query.dating == "accrual"
        targets = {currency: each for (currency, _), each in rates.items()}
        for *key, currency, day, model, is_new, is_rest, credit, value in self._rows(self.query.dating):
            rate = targets.get(currency) if is_accrual else rates.get((currency, day))
            if is_rest or rate is None:
                continue
            for number in groups.get(self._named(key), ()):
                sums = found[number, bucket(day), model, rate.target]
                sums[0] += value * rate.rate
                sums[1] += credit
                sums[2] += credit if is_new else 0
        return {key: _Sums(*sums) for key, sums in found.items()}

    def _persons(
        self, groups: Groups, rates: Mapping[tuple[str, date], Rate], bucket: Callable[[date], str]
    ) -> dict[_RowKey, dict[UUID, list[Any]]]:
        """Return value, credit and credit as a new customer of each person that is looked at."""
        last = UUID(int=min(int(self.fraction * 2**128), 2**128 - 1))
        found: dict[_RowKey, dict[UUID, list[Any]]] = defaultdict(dict)
        wanted = set(self.query.models)
        with self._connection.cursor("attributary_spend_cells") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            rows = cursor.execute(_CELLS, self._parameters() | {"last": last})
            places_of = self._place_finder(groups, bucket)
            for person, currency, converted_at, is_new, cells in rows:
                day = local_day(converted_at, self.query.zone)
                rate = rates.get((currency, day))
                if rate is None:
                    continue
                content = json.loads(cells)
                places = places_of(content["t"], day)
                factor = 1 if rate.rate == 1 else rate.rate
                for model, parts, micros, *_ in content["m"] if places else ():
                    if model in wanted:
                        for place, number, name in places:
                            sums = found[number, name, model, rate.target].setdefault(person, [0, 0, 0])
                            sums[0] += micros[place] * factor
                            sums[1] += parts[place]
                            sums[2] += parts[place] * is_new
        return found

    def _place_finder(
        self, groups: Groups, bucket: Callable[[date], str]
    ) -> Callable[[Sequence[Sequence[Any]], date], list[tuple[int, int, str]]]:
        """Return what finds the touchpoints of a conversion that count: place, number of the group, bucket."""
        is_accrual, zone = self.query.dating == "accrual", self.query.zone
        start, end = self.query.period_us if is_accrual else (0, 2**62)
        numbers: dict[_Key, Sequence[int]] = {}
        names: dict[date, str] = {}

        def places_of(touches: Sequence[Sequence[Any]], order_day: date) -> list[tuple[int, int, str]]:
            found = []
            for place, (channel, platform, campaign_id, campaign, at) in enumerate(touches):
                if not start <= at < end:
                    continue
                key = (platform, campaign_id, campaign, channel if self.query.is_by_channel else "")
                if key not in numbers:
                    numbers[key] = groups.get(self._named(key), ())
                day = local_day(at, zone) if is_accrual else order_day
                if day not in names:
                    names[day] = bucket(day)
                found += [(place, number, names[day]) for number in numbers[key]]
            return found

        return places_of


def _joined(
    exact: Mapping[_RowKey, _Sums] | None, persons: Mapping[_RowKey, Mapping[UUID, Sequence[Any]]], *, is_whole: bool
) -> list[CreditSum]:
    """Return the rows: exact sums with the squares of the people that were looked at."""
    squares = {key: _squares(people.values()) for key, people in persons.items()}
    of_model: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [Decimal(0), 0, 0, Decimal(0), 0.0, 0.0, 0])
    for (_, _, model, currency), each in squares.items():
        pooled = of_model[model, currency]
        for place, part in enumerate((*each.sums, *each.squares, each.people)):
            pooled[place] += part
    found = []
    for key in exact if exact is not None else squares:
        number, bucket, model, currency = key
        mine = squares.get(key, _NOBODY)
        value, credit, new = exact[key] if exact is not None else mine.sums
        value_squares, credit_squares, new_squares = mine.squares
        if not is_whole:
            base = of_model[model, currency] if mine.people < _FEW else [*mine.sums, *mine.squares]
            value_squares = Decimal(_scaled(base[3], value, base[0]))
            credit_squares, new_squares = _scaled(base[4], credit, base[1]), _scaled(base[5], new, base[2])
        found.append(
            CreditSum(
                number, bucket, model, currency, Decimal(value), Decimal(value_squares), mine.largest, credit / WHOLE,
                credit_squares, new / WHOLE, new_squares, mine.people,
            )
        )  # fmt: skip
    return found


def _scaled(squares: Any, whole: Any, seen: Any) -> float:
    """Return squares of a sample for the whole: they grow as the sum does."""
    return float(squares) * abs(float(whole) / float(seen)) if seen else 0.0


class _Squares(NamedTuple):
    sums: tuple[Decimal, int, int]
    squares: tuple[Decimal, float, float]
    largest: Decimal
    people: int


_NOBODY = _Squares((Decimal(0), 0, 0), (Decimal(0), 0.0, 0.0), Decimal(0), 0)


def _squares(people: Iterable[Sequence[Any]]) -> _Squares:
    values, credits_, news = zip(*people, strict=True)
    return _Squares(
        (Decimal(sum(values)), sum(credits_), sum(news)),
        (
            Decimal(sum(value * value for value in values)),
            sum(part * part for part in credits_) / WHOLE**2,
            sum(part * part for part in news) / WHOLE**2,
        ),
        Decimal(max(values)),
        len(values),
    )


def rolled_credits(connection: psycopg.Connection, query: CreditQuery, days: tuple[date, date]) -> RolledCredits | None:
    """Return the sums of a report from the roll-up; None: it cannot answer, so the results are read one by one.

    Args:
        connection: in a snapshot.
        query: what is asked.
        days: its days, in its zone.
    """
    state = read_state(connection, query.tenant_id)
    if state is None or not state.is_counted or state.revision == 0 or query.as_of_us < 2**62:
        return None
    if state.time_zone != query.zone or state.behind > MAX_BEHIND:
        return None
    return RolledCredits(connection, query, days, state.reported_until_us)
