"""`attributary audit`: who erased, exported, activated or changed something, from the append-only table."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from attributary.cli.tenant_option import AnyTenant
from attributary.cli.times import SINCE_HELP, time_option


def register(app: typer.Typer) -> None:
    """Add the group `audit`."""
    group = typer.Typer(no_args_is_help=True, help="Who erased, exported, activated or changed something, and when.")
    group.callback()(lambda: None)
    group.command("list")(_list)
    app.add_typer(group, name="audit")


def _list(
    *,
    tenant: AnyTenant = None,
    action: Annotated[str | None, typer.Option(help="This action only, or all that begin so: policy.")] = None,
    since: Annotated[str, typer.Option("--since", help=SINCE_HELP)] = "beginning",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most lines.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """Show what was done to data and rules, the newest first. Rows are only ever added, and hold nothing personal.

    Example: attributary audit list --tenant acme --action policy
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table
    from attributary.consumers.store.audit import audit_rows

    since_us = time_option(since, "--since")
    with database("attributary-audit") as connection:
        rows = audit_rows(connection, tenant=tenant, action=action, since_us=since_us, limit=limit)
    if as_json:
        print_json([{**row._asdict(), "at": row.at.isoformat()} for row in rows])
        return
    if not rows:
        print("nothing is noted")
        return
    cells = [
        (f"{row.at:%Y-%m-%d %H:%M:%S}", row.tenant_id, row.actor, row.action, row.subject,
         json.dumps(row.details) if row.details else "")
        for row in rows
    ]  # fmt: skip
    print_table(("at (UTC)", "tenant", "by", "action", "subject", "details"), cells, ())
