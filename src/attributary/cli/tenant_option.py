"""The option `--tenant`: named, or taken from the setting ATTRIBUTION_TENANT."""

from __future__ import annotations

from typing import Annotated

import typer

_RULE = "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore"


def checked_tenant(text: str | None) -> str | None:
    """Refuse a text that cannot name a tenant."""
    from attributary.schemas.limits import is_tenant

    if text is not None and not is_tenant(text):
        raise typer.BadParameter(_RULE)
    return text


def usual_tenant(text: str) -> str:
    """Return the tenant that the option or else the setting names; empty where none does."""
    from attributary.cli.outcome import exit_codes
    from attributary.consumers.runtime.errors import ConfigError
    from attributary.consumers.runtime.settings import TenantSettings, load
    from attributary.schemas.limits import is_tenant

    if text:
        return checked_tenant(text) or ""
    with exit_codes():
        tenant = load(TenantSettings).tenant
        if tenant is not None and not is_tenant(tenant):
            raise ConfigError("ATTRIBUTION_TENANT", _RULE)
    return tenant or ""


def _named(text: str) -> str:
    tenant = usual_tenant(text)
    if not tenant:
        raise typer.BadParameter("must be given, or ATTRIBUTION_TENANT set")
    return tenant


Tenant = Annotated[str, typer.Option("--tenant", help="The tenant. Default: ATTRIBUTION_TENANT.", callback=_named)]
RowTenant = Annotated[
    str,
    typer.Option("--tenant", help="Tenant of rows that name none. Default: ATTRIBUTION_TENANT.", callback=usual_tenant),
]
AnyTenant = Annotated[str | None, typer.Option("--tenant", help="This tenant only.", callback=checked_tenant)]
TenantArgument = Annotated[str, typer.Argument(help="The tenant.", callback=checked_tenant, show_default=False)]
