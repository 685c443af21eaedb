"""The totals of a model beside what experiments say, as plain values and text.

Several experiments of one channel are averaged by their precision. Where Cochran's Q is above its degrees of freedom
they differ by more than their errors, and a variance between them joins the errors (random effects, `meta_analysis`).
Where Q is beyond its 0.95 quantile they contradict each other, and the interval goes by Student's t.

Coverage of the nominal 90 % interval, by simulation with two to five experiments: 0.92 where they measure the same,
0.84 to 0.87 where they differ as much as they err. At worst (they differ by two to five times their errors) it is 0.76
with two, 0.82 with three and 0.87 with five. The mere average would have 0.13 at ten times.

Invariant: an experiment is compared with totals of its own time only: one that ran outside the window of the totals for
more than 5 % of its time is refused, whatever it measured. Where it ran inside, amounts are carried to the whole window
in proportion to time, which is said beside the result; a share needs no carrying.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np

from attributary.attribution_core.domain.journeys import Floats
from attributary.attribution_core.inference.calibration import Calibration, Lift, ScalingError, calibrate
from attributary.attribution_core.inference.meta_analysis import RandomEffects
from attributary.attribution_core.tables.experiments import Experiment, ExperimentError, fitting

_INSIDE = 0.95  # of an experiment's time; the totals may end seconds or a day of another time zone before it
_MOST_NAMED = 5  # of channels in a sentence, the largest


class UnavailableError(ExperimentError):
    """The totals of a model cannot be scaled by these experiments."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a model gives to the channels.

    Attributes:
        channels: names.
        amounts: float64[K], conversions (or value).
        errors: float64[K], their standard errors.
        whole: all conversions (or value) of the period, those without touches, too.
        since: begin of the period, microseconds UTC; None: not known.
        until: its end.
    """

    channels: tuple[str, ...]
    amounts: Floats
    errors: Floats
    whole: float
    since: int | None = None
    until: int | None = None


def calibrate_totals(
    totals: Totals, experiments: Sequence[Experiment], of: Literal["conversions", "value"]
) -> Calibration:
    """Scale the totals of a model by experiments; several of one channel are averaged, see the module.

    Args:
        totals: of the model.
        experiments: those that measured something else than `of` are left out; a share is one of conversions.
        of: what the totals count.

    Raises:
        ExperimentError: none of them measured it, or one does not fit: see `Experiment` and the module.
        UnavailableError: the model's totals cannot be scaled.
    """
    lifts = {channel: _lift(pooled) for channel, pooled in _by_channel(totals, fitting(experiments, of), of).items()}
    try:
        return calibrate(totals.channels, totals.amounts, totals.errors, lifts, totals.whole)
    except ScalingError as error:
        raise UnavailableError(str(error)) from error
    except ValueError as error:
        raise ExperimentError(str(error)) from error


def carried(experiment: Experiment, totals: Totals) -> float:
    """Return what an amount of the experiment is multiplied by to stand for the time of the totals; 1 for a share.

    Raises:
        ExperimentError: it ran outside the time of the totals, or that time is not known.
    """
    if experiment.since is None or experiment.until is None:
        return 1.0
    name = f"experiment of {experiment.channel!r}"
    if totals.since is None or totals.until is None:
        raise ExperimentError(f"{name}: it has a from and a to, but the totals have no begin or no end to compare with")
    inside = _inside(experiment, totals)
    if inside < _INSIDE:
        raise ExperimentError(
            f"{name}: it ran outside the time that the totals are of, {_iso(totals.since)} to {_iso(totals.until)}: "
            f"{100 * inside:.0f} % of its time is inside, {100 * _INSIDE:.0f} % must be"
        )
    if experiment.measure == "share":
        return 1.0
    return (totals.until - totals.since) / (experiment.until - experiment.since)


def calibration_document(
    totals: Totals, experiments: Sequence[Experiment], of: Literal["conversions", "value"]
) -> dict[str, Any]:
    """Return a calibration as plain values: what was measured, and a row per channel; raises as `calibrate_totals`."""
    found, used = calibrate_totals(totals, experiments, of), fitting(experiments, of)
    return {
        "of": of,
        "status": "ok",
        "experiments": [
            {**asdict(each), "carried": carried(each, totals), "inside": _inside(each, totals)} for each in used
        ],
        "repeated": [
            {
                "channel": channel,
                "experiments": pooled.values.size,
                "q": pooled.q,
                "between": pooled.between,
                "note": _note(channel, pooled),
            }
            for channel, pooled in _by_channel(totals, used, of).items()
            if pooled.degrees
        ],
        "common_factor": _known(found.common_factor),
        "between": _known(found.between),
        "remainder": found.remainder,
        "remainder_interval": list(found.remainder_interval),
        "channels": [
            {
                "channel": each.channel,
                "attributed": each.attributed,
                "factor": each.factor,
                "calibrated": each.calibrated,
                "standard_error": each.standard_error,
                "interval": list(each.interval),
                "share": each.calibrated / totals.whole if totals.whole else None,
                "basis": each.basis,
            }
            for each in found.channels
        ],
    }


def unavailable_document(
    experiments: Sequence[Experiment], of: Literal["conversions", "value"], why: str
) -> dict[str, Any]:
    """Return the document of a model with totals that cannot be scaled: the reason, and no row."""
    used = [asdict(each) for each in fitting(experiments, of)]
    return {"of": of, "status": f"unavailable: {why}", "experiments": used, "channels": []}


def calibration_notes(document: Mapping[str, Any]) -> list[str]:
    """Return what a text says below the rows of a calibration: the remainder, and experiments that disagree."""
    interval = document.get("remainder_interval")  # documents of older versions have none
    ends = "" if interval is None else f" [{interval[0]:,.1f}, {interval[1]:,.1f}]"
    open_ones = [row for row in document["channels"] if row["basis"] == "uncalibrated" and row["attributed"]]
    open_ones.sort(key=lambda row: -abs(row["attributed"]))
    more = len(open_ones) - _MOST_NAMED
    named = ", ".join(row["channel"] for row in open_ones[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    condition = f", if the uncalibrated totals of {named} are right" if open_ones else ""
    lines = [
        f"{each['channel']}: {each['amount']:,.1f} measured in a part of the time, carried x {each['carried']:.3f}"
        for each in document["experiments"]
        if each.get("carried", 1) != 1
    ]
    lines += [f"associated with no channel: {document['remainder']:,.1f}{ends} {document['of']}{condition}"]
    return lines + [each["note"] for each in document.get("repeated", ()) if each["note"]]


def _by_channel(
    totals: Totals, experiments: Sequence[Experiment], of: Literal["conversions", "value"]
) -> dict[str, RandomEffects]:
    """Return the results of each channel, carried to the time of the totals."""
    if not experiments:
        raise ExperimentError(f"experiments: none of them measured {of}")
    found: dict[str, list[tuple[float, float]]] = {}
    for each in experiments:
        scale = carried(each, totals) * (totals.whole if each.measure == "share" else 1.0)
        if not scale > 0:
            raise UnavailableError("there is nothing that a share could be of")
        found.setdefault(each.channel, []).append((each.amount * scale, (each.standard_error * scale) ** 2))
    return {channel: RandomEffects(*np.array(several, dtype=np.float64).T) for channel, several in found.items()}


def _lift(pooled: RandomEffects) -> Lift:
    return Lift(pooled.mean, sqrt(pooled.variance), pooled.degrees if pooled.contradict else None)


def _note(channel: str, pooled: RandomEffects) -> str | None:
    """Return what is to be said about several experiments of a channel; None where they agree."""
    if pooled.q <= pooled.degrees:
        return None
    said = "contradict each other" if pooled.contradict else "differ by somewhat more than their errors"
    return (
        f"{channel}: its {pooled.values.size} experiments {said} (Q {pooled.q:,.1f}, expected {pooled.degrees}); "
        "so the interval is wider"
    )


def _inside(experiment: Experiment, totals: Totals) -> float:
    """Return which part of an experiment's time is in that of the totals; 1 where it names none."""
    if experiment.since is None or experiment.until is None or totals.since is None or totals.until is None:
        return 1.0
    common = min(experiment.until, totals.until) - max(experiment.since, totals.since)
    return max(common, 0) / (experiment.until - experiment.since)


def _iso(micros: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).isoformat(timespec="seconds")


def _known(number: float) -> float | None:
    return number if isfinite(number) else None
