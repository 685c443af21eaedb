"""A touchpoint means one campaign or none; a name never crosses platforms."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.spend.campaigns import (
    MATCHED,
    Campaign,
    CampaignMatcher,
    Match,
    Named,
    Suggestion,
    collisions,
)

SPRING = Campaign("meta", "a1", "11")
SEARCH = Campaign("google", "g1", "21")
TWIN = Campaign("google", "g2", "21")
OTHER = Campaign("google", "g2", "22")
NAMES = {SPRING: ["Spring", "Spring sale 2026"], SEARCH: ["Brand"], TWIN: ["Brand DE"], OTHER: ["Shopping", "Brand"]}
MATCHER = CampaignMatcher(NAMES, {("meta", "name", "spring_old"): ("a1", "11"), ("google", "id", "21"): ("g1", "21")})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Named("meta", "11", "whatever"), Match(SPRING, "id")),
        (Named("meta", "11", "Brand"), Match(SPRING, "id")),
        (Named("meta", "", "Spring"), Match(SPRING, "name")),
        (Named("meta", "99", "Spring sale 2026"), Match(SPRING, "name")),
        (Named("meta", "", "spring"), Match(None, "unknown")),
        (Named("meta", "", "spring_old"), Match(SPRING, "alias")),
        (Named("google", "21", "x"), Match(SEARCH, "alias")),
        (Named("google", "", "Brand"), Match(None, "name of several")),
        (Named("google", "", "Brand DE"), Match(TWIN, "name")),
        (Named("google", "", "22"), Match(OTHER, "id")),
        (Named("google", "", "Spring"), Match(None, "other platform")),
        (Named("", "", "Spring"), Match(None, "other platform")),
        (Named("google", "", ""), Match(None, "no campaign")),
    ],
)
def test_id_then_alias_then_exact_name(said: Named, expected: Match) -> None:
    assert MATCHER.match(said) == expected


def test_an_id_of_two_accounts_means_neither() -> None:
    assert CampaignMatcher(NAMES, {}).match(Named("google", "21", "Brand DE")) == Match(None, "id of several")
    found = {(kind, text): campaigns for kind, text, campaigns in collisions(NAMES)}
    assert found == {("id", "21"): (SEARCH, TWIN), ("name", "Brand"): (SEARCH, OTHER)}


def test_suggestions_are_alike_and_those_of_the_platform_come_first() -> None:
    near = MATCHER.suggestions(Named("meta", "", "spring_sale-2026"))
    assert (near[0].campaign, near[0].name, near[0].likeness) == (SPRING, "Spring sale 2026", 1.0)
    assert MATCHER.suggestions(Named("meta", "", "")) == []
    assert MATCHER.suggestions(Named("meta", "", "brand"))[0].campaign.platform == "google"


LABELS = st.text("abc -_é", max_size=8)


@given(
    st.dictionaries(
        st.builds(Campaign, st.sampled_from(("google", "meta")), st.just("a"), st.text("12", max_size=3)),
        st.lists(LABELS, max_size=3),
        max_size=12,
    ),
    st.builds(Named, st.sampled_from(("google", "meta")), st.just(""), LABELS),
    st.integers(1, 4),
)
def test_suggestions_are_those_of_a_plain_look_at_every_name(
    names: dict[Campaign, list[str]], said: Named, most: int
) -> None:
    def plain(text: str) -> str:
        return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())

    found = []
    for campaign, known in names.items():
        alike = [
            (difflib.SequenceMatcher(None, plain(said.name), plain(name), autojunk=False).ratio(), name)
            for name in set(known) - {""}
            if plain(said.name) and plain(name)
        ]
        likeness, name = max(alike, default=(0.0, ""))
        if likeness >= 0.6:
            found.append(Suggestion(campaign, name, likeness))
    found.sort(key=lambda each: (each.campaign.platform != said.platform, -each.likeness, each.campaign))
    assert CampaignMatcher(names, {}).suggestions(said, most) == found[:most]


WORDS = st.sampled_from(("", "a", "b", "c"))


@given(
    st.dictionaries(st.builds(Campaign, WORDS, WORDS, WORDS), st.lists(WORDS, max_size=3), max_size=6),
    st.builds(Named, WORDS, WORDS, WORDS),
)
def test_what_matches_is_of_the_same_platform_and_carries_what_was_said(
    names: dict[Campaign, list[str]], said: Named
) -> None:
    found = CampaignMatcher(names, {}).match(said)
    assert (found.campaign is not None) == (found.how in MATCHED)
    if found.campaign is not None:
        assert found.campaign.platform == said.platform
        others = {found.campaign.campaign_id, *names[found.campaign]}
        assert others & {said.campaign_id, said.name} - {""}
