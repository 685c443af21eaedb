"""Return on spend: what ads cost beside what they were credited with, by channel, platform, account or campaign.

Invariants: spend comes first and credit is joined to it, so a campaign that brought nothing has its spend in the total
and a return of 0. Ratios are sums over sums at every level. Amounts are converted by the last known rate of their own
day, an order's refunds with the order; what cannot be converted stays a row in its own currency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal, NamedTuple

import psycopg

from attributary.attribution_core.spend.campaigns import Campaign, Named
from attributary.attribution_core.spend.rates import Conversion, RateTally, rates_of
from attributary.attribution_core.spend.ratios import (
    Estimate,
    cost_per_conversion,
    return_on_spend,
    support_note,
)
from attributary.consumers.store.spend.campaigns import DaySpend, matcher, newest_names, set_as_of, spend_by_day
from attributary.consumers.store.spend.credits import (
    CreditQuery,
    CreditSum,
    Dating,
    Rate,
    Revenue,
    credit_sums,
    currency_days,
    revenue,
    said,
)
from attributary.consumers.store.spend.fx_rates import rate_table
from attributary.consumers.store.spend.rolled_credits import RolledCredits, rolled_credits

from .channels import NO_SPEND, TOTAL, UNMATCHED, By, ReturnKey, campaign_channels, row_key

Bucket = Literal["", "day", "week", "month"]

_MICROS = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class ReturnQuery:
    """What a report is about.

    Attributes:
        tenant_id: the tenant.
        models: names of models.
        days: from (included) to (excluded), in `zone`.
        period_us: the same, microseconds UTC.
        zone: IANA name.
        dating: where value lies: cash on the day of the order, accrual on that of each touchpoint.
        by: what a row is of.
        bucket: rows a day, week or month; empty: one for the period.
        currency: into which amounts are converted; None: each currency apart.
        stale_days: a rate that is older is used, and said.
        as_of: as it was known then; None: now.
        conversion_types: conversions of these only; empty: all.
        is_gross: spend with the tax that reports included.
    """

    tenant_id: str
    models: Sequence[str]
    days: tuple[date, date]
    period_us: tuple[int, int]
    zone: str = "UTC"
    dating: Dating = "accrual"
    by: By = "platform"
    bucket: Bucket = ""
    currency: str | None = None
    stale_days: int = 7
    as_of: datetime | None = None
    conversion_types: Sequence[str] = ()
    is_gross: bool = False

    def credit(self, dating: Dating) -> CreditQuery:
        """Return which credit belongs to it."""
        as_of_us = 2**62 if self.as_of is None else int(self.as_of.timestamp() * 1_000_000)
        return CreditQuery(
            self.tenant_id, self.models, self.period_us, self.zone, dating, as_of_us, self.conversion_types,
            is_by_channel=self.by == "channel",
        )  # fmt: skip


class ReturnRow(NamedTuple):
    """Spend and return of one row, model and currency; amounts in units of the currency.

    Attributes:
        key: platform, account and campaign id, or a channel; what is coarser is empty.
        name: newest name of the campaign.
        bucket: day, week or month.
        model: the model.
        currency: ISO 4217.
        spend: what was billed.
        value: credited net value.
        conversions: credited conversions.
        new_conversions: of them, those of new customers.
        roas: value per unit of spend.
        cpa: spend per conversion.
        cac: spend per conversion of a new customer.
        claimed_conversions: what the platform claims; never added over platforms.
        claimed_value: what it claims.
        note: how much it rests on.
    """

    key: ReturnKey
    name: str
    bucket: str
    model: str
    currency: str
    spend: Decimal
    value: Decimal
    conversions: float
    new_conversions: float
    roas: Estimate
    cpa: Estimate
    cac: Estimate
    claimed_conversions: Decimal
    claimed_value: Decimal
    note: str


class Mer(NamedTuple):
    """All net revenue over all spend in one currency; revenue by the day of the order."""

    currency: str
    revenue: Decimal
    spend: Decimal
    ratio: float | None
    conversions: int
    open_conversions: int


@dataclass(slots=True)
class Returns:
    """A report.

    Attributes:
        rows: by key, bucket, model and currency.
        totals: of platforms with spend; their key is empty.
        mer: by currency.
        notes: sentences that a reader of the numbers needs.
    """

    rows: list[ReturnRow] = field(default_factory=list)
    totals: list[ReturnRow] = field(default_factory=list)
    mer: list[Mer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Basis:
    """What a report is computed from.

    Attributes:
        spend: days of spend.
        groups: what touchpoints say, by the campaign that it means or the bucket that it falls into.
        names: newest name of each campaign.
        rates: for every currency and day of conversions, by dating.
        spend_rates: how amounts of each currency and day of spend are shown.
        tally: what was not converted.
        channels: of campaigns, where rows are of channels.
    """

    spend: list[DaySpend]
    groups: dict[Named, Campaign]
    names: dict[Campaign, str]
    rates: dict[Dating, list[Rate]]
    spend_rates: Mapping[tuple[str, date], Conversion]
    tally: RateTally
    channels: Mapping[Campaign, str] = field(default_factory=dict)


def read_basis(
    connection: psycopg.Connection, query: ReturnQuery, datings: Iterable[Dating], rolled: RolledCredits | None = None
) -> Basis:
    """Return what a report is computed from, in the snapshot in hand.

    Args:
        connection: in a snapshot.
        query: what is asked.
        datings: of the credit.
        rolled: from the roll-up; None: from the results.
    """
    set_as_of(connection, query.as_of)
    spend = spend_by_day(connection, query.tenant_id, *query.days)
    finder = matcher(connection, query.tenant_id)
    names = newest_names(connection, query.tenant_id)
    paid = {each.campaign.platform for each in spend}
    groups: dict[Named, Campaign] = {}
    days: dict[Dating, list[tuple[str, date]]] = {}
    channels: dict[Campaign, str] = {}
    for dating in datings:
        if rolled is not None:
            days[dating], told = rolled.currency_days(dating), rolled.credit_said(dating, query.models)
        else:
            days[dating] = currency_days(connection, query.credit(dating))
            told = said(connection, query.credit(dating))
        for named in dict.fromkeys(each.named for each in told):
            found = finder.match(named).campaign
            groups[named] = found or Campaign(named.platform, "", UNMATCHED if named.platform in paid else NO_SPEND)
        if query.by == "channel" and dating == query.dating:
            channels = campaign_channels(told, groups)
    wanted = {(each.currency, each.day) for each in spend}
    pairs = wanted.union(*days.values())
    tally = RateTally()
    known: Mapping[tuple[str, date], Conversion] = {}
    if pairs:
        currencies = {currency for currency, _ in pairs} | ({query.currency} if query.currency else set())
        table = rate_table(connection, currencies, max(day for _, day in pairs), query.as_of)
        known = rates_of(sorted(pairs), table, query.currency, query.stale_days, tally)
    rates = {
        dating: [Rate(*pair, known[pair].rate, known[pair].target) for pair in found] for dating, found in days.items()
    }
    return Basis(spend, groups, names, rates, known, tally, channels)


def read_returns(connection: psycopg.Connection, query: ReturnQuery) -> Returns:
    """Return a report.

    Args:
        connection: in a snapshot.
        query: what is asked.
    """
    own = query.credit(query.dating)
    rolled = rolled_credits(connection, own, query.days)
    basis = read_basis(connection, query, dict.fromkeys((query.dating, "cash")), rolled)
    keys = {named: row_key(key, query.by, basis.channels) for named, key in basis.groups.items()}
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys.values()))}
    groups = {named: numbers[key] for named, key in keys.items()}
    paid = {each.campaign.platform for each in basis.spend}
    rates = basis.rates[query.dating]
    of_paid = {named: 0 for named in groups if named.platform in paid}
    if rolled is None:
        sums = credit_sums(connection, own, groups, rates, query.bucket)
        whole = credit_sums(connection, own, of_paid, rates, query.bucket)
        orders = revenue(connection, query.credit("cash"), basis.rates["cash"])
    else:
        of_both = {named: (number, -1) if named in of_paid else (number,) for named, number in groups.items()}
        both = rolled.sums(of_both, rates, lambda day: bucket_of(day, query.bucket))
        sums, whole = [each for each in both if each.group >= 0], [each for each in both if each.group < 0]
        orders = rolled.revenue(basis.rates["cash"])
    found = Returns()
    by_number = {number: key for key, number in numbers.items()}
    spent = _spent(basis, query, lambda campaign: row_key(campaign, query.by, basis.channels))
    found.rows = _rows(query, spent, [(by_number[each.group], each) for each in sums], basis.names)
    total = _spent(basis, query, lambda _: TOTAL)
    found.totals = _unclaimed(_rows(query, total, [(TOTAL, each) for each in whole], {}))
    if query.by == "channel":
        found.rows = _unclaimed(found.rows)
    found.mer = _mer(orders, total)
    found.notes = [*basis.tally.sentences(), *_zone_notes(basis.spend, query.zone), *_source_notes(rolled)]
    return found


def _unclaimed(rows: Iterable[ReturnRow]) -> list[ReturnRow]:
    """Return rows of several platforms: each claims the same order, so claims are never added over them."""
    none = Decimal(0)
    return [row._replace(claimed_conversions=none, claimed_value=none) for row in rows]


class _Spent(NamedTuple):
    amount: Decimal
    claimed_conversions: Decimal
    claimed_value: Decimal


_SpentKey = tuple[ReturnKey, str, str]


def bucket_of(day: date, bucket: str) -> str:
    """Return the day, week or month of a day, as SQL writes them."""
    if bucket == "week":
        week = day.isocalendar()
        return f"{week.year}-W{week.week:02d}"
    return {"": "", "day": f"{day:%Y-%m-%d}", "month": f"{day:%Y-%m}"}[bucket]


def _spent(basis: Basis, query: ReturnQuery, key_of: Callable[[Campaign], ReturnKey]) -> dict[_SpentKey, _Spent]:
    """Return spend and claims by row, bucket and currency."""
    found: dict[_SpentKey, _Spent] = defaultdict(lambda: _Spent(Decimal(0), Decimal(0), Decimal(0)))
    for each in basis.spend:
        shown = basis.spend_rates[each.currency, each.day]
        key = (key_of(each.campaign), bucket_of(each.day, query.bucket), shown.target)
        before = found[key]
        amount = each.net + each.tax if query.is_gross else each.net
        found[key] = _Spent(
            before.amount + amount * shown.rate,
            before.claimed_conversions + each.claimed_conversions,
            before.claimed_value + each.claimed_value * shown.rate,
        )
    return found


def _rows(
    query: ReturnQuery,
    spent: Mapping[_SpentKey, _Spent],
    sums: Sequence[tuple[ReturnKey, CreditSum]],
    names: Mapping[Campaign, str],
) -> list[ReturnRow]:
    """Return the rows, those that cost most first; a bucket's rows stand together."""
    credited = {(key, each.bucket, each.currency, each.model): each for key, each in sums}
    keys = {*spent, *((key, bucket, currency) for key, bucket, currency, _ in credited)}
    nothing = _Spent(Decimal(0), Decimal(0), Decimal(0))
    found = []
    for key, bucket, currency in keys:
        cost = spent.get((key, bucket, currency), nothing)
        for model in query.models:
            each = credited.get((key, bucket, currency, model))
            found.append(_row(key, bucket, currency, model, cost, each, names.get(Campaign(*key[:3]), "")))
    order = {model: place for place, model in enumerate(query.models)}
    found.sort(key=lambda row: (row.bucket, row.currency, -row.spend, -row.value, row.key, order[row.model]))
    return found


