"""`attributary spend`: what ads cost, which credit belongs to it, and what came of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.spend_import import import_spend
from attributary.cli.spend_match import match_spend
from attributary.cli.spend_reconcile import reconcile_spend
from attributary.cli.spend_report import report_spend
from attributary.cli.tenant_option import Tenant

if TYPE_CHECKING:
    from attributary.consumers.store.spend.campaigns import Alias

_Json = Annotated[bool, typer.Option("--json", help="JSON.")]
_CAMPAIGN = re.compile(r"([^/]+)/(.+)")


def register(app: typer.Typer) -> None:
    """Add the group `spend`."""
    group = typer.Typer(no_args_is_help=True, help="What ads cost, beside what it was credited with.")
    group.command("import")(import_spend)
    group.command("accounts")(_accounts)
    group.command("match")(match_spend)
    group.command("report")(report_spend)
    group.command("reconcile")(reconcile_spend)
    aliases = typer.Typer(no_args_is_help=True, help="What touchpoints call campaigns that they do not name exactly.")
    aliases.command("set")(_set)
    aliases.command("list")(_list)
    aliases.command("remove")(_remove)
    group.add_typer(aliases, name="aliases")
    app.add_typer(group, name="spend")


def _accounts(*, tenant: Tenant = "", as_json: _Json = False) -> None:
    """Show which ad accounts have spend, of which days and levels, and how fresh it is.

    Example: attributary spend accounts --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import count, print_json, print_table
    from attributary.consumers.store.spend.slices import accounts

    with database("attributary-spend", tenant=tenant) as connection:
        found = accounts(connection, tenant)
    if as_json:
        rows = [
            {**each._asdict(), "first_day": str(each.first_day), "last_day": str(each.last_day),
             "imported_at": each.imported_at.isoformat()}
            for each in found
        ]  # fmt: skip
        print_json({"accounts": rows})
        return
    if not found:
        print(f"{tenant} has no spend: attributary spend import --help")
        return
    print_table(
        ("platform", "account", "level", "time zone", "days", "complete", "first day", "last day", "imported"),
        [
            (each.platform, each.account, each.level.replace("_", " "), each.time_zone or "not known", count(each.days),
             count(each.complete_days), str(each.first_day), str(each.last_day), f"{each.imported_at:%Y-%m-%d %H:%M}")
            for each in found
        ],
        (4, 5),
    )  # fmt: skip


def _set(
    platform: Annotated[str, typer.Argument(help="Platform of the touchpoints: google, meta, ...")],
    campaign: Annotated[str, typer.Argument(help="The campaign that is meant, as ACCOUNT/CAMPAIGN_ID.")],
    *,
    tenant: Tenant = "",
    name: Annotated[str | None, typer.Option(help="What touchpoints have as campaign name, or utm_campaign.")] = None,
    campaign_id: Annotated[str | None, typer.Option("--id", help="What they have as campaign id.")] = None,
) -> None:
    """Say which campaign touchpoints mean by a name or an id. An alias goes before names, and after a real id.

    Example: attributary spend aliases set meta 238/1201 --name spring_sale_2026 --tenant acme
    """
    from attributary.cli.outcome import database, say
    from attributary.cli.tables import safe
    from attributary.consumers.store.spend.campaigns import Alias, all_names, set_alias

    found = _CAMPAIGN.fullmatch(campaign)
    if found is None:
        raise typer.BadParameter("must be ACCOUNT/CAMPAIGN_ID, as `attributary spend match` shows it")
    if (name is None) == (campaign_id is None) or not (name or campaign_id):
        raise typer.BadParameter("name what touchpoints say: --name NAME or --id ID, one of them")
    alias = Alias(platform, "id" if name is None else "name", name or campaign_id or "", found[1], found[2])
    with database("attributary-spend") as connection:
        known = all_names(connection, tenant)
        if not any(key == (platform, alias.account, alias.campaign_id) for key in known):
            say(f"{platform} has no campaign {campaign} with spend; there are {_some(known)}")
            raise typer.Exit(2)
        set_alias(connection, tenant, alias)
    print(f"{safe(_told(alias))}; reports use it from now on, for the past too")


def _some(known: object) -> str:
    keys = sorted(known)[:6] if isinstance(known, dict) else []
    return ", ".join(f"{key.platform} {key.account}/{key.campaign_id}" for key in keys) or "none at all"


def _told(alias: Alias) -> str:
    return f"{alias.platform} {alias.kind} '{alias.value}' means {alias.account}/{alias.campaign_id}"


def _list(*, tenant: Tenant = "", as_json: _Json = False) -> None:
    """Show the aliases of a tenant.

    Example: attributary spend aliases list --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table
    from attributary.consumers.store.spend.campaigns import aliases

    with database("attributary-spend", tenant=tenant) as connection:
        found = aliases(connection, tenant)
    if as_json:
        print_json({"aliases": [each._asdict() for each in found]})
    elif not found:
        print(f"{tenant} has no aliases")
    else:
        rows = [(each.platform, each.kind, each.value, f"{each.account}/{each.campaign_id}") for each in found]
        print_table(("platform", "kind", "touchpoints say", "campaign"), rows, ())


def _remove(
    platform: Annotated[str, typer.Argument(help="Platform of the touchpoints.")],
    *,
    tenant: Tenant = "",
    name: Annotated[str | None, typer.Option(help="The name that touchpoints have.")] = None,
    campaign_id: Annotated[str | None, typer.Option("--id", help="The id that touchpoints have.")] = None,
) -> None:
    """Remove an alias.

    Example: attributary spend aliases remove meta --name spring_sale_2026 --tenant acme
    """
    from attributary.cli.outcome import database, say
    from attributary.consumers.store.spend.campaigns import drop_alias

    kind, value = ("id", campaign_id) if name is None else ("name", name)
    if not value:
        raise typer.BadParameter("name the alias: --name NAME or --id ID")
    with database("attributary-spend", tenant=tenant) as connection:
        done = drop_alias(connection, tenant, platform, kind, value)
    if not done:
        say(f"{tenant} has no alias of {platform} for {kind} '{value}'; see attributary spend aliases list")
        raise typer.Exit(1)
    print("removed")
