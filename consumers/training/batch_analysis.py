"""Batch analysis: the credits of many conversions, by all models of the tenant at once.

Credits of journeys are additive, so they are summed while the journeys stream by. Invariant: for every model and
currency the values by channel, those by platform and those by campaign each sum to the net value of the conversions
with touches, less the model's baseline, to the micro; what has no touch stays "unattributed".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE
from attributary.attribution_core.domain.journeys import Flags, Floats, Ints, JourneyBatch
from attributary.attribution_core.models.model_set import Attribution, ModelSet
from attributary.attribution_core.models.poisson_credit import PoissonModel
from attributary.consumers.store.models.timelines import Selection, TimelineRow, conversions_by_currency

from .cohort import Cohort
from .journey_analysis import select_converted, split_values
from .journeys import pooled
from .name_limits import OTHER, NameLimit, channel_limit, group_limit
from .read_journeys import Progress, Window, converted_outcomes, no_progress, null_outcomes, read_journeys

MAX_NAMES = 200
"""Names shown per dimension; the rest is summed up as "(other)", with the number of names."""
_DIMENSIONS = ("channel", "platform", "campaign")


@dataclass(frozen=True, slots=True)
class JourneyFilter:
    """Which journeys to analyse: those with a touch of the platform and one of the campaign; None: any."""

    platform: str | None = None
    campaign: str | None = None

    def keeps(self, batch: JourneyBatch, touches: Sequence[TimelineRow]) -> Flags:
        """Tell which journeys pass."""
        kept = np.ones(len(batch), dtype=np.bool_)
        for wanted, names in (
            (self.platform, [row.group for row in touches]),
            (self.campaign, [row.campaign for row in touches]),
        ):
            if wanted is not None:
                has = np.fromiter((name == wanted for name in names), np.bool_, len(names))
                kept &= np.bincount(batch.journey_of_touch[has], minlength=kept.size) > 0
        return kept


@dataclass(slots=True)
class _Sum:
    """Sums of one name: credit in conversions, squares of the credit per conversion, micros by currency."""

    credit: float = 0.0
    squares: float = 0.0
    micros: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(slots=True)
class _Totals:
    """Sums over the conversions analysed so far."""

    conversions: int = 0
    with_touches: int = 0
    touches: int = 0
    people_left_out: int = 0
    pooled_names: dict[str, int] = field(default_factory=dict)
    net_micros: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unattributed_micros: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    models: dict[str, dict[str, dict[str, _Sum]]] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    baselines: dict[str, _Sum] = field(default_factory=dict)


def analyze_batch(
    connection: psycopg.Connection,
    window: Window,
    chosen: JourneyFilter,
    models: ModelSet,
    inactivity_micros: int,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Credit all conversions of a window and sum the credits up by channel, platform and campaign.

    Args:
        connection: in a snapshot.
        window: which conversions, by their time.
        chosen: filter by platform and campaign.
        models: the models in force.
        inactivity_micros: see `read_journeys`.
        progress: called with people read and people in all.
    """
    currencies = conversions_by_currency(
        connection, Selection(window.tenant_id, since=window.since, until=window.until)
    )
    currency = next(iter(currencies), None)
    limits = {
        "channel": channel_limit(connection, window.tenant_id),
        "platform": group_limit(connection, window.tenant_id, "platform"),
        "campaign": group_limit(connection, window.tenant_id, "campaign"),
    }
    totals, cohort = _Totals(pooled_names={f"{name}s": limit.pooled for name, limit in limits.items()}), Cohort()
    for journeys in read_journeys(connection, window, inactivity_micros, progress):
        totals.people_left_out += journeys.left_out
        kept = chosen.keeps(journeys.converted, journeys.touches)
        batch, conversions, touches = select_converted(journeys, kept)
        if conversions:
            _add(totals, batch, conversions, touches, models, limits)
        cohort.add(pooled(batch, limits["channel"]), converted_outcomes(conversions, currency))
        lost = chosen.keeps(journeys.nulls, journeys.null_touches)
        cohort.add(pooled(journeys.nulls.select(lost), limits["channel"]), null_outcomes(int(lost.sum())))
    return (
        _report(totals, models)
        | {"currency": currency, "people_left_out": totals.people_left_out, "pooled_names": totals.pooled_names}
        | cohort.report()
    )


def _add(
    totals: _Totals,
    batch: JourneyBatch,
    conversions: Sequence[TimelineRow],
    touches: Sequence[TimelineRow],
    models: ModelSet,
    limits: Mapping[str, NameLimit],
) -> None:
    totals.conversions += len(conversions)
    totals.with_touches += int((batch.lengths > 0).sum())
    totals.touches += len(touches)
    for row, length in zip(conversions, batch.lengths.tolist(), strict=True):
        totals.net_micros[row.group] += row.value_micros
        if not length:
            totals.unattributed_micros[row.group] += row.value_micros
    journey = batch.journey_of_touch
    currencies = [conversions[place].group for place in journey.tolist()]
    names = {
        "channel": limits["channel"].names([row.kind for row in touches]),
        "platform": limits["platform"].names([row.group for row in touches]),
        "campaign": limits["campaign"].names([row.campaign for row in touches]),
    }
    for model in models.models:
        fallen = model.fallback(batch)
        totals.fallbacks[model.name] += 0 if fallen is None else int(fallen.sum())
        baseline = model.baseline(batch) if isinstance(model, PoissonModel) else None
        said = Attribution(model.credits(batch), None, fallen, baseline)
        credits_ = said.credits
        touch_micros, rest_micros = split_values(said, batch, conversions)
        micros = touch_micros.tolist()
        if baseline is not None:
            rest = totals.baselines.setdefault(model.name, _Sum())
            rest.credit += float(baseline.sum())
            rest.squares += float((baseline**2).sum())
            for row, value in zip(conversions, rest_micros.tolist(), strict=True):
                rest.micros[row.group] += value
        by_dimension = totals.models.setdefault(model.name, {name: {} for name in _DIMENSIONS})
        for dimension in _DIMENSIONS:
            _add_names(by_dimension[dimension], names[dimension], currencies, credits_, micros, journey)


