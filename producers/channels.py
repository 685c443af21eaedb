"""The channel and the platform of a landing, by the rules of channels.yaml.

Invariant: the answer depends on source, medium and campaign only, without case; the first rule that matches wins;
every landing has a channel (``unassigned`` when no rule matches) and a platform.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from attributary.producers.sites import SiteLists, split_host

RULES_FILE = Path(__file__).with_name("channels.yaml")
DIRECT = ("(direct)", "(none)")
UNASSIGNED = "unassigned"
NO_SELLER = "other"
_PLATFORM_CHARACTERS = 100
_NOT_PLATFORM = re.compile(r"[^a-z0-9]+")


class Origin(NamedTuple):
    """Where a landing came from, as GA4 says it."""

    source: str
    medium: str
    campaign: str = ""


class ClickIdMeaning(NamedTuple):
    """What an id in a landing URL proves: the source and medium of the contact, each None when it proves none.

    One that is ``weak`` stands in free posts and newsletters, too: it only says that the contact was not direct.
    """

    name: str
    source: str | None
    medium: str | None
    weak: bool


class _Condition(NamedTuple):
    """One alternative of a rule: everything in it must match."""

    lists: frozenset[str]
    source: re.Pattern[str] | None
    medium: re.Pattern[str] | None
    campaign: re.Pattern[str] | None

    def holds(self, origin: Origin, source_list: str | None) -> bool:
        return (
            (not self.lists or source_list in self.lists)
            and (self.source is None or self.source.fullmatch(origin.source) is not None)
            and (self.medium is None or self.medium.fullmatch(origin.medium) is not None)
            and (self.campaign is None or self.campaign.fullmatch(origin.campaign) is not None)
        )


class ChannelRules:
    """The rules of one document.

    Args:
        document: channels.yaml, parsed.

    Raises:
        ValueError: when two lists claim the same site.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._rules = [
            (rule["channel"], [_condition(alternative) for alternative in rule["when"]]) for rule in document["rules"]
        ]
        self._sites = SiteLists(document["sites"])
        self._sellers = SiteLists(document["sellers"])
        self._platforms: Mapping[str, str] = document["platforms"]
        self._excluded = SiteLists({"excluded": document["excluded_referrers"]})
        self.click_ids = {
            name.lower(): ClickIdMeaning(name, meaning.get("source"), meaning.get("medium"), meaning.get("weak", False))
            for name, meaning in document["click_ids"].items()
        }

    def channel(self, origin: Origin) -> str:
        """Return the channel of an origin, for example ``paid_social``."""
        lowered = Origin(*(text.lower() for text in origin))
        source_list = self._sites.of_source(lowered.source)
        for channel, alternatives in self._rules:
            if any(alternative.holds(lowered, source_list) for alternative in alternatives):
                return str(channel)
        return UNASSIGNED

    def platform(self, channel: str, source: str) -> str:
        """Return the platform: who was paid, for paid channels; else a word for the kind of contact.

        Args:
            channel: as ``channel`` returned it.
            source: the source of the landing.
        """
        if named := self._platforms.get(channel):
            return named
        lowered = source.lower()
        return self._sellers.of_source(lowered) or _platform_word(lowered)

    def site_list(self, host: str) -> str | None:
        """Return which kind of site a host is: search, social, video, shopping, ai, mailbox, other, or None."""
        return self._sites.of_host(host)

    def is_excluded_referrer(self, host: str) -> bool:
        """Tell whether people come back from this host in the middle of a visit: payment and sign-in pages."""
        return self._excluded.of_host(host) is not None


@cache
def bundled_rules() -> ChannelRules:
    """Return the rules of channels.yaml."""
    return ChannelRules(yaml.safe_load(RULES_FILE.read_text("utf-8")))


def _condition(alternative: Mapping[str, Any]) -> _Condition:
    unknown = alternative.keys() - {"source_in", "source", "medium", "campaign"}
    if unknown or not alternative:
        raise ValueError(f"channels.yaml: a rule needs source_in, source, medium or campaign, not {sorted(unknown)}")
    patterns = (
        re.compile(alternative[name], re.DOTALL) if name in alternative else None
        for name in ("source", "medium", "campaign")
    )
    return _Condition(frozenset(alternative.get("source_in", ())), *patterns)


def _platform_word(source: str) -> str:
    brand = split_host(source).brand if "." in source else ""
    return _NOT_PLATFORM.sub("_", brand or source)[:_PLATFORM_CHARACTERS].strip("_") or NO_SELLER
