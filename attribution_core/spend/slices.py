"""What ads cost: rows of a platform's report, and which revisions an import of them makes.

A slice is a day of an ad account at one level of its report. Invariants: the newest revision of each entity is what the
newest report said of it, by the time at which reports were made, in whatever order and however often they come; of two
reports of one time the later import counts. A report that changes nothing makes no revision; what a complete report
lacks cost nothing from its time on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

LEVELS = ("account", "campaign", "ad_set", "ad")
"""From coarse to fine. They overlap: only one of them counts for an account's day."""

NAMED = "name:"
"""How the id of a campaign, ad set or ad begins where a report has names only."""

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


class Stored(NamedTuple):
    """The newest revision of an entity, and when the newest report that had it so was made, microseconds UTC."""

    row: SpendRow
    reported_at_us: int


class Given(NamedTuple):
    """What a report says of a slice.

    Attributes:
        rows: each entity once.
        is_complete: what the report lacks cost nothing.
        reported_at_us: when it was made, microseconds UTC.
    """

    rows: Sequence[SpendRow]
    is_complete: bool = False
    reported_at_us: int = 0


class Changes(NamedTuple):
    """What a report changes in a slice: rows to add as revisions, and how they came about.

    Attributes:
        rows: new revisions.
        confirmed: entities that are as before, by a newer report that may lack others.
        new: rows of entities that were not there.
        changed: rows that differ from the stored ones.
        unchanged: rows that do not.
        removed: entities that a complete report lacks.
        late: rows of a report that is older than what is stored; they change nothing.
    """

    rows: tuple[SpendRow, ...]
    confirmed: tuple[str, ...]
    new: int
    changed: int
    unchanged: int
    removed: int
    late: int


def changes(newest: Mapping[str, Stored], given: Given, complete_at_us: int = 0) -> Changes:
    """Return the revisions that a report adds to a slice.

    Args:
        newest: the newest revision of each entity that is stored.
        given: what the report says.
        complete_at_us: when the newest complete report of the slice was made, microseconds UTC; 0: there was none.
    """
    moment, rows = given.reported_at_us, given.rows
    if moment < complete_at_us:
        return Changes((), (), 0, 0, 0, 0, len(rows))
    added_rows: list[SpendRow] = []
    confirmed: list[str] = []
    new = changed = unchanged = late = 0
    for row in rows:
        before = newest.get(row.entity)
        if before is None:
            new += 1
            added_rows.append(row)
        elif moment < before.reported_at_us:
            late += 1
        elif before.row == row:
            unchanged += 1
            if moment > before.reported_at_us and not given.is_complete:  # else the slice's own time says it
                confirmed.append(row.entity)
        else:
            changed += 1
            added_rows.append(row)
    gone = _gone(newest, given) if given.is_complete else []
    return Changes((*added_rows, *map(_removed, gone)), tuple(confirmed), new, changed, unchanged, len(gone), late)


def _gone(newest: Mapping[str, Stored], given: Given) -> list[SpendRow]:
    named = {row.entity for row in given.rows}
    return [
        each.row
        for entity, each in newest.items()
        if entity not in named and not each.row.is_removed and each.reported_at_us <= given.reported_at_us
    ]


def entity_of(level: str, account: str, names: Mapping[str, str]) -> str:
    """Return what a row is of; a name that stands for an id is one only below what it stands under.

    Args:
        level: of the row.
        account: the ad account.
        names: ids by field: campaign_id, ad_set_id, ad_id.
    """
    found = account if level == "account" else names[f"{level}_id"]
    if level in {"ad_set", "ad"} and found.startswith(NAMED):
        found = f"{NAMED}{names['campaign_id']}/{names['ad_set_id']}/{found}"
    return found


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
