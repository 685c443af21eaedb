"""`attributary explain`: why a conversion is attributed as it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.tenant_option import Tenant

if TYPE_CHECKING:
    from attributary.consumers.store.events.explain import Explanation, VersionFact

_PIPE_WIDTH = 120
_PLAIN = ("events", "links", "touches", "conflicts")


def register(app: typer.Typer) -> None:
    """Add the command `explain`."""
    app.command("explain")(_explain)


def _explain(
    conversion_id: Annotated[str, typer.Argument(help="The conversion's id.")],
    *,
    tenant: Tenant = "",
    as_of: Annotated[
        str, typer.Option("--as-of", help="Mark the version that was reported then: 3d, 2026-11-01, ...")
    ] = "end",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show the person, each touchpoint with its verdict, the credit of each model, and what changed each version.

    What needs an action stands first, with the next step: a correction that waits for its order, refunds above the
    value, a result that is on its way, a model that is not trained.

    Exit code 1: there is no such conversion. Needs DATABASE_URL.

    Example: attributary explain order-1001 --tenant acme
    """
    from attributary.cli.explain_text import explanation_text, reported_version
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, safe, width
    from attributary.cli.times import optional_time
    from attributary.consumers.store.events.explain import explain
    from attributary.consumers.store.tenants import UnknownTenantError, check_tenant, known_tenants

    moment = optional_time(as_of, "--as-of")
    with database("attributary-explain") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = explain(connection, tenant, conversion_id)
        if found is None:
            why = "no event about it is stored"
            try:
                check_tenant(connection, tenant)
            except UnknownTenantError:
                known = ", ".join(known_tenants(connection)[:12]) or "none"
                why = f"nothing of this tenant is stored; tenants with results: {known}"
    if found is None:
        sys.stderr.write(f"attributary: no conversion {safe(conversion_id)} of tenant {tenant}: {why}\n")
        raise typer.Exit(exits.FAILED)
    if as_json:
        print_json(_document(found) | {"as_of": None if moment is None else reported_version(found, moment)})
    else:
        print(explanation_text(found, moment, width() or _PIPE_WIDTH))


def _document(found: Explanation) -> dict[str, Any]:
    return {
        "conversion": found.conversion._asdict(),
        **{name: [row._asdict() for row in getattr(found, name)] for name in _PLAIN},
        "versions": [_version(version) for version in found.versions],
    }


def _version(version: VersionFact) -> dict[str, Any]:
    return {
        **version._asdict(),
        "touches": [touch._asdict() for touch in version.touches],
        "credits": [model._asdict() for model in version.credits],
    }
