"""`attributary experiment plan`: which test of a channel can tell how small an effect, from the tenant's own sales."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.spend_days import days_option, tenant_zone
from attributary.cli.tenant_option import usual_tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP

if TYPE_CHECKING:
    from datetime import date

    from attributary.attribution_core.budget.power import Floats, Power
    from attributary.cli.spend_days import Days

_DAY_US = 86_400_000_000


def plan_experiment(
    channel: Annotated[str, typer.Argument(help="The channel that would have its spend changed.")],
    *,
    tenant: Annotated[
        str, typer.Option(help="With its stored sales. Default: ATTRIBUTION_TENANT.", callback=usual_tenant)
    ] = "",
    change: Annotated[
        float | None, typer.Option(min=0.01, help="By how much spend changes in the test, a day and for everybody.")
    ] = None,
    series: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of day, region, sales: for tests by region.")
    ] = None,
    block: Annotated[int, typer.Option(min=1, max=28, help="Days of a block of a switchback.")] = 7,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of people in one arm of a test by person.")] = 0.5,
    carry_over: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of an effect that a day keeps of the day before it.")
    ] = 0.0,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the interval, two-sided.")] = 0.9,
    power: Annotated[float, typer.Option(min=0.5, max=0.999, help="Share of tests that find the effect.")] = 0.8,
    since: Annotated[str, typer.Option("--from", help=f"Sales of these days. {SINCE_HELP}")] = "180d",
    until: Annotated[str, typer.Option("--to", help=f"Sales of these days. {UNTIL_HELP}")] = "end",
    currency: Annotated[str | None, typer.Option(help="Of the sales. Default: that of most conversions.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same plan.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show which effect tests of 14 to 84 days can tell from nothing, before one is paid for.

    A switchback changes spend for everybody, by blocks of days; a test by person shows ads to a part of them; one by
    region changes spend in half of the regions. For each the test is put on the tenant's own past, where nothing was
    changed: what it finds then is its error. Needs DATABASE_URL, or --series alone.

    Exit codes: 0 there is an answer, 1 the past is too short for any test, 2 the file or an option cannot be used.

    Example: attributary experiment plan paid_social --tenant acme --change 240

    Example: attributary experiment plan paid_social --series regions.csv --change 240 --json
    """
    from attributary.attribution_core.budget.power import LENGTHS, powers
    from attributary.cli.outcome import say
    from attributary.cli.tables import print_json
    from attributary.schemas.limits import MINOR_UNIT_MICROS

    if series is None and not tenant:
        raise typer.BadParameter("must be given, or --series, or ATTRIBUTION_TENANT set", param_hint="--tenant")
    if currency is not None and currency not in MINOR_UNIT_MICROS:
        raise typer.BadParameter("must be an ISO 4217 code, such as EUR", param_hint="--currency")
    found = _of_regions(series, seed) if series else _of_tenant(tenant, since, until, currency, (block, share, seed))
    designs = {
        design: powers(errors, found["mean"], level, power, carry_over)
        for design, errors in found["errors"].items()
        if errors
    }
    if not designs:
        say(
            f"no test can be planned: there are {found['days']} days of sales; a test by person or a switchback needs "
            f"{LENGTHS[0]}, one by region twice as many and four regions"
        )
        raise typer.Exit(exits.FAILED)
    if as_json:
        tests = [
            {"design": design, **each._asdict(), "return": None if change is None else each.detectable / change}
            for design, rows in designs.items()
            for each in rows
        ]
        print_json({"channel": channel, "currency": found["currency"], "sales_a_day": found["mean"],
                    "days_of_sales": found["days"], "level": level, "power": power, "tests": tests})  # fmt: skip
        return
    _print(channel, found, designs, change, (level, power, carry_over))


def _of_tenant(
    tenant: str, since: str, until: str, currency: str | None, how: tuple[int, float, int]
) -> dict[str, Any]:  # fmt: skip
    """Return the errors of tests on a tenant's stored sales."""
    import numpy as np

    from attributary.attribution_core.budget.power import LENGTHS, person_error, switchback_error
    from attributary.cli.outcome import database
    from attributary.consumers.store.spend.experiments import person_squares, sales_by_day, usual_currency

    block, share, seed = how
    with database("attributary-experiment", tenant=tenant) as connection:
        period: Days = days_option(since, until, tenant_zone(connection, tenant))
        start, end = period.micros
        money = currency or usual_currency(connection, tenant, (start, end))
        known = dict(sales_by_day(connection, tenant, money, (start, end), period.zone)) if money else {}
        sales = _whole_days(known)[:-1]  # the last day is not over, or cut
        past = len(sales)
        persons = []
        for days in LENGTHS:
            if money and past >= days:
                squares = person_squares(connection, tenant, money, (end - days * _DAY_US, end))
                persons.append((days, person_error(float(squares), days, share)))
    switched = [(days, switchback_error(np.array(sales), days, block, seed)) for days in LENGTHS]
    return {
        "days": past, "mean": float(np.mean(sales)) if past else 0.0, "currency": money or "",
        "errors": {"switchback": [each for each in switched if each[1] is not None], "person": persons},
    }  # fmt: skip


