"""Reports of credit by name: models side by side, early and late touches, assists, what stands in no channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE
from attributary.consumers.store.results.report_reads import Rest

from .definition import OTHER, UNATTRIBUTED, Asked, Column, ReportTable, Source, counted, percent

MODEL_COLUMNS = (
    Column("name", "name", "The channel, platform or campaign; (unattributed): what no touchpoint gets."),
    Column("model", "text", "The model."),
    Column("conversions", "credit", "Credit of the model.", is_additive=True),
    Column("low", "credit", "Lower end of its 90 % interval, for the sampling of conversions alone."),
    Column("high", "credit", "Upper end."),
    Column("value", "micros", "Credited net value.", is_additive=True),
    Column("change", "share", "(this model - first model) / first model; null where that is 0."),
    Column("lowest", "credit", "The least that any of the models credits."),
    Column("highest", "credit", "The most that any of the models credits."),
    Column("touched", "count", "Conversions with a touchpoint of the name, each once; not additive."),
    Column("rank", "text", "certain: by every model its interval is apart from its neighbours'; else open."),
)
POSITION_COLUMNS = (
    Column("name", "name", "The channel, platform or campaign."),
    Column("early", "credit", "Credit of the first quarter of touches.", is_additive=True),
    Column("mid", "credit", "Credit of those between.", is_additive=True),
    Column("late", "credit", "Credit of the last quarter.", is_additive=True),
    Column("conversions", "credit", "All of its credit.", is_additive=True),
    Column("early_value", "micros", "Net value of the early credit.", is_additive=True),
    Column("mid_value", "micros", "Of the mid credit.", is_additive=True),
    Column("late_value", "micros", "Of the late credit.", is_additive=True),
)
ASSIST_COLUMNS = (
    Column("name", "name", "The channel, platform or campaign."),
    Column("touched", "count", "Conversions with a touchpoint of it, each once; not additive."),
    Column("assisted", "count", "Conversions with it before the last touch; not additive."),
    Column("closed", "count", "Conversions with it as the last touch.", is_additive=True),
    Column("assist_only", "count", "Conversions with it before the last touch and not as the last; not additive."),
    Column("assist_ratio", "ratio", "assisted / closed; null where nothing was closed."),
)
UNATTRIBUTED_COLUMNS = (
    Column("model", "text", "The model; all: the same for every model."),
    Column("part", "text", "touchpoints, no touchpoint, baseline, no credit, (erased) or (retired)."),
    Column("conversions", "credit", "Credit, or conversions.", is_additive=True),
    Column("value", "micros", "Net value.", is_additive=True),
    Column("share", "share", "Of the conversions of the model, and of what was removed."),
)


class _Credit(NamedTuple):
    touched: int
    conversions: float
    squares: float
    micros: int


def models(source: Source, asked: Asked) -> ReportTable:
    """Return names by models, with intervals, spread, and whether a rank is certain."""
    found: dict[str, dict[str, _Credit]] = {}
    for model, name, touched, credit, squares, micros in source.credits():
        found.setdefault(name, {})[model] = _Credit(touched, credit, squares, micros)
    rests = {rest.model: rest for rest in source.rests()}
    names = list(asked.request.models)
    ranked = sorted(found, key=lambda name: (-_of(found[name], names[0]).conversions, name))
    shown, rare = _split(ranked, asked.request.limit)
    if rare:
        found[OTHER] = {model: _pool([_of(found[name], model) for name in rare]) for model in names}
        shown.append(OTHER)
    for model, rest in rests.items():
        conversions, micros = rest.untouched + rest.baseline, rest.untouched_micros + rest.baseline_micros
        if conversions > 1e-9 or micros:
            found.setdefault(UNATTRIBUTED, {})[model] = _Credit(0, conversions, rest.squares, micros)
    wholes = {model: rests[model].conversions if model in rests else 0 for model in names}
    spans = {name: {model: _interval(_of(found[name], model), wholes[model]) for model in names} for name in found}
    certain = _certain(shown, spans, names)
    rows: list[Sequence[Any]] = []
    for name in [*shown, *([UNATTRIBUTED] if UNATTRIBUTED in found else [])]:
        credits_ = [_of(found[name], model).conversions for model in names]
        base = credits_[0]
        is_pool = name in {OTHER, UNATTRIBUTED}
        for model in names:
            one = _of(found[name], model)
            low, high = (None, None) if name == OTHER else spans[name][model]
            change = None if abs(base) < 1e-9 else round((one.conversions - base) / base, 6) + 0.0
            rank = "" if is_pool else "certain" if name in certain else "open"
            people = None if is_pool else max(each.touched for each in found[name].values())
            rows.append(
                (
                    name,
                    model,
                    one.conversions,
                    low,
                    high,
                    one.micros,
                    change,
                    min(credits_),
                    max(credits_),
                    people,
                    rank,
                )
            )
    return ReportTable(rows, _ranks(shown, certain, names, asked), _model_notes(rests, names, asked))


def _ranks(shown: Sequence[str], certain: Sequence[str], names: Sequence[str], asked: Asked) -> str:
    ranked = [name for name in shown if name != OTHER]
    what = {"channel": "channels", "platform": "platforms", "campaign": "campaigns"}[asked.request.by]
    if not ranked:
        return "No touchpoint is credited."
    who = "the only model" if len(names) == 1 else f"all {len(names)} models"
    if not certain:
        return f"No rank of the {what} is certain: the intervals of neighbours overlap, or the models disagree."
    kept = ", ".join(f"{name} (rank {ranked.index(name) + 1})" for name in certain[:5])
    more = f" and {len(certain) - 5} more" if len(certain) > 5 else ""
    return f"{len(certain)} of {len(ranked)} {what} have a rank that {who} and the intervals agree on: {kept}{more}."


def _certain(shown: Sequence[str], spans: dict[str, dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Return the names that every model puts below the one before and above the one after, intervals apart."""
    ranked = [name for name in shown if name != OTHER]
    has_rest = OTHER in shown

    def above(upper: str, lower: str) -> bool:
        pairs = [(spans[upper][model], spans[lower][model]) for model in names]
        return all(None not in (*one, *other) and one[0] > other[1] for one, other in pairs)

    found = []
    for place, name in enumerate(ranked):
        others_above = all(above(other, name) for other in ranked[:place])
        others_below = all(above(name, other) for other in ranked[place + 1 :])
        is_last_shown = has_rest and place == len(ranked) - 1
        if others_above and others_below and not is_last_shown and len(ranked) > 1:
            found.append(name)
    return found


