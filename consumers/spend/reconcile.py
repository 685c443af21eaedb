"""Our credit beside the platform's own claim, with the reasons for the difference in money.

Invariant: the steps from our value to the platform's claim add up to it exactly; what no reason explains is the last
step. It explains the difference and changes neither side.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import NamedTuple

import psycopg

from attributary.attribution_core.spend.campaigns import Campaign
from attributary.consumers.store.spend.credits import claimable, credit_sums

from .channels import NO_SPEND, UNMATCHED
from .returns import ReturnQuery, read_basis

WINDOWS = {"meta": 7, "google": 30, "tiktok": 7, "linkedin": 30, "microsoft": 30}
"""Days after a click for which platforms claim by default; 7 for others. Accounts may be set otherwise."""

_MICROS = Decimal(1_000_000)


class Claim(NamedTuple):
    """From our value to the platform's claim, in units of the currency; the steps add up.

    Attributes:
        campaign: the campaign.
        name: its newest name.
        currency: ISO 4217.
        cash: what the model credits, by the day of the order.
        dating: what it credits by the day of the touchpoint, less that.
        shared: the rest of the orders that it touched: credited to others, or claimed by several.
        window: of these orders, what came after the platform's window; negative.
        refunds: refunds, which platforms do not take off.
        unexplained: what is left.
        claimed: what the platform claims.
        viewed: of the explained, orders without a click of the campaign.
        open: of the explained, orders that are not final.
        orders: how many it touched.
        claimed_conversions: how many the platform claims.
        window_days: which window was taken.
    """

    campaign: Campaign
    name: str
    currency: str
    cash: Decimal
    dating: Decimal
    shared: Decimal
    window: Decimal
    refunds: Decimal
    unexplained: Decimal
    claimed: Decimal
    viewed: Decimal
    open: Decimal
    orders: int
    claimed_conversions: Decimal
    window_days: int


def reconcile(
    connection: psycopg.Connection, query: ReturnQuery, window_days: int | None = None
) -> tuple[list[Claim], list[str]]:
    """Return the campaigns that a platform claims something for, or that we credit, and what a reader must know.

    Args:
        connection: in a snapshot.
        query: with one model.
        window_days: the platforms' window; None: each platform's default.
    """
    basis = read_basis(connection, query, ("cash", "accrual"))
    keys = {named: key for named, key in basis.groups.items() if key.campaign_id not in {UNMATCHED, NO_SPEND}}
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys.values()))}
    by_number = {number: key for key, number in numbers.items()}
    parts: dict[tuple[Campaign, str], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for dating in ("cash", "accrual"):
        groups = {named: numbers[key] for named, key in keys.items()}
        for each in credit_sums(connection, query.credit(dating), groups, basis.rates[dating], ""):
            parts[by_number[each.group], each.currency][dating] += each.value / _MICROS
    groups = {named: numbers[key] for named, key in keys.items()}
    windows = {number: window_of(key.platform, window_days) for number, key in by_number.items()}
    for order in claimable(connection, query.credit("accrual"), groups, basis.rates["accrual"], windows):
        part = parts[by_number[order.group], order.currency]
        part["orders"] += order.orders
        for name in ("net", "late", "refunded", "viewed", "open"):
            part[name] += getattr(order, name) / _MICROS
    for day in basis.spend:
        shown = basis.spend_rates[day.currency, day.day]
        part = parts[day.campaign, shown.target]
        part["claimed"] += day.claimed_value * shown.rate
        part["claimed_conversions"] += day.claimed_conversions
    claims = [
        _claim(campaign, currency, part, basis.names.get(campaign, ""), window_of(campaign.platform, window_days))
        for (campaign, currency), part in parts.items()
        if any(part.values())
    ]
    claims.sort(key=lambda each: (each.currency, -abs(each.claimed - each.cash), each.campaign))
    return claims, basis.tally.sentences()


def window_of(platform: str, given: int | None) -> int:
    """Return a platform's window, days."""
    return WINDOWS.get(platform, 7) if given is None else given


def _claim(campaign: Campaign, currency: str, part: dict[str, Decimal], name: str, window_days: int) -> Claim:
    explained = part["net"] - part["late"] + part["refunded"]
    return Claim(
        campaign, name, currency, part["cash"], part["accrual"] - part["cash"], part["net"] - part["accrual"],
        -part["late"], part["refunded"], part["claimed"] - explained, part["claimed"], part["viewed"], part["open"],
        int(part["orders"]), part["claimed_conversions"], window_days,
    )  # fmt: skip
