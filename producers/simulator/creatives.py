"""Campaigns, ad sets and ads of every channel's placements, as a flat table.

Invariant: the table depends on the channels alone, so the same campaign bears the same ids in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attributary.producers.simulator.config import Channel
from attributary.producers.simulator.population import Floats, Ints

_ADS_IN_CAMPAIGN = 3
_SEASONS = ("spring_sale", "brand", "retargeting", "new_arrivals", "prospecting", "summer", "loyalty", "clearance")


class Creative(NamedTuple):
    """What a touch shows: all that does not differ from person to person."""

    channel: str
    platform: str
    passive: str | None
    medium: str
    click_id: str | None
    referrer: str | None
    campaign_id: str | None
    campaign_name: str | None
    ad_set_id: str | None
    ad_set_name: str | None
    ad_id: str | None
    ad_name: str | None


def creative_table(channels: Sequence[Channel]) -> tuple[list[Creative], Ints, Ints]:
    """All creatives, and for each channel the position of its first and their number."""
    table: list[Creative] = []
    start, count = [], []
    for channel_number, channel in enumerate(channels, start=1):
        start.append(len(table))
        for placement_number, placement in enumerate(channel.placements, start=1):
            lead = (channel.name, placement.platform, channel.passive, placement.medium)
            fixed = (*lead, placement.click_id, placement.referrer)
            if not placement.campaigns:
                table.append(Creative(*fixed, None, None, None, None, None, None))
            for campaign in range(placement.campaigns):
                # Eleven digits, as the platforms' ids have.
                number = channel_number * 10**10 + placement_number * 10**8 + campaign * 10**4
                season = _SEASONS[campaign % len(_SEASONS)]
                name = f"{placement.platform}_{season}_{campaign + 1}"
                for ad in range(1, _ADS_IN_CAMPAIGN + 1):
                    ad_set = (ad + 1) // 2
                    table.append(
                        Creative(*fixed, str(number), name, str(number + 100 * ad_set), f"{name}_set_{ad_set}",
                                 str(number + 100 * ad_set + ad), f"{name}_ad_{ad}")
                    )  # fmt: skip
        count.append(len(table) - start[-1])
    return table, np.array(start, dtype=np.int64), np.array(count, dtype=np.int64)


def pick_creatives(start: Ints, count: Ints, channel: Ints, pick: Floats) -> Ints:
    """Position in the table for each touch, drawn by `pick` (0 to 1) among the channel's."""
    return start[channel] + (pick * count[channel]).astype(np.int64)
