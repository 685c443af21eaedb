"""Which spend belongs to which credit, and what matches nothing, in money.

Invariants: spend and credit stay in their own currencies; a campaign of the spend is touched or it is not, and credit
of a platform with spend means one campaign or none, so what matches and what does not add up to the whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.spend.campaigns import (
    MATCHED,
    Campaign,
    CampaignMatcher,
    Match,
    Suggestion,
    collisions,
)
from attributary.consumers.store.spend.campaigns import (
    Conflict,
    all_names,
    level_conflicts,
    matcher,
    newest_names,
    spend_by_day,
)
from attributary.consumers.store.spend.credits import CreditQuery, Said, said
from attributary.consumers.store.spend.rolled_credits import RolledCredits

_MICROS = Decimal(1_000_000)
_Spent = tuple[tuple[Campaign, str], int]


class Audit(NamedTuple):
    """What matches and what does not.

    Attributes:
        spend: net micros of each campaign by currency.
        names: newest name of each campaign.
        matches: what touchpoints say, with the campaign that it means; of platforms with spend.
        touched: campaigns that some touchpoint means.
        matcher: for suggestions.
        conflicts: ads that cost more than their campaign.
        collisions: names and ids that several campaigns have.
    """

    spend: dict[tuple[Campaign, str], int]
    names: dict[Campaign, str]
    matches: list[tuple[Said, Match]]
    touched: set[Campaign]
    matcher: CampaignMatcher
    conflicts: list[Conflict]
    collisions: Any

    def lonely(self) -> list[_Spent]:
        """Return the spend that no touchpoint points at, the most first."""
        rows = [item for item in self.spend.items() if item[0][0] not in self.touched and item[1]]
        return sorted(rows, key=lambda item: (-item[1], item[0]))

    def unmatched(self) -> list[tuple[Said, Match]]:
        """Return the credit that belongs to no spend, the most first."""
        rows = [pair for pair in self.matches if pair[1].how not in MATCHED]
        return sorted(rows, key=lambda pair: (-pair[0].micros, pair[0].named))

    def suggestions(self, each: Said, match: Match, most: int) -> list[Suggestion]:
        """Return campaigns with a similar name."""
        return self.matcher.suggestions(each.named, most) if match.how in {"unknown", "other platform"} else []


def audit(
    connection: psycopg.Connection,
    query: CreditQuery,
    days: tuple[date, date],
    model: str,
    rolled: RolledCredits | None = None,
) -> Audit:
    """Return what matches and what does not, of a tenant's days.

    Args:
        connection: in a snapshot.
        query: the credit; of all its models are the touchpoints that point at campaigns.
        days: of the spend, from (included) to (excluded).
        model: by which credit is told; one of the query's.
        rolled: the same credit from the roll-up, which has no touchpoint without credit; None: from the results.
    """
    spend: dict[tuple[Campaign, str], int] = defaultdict(int)
    for each in spend_by_day(connection, query.tenant_id, *days):
        spend[each.campaign, each.currency] += int(each.net * _MICROS)
    finder = matcher(connection, query.tenant_id)
    names = newest_names(connection, query.tenant_id)
    platforms = {campaign.platform for campaign in names} | {campaign.platform for campaign, _ in spend}
    if rolled is None:
        told: Sequence[Said] = said(connection, query)
        touching = {each.named for each in told}
    else:
        told = rolled.credit_said(query.dating, (model,))
        touching = set(rolled.said(query.dating))
    found = [(each, finder.match(each.named)) for each in told]
    matches = [
        (each, match) for each, match in found if each.named.platform in platforms or match.how == "other platform"
    ]
    touched = {campaign for named in touching if (campaign := finder.match(named).campaign) is not None}
    conflicts = level_conflicts(connection, query.tenant_id, *days)
    of_several = collisions(all_names(connection, query.tenant_id))
    return Audit(dict(spend), names, matches, touched, finder, conflicts, of_several)
