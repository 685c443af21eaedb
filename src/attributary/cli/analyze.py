"""`attributary analyze FILE`: models over a file of finished journeys, without any service."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    from attributary.attribution_core.report import Analysis

_MICROS_PER_DAY = 86_400_000_000
_MOST_DAYS = 36_500  # a century

Format = Literal["table", "json", "csv"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(analyze)


def analyze(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: a table of paths, or of events; - for standard input.")],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="first, last, last_non_direct, linear, position_based, time_decay, markov, markov_journeys, shapley, "
            "shapley_rate, markov_shapley, poisson. May be repeated. Default: all that the file allows."
        ),
    ] = None,
    order: Annotated[int, typer.Option(min=1, max=8, help="Order of the Markov chain.")] = 1,
    intervals: Annotated[bool, typer.Option("--intervals", help="90 % intervals and confidence.")] = False,
    draws: Annotated[int, typer.Option(min=10, help="Draws behind the intervals.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same numbers.")] = 0,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Channel that would be there anyway, for markov_shapley. May be repeated.")
    ] = None,
    transform: Annotated[
        list[str] | None,
        typer.Option(help="exposure, first, last, frequency, recency, unique; may be repeated, in order."),
    ] = None,
    lookback_days: Annotated[
        float | None, typer.Option(min=0, help="Event tables: older touches do not count. Default: no limit.")
    ] = None,
    insights: Annotated[
        bool, typer.Option("--insights", help="Sentences about the file's journeys, each with its test.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="CSV of experiments (channel, standard_error, and conversions, value or share): scales the totals."
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Show what each channel contributed, by several models side by side.

    A table of paths has the columns path (channels joined by ' > '), total_conversions, and, if known,
    total_conversion_value and total_null. A table of events has user, time, channel, and, if known, conversion and
    value. See docs/models.md for which model answers which question.

    "apart" is how far the models are from each other on a channel: usually more than an interval is wide.

    Example: attributary analyze paths.csv --model markov --model shapley --intervals
    """
    from attributary.attribution_core.analysis import analyze as run
    from attributary.attribution_core.lifts import ExperimentError, read_experiments
    from attributary.cli.table_files import FileError, read_columns, read_journeys

    if insights and output == "csv":
        raise typer.BadParameter("sentences have no place in CSV; use --format json", param_hint="--insights")
    lookback = None if lookback_days is None else _micros(lookback_days)
    try:
        table = read_journeys(file, lookback)
        experiments = () if calibrate is None else tuple(read_experiments(read_columns(calibrate).columns))
    except (FileError, ExperimentError) as error:
        _refuse(str(error) if isinstance(error, FileError) else f"{calibrate}: {error}")
    try:
        found = run(
            table,
            model,
            order=order,
            intervals=intervals,
            draws=draws,
            seed=seed,
            baseline=tuple(baseline or ()),
            transforms=tuple(transform or ()),
            insights=insights,
            experiments=experiments,
        )
    except ValueError as error:  # all that options can be wrong in
        _refuse(f"{file}: {error}")
    for note in found.models[0].diagnostics["notes"]:
        sys.stderr.write(f"attributary: note: {note}\n")
    _show(found, output)


def _refuse(text: str) -> NoReturn:
    sys.stderr.write(f"attributary: {text}\n")
    raise typer.Exit(exits.USAGE)


def _micros(days: float) -> int:
    if not 0 <= days <= _MOST_DAYS:
        raise typer.BadParameter(f"must be from 0 to {_MOST_DAYS:,} days", param_hint="--lookback-days")
    return round(days * _MICROS_PER_DAY)


def _show(found: "Analysis", output: Format) -> None:
    if output == "json":
        print(found.to_json())
    elif output == "csv":
        from attributary.attribution_core.report import CSV_COLUMNS

        writer = csv.DictWriter(sys.stdout, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.rows())
    else:
        print(found.table())
