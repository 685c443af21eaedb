"""`attributary experiment`: tests of spend as data, and which test can tell what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.experiment_plan import plan_experiment
from attributary.cli.tenant_option import Tenant

if TYPE_CHECKING:
    from attributary.attribution_core.budget.experiments import SpendExperiment
    from attributary.consumers.store.spend.experiments import StoredExperiment

_Json = Annotated[bool, typer.Option("--json", help="JSON.")]


def register(app: typer.Typer) -> None:
    """Add the group `experiment`."""
    group = typer.Typer(no_args_is_help=True, help="Tests of spend: what they measured, and how to plan one.")
    group.command("add")(_add)
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("withdraw")(_withdraw)
    group.command("plan")(plan_experiment)
    app.add_typer(group, name="experiment")


def _add(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet: experiment, channel, design, from, to, currency, spend_from, spend_to, effect, "
            "standard_error, share, source."
        ),
    ],
    *,
    tenant: Tenant = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, store nothing.")] = False,
) -> None:
    """Store experiments: one row each, all rows or none.

    Amounts are sums over all days of the test and the population of the test; share is the part of all buyers that they
    are of, 1 if empty. `to` is the day after the last one. With effect and standard_error empty the test is only
    planned. The same name again, with other content, is a correction: a new revision. Negative effects belong in.
    Spend that followed demand is refused, because its slope is several times the true one. Needs DATABASE_URL.

    Exit codes: 0 all are stored, 2 the file cannot be used and nothing is stored.

    Example: attributary experiment add tests.csv --tenant acme
    """
    from attributary.cli.outcome import database, say
    from attributary.cli.table_files import FileError
    from attributary.cli.tables import plural
    from attributary.consumers.store.spend.experiments import add_experiments

    try:
        given = _read(file)
    except FileError as error:
        say(str(error))
        raise typer.Exit(exits.USAGE) from None
    print(f"{plural(len(given), 'experiment')} of {plural(len({each.channel for each in given}), 'channel')}")
    if dry_run:
        print("nothing is stored: --dry-run")
        return
    with database("attributary-experiment") as connection:
        done = add_experiments(connection, tenant, given)
    print(f"stored: {done.new:,} new, {done.corrected:,} corrected, {done.unchanged:,} as before")


def _read(file: Path) -> list[SpendExperiment]:
    from attributary.attribution_core.budget.experiments import COLUMNS, NEEDED, ExperimentError, read_experiment
    from attributary.cli.table_files import FileError, read_columns
    from attributary.schemas.limits import MINOR_UNIT_MICROS

    found = read_columns(file)
    missing = [name for name in NEEDED if name not in found.columns]
    if missing:
        raise FileError(file, f"has no column {missing[0]}; it needs {', '.join(NEEDED)}")
    unknown = [name for name in found.columns if name not in COLUMNS]
    if unknown:
        raise FileError(file, f"has the column {unknown[0]}, which is not known; known are {', '.join(COLUMNS)}")
    names = [name for name in COLUMNS if name in found.columns]
    given: dict[str, SpendExperiment] = {}
    for place, cells in enumerate(zip(*(found.columns[name] for name in names), strict=True)):
        line = found.lines[place] if found.lines else place + 1
        try:
            each = read_experiment(dict(zip(names, cells, strict=True)))
        except ExperimentError as error:
            raise FileError(file, f"line {line}: {error}") from None
        if each.currency not in MINOR_UNIT_MICROS:
            raise FileError(file, f"line {line}: currency: {each.currency} is no ISO 4217 code")
        if each.experiment in given:
            raise FileError(file, f"line {line}: experiment {each.experiment} is there twice")
        given[each.experiment] = each
    if not given:
        raise FileError(file, "has no row")
    return list(given.values())


def _list(*, tenant: Tenant = "", as_json: _Json = False) -> None:
    """Show the experiments of a tenant, with what they say of a day and of everybody.

    Example: attributary experiment list --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table
    from attributary.consumers.store.spend.experiments import experiments

    with database("attributary-experiment", tenant=tenant) as connection:
        found = experiments(connection, tenant)
    if as_json:
        print_json({"experiments": [_document(each) for each in found]})
    elif not found:
        print(f"{tenant} has no experiments: attributary experiment add --help, attributary experiment plan --help")
    else:
        titles = ("experiment", "channel", "design", "from", "to", "state", "spend a day", "", "effect a day", "return")
        print_table(titles, [_cells(each.experiment) for each in found], (8, 9))
        print("\nAmounts are for everybody. The return is that of the change: effect by spend, with 90 % of its error.")


