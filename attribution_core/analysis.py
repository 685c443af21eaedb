"""Whole analyses of finished journeys in one call: `analyze(table)` for notebooks, the command line and batch jobs.

    from attributary.attribution_core import analyze
    result = analyze(frame, models=["markov", "shapley"], intervals=True)
    print(result)

Invariant: the same table and options give the same numbers; the seed is an option, no clock is read.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np

from attributary.attribution_core.grams import highest_order
from attributary.attribution_core.insights import population_insights
from attributary.attribution_core.interval import shares_spread
from attributary.attribution_core.journeys import Floats, JourneyBatch
from attributary.attribution_core.lifts import Experiment, ExperimentError, Totals, calibration_document
from attributary.attribution_core.markov import shares
from attributary.attribution_core.models import RULE_MODELS, ModelError
from attributary.attribution_core.options import AnalysisSettings, names_of, without_effect
from attributary.attribution_core.paths import JourneyTable
from attributary.attribution_core.poisson import PoissonTotals
from attributary.attribution_core.population import (
    CreditTotals,
    Estimator,
    MarkovShapleyTotals,
    RateShapleyTotals,
    RemovalCreditTotals,
    RemovalTotals,
    Weights,
)
from attributary.attribution_core.reconciliation import reconcile
from attributary.attribution_core.report import Analysis, ModelReport
from attributary.attribution_core.rules import RULES, RuleSettings
from attributary.attribution_core.sets import channels_of_journeys, set_shares
from attributary.attribution_core.shapley import journey_interactions, ordered
from attributary.attribution_core.tables import Columns, Rows, read_table
from attributary.attribution_core.transforms import TransformError, apply

__all__ = ["ANALYSES", "AnalysisSettings", "analyze"]

_MICROS = 1_000_000
_PAIRS = 20  # strongest pairs in a report
_PLACES = 10  # places in the journey that a report shows one by one; the last entry holds all later ones
ANALYSES: tuple[str, ...] = (
    *RULE_MODELS,
    "markov",
    "markov_journeys",
    "shapley",
    "shapley_rate",
    "markov_shapley",
    "poisson",
)
_BESIDE = ("first", "last", "linear", "markov", "shapley")  # whose shares stand beside every interval
_NEEDS_TIME = frozenset({"time_decay", "poisson"})


def analyze(
    data: JourneyTable | Columns | Rows,
    models: Collection[str] | None = None,
    settings: AnalysisSettings | None = None,
    **options: Any,
) -> Analysis:
    """Run models over finished journeys.

    Args:
        data: an encoded table, the columns of the path format or of events (a dict, a frame of pandas, polars or
            pyarrow), or the rows of these.
        models: names, of `ANALYSES`, or a single one; by default all that the data allows.
        settings: options; single ones may be given by name instead (``order=2``, ``intervals=True``).
        **options: fields of `AnalysisSettings`.

    Raises:
        ModelError: for an unknown model, one that needs times where there are none, or an unknown baseline channel.
        TableError: when the data cannot be read.
        TransformError: for an unknown transform, or one that needs times where there are none.
        ExperimentError: when an experiment does not fit.
        TypeError: for data of another kind.
        ValueError: when an option breaks its rule, or the order is too high for the number of channels.
    """
    chosen = replace(settings or AnalysisSettings(), **options)
    if chosen.experiments:
        chosen = replace(chosen, intervals=True)
    wanted = _known_models(models)
    table = read_table(data)
    names = wanted or [n for n in ANALYSES if table.timed or n not in _NEEDS_TIME]
    _check_times(table, names, chosen)
    table = replace(table, batch=apply(table.batch, chosen.transforms))
    for channel in chosen.baseline:
        if table.batch.index.code(channel) < 0:
            raise ModelError(f"baseline: no channel {channel!r} in the data")
    beside = _BESIDE if chosen.intervals else ()
    _check_order(chosen.order, {*names, *beside}, len(table.batch.index))
    table = replace(table, notes=(*table.notes, *without_effect(chosen, {*names, *beside})))
    support = _support(table.batch, Weights.observed(table.outcomes))
    reports = [_report(_estimator(name, table, chosen), table, chosen, support) for name in names]
    _compare(reports, _beside(table, chosen, names))
    _explain(reports, table, chosen)
    return Analysis(tuple(reports))


def _known_models(models: Collection[str] | None) -> list[str]:
    try:
        names = list(dict.fromkeys(names_of(models or (), "models: must be names")))
    except ValueError as error:
        raise ModelError(str(error)) from None
    for name in names:
        if name not in ANALYSES:
            raise ModelError(f"no model {name!r}; there are {', '.join(ANALYSES)}")
    return names


def _check_times(table: JourneyTable, names: Sequence[str], settings: AnalysisSettings) -> None:
    for name in names:
        if name in _NEEDS_TIME and not table.timed:
            raise ModelError(f"{name} needs times; a table of paths has none")
    if "recency" in settings.transforms and not table.timed:
        raise TransformError("recency needs times; a table of paths has none")


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
    rules = settings.rules
    details = {
        "position_based": f":{rules.first_weight:g}/{rules.middle_weight:g}/{rules.last_weight:g}",
        "time_decay": f":{rules.half_life_seconds:g}s",
        "markov": f":order-{settings.order}",
        "markov_journeys": f":order-{settings.order}",
        "markov_shapley": ":baseline=" + ",".join(settings.baseline) if settings.baseline else "",
    }
    return "1" + details.get(name, "")


def _report(estimator: Estimator, table: JourneyTable, settings: AnalysisSettings, support: Floats) -> ModelReport:
    batch, outcomes = table.batch, table.outcomes
    weights = Weights.observed(outcomes)
    totals = estimator.totals(weights)
    share = _shares(totals, batch, weights)
    details = estimator.details(weights)
    with_touches = batch.lengths > 0
    diagnostics: dict[str, Any] = {
        "status": _status(batch, weights, settings),
        "journeys": int((outcomes.conversions + outcomes.nulls).sum()),
        "conversions": int(outcomes.conversions.sum()),
        "value": int(outcomes.value_micros.sum()) / _MICROS,
        "unattributed_conversions": int(outcomes.conversions[~with_touches].sum()),
        "unattributed_value": int(outcomes.value_micros[~with_touches].sum()) / _MICROS,
        "refunds_without_conversion": int(((outcomes.conversions == 0) & (outcomes.value_micros != 0)).sum()),
        "transforms": list(settings.transforms),
        "notes": list(table.notes),
        "confidence": None,
    }
    if isinstance(estimator, MarkovShapleyTotals) and settings.baseline:
        by_conversion, by_value = estimator.values(weights)
        diagnostics["baseline"] = list(settings.baseline)
        diagnostics["baseline_share"] = by_conversion.baseline / by_conversion.total if by_conversion.total else None
        diagnostics["baseline_value_share"] = by_value.baseline / by_value.total if by_value.total else None
    if estimator.name == "shapley":
        diagnostics.update(_shapley_details(batch, weights))
    if isinstance(estimator, PoissonTotals):
        diagnostics["baseline"] = ["no touch"]
        known = share.size > 0 and bool(np.isfinite(share[0]).all())
        diagnostics["baseline_share"] = 1.0 - float(share[0].sum()) if known else None
    if isinstance(estimator, RemovalTotals):
        diagnostics["order"] = settings.order
        diagnostics["states"] = int(estimator.grams.states.numbers.size)
        diagnostics["reconciliation"] = reconcile(batch, weights, totals[0], details["removal_effect"])
    if isinstance(estimator, CreditTotals) and estimator.name in RULES:
        diagnostics["confidence_note"] = "rule, not estimated: intervals show how stable the share is over journeys"
    spread = None
    if settings.intervals:
        spread = shares_spread(estimator, table, share, settings.method, (settings.draws, settings.seed))
        if not (isinstance(estimator, CreditTotals) and estimator.name in RULES):
            diagnostics["confidence"] = float(spread.confidence[0])
        diagnostics["draws"] = settings.draws
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
            **{key: values[code] for key, values in details.items()},
            "conversions_with": int(support[code]),
            "status": "ok" if support[code] >= settings.minimum_conversions else "insufficient data",
        }
        rows.append({key: _python(value) for key, value in row.items()})
    _name_fallbacks(rows, batch, weights)
    return ModelReport(estimator.name, _version(estimator.name, settings), rows, diagnostics)


def _shapley_details(batch: JourneyBatch, weights: Weights) -> dict[str, Any]:
    """Return the strongest pairs by interaction index, and the values by place in the journey."""
    names = batch.index.names
    chosen = weights.conversions > 0
    converting, conversions = batch.select(chosen), weights.conversions[chosen]
    pairs = np.triu(journey_interactions(converting, conversions))
    order = np.argsort(-pairs, axis=None, kind="stable")[:_PAIRS]
    places = ordered(converting, conversions.astype(np.int64))
    late = places[:, _PLACES:].sum(axis=1, keepdims=True)
    return {
        "interactions": [
            {"channels": [names[place // len(names)], names[place % len(names)]], "index": float(pairs.flat[place])}
            for place in order.tolist()
            if pairs.flat[place] > 0
        ],
        "by_place": dict(zip(names, np.column_stack((places[:, :_PLACES], late)).tolist(), strict=True)),
    }


def _python(value: Any) -> Any:
    """Return numpy's numbers as Python's: rows are read by people."""
    if isinstance(value, list):
        return [_python(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _shares(totals: Floats, batch: JourneyBatch, weights: Weights) -> Floats:
    """Return the share of each channel in what the journeys with touches brought; a baseline keeps its part."""
    filled = batch.lengths > 0
    whole = np.array([weights.conversions[filled].sum(), weights.values[filled].sum()])
    share: Floats = np.divide(totals, whole[:, None], out=np.full(totals.shape, np.nan), where=whole[:, None] != 0)
    return share


def _support(batch: JourneyBatch, weights: Weights) -> Floats:
    """Return the conversions whose journey contains the channel, float64[K]."""
    chosen = weights.conversions > 0
    journey, channel = channels_of_journeys(batch.select(chosen))
    return np.bincount(channel, weights.conversions[chosen][journey], len(batch.index)).astype(np.float64)


def _status(batch: JourneyBatch, weights: Weights, settings: AnalysisSettings) -> str:
    filled = batch.lengths > 0
    conversions = weights.conversions[filled].sum()
    if conversions == 0:
        return "unavailable: no conversions" + (" with touches" if weights.conversions.any() else "")
    if conversions < settings.minimum_conversions:
        return f"insufficient data: fewer than {settings.minimum_conversions} conversions"
    if weights.nulls[filled].sum() == 0:
        return "conversions only: journeys without a conversion are missing, removal effects say little"
    return "ok"


def _name_fallbacks(rows: list[dict[str, Any]], batch: JourneyBatch, weights: Weights) -> None:
    """Put beside the share of a channel with insufficient data what the linear rule says."""
    if all(row["status"] == "ok" for row in rows):
        return
    totals = CreditTotals("linear", batch, RULES["linear"](batch, RuleSettings())).totals(weights)
    fallback = shares(totals)
    for code, row in enumerate(rows):
        if row["status"] != "ok":
            row["fallback"] = {"model": "linear", "share": fallback[0, code]}


def _beside(table: JourneyTable, settings: AnalysisSettings, names: Sequence[str]) -> list[Floats]:
    """Return the shares of models that were not asked for: an interval is not shown without model dependence."""
    if not settings.intervals:
        return []
    weights = Weights.observed(table.outcomes)
    others = [_estimator(name, table, settings) for name in _BESIDE if name not in names]
    return [_shares(other.totals(weights), table.batch, weights)[0] for other in others]


def _compare(reports: list[ModelReport], beside: list[Floats]) -> None:
    """Add to each row how far the models are apart on the channel: often more than any interval is wide."""
    for code, rows in enumerate(zip(*(report.channels for report in reports), strict=True)):
        several = [row["share"] for row in rows] + [float(other[code]) for other in beside]
        found = [share for share in several if np.isfinite(share)]
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
    """Put beside the totals what they are after scaling by experiments."""
    whole = report.diagnostics["conversions"] - report.diagnostics["unattributed_conversions"]
    value = report.diagnostics["value"] - report.diagnostics["unattributed_value"]
    names = tuple(row["channel"] for row in report.channels)
    errors = np.array([row["standard_error"] for row in report.channels], dtype=np.float64)
    if not np.isfinite(errors).all():
        raise ExperimentError(f"{report.model}: its totals have no standard errors: {report.diagnostics['status']}")
    span: tuple[int | None, int | None] = (None, None)
    if table.watched_until is not None and table.batch.times.size:
        span = int(table.batch.times.min()), int(table.watched_until.max())
    report.diagnostics["calibration"] = found = []
    wholes: tuple[tuple[Literal["conversions", "value"], float], ...] = (("conversions", whole), ("value", value))
    for of, all_of_it in wholes:
        if not any(each.measure == of or (each.measure == "share" and of == "conversions") for each in experiments):
            continue
        amounts = np.array([row[of] for row in report.channels], dtype=np.float64)
        # shares of value move as shares of conversions do, to the accuracy of a standard error
        totals = Totals(names, amounts, errors * abs(all_of_it), float(all_of_it), *span)
        document = calibration_document(totals, experiments, of)
        found.append(document)
        for row, calibrated in zip(report.channels, document["channels"], strict=True):
            fields = ("calibrated", "interval", "factor", "basis")
            row[f"calibrated_{of}"] = {field: calibrated[field] for field in fields}