def _model_notes(rests: dict[str, Any], names: Sequence[str], asked: Asked) -> list[str]:
    notes = ["Intervals speak of the sampling of conversions alone. Whether a model is right only an experiment tells."]
    for model in names:
        rest = rests.get(model)
        missing = asked.total.conversions - (rest.conversions if rest else 0)
        if missing:
            notes.append(f"{model}: {counted(missing, 'conversion')} have no credit by it, their results are older.")
        if rest and rest.fallbacks:
            notes.append(
                f"{model}: {counted(rest.fallbacks, 'conversion')} were credited by another rule in its place."
            )
    return notes


def positions(source: Source, asked: Asked) -> ReportTable:
    """Return each name's credit of early, mid and late touches."""
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for name, part, credit, micros in source.positions():
        found.setdefault(name, {})[part] = (credit, micros)
    parts = ("early", "mid", "late")

    def row(name: str, sums: dict[str, tuple[float, int]]) -> tuple[Any, ...]:
        cells = [sums.get(part, (0.0, 0)) for part in parts]
        return (
            name,
            *(credit for credit, _ in cells),
            sum(credit for credit, _ in cells),
            *(each for _, each in cells),
        )

    whole = sorted((row(name, sums) for name, sums in found.items()), key=lambda each: (-each[4], each[0]))
    shown, rare = _split(whole, asked.request.limit)
    if rare:
        shown.append((OTHER, *(sum(each[place] for each in rare) for place in range(1, 8))))
    total = sum(each[4] for each in whole)
    early = sum(each[1] for each in whole)
    finding = (
        f"By {asked.model} {percent(early / total)} of the touchpoints' credit is early in the journey and "
        f"{percent(sum(each[3] for each in whole) / total)} late."
        if total > 0
        else "No touchpoint is credited."
    )
    note = "Of n touches n/4 rounded half up are early (none of one), n/4 rounded up are late, the others are mid."
    return ReportTable(shown, finding, [note])


