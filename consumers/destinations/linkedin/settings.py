"""LinkedIn's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from attributary.consumers.destinations.account_fields import checked_day
from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    Token,
    base_url_field,
    consent_field,
    token_url_field,
)
from attributary.consumers.destinations.linkedin.destination import LinkedInDestination


class LinkedInSettings(AdPlatformSettings):
    """LinkedIn's Conversions API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "linkedin"
    ad_account_id: str | None = Field(
        default=None,
        alias="LINKEDIN_AD_ACCOUNT_ID",
        pattern=r"^[0-9]{1,20}$",
        description="Ad account of the conversion rules; digits.",
    )
    access_token: Token = Field(
        default=None,
        alias="LINKEDIN_ACCESS_TOKEN",
        description="Access token for the Conversions API; needed with an ad account. It lives a year at most.",
    )
    token_expires: Annotated[str | None, AfterValidator(checked_day)] = Field(
        default=None,
        alias="LINKEDIN_TOKEN_EXPIRES",
        description="Last day of the access token, YYYY-MM-DD (UTC); 14 days before it come a warning and an alert.",
    )
    refresh_token: Token = Field(
        default=None,
        alias="LINKEDIN_REFRESH_TOKEN",
        description="Refresh token of a member's authorisation, instead of an access token: those are then taken and "
        "replaced without anybody.",
    )
    client_id: str | None = Field(
        default=None, alias="LINKEDIN_CLIENT_ID", description="Client id of the application; with a refresh token."
    )
    client_secret: Token = Field(
        default=None,
        alias="LINKEDIN_CLIENT_SECRET",
        description="Client secret of the application; with a refresh token.",
    )
    token_url: BaseUrl = token_url_field("linkedin", LinkedInDestination.token_url)
    api_version: str = Field(
        default=LinkedInDestination.api_version,
        alias="LINKEDIN_API_VERSION",
        pattern=r"^20[0-9]{2}(0[1-9]|1[0-2])$",
        description="Version of LinkedIn's API, YYYYMM; each is kept for a year at least, then refused.",
    )
    base_url: BaseUrl = base_url_field("linkedin", LinkedInDestination.base_url)
    event_names: str = Field(
        default="",
        alias="FORWARD_LINKEDIN_RULES",
        description="Ids of LinkedIn's conversion rules by conversion type: purchase=104012,lead=104013. Other types "
        "are skipped: LinkedIn has no event names.",
    )
    consent: str = consent_field("linkedin", "LinkedIn")
