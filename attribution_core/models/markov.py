"""Absorbing Markov chains of channels, and the removal effect of every channel from one factorisation.

A journey is a walk START -> channel -> ... -> CONVERSION or NULL. The *removal effect* of a channel is the share of
the chain's conversions that would be missing if every step into the channel led to NULL instead (Anderl et al. 2016,
IJRM 33(3)). It is a statement about the model, a counterfactual of the chain, not a causal effect.

With ``Q`` the steps between states, ``r`` the steps into CONVERSION, ``p`` the first steps, ``N = (I - Q)^-1``,
``v = p N`` (expected visits), ``h = N r`` (conversion probability) and ``h0 = p h``:

    RE_i = (v_i / N_ii) h_i / h0        probability to hit i, times to convert from i, over probability to convert
    RE_A = v_A solve(N_AA, h_A) / h0    a channel A of several states, as in chains of higher order

Invariants: ``h0`` equals the observed conversion rate exactly (up to float rounding); ``0 <= RE <= 1``; removal effects
overlap, so their sum is usually above 1 and their normalised shares are *not* an aggregate of per-journey credits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints

ROUNDING = 1e-12
"""What a sum may be off by, relative to the sum of the absolute values of its parts."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Transition probabilities of the transient states.

    Attributes:
        start: float64[..., S], probability that a journey begins in the state.
        steps: float64[..., S, S], probability to go from row to column.
        reward: float64[..., S], probability to go from the state to CONVERSION; or, for revenue, the expected value
            that is collected at the end from the state.
    """

    start: Floats
    steps: Floats
    reward: Floats


@dataclass(frozen=True, eq=False)
class RemovalEffects:
    """Removal effects of all channels.

    Attributes:
        effects: float64[..., K]; NaN when the chain never converts, or its refunds cancel its values.
        total: float64[...], conversion probability (or expected value) of a journey, ``h0``.
    """

    effects: Floats
    total: Floats


def first_order_chain(steps: Ints, opens: Ints, rewards: Ints, exits: Ints) -> Chain:
    """Estimate the chain of first order from counts.

    Args:
        steps: int64[K, K], steps from channel to channel.
        opens: int64[K], journeys that begin with the channel.
        rewards: int64[K], conversions (or value) of the journeys that end with the channel.
        exits: int64[K], all journeys that end with the channel, converted or not.
    """
    out = (steps.sum(axis=1) + exits).astype(np.float64)
    safe = np.where(out > 0, out, 1.0)
    begun = float(opens.sum())
    return Chain(opens / (begun or 1.0), steps / safe[:, None], rewards / safe)


def first_order_removal(chain: Chain) -> RemovalEffects:
    """Return the exact removal effect of every channel of a chain of first order; O(K^3), batched over leading axes."""
    states = chain.steps.shape[-1]
    inverse = np.linalg.inv(np.eye(states) - chain.steps)
    visits = np.matmul(chain.start[..., None, :], inverse)[..., 0, :]
    hope = np.matmul(inverse, chain.reward[..., :, None])[..., 0]
    total = np.sum(chain.start * hope, axis=-1)
    diagonal = np.diagonal(inverse, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = visits / diagonal * hope / total[..., None]
    # what is no more than the rounding of values and refunds that cancel is nothing to have shares of
    gross = np.sum(visits * np.abs(chain.reward), axis=-1)
    effects = np.where((np.abs(total) <= ROUNDING * gross)[..., None], np.nan, effects)
    return RemovalEffects(effects, total)


def shares(effects: Floats) -> Floats:
    """Normalise removal effects over the channels: the usual way to hand out all conversions.

    Args:
        effects: float64[..., K], removal effects, or other amounts by channel.

    Returns:
        float64[..., K], summing to 1 over the channels; NaN where the effects sum to 0 or are unknown.
    """
    whole = effects.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        normalised: Floats = effects / whole
    return normalised