def _add_names(
    sums: dict[str, _Sum],
    names: Sequence[str],
    currencies: Sequence[str],
    credits_: Floats,
    micros: Sequence[int],
    journey: Ints,
) -> None:
    known: dict[str, int] = {}
    codes = np.fromiter((known.setdefault(name, len(known)) for name in names), np.int64, len(names))
    cells, places = np.unique(journey * max(len(known), 1) + codes, return_inverse=True)
    shares = np.bincount(places, credits_, cells.size)  # of a name in a conversion
    owner = cells % max(len(known), 1)
    credit = np.bincount(owner, shares, len(known)).tolist()
    squares = np.bincount(owner, shares * shares, len(known)).tolist()
    for name, code in known.items():
        entry = sums.setdefault(name, _Sum())
        entry.credit += credit[code]
        entry.squares += squares[code]
    for name, currency, value in zip(names, currencies, micros, strict=True):
        sums[name].micros[currency] += value


def _report(totals: _Totals, models: ModelSet) -> dict[str, Any]:
    report: dict[str, Any] = plain(
        {
            "conversions": totals.conversions,
            "conversions_with_touches": totals.with_touches,
            "touches_per_conversion": totals.touches / totals.with_touches if totals.with_touches else None,
            "net_value_micros": dict(sorted(totals.net_micros.items())),
            "unattributed_micros": dict(sorted(totals.unattributed_micros.items())),
            "models": [
                {
                    "model": model.name,
                    "version": model.version,
                    "fallback": {"rule": model.fallback_rule, "conversions": totals.fallbacks[model.name]}
                    if model.fallback_rule
                    else None,
                    "baseline": _row("(baseline)", totals.baselines[model.name], max(totals.with_touches, 1))
                    if model.name in totals.baselines
                    else None,
                    **{
                        f"{dimension}s": _names(
                            totals.models[model.name][dimension],
                            totals.with_touches,
                            totals.pooled_names[f"{dimension}s"],
                        )
                        for dimension in _DIMENSIONS
                    },
                }
                for model in models.models
                if model.name in totals.models
            ],
        }
    )
    _compare(report["models"])
    return report


def _compare(models: Sequence[dict[str, Any]]) -> None:
    """Add to every share its spread over the models, which the interval does not include.

    Models with a baseline take no part: their shares are of another total.
    """
    for dimension in _DIMENSIONS:
        shares: dict[str, list[float]] = defaultdict(list)
        for model in models:
            for row in model[f"{dimension}s"] if model["baseline"] is None else ():
                shares[row["name"]].append(row["share"])
        for model in models:
            for row in model[f"{dimension}s"]:
                found = shares[row["name"]]
                row["spread_over_models"] = max(found) - min(found) if len(found) > 1 else None


def _names(sums: dict[str, _Sum], number: int, pooled_names: int) -> list[dict[str, Any]]:
    """Return the rows of a dimension, the largest credit first; beyond `MAX_NAMES`, and pooled, they are summed up."""
    ranked = sorted(sums.items(), key=lambda entry: (-entry[1].credit, entry[0]))
    pool = [each for each in ranked if pooled_names and each[0] == OTHER]
    ranked = [each for each in ranked if each not in pool]
    rows = [_row(name, entry, number) for name, entry in ranked[:MAX_NAMES]]
    if rest := ranked[MAX_NAMES:] + pool:
        micros: dict[str, int] = defaultdict(int)
        for _, entry in rest:
            for currency, value in entry.micros.items():
                micros[currency] += value
        credit = sum(entry.credit for _, entry in rest)
        rows.append(
            {
                "name": OTHER,
                "names": len(rest) - len(pool) + pooled_names,
                "credit": credit,
                "share": credit / number,
                "interval": None,
                "value_micros": dict(sorted(micros.items())),
            }
        )
    return rows


def _row(name: str, entry: _Sum, number: int) -> dict[str, Any]:
    """Return a name's row. The 90 % interval is that of a mean over conversions: sampling error and nothing else."""
    share = entry.credit / number
    error = max(entry.squares / number - share * share, 0.0) ** 0.5 / number**0.5
    return {
        "name": name,
        "credit": entry.credit,
        "share": share,
        "interval": [max(share - NORMAL_QUANTILE * error, 0.0), min(share + NORMAL_QUANTILE * error, 1.0)],
        "value_micros": dict(sorted(entry.micros.items())),
    }
