"""How much of one person counts. Apart from the policy's settings: the clients that read those know no store."""

from __future__ import annotations

from pydantic import Field

from attributary.consumers.runtime.settings import Settings
from attributary.consumers.store.events.attribution_inputs import MAX_DEVICES, MAX_LOOKUPS
from attributary.consumers.store.events.reopenings import MAX_REOPENED


class PeopleSettings(Settings):
    """How much of one person counts: set alike for attributor, verify and rebuild."""

    max_devices: int = Field(
        default=MAX_DEVICES,
        ge=1,
        le=MAX_LOOKUPS // 2,
        alias="ATTRIBUTION_MAX_DEVICES",
        description="Most anonymous ids of a user that count in results: those linked last. Touchpoints of the others "
        "are stored and get no credit; attribution_people_cut_total counts such results.",
    )


class ReopeningSettings(Settings):
    """When late touchpoints, links or displaced contents change too many conversions of a person."""

    max_reopened: int = Field(
        default=MAX_REOPENED,
        ge=1,
        le=20_000,
        alias="ATTRIBUTION_MAX_REOPENED",
        description="Most conversions of a person that get a new version at once: those in reach of a batch's late "
        "touchpoints, or all when a link moves an anonymous id. Of who has more, the sweeper raises the versions in "
        "pages; until then the newest result is the one without these events: see attributary people hot.",
    )
