"""`attributary identities suspicious`: ids that collect more than a person does, and what to do about them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.tenant_option import AnyTenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.store.events.suspicious_ids import SuspiciousId

_MOST_DAYS = 400


def register(app: typer.Typer) -> None:
    """Add the group `identities`."""
    group = typer.Typer(no_args_is_help=True, help="Reports about ids of people.")
    group.command("suspicious")(_suspicious)
    group.callback()(lambda: None)
    app.add_typer(group, name="identities")


def _suspicious(
    *,
    tenant: AnyTenant = None,
    days: Annotated[int, typer.Option(min=1, max=_MOST_DAYS, help="Days back, with today (UTC).")] = 2,
    touchpoints: Annotated[
        int | None, typer.Option(min=0, help="Limit a day. Default: ATTRIBUTION_SUSPICIOUS_TOUCHPOINTS; 0: off.")
    ] = None,
    anonymous_ids: Annotated[
        int | None, typer.Option(min=0, help="Limit a day. Default: ATTRIBUTION_SUSPICIOUS_ANONYMOUS_IDS; 0: off.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show ids that have more touchpoints, or users that have more anonymous ids, in a day than a person does.

    Such an id is often a placeholder that no rule knows, a shared login, a kiosk or a robot: it makes one person of
    many. Put it on the tenant's list (ATTRIBUTION_IDENTITIES_FILE) and restart what publishes and the stitcher. Then
    `attributary rebuild --from-log` takes its stored events out, as dead letters, and restates the conversions that it
    touched. Needs DATABASE_URL.

    Example: attributary identities suspicious --tenant acme --days 7
    """
    from attributary.cli.outcome import database, exit_codes
    from attributary.cli.tables import count, print_json, print_table
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.events.suspicious_ids import MICROS_PER_DAY, suspicious_ids
    from attributary.consumers.sweeper.identity_monitor import IdentityLimits

    with exit_codes():
        limits = load(IdentityLimits).by_rule()
    given = {"touchpoints": touchpoints, "anonymous_ids": anonymous_ids}
    limits |= {rule: most for rule, most in given.items() if most is not None}
    today = time.time_ns() // 1_000 // MICROS_PER_DAY
    period = ((today + 1 - days) * MICROS_PER_DAY, (today + 1) * MICROS_PER_DAY)
    with database("attributary-identities", tenant=tenant) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = suspicious_ids(connection, limits, period, tenant_id=tenant, limit=limit + 1)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        print_json({"suspicious": [each._asdict() for each in shown], "limits": limits, "more": more})
        return
    if not shown:
        print(f"no id is above {_said(limits)} a day in {days} days")
        return
    rows = [
        (each.tenant_id, each.kind, each.id, each.rule.replace("_", " "), count(each.most_a_day), each.day,
         count(each.days))
        for each in shown
    ]  # fmt: skip
    print_table(("tenant", "kind", "id", "has many", "most a day", "on", "days above"), rows, (4, 6))
    print(f"{len(shown)} shown{', and there are more: raise --limit' if more else ''}; limits {_said(limits)} a day")
    print("To refuse ids, put them into the file that ATTRIBUTION_IDENTITIES_FILE names, then rebuild from the log:\n")
    print(_refused(shown))


def _said(limits: dict[str, int]) -> str:
    said = [f"{most:,} {rule.replace('_', ' ')}" for rule, most in limits.items() if most]
    return " or ".join(said) or "any limit"


def _refused(found: Sequence[SuspiciousId]) -> str:
    """Return the ids as the file takes them: JSON texts, which YAML reads, whatever an id holds."""
    import json

    tenants: dict[str, list[str]] = {}
    for each in found:
        ids = tenants.setdefault(each.tenant_id, [])
        if each.id not in ids:
            ids.append(each.id)
    return "\n".join(["refuse:", *(f"  {json.dumps(tenant)}: {json.dumps(ids)}" for tenant, ids in tenants.items())])
