"""What is known of several channels' curves at once: a posterior over them, from which draws are taken.

Each curve is two numbers on the log scale: its average return at present spend, and how saturated it is there. Channels
are taken as alike, their numbers as normal about common means. How far they differ is unknown, too, and is summed over
a grid with a half-normal prior. So a curve that is known badly is moved towards the others, by as much as the data say,
and the doubt about "as much" is in the draws. Source: Gelman et al., Bayesian Data Analysis, ch. 5.

Invariant: over worlds that are as the prior says, what the draws expect of a choice is what comes true on average,
however the choice was made from the same data; so no further correction belongs on top.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SPREAD_SCALE = 0.5
"""Prior scale of how far channels differ, log units: returns within a factor of 2.7 of each other are usual."""
_SPREADS = np.concatenate([[0.005], np.geomspace(0.03, 3.0, 22)])


class CurveDraws(NamedTuple):
    """Draws of the curves f(x) = b x / (k + x): arrays [draws, channels]."""

    b: Floats
    k: Floats


def draw_curves(
    logs: tuple[Floats, Floats], errors: tuple[Floats, Floats], now: Floats, draws: int, random: np.random.Generator
) -> CurveDraws:
    """Return draws of the curves of all channels.

    Args:
        logs: log b and log k of each channel, as experiments say.
        errors: standard errors of them.
        now: present spends, above 0.
        draws: how many.
        random: where they come from.
    """
    (log_b, log_k), (error_b, error_k) = logs, (np.maximum(each, 1e-6) for each in errors)
    found = np.stack([log_b - np.log(np.exp(log_k) + now), log_k - np.log(now)], axis=1)  # [channel, 2]
    weight = np.exp(log_k) / (np.exp(log_k) + now)  # how much log k moves the average return
    noise = np.empty((now.size, 2, 2))
    noise[:, 0, 0] = error_b**2 + weight**2 * error_k**2
    noise[:, 0, 1] = noise[:, 1, 0] = -weight * error_k**2
    noise[:, 1, 1] = error_k**2
    first, second = (each.ravel() for each in np.meshgrid(_SPREADS, _SPREADS))
    between = np.zeros((first.size, 2, 2))
    between[:, 0, 0], between[:, 1, 1] = first**2, second**2
    precision = np.linalg.inv(noise[None] + between[:, None])  # [grid, channel, 2, 2]
    total = precision.sum(axis=1)
    spread_of_mean = np.linalg.inv(total)
    mean = np.einsum("gij,gcjk,ck->gi", spread_of_mean, precision, found)
    off = found[None] - mean[:, None]
    steps = np.gradient(_SPREADS)
    weights = np.log(np.outer(steps, steps).ravel()) - (first**2 + second**2) / (2.0 * SPREAD_SCALE**2)
    weights += 0.5 * (np.linalg.slogdet(precision)[1].sum(axis=1) - np.linalg.slogdet(total)[1])
    weights -= 0.5 * np.einsum("gci,gcij,gcj->g", off, precision, off)
    chances = np.exp(weights - weights.max())
    place = random.choice(first.size, size=draws, p=chances / chances.sum())
    normal = random.standard_normal((draws, now.size + 1, 2))
    centre = mean[place] + np.einsum("dij,dj->di", np.linalg.cholesky(spread_of_mean)[place], normal[:, 0])
    # Of each channel, given the means: pulled towards them by its noise over noise and spread.
    pull = noise[None] @ precision[place]  # [draw, channel, 2, 2]
    expected = found[None] - np.einsum("dcij,dcj->dci", pull, found[None] - centre[:, None])
    left = noise[None] - pull @ noise[None]
    left = (left + np.swapaxes(left, -1, -2)) / 2.0 + 1e-15 * np.eye(2)
    drawn = expected + np.einsum("dcij,dcj->dci", np.linalg.cholesky(left), normal[:, 1:])
    k = np.exp(drawn[..., 1]) * now
    return CurveDraws(np.exp(drawn[..., 0]) * (k + now), k)
