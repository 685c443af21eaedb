"""`attributary models upkeep`: the training state that the trainer keeps up to date, looked at, rebuilt, verified."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.model_options import AsJson, Tenant, progress_bar, usage_errors
from attributary.cli.tables import count, number, print_json, print_table


def upkeep_group() -> typer.Typer:
    """Return the group `upkeep`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="The training state of each tenant, which the trainer keeps up to date between jobs "
        "(TRAINER_UPKEEP_SECONDS): trainings of all finished journeys take it instead of reading the store. "
        "See docs/how-to/train.md.",
    )
    for command in (status, rebuild, verify):
        group.command(command.__name__)(command)
    return group


def status(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is kept, how many changes wait, and when new events were last looked for.

    Example: attributary models upkeep status
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.changed_people import last_look, pending_changes
    from attributary.consumers.store.models.incremental_state import tenants_kept, totals_of

    rows: list[dict[str, Any]] = []
    with database("attributary-models") as connection, connection.transaction():
        looked_at = last_look(connection)
        for name in [tenant] if tenant else tenants_kept(connection):
            totals = totals_of(connection, name)
            waiting, age = pending_changes(connection, name)
            rows.append(
                {
                    "tenant": name,
                    "people": totals.people if totals else None,
                    "conversions": sum(totals.policies.values()) if totals else None,
                    "open_touches": totals.open_touches if totals else None,
                    "replaced": totals.replaced if totals else None,
                    "pending_changes": waiting,
                    "lag_seconds": age,
                }
            )
    if as_json:
        print_json({"looked_at": looked_at.isoformat() if looked_at else None, "tenants": rows})
        return
    print(f"new events last looked for: {f'{looked_at:%Y-%m-%d %H:%M:%S} UTC' if looked_at else 'never'}")
    columns = ("tenant", "people", "conversions", "open touches", "replaced", "changes that wait", "oldest, s")
    cells = [
        (row["tenant"], *(count(row[name]) for name in list(row)[1:-1]), number(row["lag_seconds"], ".0f"))
        for row in rows
    ]
    print_table(columns, cells, numbers=range(1, 7))


def rebuild(*, tenant: Tenant) -> None:
    """Throw the state of a tenant away and build it from the store, in steps; the trainer may run meanwhile.

    Needed after rows were deleted by hand (retention, erasure): deletions are nobody's event.

    Example: attributary models upkeep rebuild --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.models.incremental_state import totals_of
    from attributary.consumers.training.incremental_state import rebuild as run
    from attributary.consumers.training.incremental_state import snapshot

    with database("attributary-models") as connection, usage_errors(), progress_bar() as progress:
        run(connection, tenant, load(PolicySettings).policy().inactivity_micros, progress)
        with snapshot(connection):
            totals = totals_of(connection, tenant)
    print(f"{tenant}: {count(totals.people if totals else 0)} people")


def verify(*, tenant: Tenant, as_json: AsJson = False) -> None:
    """Bring the state up to date and compare it with a fresh reading of the same snapshot; exit code 1 if they differ.

    Example: attributary models upkeep verify --tenant acme
    """
    from dataclasses import asdict

    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.training.incremental_state import verify as run

    with database("attributary-models") as connection, usage_errors(), progress_bar() as progress:
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
            f"run: attributary models upkeep rebuild --tenant {tenant}\n"
        )
    if not found.is_none:
        raise typer.Exit(exits.FAILED)
