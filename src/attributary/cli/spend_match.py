"""`attributary spend match`: which spend belongs to which credit, and what matches nothing, in money."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli.spend_days import days_option, tenant_zone
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP

if TYPE_CHECKING:
    from attributary.cli.spend_days import Days
    from attributary.consumers.spend.match import Audit


def match_spend(
    *,
    tenant: Tenant = "",
    since: Annotated[str, typer.Option("--from", help=f"Days of ads and touchpoints. {SINCE_HELP}")] = "30d",
    until: Annotated[str, typer.Option("--to", help=f"Days of ads and touchpoints. {UNTIL_HELP}")] = "end",
    model: Annotated[str, typer.Option(help="Model by which credit is told.")] = "linear",
    limit: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object; money in micros.")] = False,
) -> None:
    """Show which spend no touchpoint points at and which credit belongs to no spend, in money.

    A touchpoint means a campaign by its id on the platform, else by an alias, else by its exact name there. What could
    mean two campaigns means none. Credit is by the day of the touchpoint. Needs DATABASE_URL.

    Example: attributary spend match --tenant acme --from 2026-11-01
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.spend.match import audit
    from attributary.consumers.store.spend.credits import CreditQuery

    with database("attributary-spend", tenant=tenant) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        days = days_option(since, until, tenant_zone(connection, tenant))
        found = audit(connection, CreditQuery(tenant, (model,), days.micros, days.zone), days[:2], model)
    if as_json:
        print_json(_document(found, days))
    else:
        _print(found, tenant, limit)


def _sums(pairs: Any) -> str:
    from attributary.cli.tables import amount

    found: dict[str, int] = defaultdict(int)
    for currency, micros in pairs:
        found[currency] += micros
    return ", ".join(amount(micros, currency) for currency, micros in sorted(found.items())) or "0"


def _print(found: Audit, tenant: str, limit: int) -> None:
    from attributary.attribution_core.spend.campaigns import MATCHED
    from attributary.cli.tables import amount, number, print_table, safe

    if not found.spend:
        print(f"{tenant} has no spend on these days: see attributary spend accounts")
        return
    lonely = found.lonely()
    print(f"spend                          {_sums((key[1], micros) for key, micros in found.spend.items())}")
    print(f"  of campaigns with a touch    {_sums((k[1], m) for k, m in found.spend.items() if k[0] in found.touched)}")
    print(f"  of campaigns without one     {_sums((key[1], micros) for key, micros in lonely)}")
    for how in (*MATCHED, *sorted({match.how for _, match in found.matches} - set(MATCHED))):
        rows = [(said.currency, said.micros) for said, match in found.matches if match.how == how]
        if rows:
            print(f"credit by {how:<20} {_sums(rows)}")
    if lonely:
        print("\nSpend that no touchpoint points at: is the campaign tagged with its id?")
        print_table(
            ("platform", "campaign", "name", "spend"),
            [
                (campaign.platform, f"{campaign.account}/{campaign.campaign_id or '(account)'}",
                 found.names.get(campaign, ""), amount(micros, currency))
                for (campaign, currency), micros in lonely[:limit]
            ],
            (3,),
        )  # fmt: skip
        _print_more(len(lonely), limit)
    _print_unmatched(found, limit)
    for kind, text, campaigns in found.collisions[:limit]:
        keys = ", ".join(f"{each.account}/{each.campaign_id}" for each in campaigns)
        print(f"\n{campaigns[0].platform}: the {kind} '{safe(text)}' is of {len(campaigns)} campaigns: {safe(keys)}")
    for each in found.conflicts[:limit]:
        print(
            f"\n{safe(each.campaign.platform)} {safe(each.campaign.account)}/{safe(each.campaign.campaign_id)}: on "
            f"{number(each.days, ',')} days its ads cost {amount(each.micros, each.currency)} more than the campaign; "
            "the level that counts is the finest complete one"
        )


def _print_more(rows: int, limit: int) -> None:
    if rows > limit:
        print(f"and {rows - limit:,} more: raise --limit")


def _print_unmatched(found: Audit, limit: int) -> None:
    from attributary.cli.tables import amount, print_table

    rows = found.unmatched()
    if not rows:
        return
    print("\nCredit that belongs to no spend: set an alias, or import the missing account")
    cells = []
    for said, match in rows[:limit]:
        near = found.suggestions(said, match, 1)
        cells.append(
            (*said.named, match.how, amount(said.micros, said.currency),
             " ".join(f"{s.campaign.platform} {s.campaign.account}/{s.campaign.campaign_id} '{s.name}'" for s in near))
        )  # fmt: skip
    print_table(("platform", "id", "name", "why", "credit", "perhaps"), cells, (4,))
    _print_more(len(rows), limit)


def _document(found: Audit, days: Days) -> dict[str, Any]:
    return {
        "from": str(days.first),
        "to": str(days.end),
        "time_zone": days.zone,
        "campaigns": [
            {**campaign._asdict(), "name": found.names.get(campaign, ""), "currency": currency, "spend_micros": micros,
             "has_touchpoints": campaign in found.touched}
            for (campaign, currency), micros in sorted(found.spend.items())
        ],
        "credit": [
            {**said.named._asdict(), "currency": said.currency, "conversions": said.conversions, "credit": said.credit,
             "credit_micros": said.micros, "how": match.how,
             "campaign": None if match.campaign is None else match.campaign._asdict(),
             "suggestions": [
                 {**each.campaign._asdict(), "name": each.name, "likeness": round(each.likeness, 4)}
                 for each in found.suggestions(said, match, 3)
             ]}
            for said, match in sorted(found.matches, key=lambda pair: (-pair[0].micros, pair[0].named))
        ],
        "collisions": [
            {"kind": kind, "text": text, "campaigns": [each._asdict() for each in campaigns]}
            for kind, text, campaigns in found.collisions
        ],
        "level_conflicts": [
            {**each.campaign._asdict(), "currency": each.currency, "days": each.days, "micros": each.micros}
            for each in found.conflicts
        ],
    }  # fmt: skip
