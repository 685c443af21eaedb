"""Which campaign of the spend a touchpoint means: by its id, else by an alias, else by its exact name.

Invariants: a campaign is platform, account and campaign id; names are labels. A touchpoint matches one campaign or
none. What could mean two campaigns matches none, and a name never matches on another platform than the touchpoint's.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

How = Literal["id", "alias", "name", "no campaign", "id of several", "name of several", "other platform", "unknown"]
MATCHED: tuple[How, ...] = ("id", "alias", "name")


class Campaign(NamedTuple):
    """The key of a campaign."""

    platform: str
    account: str
    campaign_id: str


class Named(NamedTuple):
    """What touchpoints call a campaign; empty: they do not say it. Their channel stands only where it is asked for."""

    platform: str
    campaign_id: str
    name: str
    channel: str = ""


class Match(NamedTuple):
    """The campaign that is meant, and how that is known; None: why it is not."""

    campaign: Campaign | None
    how: How


class Suggestion(NamedTuple):
    """A campaign whose name resembles what touchpoints say, with the likeness of both, 0 to 1."""

    campaign: Campaign
    name: str
    likeness: float


class CampaignMatcher:
    """Finds the campaign of what touchpoints say.

    Args:
        names: every campaign of the spend with all names that it had.
        aliases: (platform, kind, value) -> (account, campaign id), kind is id or name.
    """

    def __init__(
        self, names: Mapping[Campaign, Iterable[str]], aliases: Mapping[tuple[str, str, str], tuple[str, str]]
    ) -> None:
        self._aliases = dict(aliases)
        self._by_id: dict[tuple[str, str], set[Campaign]] = defaultdict(set)
        self._by_name: dict[tuple[str, str], set[Campaign]] = defaultdict(set)
        self._platforms: dict[str, set[str]] = defaultdict(set)
        self._names = {campaign: sorted(set(known) - {""}) for campaign, known in names.items()}
        for campaign, known in self._names.items():
            self._by_id[campaign.platform, campaign.campaign_id].add(campaign)
            for name in known:
                self._by_name[campaign.platform, name].add(campaign)
                self._platforms[name].add(campaign.platform)

    def match(self, said: Named) -> Match:
        """Return the campaign that is meant."""
        if not said.campaign_id and not said.name:
            return Match(None, "no campaign")
        found = self._by_id.get((said.platform, said.campaign_id), set()) if said.campaign_id else set()
        if len(found) == 1:
            return Match(next(iter(found)), "id")
        for kind, value in (("id", said.campaign_id), ("name", said.name)):
            if value and (alias := self._aliases.get((said.platform, kind, value))):
                return Match(Campaign(said.platform, *alias), "alias")
        return Match(None, "id of several") if found else self._by_label(said)

    def _by_label(self, said: Named) -> Match:
        """Return the campaign with the name; touchpoints that carry only an id have it as their name, too."""
        if said.name and (same := self._by_name.get((said.platform, said.name))):
            return Match(next(iter(same)), "name") if len(same) == 1 else Match(None, "name of several")
        if said.name and (same := self._by_id.get((said.platform, said.name))) and len(same) == 1:
            return Match(next(iter(same)), "id")
        return Match(None, "other platform" if self._platforms.get(said.name) else "unknown")

    def suggestions(self, said: Named, most: int = 3, likeness_min: float = 0.6) -> list[Suggestion]:
        """Return campaigns with a similar name, those of the touchpoint's platform first, then the most alike.

        Args:
            said: what touchpoints say.
            most: how many at most.
            likeness_min: 1 is the same text but for case, blanks and marks between words.
        """
        wanted = _plain(said.name or said.campaign_id)
        found = []
        for campaign, names in self._names.items():
            likeness, name = max(((_likeness(wanted, _plain(name)), name) for name in names), default=(0.0, ""))
            if likeness >= likeness_min:
                found.append(Suggestion(campaign, name, likeness))
        found.sort(key=lambda each: (each.campaign.platform != said.platform, -each.likeness, each.campaign))
        return found[:most]


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _likeness(one: str, other: str) -> float:
    if not one or not other:
        return 0.0
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= 0.5 else 0.0


def collisions(names: Mapping[Campaign, Iterable[str]]) -> Sequence[tuple[str, str, tuple[Campaign, ...]]]:
    """Return names and ids that several campaigns of one platform share: kind, text, campaigns."""
    groups: dict[tuple[str, str, str], set[Campaign]] = defaultdict(set)
    for campaign, known in names.items():
        groups[campaign.platform, "id", campaign.campaign_id].add(campaign)
        for name in set(known) - {""}:
            groups[campaign.platform, "name", name].add(campaign)
    return [(kind, text, tuple(sorted(found))) for (_, kind, text), found in sorted(groups.items()) if len(found) > 1]
