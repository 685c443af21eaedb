"""X's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    Token,
    base_url_field,
    consent_field,
)
from attributary.consumers.destinations.x.destination import XDestination


class XSettings(AdPlatformSettings):
    """X's Conversion API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "x"
    pixel_id: str | None = Field(
        default=None,
        alias="X_PIXEL_ID",
        pattern=r"^[a-z0-9]{1,20}$",
        description="Pixel to send to.",
    )
    consumer_key: Token = Field(default=None, alias="X_CONSUMER_KEY", description="API key of the app (OAuth 1.0a).")
    consumer_secret: Token = Field(
        default=None, alias="X_CONSUMER_SECRET", description="API key secret of the app (OAuth 1.0a)."
    )
    access_token: Token = Field(
        default=None,
        alias="X_ACCESS_TOKEN",
        description="Access token of a user with the right AD_MANAGER or ACCOUNT_ADMIN (OAuth 1.0a).",
    )
    access_token_secret: Token = Field(
        default=None,
        alias="X_ACCESS_TOKEN_SECRET",
        description="Secret of the access token; with it every attempt is signed.",
    )
    pixel_token: Token = Field(
        default=None,
        alias="X_PIXEL_TOKEN",
        description="Token of the Events Manager, instead of the four keys of OAuth 1.0a.",
    )
    base_url: BaseUrl = base_url_field("x", XDestination.base_url)
    event_names: str = Field(
        default="",
        alias="FORWARD_X_EVENT_IDS",
        description="Ids of X's single event tags by conversion type: purchase=o87ne,lead=tw-o8z6j-o87nf. Other types "
        "are skipped: X has no event names.",
    )
    consent: str = consent_field("x", "X")
