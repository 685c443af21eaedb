"""X's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from pydantic import Field

from attributary.consumers.destinations.settings import BaseUrl, Token, whole
from attributary.consumers.destinations.x.destination import DEFAULT_BASE_URL
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings

_FIELDS = {
    "pixel_id": "X_PIXEL_ID",
    "consumer_key": "X_CONSUMER_KEY",
    "consumer_secret": "X_CONSUMER_SECRET",
    "access_token": "X_ACCESS_TOKEN",
    "access_token_secret": "X_ACCESS_TOKEN_SECRET",
    "pixel_token": "X_PIXEL_TOKEN",
}


class XSettings(Settings):
    """X's Conversion API: the default account, and what all accounts share."""

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
    base_url: BaseUrl = Field(
        default=DEFAULT_BASE_URL,
        alias="X_BASE_URL",
        description="Scheme and host, for a fake or a relay; https, on this machine http too.",
    )
    event_ids: str = Field(
        default="",
        alias="FORWARD_X_EVENT_IDS",
        description="Ids of X's single event tags by conversion type: purchase=o87ne,lead=tw-o8z6j-o87nf. Other types "
        "are skipped: X has no event names.",
    )
    consent: str = Field(
        default="ad_storage,ad_user_data",
        alias="FORWARD_X_CONSENT",
        description="Purposes that a person must have agreed to before an event goes to X; comma-separated.",
    )

    @property
    def account(self) -> dict[str, str]:
        """The fields of the default account that are set."""
        found = {
            "pixel_id": self.pixel_id,
            "consumer_key": self.consumer_key,
            "consumer_secret": self.consumer_secret,
            "access_token": self.access_token,
            "access_token_secret": self.access_token_secret,
            "pixel_token": self.pixel_token,
        }
        return {
            name: value if isinstance(value, str) else value.get_secret_value()
            for name, value in found.items()
            if value
        }

    def check_whole(self) -> bool:
        """Say whether X is on.

        Raises:
            ConfigError: a part of the credentials is missing; names the variable.
        """
        given = self.account
        secret = given.get("access_token_secret") or given.get("pixel_token")
        is_on = whole((("X_PIXEL_ID", self.pixel_id),), ("X_ACCESS_TOKEN_SECRET", secret))
        keys = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
        some = [name for name in keys if name in given]
        missing = [name for name in keys if name not in given]
        if some and missing:
            raise ConfigError(_FIELDS[missing[0]], f"must be set when {_FIELDS[some[0]]} is")
        return is_on
