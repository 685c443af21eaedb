"""What a row of return on spend is of: a channel, a platform, an account or a campaign.

Invariants: every campaign is in one row, with its spend and with all credit that means it, so a channel's row is the
sum of its campaigns. Spend knows no channel: a campaign has the one that most credit of the touchpoints pointing at it
has. Where none points at it, it has the channel of its platform, if that is one alone; else it is `(no touchpoint)` of
the platform, and in no channel's return. Credit that means no campaign is `(unmatched)`: no spend of it is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from attributary.attribution_core.spend.campaigns import Campaign, Named
from attributary.consumers.store.spend.credits import Said

By = Literal["channel", "platform", "account", "campaign"]
UNMATCHED, NO_SPEND = "(unmatched)", "(no spend)"
NO_TOUCHPOINT, NO_CHANNEL = "(no touchpoint)", "(none)"


class ReturnKey(NamedTuple):
    """What a row is of; what is coarser is empty. A channel's row has the channel alone, the total nothing."""

    platform: str
    account: str
    campaign_id: str
    channel: str = ""


TOTAL = ReturnKey("", "", "")


def campaign_channels(told: Iterable[Said], groups: Mapping[Named, Campaign]) -> dict[Campaign, str]:
    """Return the channel of each campaign that touchpoints point at, and of platforms that have one channel alone.

    Args:
        told: what touchpoints say, by channel, with their credit.
        groups: the campaign that it means, or the bucket that it falls into.

    Returns:
        By campaign; a platform's own channel has the key of the platform alone.
    """
    credit: dict[Campaign, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    of_platform: dict[str, set[str]] = defaultdict(set)
    for each in told:
        channel = each.named.channel or NO_CHANNEL
        credit[groups[each.named]][channel] += each.credit
        of_platform[each.named.platform].add(channel)
    found = {campaign: max(sorted(parts), key=parts.__getitem__) for campaign, parts in credit.items()}
    alone = [(platform, *names) for platform, names in of_platform.items() if len(names) == 1]
    return found | {Campaign(platform, "", ""): channel for platform, channel in alone}


def row_key(campaign: Campaign, by: By, channels: Mapping[Campaign, str]) -> ReturnKey:
    """Return the row of a campaign, or of the bucket that credit falls into which means none.

    Args:
        campaign: the campaign.
        by: what rows are of.
        channels: of campaigns, for rows of channels.
    """
    if by == "channel" and campaign.campaign_id not in {UNMATCHED, NO_SPEND}:
        channel = channels.get(campaign) or channels.get(Campaign(campaign.platform, "", ""))
        return ReturnKey(campaign.platform, "", NO_TOUCHPOINT) if channel is None else ReturnKey("", "", "", channel)
    if by in {"campaign", "channel"}:
        return ReturnKey(*campaign)
    if by == "account" and campaign.account:
        return ReturnKey(campaign.platform, campaign.account, "")
    kept = campaign.campaign_id if campaign.campaign_id == NO_SPEND or by == "account" else ""
    return ReturnKey(campaign.platform, "", kept if kept in {UNMATCHED, NO_SPEND} else "")
