"""Arithmetic over the rows of a compressed array: one value per touch in, one value per journey out.

Invariant: a row without entries gives the neutral value; results depend on the order inside a row only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def segment_sums(values: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Add up each row, float64[..., n] from float64[..., m]; 0 for an empty one."""
    sums = np.zeros((*values.shape[:-1], offsets.size - 1), dtype=np.float64)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        # Empty rows hold no entries, so the starts of the filled ones are the boundaries of all entries.
        sums[..., filled] = np.add.reduceat(values, offsets[filled], axis=-1)
    return sums


def segment_counts(values: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up integers over each row; 0 for an empty one. Sums wrap at 64 bits, as integers of numpy do."""
    sums = np.zeros(offsets.size - 1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        sums[filled] = np.add.reduceat(values, offsets[filled])
    return sums


def segment_maxima(values: NDArray[np.int64], offsets: NDArray[np.int64], empty: int) -> NDArray[np.int64]:
    """Return the largest integer of each row; `empty` for an empty one."""
    maxima = np.full(offsets.size - 1, empty, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        maxima[filled] = np.maximum.reduceat(values, offsets[filled])
    return maxima


def segment_running_sums(values: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the running sum inside each row, its own entry included.

    The sum over all rows may pass 64 bits: it wraps, and so does the difference, which leaves the rows exact.
    """
    running = np.cumsum(values, dtype=np.int64)
    before = np.concatenate((np.zeros(1, dtype=np.int64), running))[offsets[:-1]]
    return running - np.repeat(before, np.diff(offsets))
