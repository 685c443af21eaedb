"""Which channel's return a campaign's spend is in."""

from __future__ import annotations

import pytest

from attributary.attribution_core.spend.campaigns import Campaign, Named
from attributary.consumers.spend.channels import (
    NO_SPEND,
    UNMATCHED,
    ReturnKey,
    campaign_channels,
    row_key,
)
from attributary.consumers.store.spend.credits import Said

BRAND, SHOPPING, NEVER = (Campaign("google", "g1", number) for number in ("21", "22", "23"))
SPRING, AUTUMN = (Campaign("meta", "m1", number) for number in ("11", "12"))


def said(campaign: Campaign, channel: str, credit: float) -> tuple[Said, Campaign]:
    named = Named(campaign.platform, campaign.campaign_id, "", channel)
    return Said(named, "EUR", None, credit, 0), campaign


TOLD = dict(
    [
        said(BRAND, "paid_search", 5.0),
        said(BRAND, "display", 1.5),
        said(SHOPPING, "shopping", 2.0),
        said(SPRING, "paid_social", 1.0),
        said(Campaign("meta", "", UNMATCHED), "paid_social", 3.0),
    ]
)
CHANNELS = campaign_channels(TOLD, {each.named: campaign for each, campaign in TOLD.items()})


@pytest.mark.parametrize(
    ("campaign", "key"),
    [
        (BRAND, ReturnKey("", "", "", "paid_search")),  # by most of its credit
        (SHOPPING, ReturnKey("", "", "", "shopping")),
        (NEVER, ReturnKey("google", "", "(no touchpoint)")),  # Google has three channels: which is not known
        (SPRING, ReturnKey("", "", "", "paid_social")),
        (AUTUMN, ReturnKey("", "", "", "paid_social")),  # the only channel of its platform
    ],
)
def test_a_campaign_has_the_channel_of_most_of_its_credit(campaign: Campaign, key: ReturnKey) -> None:
    assert row_key(campaign, "channel", CHANNELS) == key


def test_of_equal_credit_the_first_name_decides_whatever_comes_first() -> None:
    pairs = [said(BRAND, "b", 1.0), said(BRAND, "a", 1.0)]
    for order in (pairs, pairs[::-1]):
        told = dict(order)
        assert campaign_channels(told, {each.named: campaign for each, campaign in told.items()})[BRAND] == "a"


@pytest.mark.parametrize("bucket", [UNMATCHED, NO_SPEND])
def test_credit_that_means_no_campaign_is_in_no_channel(bucket: str) -> None:
    assert row_key(Campaign("google", "", bucket), "channel", CHANNELS) == ReturnKey("google", "", bucket)


def test_a_touchpoint_without_a_channel_has_a_name() -> None:
    told = dict([said(BRAND, "", 1.0)])
    assert campaign_channels(told, {each.named: BRAND for each in told})[BRAND] == "(none)"
