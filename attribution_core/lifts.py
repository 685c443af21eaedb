"""Experiments as a table, and the totals of a model beside what they say.

One row is one experiment: the channel, how much it added (conversions, value, or a share of all conversions), the
standard error of that number, and, where it did not cover the same time as the totals, from when to when it ran.

Invariant: an experiment is compared with totals of its own time only. Where it ran inside the window of the totals,
amounts are carried to the whole window in proportion to time, which is said beside the result; a share needs no
carrying; an experiment outside the window is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np

from attributary.attribution_core.calibration import Calibration, Lift, calibrate
from attributary.attribution_core.cells import is_missing
from attributary.attribution_core.journeys import Floats

Measure = Literal["conversions", "value", "share"]
_MEASURES: tuple[Measure, ...] = ("conversions", "value", "share")


class ExperimentError(ValueError):
    """Experiments that cannot be read, or that do not fit the totals; the text names row and rule."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment.

    Attributes:
        channel: whose spend was switched off, or on.
        measure: what was measured; a share is of all conversions.
        amount: what the channel added.
        standard_error: of it.
        since: begin, microseconds UTC; None: that of the totals.
        until: end.
    """

    channel: str
    measure: Measure
    amount: float
    standard_error: float
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a model gives to the channels.

    Attributes:
        channels: names.
        amounts: float64[K], conversions (or value).
        errors: float64[K], their standard errors.
        whole: all conversions (or value) of the period.
        since: begin of the period, microseconds UTC; None: not known.
        until: its end.
    """

    channels: tuple[str, ...]
    amounts: Floats
    errors: Floats
    whole: float
    since: int | None = None
    until: int | None = None


def read_experiments(columns: Mapping[str, Iterable[Any]]) -> list[Experiment]:
    """Read experiments from columns: channel, standard_error, one of conversions, value and share; from and to.

    Args:
        columns: as a CSV file or a frame has them; times are ISO 8601 with an offset, dates (UTC), or microseconds UTC.

    Raises:
        ExperimentError: a column is missing, or a cell cannot be read.
    """
    cells = {name: list(columns[name]) for name in columns}
    for name in ("channel", "standard_error"):
        if name not in cells:
            raise ExperimentError(f"experiments: the column {name} is missing")
    if not any(measure in cells for measure in _MEASURES):
        raise ExperimentError(f"experiments: one of the columns {', '.join(_MEASURES)} must be there")
    found = []
    for number in range(len(cells["channel"])):
        row = {name: column[number] for name, column in cells.items()}
        given = [measure for measure in _MEASURES if not _is_empty(row.get(measure))]
        if len(given) != 1:
            raise ExperimentError(f"row {number + 1}: one of {', '.join(_MEASURES)} must be given")
        channel = str(row["channel"]).strip()
        if not channel:
            raise ExperimentError(f"row {number + 1}: channel: must not be empty")
        amount, error = (_number(row[name], f"row {number + 1}: {name}") for name in (given[0], "standard_error"))
        if error <= 0:
            raise ExperimentError(f"row {number + 1}: standard_error: must be positive")
        since, until = (_time(row.get(name), f"row {number + 1}: {name}") for name in ("from", "to"))
        if (since is None) != (until is None) or (since is not None and until is not None and since >= until):
            raise ExperimentError(f"row {number + 1}: from and to: both or none, and to later than from")
        found.append(Experiment(channel, given[0], amount, error, since, until))
    if not found:
        raise ExperimentError("experiments: there is no row")
    return found


def calibrate_totals(
    totals: Totals, experiments: Sequence[Experiment], of: Literal["conversions", "value"]
) -> Calibration:
    """Scale the totals of a model by experiments; several of one channel are averaged by their precision.

    Args:
        totals: of the model.
        experiments: those that measured the same, or a share of conversions.
        of: what the totals count.

    Raises:
        ExperimentError: none of them measured it, or one does not fit: see `Experiment` and the module.
    """
    fitting = [each for each in experiments if each.measure == of or (each.measure == "share" and of == "conversions")]
    if not fitting:
        raise ExperimentError(f"experiments: none of them measured {of}")
    by_channel: dict[str, list[Lift]] = {}
    for each in fitting:
        scale = totals.whole if each.measure == "share" else carried(each, totals)
        by_channel.setdefault(each.channel, []).append(Lift(each.amount * scale, each.standard_error * scale))
    lifts = {channel: _average(several) for channel, several in by_channel.items()}
    try:
        return calibrate(totals.channels, totals.amounts, totals.errors, lifts, totals.whole)
    except ValueError as error:
        raise ExperimentError(str(error)) from error


def carried(experiment: Experiment, totals: Totals) -> float:
    """Return what an amount of the experiment is multiplied by to stand for the time of the totals.

    Raises:
        ExperimentError: it ran outside the time of the totals, or that time is not known.
    """
    if experiment.since is None or experiment.until is None or experiment.measure == "share":
        return 1.0
    name = f"experiment of {experiment.channel!r}"
    if totals.since is None or totals.until is None:
        raise ExperimentError(f"{name}: it has a from and a to, but the totals have no begin or no end to compare with")
    if experiment.since < totals.since or experiment.until > totals.until:
        raise ExperimentError(f"{name}: it ran outside the time that the totals are of")
    return (totals.until - totals.since) / (experiment.until - experiment.since)


def calibration_document(
    totals: Totals, experiments: Sequence[Experiment], of: Literal["conversions", "value"]
) -> dict[str, Any]:
    """Return a calibration as plain values: what was measured, and a row per channel."""
    found = calibrate_totals(totals, experiments, of)
    return {
        "of": of,
        "experiments": [{**asdict(each), "carried": carried(each, totals)} for each in experiments],
        "common_factor": _known(found.common_factor),
        "between": _known(found.between),
        "remainder": found.remainder,
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


def _average(lifts: Sequence[Lift]) -> Lift:
    weights = np.array([1 / lift.standard_error**2 for lift in lifts])
    amounts = np.array([lift.conversions for lift in lifts])
    return Lift(float(weights @ amounts / weights.sum()), 1 / sqrt(float(weights.sum())))


def _known(number: float) -> float | None:
    return number if isfinite(number) else None


def _is_empty(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def _number(cell: Any, place: str) -> float:
    try:
        found = float(cell)
    except (TypeError, ValueError):
        found = float("nan")
    if not isfinite(found):
        raise ExperimentError(f"{place}: must be a number")
    return found


def _time(cell: Any, place: str) -> int | None:
    if _is_empty(cell):
        return None
    text = str(cell).strip()
    if text.isascii() and text.isdigit() and len(text) > 8:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ExperimentError(f"{place}: must be an ISO 8601 time, a date, or microseconds UTC") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
