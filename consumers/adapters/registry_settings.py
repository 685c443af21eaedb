"""The codec of a process: registry framing when a registry is set, single-object framing otherwise; reads both."""

from __future__ import annotations

from pydantic import Field, SecretStr

from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings
from attributary.schemas import registry
from attributary.schemas.codec import Codec


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
