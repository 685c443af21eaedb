"""TikTok's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    PropertyList,
    Token,
    base_url_field,
    consent_field,
    event_names_field,
    properties_field,
)
from attributary.consumers.destinations.tiktok.destination import TikTokDestination


class TikTokSettings(AdPlatformSettings):
    """TikTok's Events API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "tiktok"
    pixel_code: str | None = Field(
        default=None,
        alias="TIKTOK_PIXEL_CODE",
        pattern=r"^[A-Z0-9]{1,40}$",
        description="Pixel that web events go to.",
    )
    app_id: str | None = Field(
        default=None,
        alias="TIKTOK_APP_ID",
        pattern=r"^[0-9]{1,30}$",
        description="TikTok's id of the app that app events go to; digits.",
    )
    offline_event_set_id: str | None = Field(
        default=None,
        alias="TIKTOK_OFFLINE_EVENT_SET_ID",
        pattern=r"^[0-9]{1,30}$",
        description="Offline event set that events of stores and phone calls go to; digits.",
    )
    access_token: Token = Field(
        default=None, alias="TIKTOK_ACCESS_TOKEN", description="Access token of the Events API; needed with an id."
    )
    test_event_code: str | None = Field(
        default=None,
        alias="TIKTOK_TEST_EVENT_CODE",
        pattern=r"^[A-Za-z0-9_-]{1,50}$",
        description="Shows events under Test Events; whether they count as well is not documented. Not for production.",
    )
    base_url: BaseUrl = base_url_field("tiktok", TikTokDestination.base_url)
    event_names: str = event_names_field(
        "tiktok",
        "TikTok",
        "purchase=CompletePayment (as at the pixel, or TikTok counts an event twice)",
    )
    properties: PropertyList = properties_field("tiktok", "TikTok", "All that TikTok knows unless set.")
    consent: str = consent_field("tiktok", "TikTok")
