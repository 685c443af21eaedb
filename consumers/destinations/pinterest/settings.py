"""Pinterest's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    Token,
    base_url_field,
    consent_field,
    event_names_field,
)
from attributary.consumers.destinations.pinterest.destination import PinterestDestination


class PinterestSettings(AdPlatformSettings):
    """Pinterest's API for Conversions: the default account, and what all accounts share."""

    destination: ClassVar[str] = "pinterest"
    ad_account_id: str | None = Field(
        default=None,
        alias="PINTEREST_AD_ACCOUNT_ID",
        pattern=r"^[0-9]{1,20}$",
        description="Ad account to send to; digits.",
    )
    access_token: Token = Field(
        default=None,
        alias="PINTEREST_ACCESS_TOKEN",
        description="Conversion token of the Ads Manager; needed with an ad account.",
    )
    base_url: BaseUrl = base_url_field("pinterest", PinterestDestination.base_url)
    event_names: str = event_names_field("pinterest", "Pinterest", "trial_started=start_trial (one of Pinterest's own)")
    consent: str = consent_field("pinterest", "Pinterest")