def assists(source: Source, asked: Asked) -> ReportTable:
    """Return how often each name stands before the last touch, and at it."""
    rows = [
        (name, touched, assisted, closed, only, assisted / closed if closed else None)
        for name, touched, assisted, closed, only in source.assists()
    ]
    rows.sort(key=lambda row: (-row[2], -row[1], row[0]))
    shown, rare = _split(rows, asked.request.limit)
    if rare:
        # Conversions with several of the rare names would count twice: only what is additive is summed.
        shown.append((OTHER, None, None, sum(row[3] for row in rare), None, None))
    helpers = [row for row in rows if row[2] > row[3]]
    finding = (
        f"{counted(len(helpers), 'name')} of {len(rows)} assist more often than they close."
        if rows
        else "No conversion has a touchpoint."
    )
    return ReportTable(shown, finding, ["What stands both before the last touch and at it assists and closes."])


def unattributed(source: Source, asked: Asked) -> ReportTable:
    """Return what touchpoints get and what they do not get, by model and cause."""
    removed = source.removed()
    gone = sum(conversions for _, conversions, _ in removed)
    rests = {rest.model: rest for rest in source.rests()}
    total = asked.total
    given: dict[str, int] = {}
    for model, _, _, _, _, micros in source.credits():
        given[model] = given.get(model, 0) + micros
    rows: list[Sequence[Any]] = []
    whole = total.conversions + gone
    for model in asked.request.models:
        rest = rests.get(model) or Rest(model, 0, 0, 0.0, 0, 0.0, 0, 0.0)
        parts = [
            ("touchpoints", rest.conversions - rest.untouched - rest.baseline, given.get(model, 0)),
            ("no touchpoint", rest.untouched, rest.untouched_micros),
            ("baseline", rest.baseline, rest.baseline_micros),
        ]
        left = total.net_micros - sum(part[2] for part in parts)
        parts.append(("no credit", float(total.conversions - rest.conversions), left))
        rows += [
            (model, part, conversions, net, conversions / whole)
            for part, conversions, net in parts
            if abs(conversions) > 1e-9 or net
        ]
    rows += [("all", bucket, float(many), net, many / whole if whole else None) for bucket, many, net in removed]
    first = rests.get(asked.model)
    lost = first.untouched + first.baseline if first else 0.0
    finding = (
        f"By {asked.model} {percent(lost / total.conversions)} of the conversions stand in no channel; "
        f"{counted(gone, 'conversion')} more were erased or retired."
        if total.conversions
        else f"{counted(gone, 'conversion')} were erased or retired; no other is stored."
    )
    note = "(erased) and (retired) hold what is no longer stored one by one, by the UTC day of the conversion."
    return ReportTable(rows, finding, [note])


def _of(credits_: dict[str, _Credit], model: str) -> _Credit:
    return credits_.get(model, _Credit(0, 0.0, 0.0, 0))


def _pool(credits_: Sequence[_Credit]) -> _Credit:
    return _Credit(0, sum(each.conversions for each in credits_), 0.0, sum(each.micros for each in credits_))


def _split(rows: Sequence[Any], limit: int) -> tuple[list[Any], list[Any]]:
    return (list(rows), []) if not limit or len(rows) <= limit else (list(rows[:limit]), list(rows[limit:]))


def _interval(credit: _Credit, whole: int) -> tuple[float | None, float | None]:
    """Return the 90 % interval of a sum of credits: that of a mean over conversions, times their number."""
    if whole < 2:
        return None, None
    mean = credit.conversions / whole
    error = NORMAL_QUANTILE * math.sqrt(max(credit.squares / whole - mean * mean, 0.0) / whole)
    return max(mean - error, 0.0) * whole, min(mean + error, 1.0) * whole
