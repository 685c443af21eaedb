"""Scaling a model's totals by what experiments measured, with the uncertainty carried through.

Attribution describes who was there; an experiment (a geo test, a holdout) measures what changes when a channel is
switched off. Where experiments exist, the ratio ``lift / attributed`` says how far the model is off for that channel.

- A channel with an experiment is scaled by its own ratio: experiments are few, and what other channels did is a poor
  reason to doubt a measurement.
- A channel without: the common ratio, with the spread of the ratios between channels as extra uncertainty (random
  effects, DerSimonian and Laird 1986; interval by Student's t, for the spread rests on few experiments). With a single
  experiment the spread is unknown and no other channel is scaled.

Invariant: every number says whether it was measured, borrowed or left alone; calibrated totals are not forced to sum
to the conversions: the rest is what would have come anyway, or a contradiction, and is reported as such.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from attributary.attribution_core.journeys import Floats
from attributary.attribution_core.level import NORMAL_QUANTILE as _Z_90

Basis = Literal["measured", "borrowed", "uncalibrated"]
# Student's t, quantile of 0.95, by degrees of freedom from 1; beyond the table the normal one is within 4 %
_T_90 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753)


@dataclass(frozen=True, slots=True)
class Lift:
    """The result of one experiment.

    Attributes:
        conversions: conversions (or value) that the channel added in the period and population of the totals.
        standard_error: of that number, positive.
    """

    conversions: float
    standard_error: float

    def __post_init__(self) -> None:
        if not self.standard_error > 0 or not np.isfinite(self.conversions):
            raise ValueError("lift: needs a finite result with a positive standard error")


@dataclass(frozen=True, slots=True)
class CalibratedChannel:
    """A channel's total after calibration.

    Attributes:
        channel: name.
        attributed: the model's total.
        factor: what it was multiplied by.
        standard_error: of their product.
        interval: 90 %.
        basis: where the factor comes from.
    """

    channel: str
    attributed: float
    factor: float
    standard_error: float
    interval: tuple[float, float]
    basis: Basis

    @property
    def calibrated(self) -> float:
        """The total after calibration."""
        return self.attributed * self.factor


@dataclass(frozen=True, slots=True)
class Calibration:
    """All channels after calibration.

    Attributes:
        channels: in the order of the names given.
        common_factor: mean ratio of lift to attribution; NaN without experiments.
        between: variance of the ratios between channels, ``tau^2``; NaN with fewer than two experiments.
        remainder: conversions that no channel brings; negative: the experiments claim more than there was.
    """

    channels: tuple[CalibratedChannel, ...]
    common_factor: float
    between: float
    remainder: float


def calibrate(
    names: tuple[str, ...], totals: Floats, errors: Floats, lifts: Mapping[str, Lift], conversions: float
) -> Calibration:
    """Scale totals by experiments.

    Args:
        names: channels.
        totals: float64[K], attributed conversions (or value).
        errors: float64[K], their standard errors.
        lifts: results of experiments by channel.
        conversions: all conversions (or value) of the period.

    Raises:
        ValueError: for a lift of an unknown channel, or of one to which the model gives nothing.
    """
    unknown = sorted(set(lifts) - set(names))
    if unknown:
        raise ValueError(f"lift: no channel {unknown[0]!r}")
    ratios: dict[str, tuple[float, float]] = {}
    for place, name in enumerate(names):
        if name in lifts:
            total = float(totals[place])
            if not total > 0:
                raise ValueError(f"lift: the model gives nothing to {name!r}, so there is nothing to scale")
            ratio = lifts[name].conversions / total
            # delta method: relative errors of experiment and attribution add up
            variance = (lifts[name].standard_error / total) ** 2 + (ratio * float(errors[place]) / total) ** 2
            ratios[name] = (ratio, variance)
    common, common_variance, between = _pooled(list(ratios.values()))
    channels = tuple(
        _channel(
            name,
            float(totals[place]),
            float(errors[place]),
            ratios.get(name),
            (common, common_variance, between),
            len(ratios),
        )
        for place, name in enumerate(names)
    )
    return Calibration(channels, common, between, conversions - sum(channel.calibrated for channel in channels))


def _pooled(ratios: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return mean, variance of the mean and variance between, by DerSimonian and Laird."""
    if not ratios:
        return float("nan"), float("nan"), float("nan")
    values, variances = (np.array(part, dtype=np.float64) for part in zip(*ratios, strict=True))
    if len(ratios) == 1:
        return float(values[0]), float(variances[0]), float("nan")
    weights = 1 / variances
    mean = float(weights @ values / weights.sum())
    excess = float(weights @ (values - mean) ** 2) - (len(ratios) - 1)
    spread = float(weights.sum() - (weights**2).sum() / weights.sum())
    between = max(excess / spread, 0.0)
    weights = 1 / (variances + between)
    return float(weights @ values / weights.sum()), float(1 / weights.sum()), between


def _channel(
    name: str,
    total: float,
    error: float,
    measured: tuple[float, float] | None,
    pooled: tuple[float, float, float],
    experiments: int,
) -> CalibratedChannel:
    common, common_variance, between = pooled
    quantile = _Z_90
    if measured is not None:
        factor, variance = measured
        basis: Basis = "measured"
        calibrated, deviation = factor * total, total * float(np.sqrt(variance))
    elif np.isfinite(between):
        basis = "borrowed"
        factor, quantile = common, _T_90[experiments - 2] if experiments - 2 < len(_T_90) else _Z_90
        calibrated = factor * total
        deviation = float(np.sqrt((total**2) * (common_variance + between) + (factor * error) ** 2))
    else:
        basis, factor, calibrated, deviation = "uncalibrated", 1.0, total, error
    interval = (calibrated - quantile * deviation, calibrated + quantile * deviation)
    return CalibratedChannel(name, total, factor, deviation, interval, basis)
