"""Splitting money without losing or inventing a unit.

Invariant: the parts of a journey with at least one touch sum to its value *exactly*, carry the value's sign or are
zero, and a touch without credit gets nothing. Equal inputs give equal outputs, on any machine.

The rule (largest remainder, also known as Hamilton's method): the magnitude of the value is cut into whole minor units
(cents) and a rest of micros. Each touch gets the whole units of its quota ``credit x units``; the units left over go
one each to the touches with the largest remainders. Remainders are compared rounded to 2^-20 of a unit, so that
rounding noise of the credits decides nothing; of equal ones the earlier touch comes first. A rest that is less than a
minor unit is split in the same way in single micros.

Floats are exact enough for the remainders of fewer than 2^30 units: a quota is off by 2^-22 of a unit at most. Larger
values are split in fractions (`_split_exactly`). There a credit that is within rounding of a fraction of small terms,
such as 1/15, is taken for that fraction: at 10^13 units the rounding of a credit would be a thousandth of a unit.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.segments import segment_counts, segment_running_sums, segment_sums

MAX_VALUE_MICROS = 2**62
_REMAINDER_BITS = 20
_FLOAT_UNITS = 1 << 30
_MAX_DENOMINATOR = 1 << 20
_CREDIT_ROUNDING = Fraction(1, 1 << 50)  # of a credit, relative: a few roundings of a float
_ROUNDING = 1e-9  # what the credits of a journey may sum to beside 1: far above rounding, far below a share


def split_micros(
    credits_: NDArray[np.float64],
    offsets: NDArray[np.int64],
    value_micros: NDArray[np.int64],
    minor_unit_micros: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Split the value of each journey over its touches.

    A journey without touches gets nothing: the caller books its whole value as unattributed.

    Args:
        credits_: float64[m], not negative, summing to 1 over each journey with touches.
        offsets: int64[n + 1], first touch of each journey.
        value_micros: int64[n], net value of each journey in micros, of magnitude up to 2^62.
        minor_unit_micros: int64[n], micros of the currency's minor unit: 10,000 for EUR, 1,000,000 for JPY, 1,000
            for KWD.

    Returns:
        int64[m], micros of each touch.

    Raises:
        ValueError: when a credit is negative or no number, the credits of a journey with touches do not sum to 1, a
            value is too large, or a minor unit is not positive.
    """
    journeys = offsets.size - 1
    if value_micros.size != journeys or minor_unit_micros.size != journeys or credits_.size != int(offsets[-1]):
        raise ValueError("credits, value_micros, minor_unit_micros: must fit the offsets")
    if bool(((value_micros > MAX_VALUE_MICROS) | (value_micros < -MAX_VALUE_MICROS)).any()):
        raise ValueError("value_micros: magnitude must not pass 2^62")
    if bool((minor_unit_micros < 1).any()):
        raise ValueError("minor_unit_micros: must be positive")
    if credits_.size == 0:
        return np.zeros(0, dtype=np.int64)
    if not bool((credits_ >= 0).all()) or not bool(np.isfinite(credits_).all()):
        raise ValueError("credits: must be finite and not negative")
    lengths = np.diff(offsets)
    off = np.abs(segment_sums(credits_, offsets) - 1.0) > _ROUNDING
    if bool(off[lengths > 0].any()):
        raise ValueError("credits: must sum to 1 over each journey with touches")
    units, rest = np.divmod(np.abs(value_micros), minor_unit_micros)
    parts = _split_units(credits_, offsets, lengths, units) * np.repeat(minor_unit_micros, lengths)
    if bool(rest.any()):
        parts += _split_units(credits_, offsets, lengths, rest)
    negative = value_micros < 0
    if bool(negative.any()):
        parts[np.repeat(negative, lengths)] *= -1
    return parts


