"""Where in converting journeys a channel stands: opening, closing, or between; with tests that hold at the ends.

Invariant: counts of conversions alone, no draws. Tests take their variance from what "no tendency" implies, so a
channel that never closes has a finite test and an interval of some width, as one that closes once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE
from attributary.attribution_core.domain.journeys import Floats, JourneyBatch, Outcomes


@dataclass(frozen=True, eq=False)
class Positions:
    """Counts of conversions by channel, float64[K] each.

    Attributes:
        conversions_with: with the channel.
        opens: that the channel opens and another closes.
        closes: that the channel closes and another opens.
        alone: with no other channel.
        shared: with the channel and another one.
        last: of `shared`, with the channel last.
        linear: sum of the channel's equal share ``s`` (its touches over all touches) over `shared`.
        linear_squares: sum of ``s**2`` over `shared`.
    """

    conversions_with: Floats
    opens: Floats
    closes: Floats
    alone: Floats
    shared: Floats
    last: Floats
    linear: Floats
    linear_squares: Floats

    @classmethod
    def of(cls, batch: JourneyBatch, outcomes: Outcomes) -> Positions:
        """Count the positions of all channels."""
        channels = len(batch.index)
        filled = np.flatnonzero((batch.lengths > 0) & (outcomes.conversions > 0))
        worth = outcomes.conversions.astype(np.float64)
        opener, closer = batch.channels[batch.offsets[filled]], batch.channels[batch.offsets[filled + 1] - 1]
        differ = opener != closer
        cells, touches = np.unique(batch.journey_of_touch * channels + batch.channels, return_counts=True)
        journey, channel = np.divmod(cells, max(channels, 1))
        share = touches / batch.lengths[journey]
        shared = share < 1
        closer_of = np.full(len(batch), -1, dtype=np.int64)
        closer_of[filled] = closer

        def count(parts: Floats) -> Floats:
            return np.bincount(channel, parts * worth[journey], channels).astype(np.float64)

        return cls(
            conversions_with=count(np.ones(cells.size)),
            opens=np.bincount(opener[differ], worth[filled][differ], channels).astype(np.float64),
            closes=np.bincount(closer[differ], worth[filled][differ], channels).astype(np.float64),
            alone=count(~shared * 1.0),
            shared=count(shared * 1.0),
            last=count((shared & (closer_of[journey] == channel)) * 1.0),
            linear=count(shared * share),
            linear_squares=count(shared * share**2),
        )


@dataclass(frozen=True, eq=False)
class Tendency:
    """An estimate of each channel with its 90 % interval and test, float64[K] each; NaN without any conversion.

    Attributes:
        estimate: the number.
        low: lower end.
        high: upper end.
        z: of the test of "no tendency", standard normal where there is none.
        n: conversions behind it.
    """

    estimate: Floats
    low: Floats
    high: Floats
    z: Floats
    n: Floats


def openings(counts: Positions) -> Tendency:
    """Of the conversions that a channel opens or closes, but not both, the share that it opens; 1/2 is no tendency.

    The test is McNemar's (1947), the interval Wilson's (1927): they agree, and neither fails at 0 or 1.
    """
    n = counts.opens + counts.closes
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts.opens / n
        middle = (counts.opens + NORMAL_QUANTILE**2 / 2) / (n + NORMAL_QUANTILE**2)
        half = NORMAL_QUANTILE / (n + NORMAL_QUANTILE**2) * np.sqrt(n * share * (1 - share) + NORMAL_QUANTILE**2 / 4)
        z = (counts.opens - counts.closes) / np.sqrt(n)
    # at 0 and 1 the interval ends there, but for rounding
    low = np.where(counts.opens == 0, share, middle - half)
    high = np.where(counts.closes == 0, share, middle + half)
    return Tendency(share, low, high, z, n)


def assists(counts: Positions) -> Tendency:
    """Return ``1 - last / linear`` of each channel; 0 is no tendency, 1 a channel that is never last.

    Without a tendency the last touch is any touch of its journey: it is the channel's with the probability ``s``, its
    equal share. With a tendency it is ``r s``. The interval holds all ``r`` that agree with how often
    the channel is last: a score interval like Wilson's (which it is when all ``s`` are equal). Journeys with no
    other channel cannot show a tendency; they count in the estimate only.
    """
    last, linear, squares = counts.last, counts.linear, counts.linear_squares
    # (last - r linear)^2 = z^2 (r linear - r^2 squares); above r = 1 the variance r (linear - squares), which is larger
    rare = last <= linear
    square = linear**2 + NORMAL_QUANTILE**2 * np.where(rare, squares, 0.0)
    middle = 2 * last * linear + NORMAL_QUANTILE**2 * np.where(rare, linear, linear - squares)
    half = np.sqrt(np.maximum(middle**2 - 4 * square * last**2, 0.0))  # not below 0 but for rounding
    with np.errstate(invalid="ignore", divide="ignore"):
        ends = [(middle + sign * half) / (2 * square) for sign in (1, -1)]
        ends[1] = np.where(last == 0, 0.0, ends[1])
        low, high = (1 - (counts.alone + end * linear) / (counts.alone + linear) for end in ends)
        estimate = 1 - (counts.alone + last) / (counts.alone + linear)
        z = (linear - last) / np.sqrt(linear - squares)
    nothing = counts.shared == 0
    low, high = np.where(nothing, estimate, low), np.where(nothing, estimate, high)
    return Tendency(estimate, low, high, z, counts.shared)
