"""TikTok's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from pydantic import Field

from attributary.consumers.destinations.settings import BaseUrl, PropertyList, Token, whole
from attributary.consumers.destinations.tiktok.destination import DEFAULT_BASE_URL
from attributary.consumers.runtime.settings import Settings


class TikTokSettings(Settings):
    """TikTok's Events API: the default account, and what all accounts share."""

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
    base_url: BaseUrl = Field(
        default=DEFAULT_BASE_URL,
        alias="TIKTOK_BASE_URL",
        description="Scheme and host, for a fake or a relay; https, on this machine http too.",
    )
    event_names: str = Field(
        default="",
        alias="FORWARD_TIKTOK_EVENT_NAMES",
        description="Own event names at TikTok by conversion type: purchase=CompletePayment, comma-separated. They "
        "must equal those of the pixel, or TikTok counts an event twice.",
    )
    properties: PropertyList = Field(
        default="",
        alias="FORWARD_TIKTOK_PROPERTIES",
        description="Free properties that may go to TikTok: names with *, comma-separated; -name keeps one back. All "
        "that TikTok knows unless set.",
    )
    consent: str = Field(
        default="ad_storage,ad_user_data",
        alias="FORWARD_TIKTOK_CONSENT",
        description="Purposes that a person must have agreed to before an event goes to TikTok; comma-separated.",
    )

    @property
    def account(self) -> dict[str, str]:
        """The fields of the default account that are set."""
        token = self.access_token.get_secret_value() if self.access_token else None
        found = {
            "pixel_code": self.pixel_code,
            "app_id": self.app_id,
            "offline_event_set_id": self.offline_event_set_id,
            "access_token": token,
            "test_event_code": self.test_event_code,
        }
        return {name: value for name, value in found.items() if value}

    def check_whole(self) -> bool:
        """Say whether TikTok is on.

        Raises:
            ConfigError: one half of the credentials is missing.
        """
        ids = (
            ("TIKTOK_PIXEL_CODE", self.pixel_code),
            ("TIKTOK_APP_ID", self.app_id),
            ("TIKTOK_OFFLINE_EVENT_SET_ID", self.offline_event_set_id),
        )
        return whole(ids, ("TIKTOK_ACCESS_TOKEN", self.access_token))