def split_with_baseline(
    credits_: NDArray[np.float64],
    baseline: NDArray[np.float64],
    offsets: NDArray[np.int64],
    value_micros: NDArray[np.int64],
    minor_unit_micros: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the value of each journey over its touches and a baseline, which takes part like a last touch.

    Args:
        credits_: float64[m], not negative; with the baseline they sum to 1 over each journey with touches.
        baseline: float64[n], not negative.
        offsets: as for `split_micros`.
        value_micros: as for `split_micros`.
        minor_unit_micros: as for `split_micros`.

    Returns:
        int64[m], micros of each touch, and int64[n], micros of the baseline; 0 for a journey without touches.

    Raises:
        ValueError: as for `split_micros`.
    """
    filled = np.diff(offsets) > 0
    wide = offsets + np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(filled, dtype=np.int64)))
    last = wide[1:][filled] - 1
    touches = np.ones(int(wide[-1]), dtype=np.bool_)
    touches[last] = False
    together = np.empty(touches.size, dtype=np.float64)
    together[touches], together[last] = credits_, baseline[filled]
    parts = split_micros(together, wide, value_micros, minor_unit_micros)
    rest = np.zeros(filled.size, dtype=np.int64)
    rest[filled] = parts[last]
    return parts[touches], rest


def _split_units(
    credits_: NDArray[np.float64], offsets: NDArray[np.int64], lengths: NDArray[np.int64], units: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Split whole units (not negative) over the touches with credit."""
    large = np.flatnonzero((units >= _FLOAT_UNITS) & (lengths > 0))
    if large.size:
        units = units.copy()
        whole, units[large] = units[large].tolist(), 0
    wanted = np.repeat(units, lengths)
    quota = credits_ * wanted
    parts = quota.astype(np.int64)
    quota -= parts
    # Rounding may lift the sum above the units there are (credits that sum to a hair above 1): cap the running sum.
    running = segment_running_sums(parts, offsets)
    if bool((running > wanted).any()):
        capped = np.minimum(running, wanted)
        first = np.zeros(capped.size, dtype=np.bool_)
        first[offsets[:-1][lengths > 0]] = True
        parts = np.diff(capped, prepend=0)
        parts[first] = capped[first]
    left = units - segment_counts(parts, offsets)
    left[lengths == 0] = 0
    if bool(left.any()):
        _distribute(parts, quota, credits_ > 0, offsets, left)
    for place, journey in enumerate(large.tolist()):
        touches = slice(int(offsets[journey]), int(offsets[journey + 1]))
        parts[touches] = _split_exactly(credits_[touches].tolist(), whole[place])
    return parts


def _split_exactly(credits_: list[float], units: int) -> list[int]:
    """Split the units of one journey in whole numbers; a hundred times slower, for values that floats cannot hold."""
    shares = [_exact_share(credit) for credit in credits_]
    all_shares = sum(shares)
    quotas = [share * units / all_shares for share in shares]
    parts = [int(quota) for quota in quotas]
    entitled = [place for place, credit in enumerate(credits_) if credit > 0]
    # stable: of equal remainders the earlier touch comes first
    entitled.sort(key=lambda place: -round((quotas[place] - parts[place]) * (1 << _REMAINDER_BITS)))
    for place in entitled[: units - sum(parts)]:
        parts[place] += 1
    return parts


@lru_cache(maxsize=4096)
def _exact_share(credit: float) -> Fraction:
    exact = Fraction(credit)
    near = exact.limit_denominator(_MAX_DENOMINATOR)
    return near if abs(near - exact) <= exact * _CREDIT_ROUNDING else exact


def _distribute(
    parts: NDArray[np.int64],
    remainders: NDArray[np.float64],
    entitled: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    left: NDArray[np.int64],
) -> None:
    """Give the `left` units of each journey to its entitled touches, largest remainder first; changes `parts`."""
    lengths = np.diff(offsets)
    touches = np.flatnonzero(np.repeat(left > 0, lengths) & entitled)
    journey = np.repeat(np.arange(left.size, dtype=np.int64), lengths)[touches]
    recipients = np.bincount(journey, minlength=left.size)
    rounds, left = np.divmod(left, np.maximum(recipients, 1))
    if bool(rounds.any()):  # credits may sum to a hair below 1, which is units of a large value
        parts[touches] += rounds[journey]
    scaled = np.rint(remainders[touches] * (1 << _REMAINDER_BITS)).astype(np.int64)
    order = _order(journey, (1 << _REMAINDER_BITS) - scaled)
    ranked = touches[order]
    start = np.cumsum(recipients) - recipients
    rank = np.arange(touches.size, dtype=np.int64) - start[journey]  # `journey` ascends, sorting keeps it in place
    chosen = ranked[rank < left[journey]]
    parts[chosen] += 1


def _order(journey: NDArray[np.int64], smallest_first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order by journey, then by the given key, then by place."""
    size = journey.size
    place_bits = max(size - 1, 1).bit_length()
    journey_bits = int(journey[-1] - journey[0]).bit_length()
    key_bits = _REMAINDER_BITS + 1
    if journey_bits + key_bits + place_bits >= 63:
        order: NDArray[np.int64] = np.lexsort((smallest_first, journey))
        return order
    # One unique integer key sorts several times faster than a lexicographic sort of two.
    keys: NDArray[np.int64] = (journey - journey[0]) << (key_bits + place_bits)
    keys |= smallest_first << place_bits
    keys |= np.arange(size, dtype=np.int64)
    keys.sort()
    keys &= (1 << place_bits) - 1
    return keys