def _cells(each: SpendExperiment) -> list[str]:
    first = [each.experiment, each.channel, each.design, str(each.first_day), str(each.end_day), each.state(_today())]
    scale = 1 / each.days / each.population_share / 1e6
    spends = f"{each.spend_from_micros * scale:,.2f} to {each.spend_to_micros * scale:,.2f}"
    if each.effect_micros is None or each.error_micros is None:
        return [*first, spends, each.currency, "", ""]
    change = each.spend_to_micros - each.spend_from_micros
    ratio, error = each.effect_micros / change, 1.645 * each.error_micros / abs(change)
    effect = f"{each.effect_micros * scale:,.2f}"
    return [*first, spends, each.currency, effect, f"{ratio:,.2f} [{ratio - error:,.2f}, {ratio + error:,.2f}]"]


def _today() -> Any:
    return datetime.now(UTC).date()


def _show(
    experiment: Annotated[str, typer.Argument(help="Its name.")], *, tenant: Tenant = "", as_json: _Json = False
) -> None:
    """Show all revisions of an experiment, the newest first.

    Example: attributary experiment show search-2026-09 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table
    from attributary.consumers.store.spend.experiments import revisions

    with database("attributary-experiment", tenant=tenant) as connection:
        found = revisions(connection, tenant, experiment)
    if not found:
        _unknown(tenant, experiment)
    if as_json:
        print_json({"revisions": [_document(each) for each in found]})
        return
    newest = found[0]
    print_table(
        ("", ""), [(name.replace("_", " "), "" if value is None else str(value))
                   for name, value in _document(newest).items()], ()
    )  # fmt: skip
    for each in found[1:]:
        effect = "none" if each.experiment.effect_micros is None else f"{each.experiment.effect_micros / 1e6:,.2f}"
        print(f"before: revision {each.revision} of {each.created_at:%Y-%m-%d %H:%M}, effect {effect}")


def _unknown(tenant: str, experiment: str) -> None:
    from attributary.cli.outcome import say

    say(f"{tenant} has no experiment '{experiment}'; see attributary experiment list")
    raise typer.Exit(exits.FAILED)


def _withdraw(experiment: Annotated[str, typer.Argument(help="Its name.")], *, tenant: Tenant = "") -> None:
    """Let plans no longer use an experiment. It stays in the list; adding it again uses it again.

    Example: attributary experiment withdraw search-2026-09 --tenant acme
    """
    from dataclasses import replace

    from attributary.cli.outcome import database
    from attributary.consumers.store.spend.experiments import add_experiments, experiments

    with database("attributary-experiment", tenant=tenant) as connection:
        found = experiments(connection, tenant, [experiment])
        if found:
            add_experiments(connection, tenant, [replace(found[0].experiment, is_withdrawn=True)])
    if not found:
        _unknown(tenant, experiment)
    print("withdrawn")


def _document(found: StoredExperiment) -> dict[str, Any]:
    """Return a revision for JSON; amounts in units, as exact texts."""
    from decimal import Decimal

    each = found.experiment
    effect, error, start, end = (
        None if micros is None else f"{Decimal(micros) / 1_000_000:.2f}"
        for micros in (each.effect_micros, each.error_micros, each.spend_from_micros, each.spend_to_micros)
    )
    return {
        "experiment": each.experiment, "channel": each.channel, "design": each.design, "from": str(each.first_day),
        "to": str(each.end_day), "state": each.state(_today()), "currency": each.currency, "spend_from": start,
        "spend_to": end, "effect": effect, "standard_error": error, "share": each.population_share,
        "source": each.source, "revision": found.revision, "stored_at": found.created_at.isoformat(),
    }  # fmt: skip
