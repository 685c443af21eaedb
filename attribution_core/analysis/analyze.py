"""Whole analyses of finished journeys in one call: `analyze(table)` for notebooks, the command line and batch jobs.

    from attributary.attribution_core import analyze
    result = analyze(frame, models=["markov", "shapley"], intervals=True)
    print(result)

Invariant: the same table and options give the same numbers; the seed is an option, no clock is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np

from attributary.attribution_core.analysis.diagnostics import model_diagnostics, sizes, statuses
from attributary.attribution_core.analysis.experiment_lifts import (
    Totals,
    UnavailableError,
    calibration_document,
    unavailable_document,
)
from attributary.attribution_core.analysis.insights import population_insights
from attributary.attribution_core.analysis.options import AnalysisSettings, names_of, unused_options
from attributary.attribution_core.analysis.report import ModelReport, plain
from attributary.attribution_core.analysis.result import Analysis
from attributary.attribution_core.domain.journeys import Flags, Floats, JourneyBatch
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.inference.interval import share_intervals, values_are_single
from attributary.attribution_core.models.channel_totals import (
    CreditTotals,
    Estimator,
    MarkovShapleyTotals,
    RateShapleyTotals,
    RemovalCreditTotals,
    RemovalTotals,
    Weights,
)
from attributary.attribution_core.models.markov import shares
from attributary.attribution_core.models.markov_shapley import MAX_CHANNELS as SAMPLED_CHANNELS
from attributary.attribution_core.models.model_set import RULE_MODELS, ModelError, RuleModel
from attributary.attribution_core.models.poisson import PoissonTotals
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.attribution_core.statistics.ngram_states import highest_order
from attributary.attribution_core.statistics.sets import channels_of_journeys, set_shares
from attributary.attribution_core.tables.experiments import Experiment, fitting
from attributary.attribution_core.tables.journey_table import Columns, Rows, read_table
from attributary.attribution_core.tables.paths import JourneyTable, TableError
from attributary.attribution_core.tables.table_checks import direct_notes
from attributary.attribution_core.tables.transforms import OTHER, TransformError, apply, pool_rare

__all__ = ["ANALYSES", "AnalysisSettings", "analyze", "known_models"]

_MICROS = 1_000_000
_DAY = 86_400 * _MICROS
ANALYSES: tuple[str, ...] = (
    *RULE_MODELS,
    "markov",
    "markov_journeys",
    "shapley",
    "shapley_rate",
    "markov_shapley",
    "poisson",
)
_BESIDE = ("first", "last", "linear", "markov", "shapley")  # compared with every interval
_NEEDS_TIME = frozenset({"time_decay", "poisson"})
Progress = Callable[[int, int, str], None]


def analyze(
    data: JourneyTable | Columns | Rows,
    models: Collection[str] | None = None,
    settings: AnalysisSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Analysis:
    """Run models over finished journeys.

    Args:
        data: an encoded table, the columns of the path format or of events (a dict, a frame of pandas, polars or
            pyarrow), or the rows of these.
        models: names, of `ANALYSES`, or a single one; by default all that the data allows.
        settings: options; single ones may be given by name instead (``order=2``, ``intervals=True``).
        progress: called with the steps done, all steps, and the name of the model at work; a step is a model, and with
            intervals each draw of a model.
        **options: fields of `AnalysisSettings`.

    Raises:
        ModelError: for an unknown model, one that needs times where there are none, or an unknown baseline channel.
        TableError: when the data cannot be read.
        ExperimentError: when an experiment does not fit.
        TransformError: for an unknown transform, or one that needs times where there are none.
        ValueError: when an option breaks its rule, or the order is too high for the number of channels; the errors
            above are ValueErrors, too.
        TypeError: for an option that does not exist, or data that are no table.
    """
    chosen = replace(settings or AnalysisSettings(), **options)
    if chosen.experiments:
        chosen = replace(chosen, intervals=True)
    wanted = known_models(models)
    table = _read(data, chosen.lookback_days)
    names = _answering(table, wanted, chosen)
    table = _pooled(replace(table, batch=apply(table.batch, chosen.transforms)), chosen)
    if not wanted and table.timed and "poisson" not in names:
        table = replace(table, notes=(*table.notes, "poisson is left out: it has a lookback of its own, 30 days"))
    for channel in chosen.baseline:
        if table.batch.index.code(channel) < 0:
            raise ModelError(f"baseline: no channel {channel!r} in the data")
    beside = _BESIDE if chosen.intervals else ()
    _check_order(chosen.order, {*names, *beside}, len(table.batch.index))
    table = replace(table, notes=(*table.notes, *unused_options(chosen, names, beside, len(table.batch))))
    if "last_non_direct" in names:
        direct = direct_notes(table.batch.index.names, asked="last_non_direct" in wanted)
        table = replace(table, notes=(*table.notes, *direct))
    if not wanted and len(table.batch.index) > SAMPLED_CHANNELS:
        note = f"markov_shapley is left out: more than {SAMPLED_CHANNELS} channels take it too long"
        table = replace(table, notes=(*table.notes, note))
    support = _support(table.batch, Weights.observed(table.outcomes))
    reports = []
    steps = 1 + chosen.draws * chosen.intervals
    for place, name in enumerate(names):

        def on_progress(draws: int, done: int = place * steps, name: str = name) -> None:
            if progress is not None:
                progress(done + draws, len(names) * steps, name)

        on_progress(0)
        reports.append(_report(_estimator(name, table, chosen), table, chosen, support, on_progress))
        on_progress(steps)
    _compare(reports, _beside(table, chosen, names))
    _explain(reports, table, chosen)
    return Analysis(tuple(reports))


def _read(data: JourneyTable | Columns | Rows, lookback_days: float | None) -> JourneyTable:
    if lookback_days is None:
        return read_table(data)
    if isinstance(data, JourneyTable):
        raise TableError("lookback_days: an encoded table is taken as it is; give it to read_events")
    return read_table(data, lookback_micros=round(lookback_days * MICROS_PER_DAY))


def _pooled(table: JourneyTable, settings: AnalysisSettings) -> JourneyTable:
    """Pool rare channels where there are more than the models can take."""
    keep = {*settings.baseline, *(each.channel for each in settings.experiments)}
    counts = table.outcomes.conversions + table.outcomes.nulls
    batch, pooled = pool_rare(table.batch, counts, settings.max_channels, keep)
    if not pooled:
        return table
    note = (
        f"{pooled:,} rare channels are pooled into {OTHER}: there are {len(table.batch.index):,}, "
        f"max_channels is {settings.max_channels:,}"
    )
    return replace(table, batch=batch, notes=(*table.notes, note))


def known_models(models: Collection[str] | None) -> list[str]:
    """Return the names of models once each, in their order; a single one may stand for a collection.

    Raises:
        ModelError: for a name that is not in `ANALYSES`.
    """
    try:
        names = list(dict.fromkeys(names_of(models or (), "models: must be names")))
    except ValueError as error:
        raise ModelError(str(error)) from None
    for name in names:
        if name not in ANALYSES:
            raise ModelError(f"no model {name!r}; there are {', '.join(ANALYSES)}")
    return names


def _answering(table: JourneyTable, wanted: Sequence[str], settings: AnalysisSettings) -> list[str]:
    """Return the models that the table allows: those asked for, or else all of these.

    Raises:
        ModelError: one that was asked for is not among them; the text says what it lacks.
    """
    if "recency" in settings.transforms and not table.timed:
        raise TransformError("recency needs times; a table of paths has none")
    lacks = {name: "needs times; a table of paths has none" for name in _NEEDS_TIME if not table.timed}
    if table.lookback_micros is not None and table.lookback_micros < AGE_BOUNDS[-1]:
        # it would watch people who converted for a shorter time than the others
        lacks["poisson"] = "has a lookback of its own, 30 days: leave the shorter one out"
    channels = min(len(table.batch.index), settings.max_channels)
    if channels > SAMPLED_CHANNELS:
        lacks["markov_shapley"] = f"takes too long with {channels:,} channels: set max_channels to {SAMPLED_CHANNELS}"
    for name in wanted:
        if name in lacks:
            raise ModelError(f"{name} {lacks[name]}")
    return list(wanted) or [name for name in ANALYSES if name not in lacks]


def _check_order(order: int, names: Collection[str], channels: int) -> None:
    highest = highest_order(channels)
    if order > highest and {"markov", "markov_journeys"} & set(names):
        raise ValueError(f"order: {order} is too high for {channels} channels; the highest possible is {highest}")


def _estimator(name: str, table: JourneyTable, settings: AnalysisSettings) -> Estimator:
    batch, watched_until = table.batch, table.watched_until
    if name in RULES:
        return CreditTotals(name, batch, RULES[name](batch, settings.rules))
    if name == "poisson" and watched_until is not None:
        return PoissonTotals(batch, watched_until)
    found: dict[str, Callable[[], Estimator]] = {
        "shapley": lambda: CreditTotals(name, batch, set_shares(batch)),
        "markov": lambda: RemovalTotals(batch, settings.order),
        "markov_journeys": lambda: RemovalCreditTotals(batch, settings.order),
        "shapley_rate": lambda: RateShapleyTotals(batch),
        "markov_shapley": lambda: MarkovShapleyTotals(batch, settings.baseline),
    }
    return found[name]()


def _version(name: str, settings: AnalysisSettings) -> str:
    if name in RULES:
        return RuleModel(name, settings.rules).version
    details = {
        "markov": f":order-{settings.order}",
        "markov_journeys": f":order-{settings.order}",
        "markov_shapley": ":baseline=" + ",".join(settings.baseline) if settings.baseline else "",
    }
    return "1" + details.get(name, "")


def _report(
    estimator: Estimator,
    table: JourneyTable,
    settings: AnalysisSettings,
    support: Floats,
    on_progress: Callable[[int], None],
) -> ModelReport:
    batch, outcomes = table.batch, table.outcomes
    weights = Weights.observed(outcomes)
    known = _known(batch, weights)
    totals = np.where(known[:, None], estimator.totals(weights), np.nan)
    share = _shares(totals, batch, weights)
    details = {key: np.where(known[0], values, np.nan) for key, values in estimator.details(weights).items()}
    diagnostics = sizes(table, settings.transforms) | statuses(
        estimator.name, batch, weights, settings.minimum_conversions
    )
    own = model_diagnostics(estimator, weights, totals, share, details)
    if diagnostics["status"] != "ok":
        own.pop("status", None)
    diagnostics |= own
    spread = None
    if settings.intervals:
        spread, used = share_intervals(
            estimator, table, share, settings.method, (settings.draws, settings.seed), on_progress
        )
        if not (isinstance(estimator, CreditTotals) and estimator.name in RULES):
            diagnostics["confidence"] = float(spread.confidence[0])
        diagnostics["interval_method"] = used if np.isfinite(spread.error[0]).all() else None
        diagnostics["draws"] = int(spread.draws[0])
        if not values_are_single(table):
            diagnostics["value_interval_note"] = (
                "rows sum up the values of several conversions: how they vary is unknown"
            )
    rows = []
    for code, name in enumerate(batch.index.names):
        row: dict[str, Any] = {
            "channel": name,
            "conversions": totals[0, code],
            "value": totals[1, code] / _MICROS,
            "share": share[0, code],
            "value_share": share[1, code],
            "interval": None if spread is None else [spread.low[0, code], spread.high[0, code]],
            "value_interval": None if spread is None else [spread.low[1, code], spread.high[1, code]],
            "standard_error": None if spread is None else spread.error[0, code],
            "value_standard_error": None if spread is None else spread.error[1, code],
            **{key: values[code] for key, values in details.items()},
            "conversions_with": int(support[code]),
            "status": "ok" if support[code] >= settings.minimum_conversions else "insufficient data",
        }
        rows.append({key: _python(value) for key, value in row.items()})
    _name_fallbacks(rows, batch, weights)
    return ModelReport(estimator.name, _version(estimator.name, settings), rows, plain(diagnostics))


def _python(value: Any) -> Any:
    """Return a cell as plain Python: what is unknown is None, and so is an interval with an unknown end."""
    found = plain(value)
    return None if isinstance(found, list) and None in found else found


def _known(batch: JourneyBatch, weights: Weights) -> Flags:
    """Tell whether there are conversions, and value, to share out: what a channel gets of nothing is unknown, not 0."""
    filled = batch.lengths > 0
    return np.array([bool(worth[filled].any()) for worth in (weights.conversions, weights.values)])


def _shares(totals: Floats, batch: JourneyBatch, weights: Weights) -> Floats:
    """Return the share of each channel of the conversions (value) with touches; a baseline keeps its part."""
    filled = batch.lengths > 0
    whole = np.array([weights.conversions[filled].sum(), weights.values[filled].sum()])
    share: Floats = np.divide(totals, whole[:, None], out=np.full(totals.shape, np.nan), where=whole[:, None] != 0)
    return share


def _support(batch: JourneyBatch, weights: Weights) -> Floats:
    """Return the conversions with the channel in their journey, float64[K]."""
    chosen = weights.conversions > 0
    journey, channel = channels_of_journeys(batch.select(chosen))
    return np.bincount(channel, weights.conversions[chosen][journey], len(batch.index)).astype(np.float64)


def _name_fallbacks(rows: list[dict[str, Any]], batch: JourneyBatch, weights: Weights) -> None:
    """Put beside the share of a channel with insufficient data what the linear rule says."""
    if all(row["status"] == "ok" for row in rows):
        return
    totals = CreditTotals("linear", batch, RULES["linear"](batch, RuleSettings())).totals(weights)
    fallback = shares(totals)
    for code, row in enumerate(rows):
        if row["status"] != "ok":
            row["fallback"] = {"model": "linear", "share": _python(fallback[0, code])}


def _beside(table: JourneyTable, settings: AnalysisSettings, names: Sequence[str]) -> list[Floats]:
    """Return the shares of models that were not asked for: an interval is not shown without model dependence."""
    if not settings.intervals:
        return []
    weights = Weights.observed(table.outcomes)
    others = [_estimator(name, table, settings) for name in _BESIDE if name not in names]
    return [_shares(other.totals(weights), table.batch, weights)[0] for other in others]


def _compare(reports: list[ModelReport], beside: list[Floats]) -> None:
    """Add to each row how far the models are apart on the channel: often more than any interval is wide.

    Those with a baseline do not take part: their shares are of another whole.
    """
    dividing = [report for report in reports if "baseline" not in report.diagnostics]
    for code, rows in enumerate(zip(*(report.channels for report in reports), strict=True)):
        several = [report.channels[code]["share"] for report in dividing] + [_python(other[code]) for other in beside]
        found = [share for share in several if share is not None]
        for row in rows:
            row["spread_over_models"] = max(found) - min(found) if len(found) > 1 else None


def _explain(reports: list[ModelReport], table: JourneyTable, settings: AnalysisSettings) -> None:
    """Add the sentences of the journeys, and what experiments say, where they were asked for."""
    if settings.insights:
        insights = population_insights(table, draws=settings.draws, seed=settings.seed)
        for report in reports:
            report.diagnostics["insights"] = [asdict(each) for each in insights if each.text is not None]
    if settings.experiments:
        for report in reports:
            _calibrate(report, table, settings.experiments)


def _calibrate(report: ModelReport, table: JourneyTable, experiments: Sequence[Experiment]) -> None:
    """Put beside the totals what they are after scaling by experiments; a model that cannot be scaled says why."""
    report.diagnostics["calibration"] = found = []
    names = tuple(row["channel"] for row in report.channels)
    kinds: tuple[tuple[Literal["conversions", "value"], str], ...] = (
        ("conversions", "standard_error"),
        ("value", "value_standard_error"),
    )
    for of, error in kinds:
        if not fitting(experiments, of):
            continue
        whole = float(report.diagnostics[of] or 0.0)
        errors = np.array([row[error] for row in report.channels], dtype=np.float64)
        amounts = np.array([row[of] for row in report.channels], dtype=np.float64)
        # the errors are those of shares of what the journeys with touches have
        errors *= abs(whole - (report.diagnostics[f"unattributed_{of}"] or 0.0))
        try:
            document = calibration_document(Totals(names, amounts, errors, whole, *_days(table)), experiments, of)
        except UnavailableError as unavailable:
            status = report.diagnostics["status"]
            why = str(unavailable) if status == "ok" else f"{unavailable} ({status})"
            found.append(plain(unavailable_document(experiments, of, why)))
            continue
        found.append(plain(document))
        for row, calibrated in zip(report.channels, document["channels"], strict=True):
            fields = ("calibrated", "interval", "factor", "basis")
            row[f"calibrated_{of}"] = {field: calibrated[field] for field in fields}


def _days(table: JourneyTable) -> tuple[int | None, int | None]:
    """Return begin and end of the days (UTC) of a table of events: it has no event at the very begin or end of them."""
    if table.watched_until is None or not table.batch.times.size:
        return None, None
    latest = int(table.watched_until.max())
    return int(table.batch.times.min()) // _DAY * _DAY, -(-latest // _DAY) * _DAY
