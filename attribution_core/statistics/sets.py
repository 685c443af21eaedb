"""The set of channels of each journey: what simplified Shapley values and support counts rest on.

Invariant: the set of a journey does not depend on the order or the repeats of its touches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints, JourneyBatch

_MASK_BITS = 63
_CELLS = 1 << 22  # bounds the working memory of a journey x channel table to some tens of megabytes


@dataclass(frozen=True, eq=False)
class DistinctSets:
    """The distinct sets of channels of a batch.

    Attributes:
        members: ascending channel codes of each set.
        set_of_journey: int64[n], the place of each journey's set in `members`.
    """

    members: list[tuple[int, ...]]
    set_of_journey: Ints


def distinct_sets(batch: JourneyBatch) -> DistinctSets:
    """Find the distinct sets of channels of a batch."""
    if len(batch.index) <= _MASK_BITS:
        return _by_masks(batch)
    return _by_bytes(batch)


def channels_of_journeys(batch: JourneyBatch) -> tuple[Ints, Ints]:
    """Return the pairs of journey and channel that occur, each once, in order: two arrays int64[p]."""
    channels = len(batch.index)
    step = max(_CELLS // max(channels, 1), 1)
    parts = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        low, high = int(batch.offsets[start]), int(batch.offsets[stop])
        table = np.zeros((stop - start) * channels, dtype=np.bool_)
        table[(batch.journey_of_touch[low:high] - start) * channels + batch.channels[low:high]] = True
        parts.append(np.flatnonzero(table) + start * channels)
    journey, channel = np.divmod(np.concatenate(parts), max(channels, 1))
    return journey, channel


def set_shares(batch: JourneyBatch) -> Floats:
    """Return the per-journey simplified Shapley credit of each touch, float64[m].

    Each distinct channel of a journey gets ``1 / number of distinct channels``, split equally over its touches (Zhao,
    Mahboobi, Bagheri 2018, arXiv 1804.05327: the exact Shapley value of "all channels of the journey were needed").
    """
    channels = len(batch.index)
    if channels == 0:
        return np.zeros(0, dtype=np.float64)
    shares = np.empty(batch.channels.size, dtype=np.float64)
    step = max(_CELLS // channels, 1)
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        low, high = int(batch.offsets[start]), int(batch.offsets[stop])
        cells = (batch.journey_of_touch[low:high] - start) * channels + batch.channels[low:high]
        repeats = np.bincount(cells, minlength=(stop - start) * channels)
        distinct = np.count_nonzero(repeats.reshape(stop - start, channels), axis=1)
        shares[low:high] = 1.0 / (repeats[cells] * np.repeat(distinct, batch.lengths[start:stop]))
    return shares


def _by_masks(batch: JourneyBatch) -> DistinctSets:
    masks = np.zeros(len(batch), dtype=np.int64)
    filled = np.flatnonzero(batch.lengths)
    if filled.size:
        bits = np.int64(1) << batch.channels.astype(np.int64)
        masks[filled] = np.bitwise_or.reduceat(bits, batch.offsets[filled])
    distinct, places = np.unique(masks, return_inverse=True)
    members = [_bits_of(int(mask)) for mask in distinct]
    return DistinctSets(members, places.astype(np.int64))


def _bits_of(mask: int) -> tuple[int, ...]:
    codes = []
    while mask:
        lowest = mask & -mask
        codes.append(lowest.bit_length() - 1)
        mask ^= lowest
    return tuple(codes)


def _by_bytes(batch: JourneyBatch) -> DistinctSets:
    """Do as `_by_masks` does, for more channels than a mask has bits: through packed rows, some at a time."""
    channels = len(batch.index)
    step = max(_CELLS // channels, 1)
    known: dict[bytes, int] = {}
    places = np.empty(len(batch), dtype=np.int64)
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        low, high = int(batch.offsets[start]), int(batch.offsets[stop])
        table = np.zeros((stop - start, channels), dtype=np.bool_)
        table[batch.journey_of_touch[low:high] - start, batch.channels[low:high]] = True
        packed = np.packbits(table, axis=1)
        rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
        distinct, inverse = np.unique(rows, return_inverse=True)
        numbers = [known.setdefault(row.tobytes(), len(known)) for row in distinct]
        places[start:stop] = np.array(numbers, dtype=np.int64)[inverse]
    members = [
        tuple(np.flatnonzero(np.unpackbits(np.frombuffer(row, dtype=np.uint8), count=channels)).tolist())
        for row in known
    ]
    return DistinctSets(members, places)
