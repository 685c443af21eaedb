"""`attributary models state`: show, rebuild and verify the incremental state of tenants."""

from __future__ import annotations

import sys
from typing import Any

import typer

from attributary.cli import exits
from attributary.cli.model_options import AsJson, progress_bar, usage_errors
from attributary.cli.tables import count, number, print_json, print_table
from attributary.cli.tenant_option import AnyTenant, Tenant


def incremental_state_group() -> typer.Typer:
    """Return the group `state`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="The incremental state of each tenant. The trainer updates it between jobs (TRAINER_UPKEEP_SECONDS), and "
        "trainings on all finished journeys use it instead of reading the store. See docs/how-to/train.md.",
    )
    for command in (status, rebuild, verify):
        group.command(command.__name__)(command)
    return group


def status(
    tenant: AnyTenant = None,
    as_json: AsJson = False,
) -> None:
    """Show people, conversions and pending changes, and the time of the last search for new events.

    Example: attributary models state status
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.changed_people import last_search, pending_changes
    from attributary.consumers.store.models.incremental_state import tenants_with_state, totals_of
    from attributary.consumers.store.tenants import check_tenant

    rows: list[dict[str, Any]] = []
    with database("attributary-models") as connection, usage_errors(), connection.transaction():
        if tenant is not None:
            check_tenant(connection, tenant)
        looked_at = last_search(connection)
        for name in [tenant] if tenant else tenants_with_state(connection):
            totals = totals_of(connection, name)
            waiting, age = pending_changes(connection, name)
            rows.append(
                {
                    "tenant": name,
                    "people": totals.people if totals else None,
                    "conversions": sum(totals.policies.values()) if totals else None,
                    "open_touches": totals.open_touches if totals else None,
                    "replaced": totals.replaced if totals else None,
                    "suspended": totals.suspended if totals else None,
                    "pending_changes": waiting,
                    "lag_seconds": age,
                }
            )
    if as_json:
        print_json({"looked_at": looked_at.isoformat() if looked_at else None, "tenants": rows})
        return
    print(f"last search for new events: {f'{looked_at:%Y-%m-%d %H:%M:%S} UTC' if looked_at else 'never'}")
    columns = ("tenant", "people", "conversions", "open touches", "replaced", "pending changes", "oldest, s")
    numbers = ("people", "conversions", "open_touches", "replaced", "pending_changes")
    cells = [
        (row["tenant"], *(count(row[name]) for name in numbers), number(row["lag_seconds"], ".0f")) for row in rows
    ]
    print_table(columns, cells, numbers=range(1, 7))
    for row in rows:
        if row["suspended"]:
            print(f"{row['tenant']} has no state: {row['suspended']}")


def rebuild(*, tenant: Tenant = "") -> None:
    """Rebuild the state of a tenant from the store, in steps; the trainer may run meanwhile.

    Needed after rows were deleted by hand: a deletion is no event.

    Example: attributary models state rebuild --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.models.incremental_state import totals_of
    from attributary.consumers.store.tenants import check_tenant
    from attributary.consumers.training.incremental_state import rebuild as run
    from attributary.consumers.training.incremental_state import snapshot

    with database("attributary-models") as connection, usage_errors(), progress_bar() as progress:
        check_tenant(connection, tenant)
        connection.commit()
        run(connection, tenant, load(PolicySettings).policy().inactivity_micros, progress)
        with snapshot(connection):
            totals = totals_of(connection, tenant)
    print(f"{tenant}: {count(totals.people if totals else 0)} people")


def verify(*, tenant: Tenant = "", as_json: AsJson = False) -> None:
    """Compare the state with a fresh reading of the same snapshot; exit code 1 if they differ.

    Example: attributary models state verify --tenant acme
    """
    from dataclasses import asdict

    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.tenants import check_tenant
    from attributary.consumers.training.incremental_state import verify as run

    with database("attributary-models") as connection, usage_errors(), progress_bar() as progress:
        check_tenant(connection, tenant)
        connection.commit()
        found = run(connection, tenant, load(PolicySettings).policy().inactivity_micros, progress)
    if as_json:
        print_json({"tenant": tenant, "equal": found.is_none} | asdict(found))
    elif found.is_none:
        print(f"{tenant}: the same as a fresh reading of {count(found.people)} people")
    else:
        totals = ", and totals" if found.differing_totals else ""
        sys.stderr.write(
            f"attributary: {tenant} differs from a fresh reading of {count(found.people)} people: "
            f"{count(found.differing_people)} people, {count(found.differing_periods)} sums of days{totals}; "
            f"run: attributary models state rebuild --tenant {tenant}\n"
        )
    if not found.is_none:
        raise typer.Exit(exits.FAILED)
