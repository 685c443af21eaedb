"""What ads cost: rows of a platform's report, and which revisions an import of them makes.

A slice is a day of an ad account at one level of its report. Invariants: the newest revision of each entity is what the
last import said of it, in whatever order and however often the earlier ones came; an import that changes nothing makes
no revision; what a complete report lacks cost nothing from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

LEVELS = ("account", "campaign", "ad_set", "ad")
"""From coarse to fine. They overlap: only one of them counts for an account's day."""

_MICROS = 1_000_000


class SliceKey(NamedTuple):
    """A day of an ad account at one level; the day is that of the account's own time zone."""

    platform: str
    account: str
    day: date
    level: str


@dataclass(frozen=True, slots=True)
class SpendRow:
    """What one entity of a slice cost.

    Attributes:
        entity: the id of the account, campaign, ad set or ad; ``name:<name>`` where the report has no ids.
        campaign_id: the campaign, in the same form; empty at account level.
        campaign_name: its name.
        ad_set_id: the ad set; empty above its level.
        ad_set_name: its name.
        ad_id: the ad; empty above its level.
        ad_name: its name.
        currency: ISO 4217, of all amounts.
        net_micros: what was billed without tax, micros; negative: given back.
        tax_micros: tax that the report included, micros.
        impressions: as the platform counts.
        clicks: as the platform counts.
        claimed_conversions: conversions that the platform claims.
        claimed_value_micros: their value, as it claims it, micros.
        is_removed: a complete report no longer has it.
    """

    entity: str
    currency: str
    net_micros: int
    tax_micros: int = 0
    campaign_id: str = ""
    campaign_name: str = ""
    ad_set_id: str = ""
    ad_set_name: str = ""
    ad_id: str = ""
    ad_name: str = ""
    impressions: int = 0
    clicks: int = 0
    claimed_conversions: Decimal = Decimal(0)
    claimed_value_micros: int = 0
    is_removed: bool = False


class Changes(NamedTuple):
    """What an import of a slice changes: rows to add as revisions, and how they came about."""

    rows: tuple[SpendRow, ...]
    new: int
    changed: int
    unchanged: int
    removed: int


def changes(newest: Mapping[str, SpendRow], given: Iterable[SpendRow], *, is_complete: bool) -> Changes:
    """Return the revisions that an import adds to a slice.

    Args:
        newest: the newest revision of each entity that is stored.
        given: the rows of the import, each entity once.
        is_complete: what the import lacks cost nothing.
    """
    rows: list[SpendRow] = []
    new = changed = unchanged = 0
    named = set()
    for row in given:
        named.add(row.entity)
        before = newest.get(row.entity)
        if before == row:
            unchanged += 1
            continue
        new, changed = new + (before is None), changed + (before is not None)
        rows.append(row)
    gone = [row for entity, row in newest.items() if entity not in named and not row.is_removed] if is_complete else []
    rows += [_removed(row) for row in gone]
    return Changes(tuple(rows), new, changed, unchanged, len(gone))


def _removed(row: SpendRow) -> SpendRow:
    return replace(
        row, net_micros=0, tax_micros=0, impressions=0, clicks=0, claimed_conversions=Decimal(0),
        claimed_value_micros=0, is_removed=True,
    )  # fmt: skip


def added(first: SpendRow, second: SpendRow) -> SpendRow:
    """Return two rows of one entity and slice as one: a report that is broken down further, by device for example.

    Raises:
        ValueError: they are in different currencies.
    """
    if first.currency != second.currency:
        raise ValueError("currency: two rows of one day have different ones")
    return replace(
        first,
        net_micros=first.net_micros + second.net_micros,
        tax_micros=first.tax_micros + second.tax_micros,
        impressions=first.impressions + second.impressions,
        clicks=first.clicks + second.clicks,
        claimed_conversions=first.claimed_conversions + second.claimed_conversions,
        claimed_value_micros=first.claimed_value_micros + second.claimed_value_micros,
    )


def without_tax(amount: Decimal, tax_percent: Decimal) -> tuple[int, int]:
    """Return an amount as micros without tax and micros of tax; both sum to the amount, to the micro.

    Args:
        amount: units of the currency, tax included.
        tax_percent: of the net amount; 0: no tax is in it.
    """
    gross = int((amount * _MICROS).to_integral_value(ROUND_HALF_EVEN))
    net = int((Decimal(gross) * 100 / (100 + tax_percent)).to_integral_value(ROUND_HALF_EVEN))
    return net, gross - net
