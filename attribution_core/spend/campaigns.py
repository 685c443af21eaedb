"""Which campaign of the spend a touchpoint means: by its id, else by an alias, else by its exact name.

Invariants: a campaign is platform, account and campaign id; names are labels. A touchpoint matches one campaign or
none. What could mean two campaigns matches none, and a name never matches on another platform than the touchpoint's.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

How = Literal["id", "alias", "name", "no campaign", "id of several", "name of several", "other platform", "unknown"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
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
        labels = self._labels
        if not wanted or not labels.rows:
            return []
        bounds = labels.bounds(wanted)
        own = labels.platforms == said.platform
        found: list[Suggestion] = []
        for group in (own, ~own):
            places = np.flatnonzero(group & (bounds >= likeness_min))
            places = places[np.argsort(-bounds[places], kind="stable")]
            best = self._most_alike(
                wanted, places[np.argsort(-bounds[places], kind="stable")], bounds, most - len(found)
            )
            found += [each for each in best if each.likeness >= likeness_min]
        return found[:most]

    @cached_property
    def _labels(self) -> _Labels:
        return _Labels([(key, name, _plain(name)) for key, names in self._names.items() for name in names])

    def _most_alike(self, wanted: str, places: Ints, bounds: Floats, most: int) -> list[Suggestion]:
        """Return the campaigns with the most similar name, those of the highest bound first, until no other can be."""
        best: dict[Campaign, tuple[float, str]] = {}
        floor = 0.0
        for place in places:
            if most < 1 or bounds[place] < floor:
                break
            campaign, name, plain = self._labels.rows[place]
            likeness = _likeness(wanted, plain)
            if (likeness, name) > best.get(campaign, (0.0, "")):
                best[campaign] = (likeness, name)
                if len(best) >= most:
                    floor = sorted((each for each, _ in best.values()), reverse=True)[most - 1]
        order = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
        return [Suggestion(campaign, name, likeness) for campaign, (likeness, name) in order[:most]]


class _Labels:
    """All names of all campaigns with the characters in them, so that one pass bounds the likeness of every name.

    Two texts can share no more than the characters that both have: twice their number over both lengths is a bound of
    the likeness (difflib's `quick_ratio`), for all names at once.
    """

    def __init__(self, rows: Sequence[tuple[Campaign, str, str]]) -> None:
        self.rows = rows
        self.platforms = np.array([campaign.platform for campaign, _, _ in rows])
        self._places = {
            character: place for place, character in enumerate(sorted({c for *_, text in rows for c in text}))
        }
        self._counts = np.zeros((len(self._places), len(rows)), dtype=np.int32)
        for row, (*_, text) in enumerate(rows):
            for character in text:
                self._counts[self._places[character], row] += 1
        self._lengths = np.array([len(text) for *_, text in rows])

    def bounds(self, wanted: str) -> Floats:
        """Return for each name what its likeness to a text cannot exceed."""
        shared = np.zeros(len(self.rows))
        for character, times in Counter(wanted).items():
            if (place := self._places.get(character)) is not None:
                shared += np.minimum(self._counts[place], times)
        return np.asarray(2.0 * shared / np.maximum(self._lengths + len(wanted), 1))


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _likeness(one: str, other: str) -> float:
    if not one or not other:
        return 0.0
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def collisions(names: Mapping[Campaign, Iterable[str]]) -> Sequence[tuple[str, str, tuple[Campaign, ...]]]:
    """Return names and ids that several campaigns of one platform share: kind, text, campaigns."""
    groups: dict[tuple[str, str, str], set[Campaign]] = defaultdict(set)
    for campaign, known in names.items():
        groups[campaign.platform, "id", campaign.campaign_id].add(campaign)
        for name in set(known) - {""}:
            groups[campaign.platform, "name", name].add(campaign)
    return [(kind, text, tuple(sorted(found))) for (_, kind, text), found in sorted(groups.items()) if len(found) > 1]