def _row(
    key: ReturnKey, bucket: str, currency: str, model: str, cost: _Spent, each: CreditSum | None, name: str
) -> ReturnRow:  # fmt: skip
    spend = float(cost.amount)
    value = Decimal(0) if each is None else each.value / _MICROS
    squares = 0.0 if each is None else float(each.value_squares / _MICROS**2)
    credit, credit_squares = (0.0, 0.0) if each is None else (each.credit, each.credit_squares)
    new, new_squares = (0.0, 0.0) if each is None else (each.new_credit, each.new_squares)
    largest = 0.0 if each is None else float(each.value_largest / _MICROS)
    return ReturnRow(
        key, name, bucket, model, currency, cost.amount, value, credit, new,
        return_on_spend(float(value), squares, spend),
        cost_per_conversion(credit, credit_squares, spend),
        cost_per_conversion(new, new_squares, spend),
        cost.claimed_conversions, cost.claimed_value,
        support_note(credit, float(value), largest) if spend > 0.0 else "",
    )  # fmt: skip


def _mer(found: Sequence[Revenue], total: Mapping[_SpentKey, _Spent]) -> list[Mer]:
    spend: dict[str, Decimal] = defaultdict(Decimal)
    for (_, _, currency), each in total.items():
        spend[currency] += each.amount
    revenues = {each.currency: each for each in found}
    mers = []
    for currency in sorted({*spend, *revenues}):
        orders = revenues.get(currency, Revenue(currency, 0, Decimal(0), 0, Decimal(0)))
        value, cost = orders.micros / _MICROS, spend.get(currency, Decimal(0))
        ratio = float(value / cost) if cost > 0 else None
        mers.append(Mer(currency, value, cost, ratio, orders.conversions, orders.open_conversions))
    return mers


def _source_notes(rolled: RolledCredits | None) -> list[str]:
    if rolled is None:
        return []
    moment = datetime.fromtimestamp(rolled.complete_to_us / 1e6, UTC)
    text = f"credit is from the roll-up, complete to results of {moment:%Y-%m-%d %H:%M:%S} UTC"
    if rolled.fraction < 1.0:
        text += f"; sums are exact, intervals are by {rolled.fraction:.1%} of the people"
    return [text]


def _zone_notes(spend: Iterable[DaySpend], zone: str) -> list[str]:
    zones = {(each.campaign.platform, each.campaign.account, each.time_zone) for each in spend}
    found = []
    for platform, account, theirs in sorted(zones):
        if not theirs:
            found.append(f"{platform} {account}: its time zone is not known; its days may begin at other hours")
        elif theirs != zone:
            found.append(
                f"{platform} {account} reports days of {theirs}, this report is by days of {zone}: they differ by "
                "hours at their edges"
            )
    return found


__all__ = ["Basis", "Mer", "ReturnQuery", "ReturnRow", "Returns", "read_basis", "read_returns"]
