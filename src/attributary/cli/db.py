"""`attributary db migrate|status`: the schema of the store."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the group `db`."""
    group = typer.Typer(no_args_is_help=True, help="The store's schema in Postgres (DATABASE_URL).")
    group.command("migrate")(_migrate)
    group.command("status")(_status)
    app.add_typer(group, name="db")


def _migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be applied.")] = False,
) -> None:
    """Apply pending migrations, in order, each in a transaction, under a lock: safe to run from several places.

    Example: DATABASE_URL=postgresql://owner@localhost/attribution attributary db migrate
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import plural
    from attributary.consumers.store.migrate import migrate, status

    with database("attributary-db", is_migrated=False) as conn:
        names = status(conn).pending if dry_run else migrate(conn)
        verb = "would apply" if dry_run else "applied"
        print(f"{verb} {plural(len(names), 'migration')}" + "".join(f"\n  {name}" for name in names))


def _status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show which migrations the database has; exit 1 when some are pending, 78 when it is newer than this code.

    Example: attributary db status
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.store.migrate import status

    with database("attributary-db", is_migrated=False) as conn:
        found = status(conn)
        if as_json:
            print_json({"applied": list(found.applied), "pending": list(found.pending)})
        else:
            print("".join(f"applied  {name}\n" for name in found.applied), end="")
            print("".join(f"pending  {name}\n" for name in found.pending), end="")
        if found.pending:
            raise typer.Exit(1)
