"""`attributary spend reconcile`: our credit beside the platform's claim, the difference step by step in money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli.spend_report import report_query
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP
from attributary.consumers.reports.cells import units

if TYPE_CHECKING:
    from attributary.consumers.spend.reconcile import Claim

_STEPS = (
    ("cash", "credited by us, by the day of the order"),
    ("dating", "by the day of the touchpoint instead, as platforms date"),
    ("shared", "the rest of these orders: credited to others here, claimed by several there"),
    ("window", "orders after the platform's window"),
    ("refunds", "refunds, which the platform does not take off"),
    ("unexplained", "not explained"),
    ("claimed", "claimed by the platform"),
)


def reconcile_spend(
    *,
    tenant: Tenant = "",
    since: Annotated[str, typer.Option("--from", help=f"Days. {SINCE_HELP}")] = "30d",
    until: Annotated[str, typer.Option("--to", help=f"Days. {UNTIL_HELP}")] = "end",
    model: Annotated[str, typer.Option(help="The model of our side.")] = "linear",
    window_days: Annotated[
        int | None,
        typer.Option(min=1, help="The platform's attribution window, days. Default: 30 for Google, 7 for Meta, ..."),
    ] = None,
    currency: Annotated[str | None, typer.Option(help="As for spend report.")] = None,
    time_zone: Annotated[str | None, typer.Option("--timezone", help="Default: the tenant's.")] = None,
    conversion_type: Annotated[list[str] | None, typer.Option(help="Conversions of this type only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Campaigns to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object; amounts in units.")] = False,
) -> None:
    """Show why a platform claims another value for a campaign than the model credits.

    The steps add up from our value to its claim. Each platform claims whole orders for itself, so claims of several
    platforms are never added. What is not explained may be views without a click, people that only the platform
    knows, or another setting of its window. Needs DATABASE_URL.

    Example: attributary spend reconcile --tenant acme --from 2026-11-01 --window-days 7
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.spend.reconcile import reconcile

    with database("attributary-spend", tenant=tenant) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        query = report_query(
            connection, tenant, since, until, time_zone, models=(model,), currency=currency, as_of="end",
            conversion_types=tuple(conversion_type or ()),
        )  # fmt: skip
        claims, notes = reconcile(connection, query, window_days)
    if as_json:
        print_json({"claims": [_entry(each) for each in claims], "notes": notes})
        return
    if not claims:
        print(f"{tenant} has neither spend with claims nor credit that matches it on these days")
    for each in claims[:limit]:
        _print(each)
    if len(claims) > limit:
        print(f"and {len(claims) - limit:,} campaigns more: raise --limit")
    for note in notes:
        print(note)


def _entry(claim: Claim) -> dict[str, Any]:
    amounts = {name: units(getattr(claim, name), claim.currency, group=False) for name, _ in _STEPS}
    more = {name: units(getattr(claim, name), claim.currency, group=False) for name in ("viewed", "open")}
    return {
        **claim.campaign._asdict(), "campaign": claim.name, "currency": claim.currency, **amounts, **more,
        "orders": claim.orders, "claimed_conversions": f"{claim.claimed_conversions.normalize():f}",
        "window_days": claim.window_days,
    }  # fmt: skip


def _print(claim: Claim) -> None:
    from attributary.cli.tables import safe

    platform, account, campaign = claim.campaign
    print(f"{safe(' '.join(filter(None, (platform, account, campaign, claim.name))))}, {claim.currency}")
    amounts = [units(getattr(claim, name), claim.currency) for name, _ in _STEPS]
    longest = max(map(len, amounts))
    for (name, text), amount in zip(_STEPS, amounts, strict=True):
        more = f" ({claim.window_days} days)" if name == "window" else ""
        print(f"  {amount:>{longest}}  {text}{more}")
    claimed = f"{claim.claimed_conversions.normalize():f}"
    print(
        f"  {claim.orders:,} orders that it touched, {claimed} claimed; of them by views "
        f"alone {units(claim.viewed, claim.currency)}, not final yet {units(claim.open, claim.currency)}\n"
    )
