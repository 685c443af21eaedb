"""`attributary analyze FILE`: models over a file of finished journeys, without any service."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli import exits
from attributary.cli.analyze_output import Format
from attributary.cli.mapping_options import (
    ConstantOption,
    DecimalCommaOption,
    DelimiterOption,
    EncodingOption,
    MapOption,
    MappingOption,
    PresetOption,
    SkipLinesOption,
    ThousandsOption,
    TimeFormatOption,
    TimezoneOption,
    WhereOption,
    command_line,
)
from attributary.cli.tables import safe

if TYPE_CHECKING:
    from attributary.attribution_core.models.rules import RuleSettings
    from attributary.attribution_core.tables.paths import JourneyTable

_SECONDS_PER_DAY = 86_400
_MICROS_PER_DAY = 86_400_000_000
_MOST_DRAWS = 100_000
_OPTIONS = {
    "rules.half_life_seconds": "--half-life",
    "rules.*_weight": "--position-weights",
    **{name: f"--{name}" for name in ("order", "baseline", "method", "draws", "seed")},
}
"""How the command line names what a note says has no effect."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(analyze)


def analyze(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet (a file, or a folder of them): a table of paths, or of events. - is standard input."
        ),
    ],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="first, last, last_non_direct, linear, position_based, time_decay, markov, markov_journeys, shapley, "
            "shapley_rate, markov_shapley, poisson. Several by commas, or repeated. Default: all that the file allows."
        ),
    ] = None,
    order: Annotated[int, typer.Option(min=1, max=8, help="Order of the Markov chain.")] = 1,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="90 % intervals, and confidence (table and JSON).")
    ] = False,
    method: Annotated[
        Literal["auto", "bootstrap", "fast"],
        typer.Option(
            help="Of the intervals. fast: closed forms and Dirichlet draws, where there are any. auto: bootstrap up to "
            "200,000 rows."
        ),
    ] = "auto",
    draws: Annotated[int, typer.Option(min=2, max=_MOST_DRAWS, help="Draws behind the intervals.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws: the same seed gives the same numbers.")] = 0,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Channel that counts as always there, for markov_shapley. May be repeated.")
    ] = None,
    minimum_conversions: Annotated[
        int, typer.Option(min=0, help="A channel in fewer conversions has insufficient data.")
    ] = 30,
    max_channels: Annotated[
        int, typer.Option(min=2, max=2_000, help="Rare channels beyond so many are pooled into (other).")
    ] = 500,
    half_life: Annotated[float, typer.Option(help="Days, for time_decay: a touch this much earlier weighs half.")] = 7,
    position_weights: Annotated[
        str, typer.Option(help="Percent for the first touch, all between, and the last, for position_based.")
    ] = "40,20,40",
    transform: Annotated[
        list[str] | None,
        typer.Option(help="exposure, first, last, frequency, recency, unique; by commas or repeated, in order."),
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
            help="CSV of experiments (channel, standard_error; conversions, value or share, a fraction of 1; from and "
            "to where they ran in a part of the time): scales the totals. Computes intervals, too."
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
    map_: MapOption = None,
    constant: ConstantOption = None,
    mapping: MappingOption = None,
    preset: PresetOption = None,
    where: WhereOption = None,
    time_format: TimeFormatOption = None,
    timezone: TimezoneOption = None,
    decimal_comma: DecimalCommaOption = False,
    thousands: ThousandsOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    skip_lines: SkipLinesOption = 0,
    own_domain: Annotated[
        list[str] | None, typer.Option(help="With --preset ga4: a domain of yours; may be repeated.")
    ] = None,
) -> None:
    """Show what each channel receives, by several models side by side.

    A table of paths has the columns path (channels joined by ' > '), total_conversions, and, if known,
    total_conversion_value and total_null. A table of events has user, time, channel, and, if known, conversion, value
    and event_id, which orders equal times. See docs/models.md for which model answers which question.

    Paths in a folder of Parquet files are summed up while they are read: it may be larger than memory, only the
    distinct paths are held. Events, single files and columns with other names are read whole.

    Other names and forms: --map user=customer_id --map time=visit_time --delimiter ';' --time-format '%d.%m.%Y %H:%M',
    or the --mapping file of attributary produce. --preset ga4 reads GA4's events as BigQuery exports them.

    "spread" is how far the models are from each other on a channel: usually more than an interval is wide.

    In CSV, a channel that begins with = + - @ has an apostrophe in front, so that no spreadsheet runs it as a formula.

    "support" is how many conversions have the channel in their journey. CSV and JSON have all numbers; over the rows
    of a model in CSV, (baseline) and (unattributed) among them, conversions and value sum to the file.

    The same from Python: attributary.attribution_core.analyze, see the list of options in docs/models.md.

    Exit codes: 0 done; 2 a file or an option is wrong; 74 the output cannot be written; 130 interrupted.

    Example: attributary analyze paths.csv --model markov,shapley --intervals
    """
    from attributary.attribution_core.analysis.analyze import analyze as run
    from attributary.attribution_core.analysis.analyze import known_models
    from attributary.attribution_core.tables.transforms import known_transforms
    from attributary.cli.analyze_output import show
    from attributary.cli.model_options import progress_bar
    from attributary.cli.table_files import read_experiments

    if insights and output == "csv":
        raise typer.BadParameter("sentences have no place in CSV; use --format json", param_hint="--insights")
    # Before a large file is read: a misspelt name is not the file's fault.
    names, steps = _names("--model", model, known_models), _names("--transform", transform, known_transforms)
    rules = _rules(half_life, position_weights)
    lookback = None if lookback_days is None else _micros(lookback_days)
    experiments = []
    with _blaming(file, calibrate):
        options = command_line(
            map_, constant=constant, mapping=mapping, preset=preset, where=where, time_format=time_format,
            timezone=timezone, decimal_comma=decimal_comma, thousands=thousands, delimiter=delimiter,
            encoding=encoding, skip_lines=skip_lines, own_domains=own_domain,
        )  # fmt: skip
        table, notes = _table(file, lookback, options)
        if calibrate is not None:
            experiments = read_experiments(calibrate)
    with _blaming(file, calibrate), progress_bar() as told:
        found = run(
            table,
            names,
            progress=told,
            order=order,
            intervals=intervals,
            method=method,
            draws=draws,
            seed=seed,
            minimum_conversions=minimum_conversions,
            max_channels=max_channels,
            baseline=tuple(baseline or ()),
            transforms=tuple(steps or ()),
            rules=rules,
            insights=insights,
            experiments=tuple(experiments),
        )
    for note in (*notes, *found.models[0].diagnostics["notes"]):
        sys.stderr.write(f"attributary: note: {safe(_as_given(note))}\n")
    show(found, output)