def _whole_days(known: dict[date, int]) -> list[float]:
    """Return the sales of each day from the first to the last, 0 where there are none; units."""
    from datetime import timedelta

    if not known:
        return []
    first, last = min(known), max(known)
    return [known.get(first + timedelta(days=n), 0) / 1e6 for n in range((last - first).days + 1)]


def _of_regions(file: Path, seed: int) -> dict[str, Any]:
    """Return the errors of tests by region on the sales of a file."""
    from attributary.attribution_core.budget.power import LENGTHS, region_error
    from attributary.cli.outcome import say
    from attributary.cli.table_files import FileError

    try:
        sales = _region_sales(file)
    except FileError as error:
        say(str(error))
        raise typer.Exit(exits.USAGE) from None
    errors = [(days, region_error(sales, days, seed)) for days in LENGTHS]
    past = sales.shape[1]
    return {
        "days": past, "mean": float(sales.sum()) / past, "currency": "",
        "errors": {"geo": [each for each in errors if each[1] is not None]},
    }  # fmt: skip


def _region_sales(file: Path) -> Floats:
    """Return sales by region and day, 0 where a region has none; float64[regions, days]."""
    import math
    from datetime import date

    import numpy as np

    from attributary.cli.table_files import FileError, read_columns

    found = read_columns(file)
    for name in ("day", "region", "sales"):
        if name not in found.columns:
            raise FileError(file, f"has no column {name}; it needs day, region, sales")
    regions = {name: place for place, name in enumerate(dict.fromkeys(map(str, found.columns["region"])))}
    rows = []
    for place, (day, region, amount) in enumerate(
        zip(*(found.columns[name] for name in ("day", "region", "sales")), strict=True)
    ):
        try:
            value, on = float(amount), date.fromisoformat(str(day).strip()[:10])
        except (TypeError, ValueError):
            value, on = math.nan, date.min
        if not math.isfinite(value):
            line = found.lines[place] if found.lines else place + 1
            raise FileError(file, f"line {line}: day must be a day, such as 2026-11-02, and sales a number")
        rows.append((regions[str(region)], on.toordinal(), value))
    if not rows:
        raise FileError(file, "has no row")
    first, last = min(row[1] for row in rows), max(row[1] for row in rows)
    if last - first > 3_660:
        raise FileError(file, f"has days from {date.fromordinal(first)} to {date.fromordinal(last)}: at most ten years")
    sales = np.zeros((len(regions), last - first + 1))
    for region_place, day_number, value in rows:
        sales[region_place, day_number - first] += value
    return sales


def _print(
    channel: str,
    found: dict[str, Any],
    designs: dict[str, list[Power]],
    change: float | None,
    how: tuple[float, float, float],
) -> None:
    from attributary.cli.tables import print_table, safe

    level, power, carry_over = how
    money = f" {found['currency']}" if found["currency"] else ""
    best_design, best = min(
        ((design, each) for design, rows in designs.items() for each in rows), key=lambda one: one[1].detectable
    )
    print(
        f"{safe(channel)}: the smallest effect that a test finds is {best.detectable:,.2f}{money} a day, "
        f"{best.share:.1%} of sales: {best_design}, {best.days} days"
    )
    print(
        f"Sales are {found['mean']:,.2f}{money} a day over {found['days']} days; {power:.0%} of tests find such an "
        f"effect by their {level:.0%} interval.\n"
    )
    titles = ("design", "days", "effect a day", "of sales", *(("return",) if change else ()), "seen")
    rows = [
        (design, str(each.days), f"{each.detectable:,.2f}", f"{each.share:.1%}",
         *((f"{each.detectable / change:,.2f}",) if change else ()), f"{each.seen:.0%}")
        for design, many in designs.items()
        for each in many
    ]  # fmt: skip
    print_table(titles, rows, tuple(range(1, len(titles))))
    if change:
        print(f"\nreturn: effect by a change of {change:,.2f} a day; a smaller return cannot be told from 0.")
        if best.detectable / change > 10:
            print("No channel returns that much: change more, test longer, or do not test.")
    if carry_over:
        print("seen: the part of an effect that comes before the test ends, by the carry-over given.")
    print(
        "Two tests at different spends, at three levels in all, make a curve: attributary experiment add, budget plan."
    )
