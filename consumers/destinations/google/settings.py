"""Settings of the Data Manager API from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    PropertyList,
    Token,
    base_url_field,
    consent_field,
    properties_field,
    token_url_field,
)
from attributary.consumers.destinations.google.destination import GoogleDestination
from attributary.consumers.destinations.oauth2.service_account import service_account_fields
from attributary.consumers.runtime.errors import ConfigError

if TYPE_CHECKING:
    from attributary.consumers.destinations.credentials import AccountCredentials


def _checked_key(secret: SecretStr | None) -> SecretStr | None:
    """Return a service account's key; raise ValueError when it is none."""
    if secret is not None:
        service_account_fields(secret.get_secret_value())
    return secret


class GoogleSettings(AdPlatformSettings):
    """Google's Data Manager API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "google"
    customer_id: str | None = Field(
        default=None,
        alias="GOOGLE_CUSTOMER_ID",
        pattern=r"^[0-9]{3}-?[0-9]{3}-?[0-9]{4}$",
        description="Google Ads account that has the conversion actions; ten digits.",
    )
    login_customer_id: str | None = Field(
        default=None,
        alias="GOOGLE_LOGIN_CUSTOMER_ID",
        pattern=r"^[0-9]{3}-?[0-9]{3}-?[0-9]{4}$",
        description="Manager account by which the credentials reach the Google Ads account, if they do so by one.",
    )
    analytics_property_id: str | None = Field(
        default=None,
        alias="GOOGLE_ANALYTICS_PROPERTY_ID",
        pattern=r"^[0-9]{1,20}$",
        description="Google Analytics property to send events to, instead of a Google Ads account; digits.",
    )
    measurement_id: str | None = Field(
        default=None,
        alias="GOOGLE_MEASUREMENT_ID",
        pattern=r"^G-[A-Z0-9]{1,20}$",
        description="Web stream of the Analytics property, G-...; needed with a property.",
    )
    service_account_key: Annotated[SecretStr | None, AfterValidator(_checked_key)] = Field(
        default=None,
        alias="GOOGLE_SERVICE_ACCOUNT_KEY",
        description="Key of a service account that may use the account: the JSON file that Google gives out.",
    )
    refresh_token: Token = Field(
        default=None,
        alias="GOOGLE_REFRESH_TOKEN",
        description="Refresh token of a user, instead of a service account's key; with client id and secret.",
    )
    client_id: str | None = Field(
        default=None, alias="GOOGLE_CLIENT_ID", description="OAuth client of the refresh token."
    )
    client_secret: Token = Field(
        default=None, alias="GOOGLE_CLIENT_SECRET", description="Secret of the OAuth client of the refresh token."
    )
    project_id: str | None = Field(
        default=None,
        alias="GOOGLE_PROJECT_ID",
        pattern=r"^[a-z][a-z0-9:.-]{4,62}$",
        description="Cloud project that is charged with the quota; needed with a refresh token.",
    )
    base_url: BaseUrl = base_url_field("google", GoogleDestination.base_url)
    token_url: BaseUrl = token_url_field("google", GoogleDestination.token_url)
    event_names: str = Field(
        default="",
        alias="FORWARD_GOOGLE_ACTIONS",
        description="Ids of Google Ads conversion actions by conversion type: purchase=1234567,lead=1234568; other "
        "types are skipped. For Google Analytics own event names.",
    )
    properties: PropertyList = properties_field("google", "Google")
    consent: str = consent_field("google", "Google")

    def credentials(self) -> AccountCredentials | None:
        """Return the account of the environment; None when the destination is off.

        Raises:
            ConfigError: a part of the credentials is missing, or two accounts are named; names the variable.
        """
        if self.customer_id and self.analytics_property_id:
            raise ConfigError(
                "GOOGLE_ANALYTICS_PROPERTY_ID",
                "must not be set beside GOOGLE_CUSTOMER_ID: two accounts stand in FORWARD_CREDENTIALS_FILE",
            )
        if self.analytics_property_id and not self.measurement_id:
            raise ConfigError("GOOGLE_MEASUREMENT_ID", "must be set when GOOGLE_ANALYTICS_PROPERTY_ID is")
        return super().credentials()