def _table(file: Path, lookback: int | None, options: dict[str, Any]) -> tuple[JourneyTable, list[str]]:
    """Return the journeys of a file, and notes on how the options were taken."""
    from attributary.attribution_core.tables.journey_table import read_table
    from attributary.cli.event_exports import event_columns
    from attributary.cli.table_files import read_journeys
    from attributary.cli.table_mapping import table_mapping

    if options["preset"]:
        columns, notes = event_columns(file, options)
        return read_table(columns, lookback_micros=lookback), notes
    if not any(options.values()):
        return read_journeys(file, lookback), []
    mapping = table_mapping(options)
    unused = ", ".join(mapping.unused)
    return read_journeys(file, lookback, mapping), [f"parts of the mapping without a place here: {unused}"] * bool(
        unused
    )


def _as_given(note: str) -> str:
    """Return a note with the option named as the command line has it."""
    name, has_none, rest = note.partition(" has no effect")
    return f"{_OPTIONS[name]}{has_none}{rest}" if has_none and name in _OPTIONS else note


@contextmanager
def _blaming(file: Path, experiments: Path | None = None) -> Iterator[None]:
    """Say what is wrong, exit code 2, and in which file: experiments that do not fit are not the journeys' fault."""
    from attributary.attribution_core.tables.experiments import ExperimentError
    from attributary.cli.table_files import FileError
    from attributary.producers.importer.plan import PlanError

    try:
        yield
    except (FileError, PlanError) as error:  # names its file or option
        sys.stderr.write(f"attributary: {safe(str(error))}\n")
        raise typer.Exit(exits.USAGE) from None
    except (ValueError, OSError, csv.Error) as error:  # all that a file or an option can be wrong in
        named = experiments if isinstance(error, ExperimentError) and experiments is not None else file
        sys.stderr.write(safe(f"attributary: {named}: {error}") + "\n")
        raise typer.Exit(exits.USAGE) from None


def _micros(days: float) -> int:
    from attributary.attribution_core.analysis.options import MOST_DAYS

    if not 0 <= days <= MOST_DAYS:
        raise typer.BadParameter(f"must be from 0 to {MOST_DAYS:,} days", param_hint="--lookback-days")
    return round(days * _MICROS_PER_DAY)


def _names(option: str, given: Sequence[str] | None, known: Callable[[Collection[str]], list[str]]) -> list[str] | None:
    """Return names of models or transforms as they are known: in small letters, one by one."""
    if not given:
        return None
    names = [name.strip().lower().replace("-", "_") for text in given for name in text.split(",")]
    if "" in names:
        raise typer.BadParameter("a name is missing", param_hint=option)
    try:
        return known(names)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _rules(half_life_days: float, position_weights: str) -> RuleSettings:
    from attributary.attribution_core.models.rules import RuleSettings

    if not 0 < half_life_days < math.inf:
        raise typer.BadParameter("must be a positive number of days", param_hint="--half-life")
    try:
        first, middle, last = (float(text) / 100 for text in position_weights.split(","))
        return RuleSettings(first, middle, last, half_life_days * _SECONDS_PER_DAY)
    except ValueError:
        raise typer.BadParameter(
            "must be three numbers from 0 to 100 that sum to 100, such as 40,20,40", param_hint="--position-weights"
        ) from None
