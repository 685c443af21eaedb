"""The password of a login that reads the views."""

from __future__ import annotations

from pydantic import Field, SecretStr

from attributary.consumers.runtime.settings import Settings


class ReaderSettings(Settings):
    """Logins for dashboards."""

    password: SecretStr | None = Field(
        default=None,
        min_length=8,
        alias="READER_PASSWORD",
        description="Password of the login that `attributary tenants reader` makes. Default: one is made and printed.",
    )
