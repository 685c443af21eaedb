"""`attributary analyze FILE`: models over a file of finished journeys, without any service."""

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    from attributary.attribution_core.paths import JourneyTable
    from attributary.attribution_core.report import Analysis

_MICROS_PER_DAY = 86_400_000_000

Format = Literal["table", "json", "csv"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(analyze)


def analyze(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: a table of paths, or of events.")],
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
        list[str] | None, typer.Option(help="Channel that counts as always there, for markov_shapley. May be repeated.")
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
    """Show what each channel receives, by several models side by side.

    A table of paths has the columns path (channels joined by ' > '), total_conversions, and, if known,
    total_conversion_value and total_null. A table of events has user, time, channel, and, if known, conversion, value
    and event_id, which orders equal times. See docs/models.md for which model answers which question.

    "apart" is how far the models are from each other on a channel: usually more than an interval is wide.

    Example: attributary analyze paths.csv --model markov --model shapley --intervals
    """
    from attributary.attribution_core.analysis import analyze as run
    from attributary.attribution_core.lifts import read_experiments

    if insights and output == "csv":
        raise typer.BadParameter("sentences have no place in CSV; use --format json", param_hint="--insights")
    try:
        found = run(
            _read(file, lookback_days),
            model,
            order=order,
            intervals=intervals,
            draws=draws,
            seed=seed,
            baseline=tuple(baseline or ()),
            transforms=tuple(transform or ()),
            insights=insights,
            experiments=() if calibrate is None else tuple(read_experiments(read_csv(calibrate))),
        )
    except (ValueError, OSError, csv.Error) as error:  # all that a file or an option can be wrong in
        sys.stderr.write(f"attributary: {file}: {error}\n")
        raise typer.Exit(exits.USAGE) from None
    _show(found, output)


def _read(file: Path, lookback_days: float | None) -> "JourneyTable":
    from attributary.attribution_core.events import read_events
    from attributary.attribution_core.paths import TableError, read_paths

    columns = _parquet(file) if file.suffix.lower() in {".parquet", ".pq"} else read_csv(file)
    if "path" in columns:
        if lookback_days is not None:
            raise TableError("--lookback-days needs times; a table of paths has none")
        return read_paths(columns)
    if {"user", "time", "channel"} <= set(columns):
        lookback = None if lookback_days is None else round(lookback_days * _MICROS_PER_DAY)
        return read_events(columns, lookback_micros=lookback)
    raise TableError("columns must be path and total_conversions, or user, time and channel")


def read_csv(file: Path) -> dict[str, list[Any]]:
    """Return the columns of a CSV file.

    Raises:
        TableError: a row has more or fewer cells than there are columns.
    """
    from attributary.attribution_core.paths import TableError

    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        names = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise TableError(f"row {number}: {len(row)} cells, but {len(names)} columns")
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return {name: list(column) for name, column in zip(names, cells, strict=True)}


def _parquet(file: Path) -> dict[str, list[Any]]:
    from attributary.attribution_core.paths import TableError

    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise TableError("Parquet needs pyarrow: install attributary[parquet]") from error
    try:
        columns: dict[str, list[Any]] = parquet.read_table(file).to_pydict()
    except ArrowException as error:
        raise TableError(f"no Parquet file ({error})") from error
    return columns


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
