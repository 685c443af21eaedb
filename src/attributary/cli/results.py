"""`attributary results`: what a report says, or said on an earlier day."""

from __future__ import annotations

from typing import Annotated

import typer

from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP, period_options, time_option


def register(app: typer.Typer) -> None:
    """Add the command `results`."""
    app.command("results")(_results)


def _results(
    *,
    tenant: Tenant = "",
    model: Annotated[str, typer.Option(help="Whose credits: first, last, linear, markov, ...")] = "linear",
    since: Annotated[str, typer.Option("--from", help=f"Conversions. {SINCE_HELP}")] = "beginning",
    until: Annotated[str, typer.Option("--to", help=f"Conversions. {UNTIL_HELP}")] = "end",
    as_of: Annotated[
        str, typer.Option("--as-of", help="As it was reported then: 3d, 2026-11-01, ... Default: as it is now.")
    ] = "end",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, money in micros.")] = False,
) -> None:
    """Sum up the results of a period by channel, as they are now or as they were reported at a moment.

    Every published version is kept (ATTRIBUTION_VERSIONS_KEPT_DAYS), so that a report of an earlier day can be
    repeated: later versions are left out, whatever arrived, was refunded or was attributed anew since. Needs
    DATABASE_URL.

    Example: attributary results --tenant acme --from 30d --as-of 2026-11-01T00:00:00+00:00
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import amount, money, print_json, print_table
    from attributary.consumers.store.results.versions import reported

    period, moment = period_options(since, until), time_option(as_of, "--as-of")
    with database("attributary-results") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        totals, channels = reported(connection, tenant, model, period, moment)
    if as_json:
        print_json({"totals": [t._asdict() for t in totals], "channels": [c._asdict() for c in channels]})
        return
    rows = [(c.channel, str(c.conversions), money(c.value_micros, c.currency), c.currency) for c in channels]
    print_table(("channel", "conversions", model, ""), rows, (1, 2))
    for total in totals:
        print(f"{total.conversions} conversions, {amount(total.net_micros, total.currency)} net")
    if not totals:
        print("no result of this tenant, period and moment")
