"""The codec of a process: registry framing when a registry is set, single-object framing otherwise; reads both."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings
from attributary.schemas import registry
from attributary.schemas.codec import Codec

_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[^@\s]*)?")


class RegistrySettings(Settings):
    """Where schema ids are looked up."""

    url: str | None = Field(
        default=None,
        alias="SCHEMA_REGISTRY_URL",
        description="Schema registry; with it records are written in Confluent's wire format (extra `registry`).",
    )
    credentials: SecretStr | None = Field(
        default=None, alias="SCHEMA_REGISTRY_CREDENTIALS", description="user:password for the registry."
    )
    register_schemas: bool = Field(
        default=False,
        alias="SCHEMA_REGISTRY_AUTO_REGISTER",
        description="Whether a missing schema is registered; off in production, where that is done on purpose.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        # Several may be given, by commas. A password in the address would be shown with the address.
        for each in (value or "").split(","):
            if value is not None and not _URL.fullmatch(each.strip()):
                raise ValueError(
                    "must be http://host:port or https://host:port; user and password go to SCHEMA_REGISTRY_CREDENTIALS"
                )
        return value


def make_codec(settings: RegistrySettings) -> Codec:
    """Build the codec of a process.

    Raises:
        ConfigError: a registry is named and the extra `registry` is not installed.
    """
    if settings.url is None:
        return Codec()
    config = {"url": settings.url}
    if settings.credentials is not None:
        config["basic.auth.user.info"] = settings.credentials.get_secret_value()
    try:
        return Codec(registry.connect(config, register=settings.register_schemas))
    except registry.RegistryExtraMissingError as error:
        raise ConfigError("SCHEMA_REGISTRY_URL", str(error)) from None
