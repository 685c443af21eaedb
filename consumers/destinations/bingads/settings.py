"""Settings of Microsoft's offline conversions: the default account, and what all accounts share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    Token,
    base_url_field,
    consent_field,
    token_url_field,
)
from attributary.consumers.destinations.bingads.destination import BingAdsDestination


class BingAdsSettings(AdPlatformSettings):
    """Microsoft Advertising's offline conversions: the default account, and what all accounts share."""

    destination: ClassVar[str] = "bingads"
    account_id: str | None = Field(
        default=None,
        alias="BINGADS_ACCOUNT_ID",
        pattern=r"^[0-9]{1,20}$",
        description="Ad account at Microsoft Advertising that has the conversion goals; digits (aid in the address).",
    )
    customer_id: str | None = Field(
        default=None,
        alias="BINGADS_CUSTOMER_ID",
        pattern=r"^[0-9]{1,20}$",
        description="Manager account (customer) by which the user reaches the ad account; digits (cid in the address).",
    )
    developer_token: Token = Field(
        default=None, alias="BINGADS_DEVELOPER_TOKEN", description="Developer token of the Microsoft Advertising API."
    )
    refresh_token: Token = Field(
        default=None,
        alias="BINGADS_REFRESH_TOKEN",
        description="Refresh token of a user of the ad account. Microsoft replaces it at each use: set "
        "FORWARD_TOKEN_DIR.",
    )
    client_id: str | None = Field(
        default=None, alias="BINGADS_CLIENT_ID", description="Application (client) id that the user agreed to."
    )
    client_secret: Token = Field(
        default=None,
        alias="BINGADS_CLIENT_SECRET",
        description="Secret of the application; a public (native) one has none.",
    )
    base_url: BaseUrl = base_url_field("bingads", BingAdsDestination.base_url)
    token_url: BaseUrl = token_url_field("bingads", BingAdsDestination.token_url)
    event_names: str = Field(
        default="",
        alias="FORWARD_BINGADS_GOALS",
        description="Names of conversion goals by conversion type: lead=Offline leads,purchase=uet:Web shop. Other "
        "types are skipped. With uet: the conversions go by UET, and only restatements and cancellations go here.",
    )
    consent: str = consent_field("bingads", "Microsoft")
