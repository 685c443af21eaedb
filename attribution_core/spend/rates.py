"""Exchange rates: the last known one of a day, crossed through one base, exact until it is shown.

Invariants: a day without a rate has the last one before it, never one of a later day and never one between two: what
Saturday is worth does not change on Monday. A currency without a rate is not converted. Rates are Decimals; an amount
is rounded once, for display.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal
from typing import NamedTuple

PIVOT = "EUR"
"""The base of most published rates: others are crossed through it."""

_EXACT = Context(prec=34)


class Quote(NamedTuple):
    """One unit of `base` was worth `rate` of `quote` on a day."""

    day: date
    base: str
    quote: str
    rate: Decimal


class KnownRate(NamedTuple):
    """By what an amount is multiplied, and the day of the rate: the older one where two were crossed."""

    rate: Decimal
    day: date


@dataclass(slots=True)
class RateTable:
    """Rates of several days.

    Args:
        quotes: of any order; of one pair and day the last counts.
    """

    _days: dict[tuple[str, str], list[date]] = field(default_factory=dict)
    _rates: dict[tuple[str, str], dict[date, Decimal]] = field(default_factory=dict)

    @classmethod
    def of(cls, quotes: Iterable[Quote]) -> RateTable:
        """Return a table of quotes."""
        table = cls()
        for each in quotes:
            table._rates.setdefault((each.base, each.quote), {})[each.day] = each.rate
        table._days = {pair: sorted(rates) for pair, rates in table._rates.items()}
        return table

    def known(self, base: str, quote: str, day: date) -> KnownRate | None:
        """Return what an amount in `base` is multiplied by to be in `quote`; None: no rate is known by that day."""
        if base == quote:
            return KnownRate(Decimal(1), day)
        direct = self._either(base, quote, day)
        if direct is not None:
            return direct
        to_pivot, from_pivot = self._either(base, PIVOT, day), self._either(PIVOT, quote, day)
        if to_pivot is None or from_pivot is None:
            return None
        return KnownRate(_EXACT.multiply(to_pivot.rate, from_pivot.rate), min(to_pivot.day, from_pivot.day))

    def _either(self, base: str, quote: str, day: date) -> KnownRate | None:
        if base == quote:
            return KnownRate(Decimal(1), day)
        found = self._last((base, quote), day)
        if found is not None:
            return found
        inverse = self._last((quote, base), day)
        return None if inverse is None else KnownRate(_EXACT.divide(Decimal(1), inverse.rate), inverse.day)

    def _last(self, pair: tuple[str, str], day: date) -> KnownRate | None:
        days = self._days.get(pair, [])
        place = bisect.bisect_right(days, day)
        return KnownRate(self._rates[pair][days[place - 1]], days[place - 1]) if place else None


class Conversion(NamedTuple):
    """How amounts of a currency and day are shown: in `target`, times `rate`, which is of `rate_day`."""

    target: str
    rate: Decimal
    rate_day: date | None


def conversion(
    table: RateTable, currency: str, day: date, target: str | None, stale_days: int, tally: RateTally
) -> Conversion:
    """Return how amounts of a currency and day are shown, and count what is missing or stale.

    Args:
        table: the rates.
        currency: of the amounts.
        day: of the order or of the ad.
        target: the currency of the report; None: amounts stay in their own.
        stale_days: a rate that is older is used, and said.
        tally: where it is counted.
    """
    if target is None or currency == target:
        return Conversion(currency, Decimal(1), None)
    known = table.known(currency, target, day)
    if known is None:
        tally.missing.setdefault(currency, set()).add(day)
        return Conversion(currency, Decimal(1), None)
    if (day - known.day).days > stale_days:
        tally.stale.setdefault(currency, {})[day] = known.day
    return Conversion(target, known.rate, known.day)


@dataclass(slots=True)
class RateTally:
    """What was not converted, or by an old rate.

    Attributes:
        missing: days without any rate, by currency.
        stale: days with the day of the older rate that was used, by currency.
    """

    missing: dict[str, set[date]] = field(default_factory=dict)
    stale: dict[str, dict[date, date]] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """Return what a reader of the numbers must know."""
        found = [
            f"{currency} is not converted: no rate is known by {_days(days)}; its rows stay in {currency}. Import one: "
            "attributary fx import"
            for currency, days in sorted(self.missing.items())
        ]
        for currency, days in sorted(self.stale.items()):
            day, rate_day = max(days.items(), key=lambda pair: (pair[0] - pair[1], pair[0]))
            found.append(
                f"{currency}: the rate of {rate_day} is used up to {day}, {(day - rate_day).days} days later. Import "
                "newer ones: attributary fx import"
            )
        return found


def _days(days: Iterable[date]) -> str:
    first, last = min(days), max(days)
    return str(first) if first == last else f"{first} to {last}"


def rates_of(days: Iterable[tuple[str, date]], table: RateTable, target: str | None, stale_days: int,
             tally: RateTally) -> Mapping[tuple[str, date], Conversion]:  # fmt: skip
    """Return how amounts of currencies and days are shown."""
    return {(currency, day): conversion(table, currency, day, target, stale_days, tally) for currency, day in days}
