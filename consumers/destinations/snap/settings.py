"""Snap's settings from the environment: the default account, and what all accounts share."""

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
from attributary.consumers.destinations.snap.destination import SnapDestination


class SnapSettings(AdPlatformSettings):
    """Snap's Conversions API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "snap"
    pixel_id: str | None = Field(
        default=None,
        alias="SNAP_PIXEL_ID",
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="Pixel that events of the web, of stores and of phone calls go to.",
    )
    app_id: str | None = Field(
        default=None,
        alias="SNAP_APP_ID",
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="Snap app id that events of apps go to.",
    )
    access_token: Token = Field(
        default=None, alias="SNAP_ACCESS_TOKEN", description="Long-lived token; needed with a pixel or an app."
    )
    base_url: BaseUrl = base_url_field("snap", SnapDestination.base_url)
    event_names: str = event_names_field("snap", "Snap", "lead=CUSTOM_EVENT_1 (one of Snap's names)")
    consent: str = consent_field("snap", "Snap")
