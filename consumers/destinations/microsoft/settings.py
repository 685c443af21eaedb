"""Microsoft's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    Token,
    base_url_field,
    consent_field,
    event_names,
    event_names_field,
)
from attributary.consumers.destinations.bingads.destination import UET_GOAL
from attributary.consumers.destinations.microsoft.destination import MicrosoftDestination


class MicrosoftSettings(AdPlatformSettings):
    """Microsoft Advertising's UET Conversions API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "microsoft"
    tag_id: str | None = Field(
        default=None,
        alias="MICROSOFT_TAG_ID",
        pattern=r"^[0-9]{1,20}$",
        description="UET tag to send to; digits.",
    )
    access_token: Token = Field(
        default=None,
        alias="MICROSOFT_ACCESS_TOKEN",
        description="Token of the Conversions API, made on the UET tag; needed with a tag.",
    )
    base_url: BaseUrl = base_url_field("microsoft", MicrosoftDestination.base_url)
    event_names: str = event_names_field("microsoft", "Microsoft", "purchase=buy (the action of a conversion goal)")
    consent: str = consent_field("microsoft", "Microsoft")
    offline_goals: str = Field(
        default="",
        alias="FORWARD_BINGADS_GOALS",
        description="Types with an offline goal here are skipped by the tag: Microsoft would count them twice.",
    )

    @property
    def sent_elsewhere(self) -> frozenset[str]:
        """Conversion types that have an offline goal.

        Raises:
            ConfigError: the goals are no pairs; names the variable.
        """
        goals = event_names("FORWARD_BINGADS_GOALS", "bingads", self.offline_goals)
        return frozenset(kind for kind, goal in goals.items() if not goal.startswith(UET_GOAL))
