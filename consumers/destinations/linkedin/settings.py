"""LinkedIn's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from pydantic import Field

from attributary.consumers.destinations.linkedin.destination import DEFAULT_API_VERSION, DEFAULT_BASE_URL
from attributary.consumers.destinations.settings import BaseUrl, Token, whole
from attributary.consumers.runtime.settings import Settings


class LinkedInSettings(Settings):
    """LinkedIn's Conversions API: the default account, and what all accounts share."""

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
    api_version: str = Field(
        default=DEFAULT_API_VERSION,
        alias="LINKEDIN_API_VERSION",
        pattern=r"^20[0-9]{2}(0[1-9]|1[0-2])$",
        description="Version of LinkedIn's API, YYYYMM; each is kept for a year at least, then refused.",
    )
    base_url: BaseUrl = Field(
        default=DEFAULT_BASE_URL,
        alias="LINKEDIN_BASE_URL",
        description="Scheme and host, for a fake or a relay; https, on this machine http too.",
    )
    rules: str = Field(
        default="",
        alias="FORWARD_LINKEDIN_RULES",
        description="Ids of LinkedIn's conversion rules by conversion type: purchase=104012,lead=104013. Other types "
        "are skipped: LinkedIn has no event names.",
    )
    consent: str = Field(
        default="ad_storage,ad_user_data",
        alias="FORWARD_LINKEDIN_CONSENT",
        description="Purposes that a person must have agreed to before an event goes to LinkedIn; comma-separated.",
    )

    @property
    def account(self) -> dict[str, str]:
        """The fields of the default account that are set."""
        token = self.access_token.get_secret_value() if self.access_token else None
        found = {"ad_account_id": self.ad_account_id, "access_token": token}
        return {name: value for name, value in found.items() if value}

    def check_whole(self) -> bool:
        """Say whether LinkedIn is on.

        Raises:
            ConfigError: one half of the credentials is missing.
        """
        return whole((("LINKEDIN_AD_ACCOUNT_ID", self.ad_account_id),), ("LINKEDIN_ACCESS_TOKEN", self.access_token))
