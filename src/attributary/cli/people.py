"""`attributary people hot`: people with so many conversions that what changes them is put off."""

from __future__ import annotations

from typing import Annotated

import typer

from attributary.cli.tenant_option import AnyTenant

_Limit = Annotated[int, typer.Option(min=1, help="Show so many at most.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object, waiting times in seconds.")]


def register(app: typer.Typer) -> None:
    """Add the group `people`."""
    group = typer.Typer(no_args_is_help=True, help="Reports about people.")
    group.command("hot")(_hot)
    group.callback()(lambda: None)
    app.add_typer(group, name="people")


def _hot(*, tenant: AnyTenant = None, limit: _Limit = 200, as_json: _Json = False) -> None:
    """Show people with events that wait for their versions, those with the most events first.

    Who has more conversions than ATTRIBUTION_MAX_REOPENED in reach of a late touchpoint, or in all when a link moves
    an anonymous id or a content gives way to another, is mostly a kiosk, a call centre or a default id. The events are
    stored; the sweeper raises the versions in pages, many events by one version. Until then the newest result is the
    one without them. Conversions are counted up to one more than the limit. Needs DATABASE_URL.

    Example: attributary people hot --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table
    from attributary.consumers.store.events.reopenings import hot_people

    with database("attributary-people", tenant=tenant) as connection:
        found = hot_people(connection, tenant, limit + 1)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        print_json({"people": [person._asdict() for person in shown], "more": more})
        return
    if not shown:
        print("nobody waits: no late touchpoints or links are put off")
        return
    rows = [
        (
            p.tenant_id, p.journey_key, f"{p.touchpoints:,}", f"{p.changes:,}", f"{p.conversions:,}",
            f"{p.reopened:,}", f"{p.waiting_seconds:,.0f} s", "under way" if p.is_under_way else "waits",
        )
        for p in shown
    ]  # fmt: skip
    columns = ("tenant", "person", "touchpoints", "links", "conversions", "versions raised", "since", "state")
    print_table(columns, rows, (2, 3, 4, 5, 6))
    print(f"{len(shown)} shown{', and there are more: raise --limit' if more else ''}")
