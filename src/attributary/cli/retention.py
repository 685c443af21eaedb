"""`attributary retention plan|status`: what is kept no longer, and how far the sweeper has come with it."""

from __future__ import annotations

from typing import Annotated

import typer

from attributary.cli.tenant_option import AnyTenant

_Json = Annotated[bool, typer.Option("--json", help="JSON.")]


def register(app: typer.Typer) -> None:
    """Add the group `retention`."""
    group = typer.Typer(no_args_is_help=True, help="How long things are kept: what goes, and how far it has come.")
    group.command("plan")(_plan)
    group.command("status")(_status)
    app.add_typer(group, name="retention")


def _plan(*, tenant: AnyTenant = None, as_json: _Json = False) -> None:
    """Show what would go by the settings of the tenants as they are now; nothing is changed.

    Counts conversions and touchpoints by the time of their events and the touchpoints read every row of the tenant, so
    it may take minutes. Needs DATABASE_URL.

    Example: attributary retention plan --tenant acme
    """
    import time

    from attributary.cli.outcome import database
    from attributary.cli.tables import amount, count, print_json, print_table
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.retention.boundaries import due
    from attributary.consumers.store.tenants import tenants_with_settings
    from attributary.consumers.sweeper.tenant_retention import boundaries_of

    window_us = load(PolicySettings).policy().longest_window_micros
    now_us = time.time_ns() // 1_000
    with database("attributary-retention", tenant=tenant) as connection:
        wanted = [
            boundaries_of(each, window_us, now_us)
            for each in tenants_with_settings(connection)
            if tenant in (None, each.tenant_id)
        ]
        found = [(each, due(connection, each)) for each in wanted if any(each[1:])]
    if as_json:
        print_json({"tenants": [{**b._asdict(), **d._asdict()} for b, d in found]})
        return
    if not found:
        print("nothing goes: no tenant keeps conversions, touchpoints or links for a limited time")
        return
    rows = [
        (
            b.tenant_id, _day(b.conversions_before), count(d.conversions),
            ", ".join(amount(micros, currency) for currency, micros in sorted(d.net_micros.items())) or "0",
            _day(b.touchpoints_before), count(d.touchpoints),
        )
        for b, d in found
    ]  # fmt: skip
    columns = ("tenant", "conversions before", "number", "net value to (retired)", "touchpoints before", "number")
    print_table(columns, rows, (2, 5))


def _status(*, tenant: AnyTenant = None, as_json: _Json = False) -> None:
    """Show how far the sweeper has come with each tenant. Needs DATABASE_URL.

    Example: attributary retention status
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import count, print_json, print_table
    from attributary.consumers.store.retention.boundaries import all_progress

    with database("attributary-retention", tenant=tenant) as connection:
        found = all_progress(connection, tenant)
    if as_json:
        print_json({"tenants": [each._asdict() for each in found]})
        return
    if not found:
        print("nothing was removed yet: no boundary was raised; `attributary retention plan` shows what is due")
        return
    rows = [
        (
            p.tenant_id, "done" if p.step == "done" else f"removes {p.step}", _day(p.conversions_before),
            count(p.conversions_retired), _day(p.touchpoints_before), count(p.touchpoints_removed),
            count(p.links_removed),
        )
        for p in found
    ]  # fmt: skip
    columns = ("tenant", "state", "conversions before", "retired", "touchpoints before", "removed", "links removed")
    print_table(columns, rows, (3, 5, 6))


def _day(micros: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(micros // 1_000_000, UTC).date().isoformat() if micros else "for good"
