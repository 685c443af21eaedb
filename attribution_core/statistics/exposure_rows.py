"""Exposures in compressed rows: what somebody is exposed to at a moment, few cells out of very many.

A *cell* is a channel in an age class, number ``channel * A + age class``. A row holds the cells with at least one
touch and how many, at most `MAX_REPEATS`. With 300 channels and three ages there are 900 cells, a handful of them
filled: only those are kept.

Invariant: the cells of a row ascend, its touches are 1 to `MAX_REPEATS`; the rows of `Exposures` are distinct, the
shorter ones first, rows of one length in lexicographic order. So the same set of rows gives the same arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.journeys import Flags, Ints, JourneyError

MAX_REPEATS = 5  # more touches of one class than this say nothing new, and keep the exponent within bounds
_TOUCH_BITS = 3  # of a word: its cell, and behind it the touches
_KEY_BITS = 63


@dataclass(frozen=True, eq=False)
class Exposures:
    """Distinct exposures.

    Attributes:
        offsets: int64[R + 1], the first entry of each row.
        cells: int64[e], ``channel * A + age class``, ascending in each row.
        touches: int64[e], how many touches, 1 to `MAX_REPEATS`.
    """

    offsets: Ints
    cells: Ints
    touches: Ints

    @classmethod
    def none(cls) -> Self:
        """Return no rows at all."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(np.zeros(1, dtype=np.int64), nothing, nothing)

    @classmethod
    def checked(cls, lengths: Sequence[int], cells: Sequence[int], touches: Sequence[int], columns: int) -> Self:
        """Build rows that somebody else wrote down.

        Args:
            lengths: entries of each row.
            cells: of all entries.
            touches: of all entries.
            columns: how many cells there are.

        Raises:
            JourneyError: they break the invariant of this module.
        """
        found = cls(
            np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.array(lengths, dtype=np.int64)))),
            np.array(cells, dtype=np.int64),
            np.array(touches, dtype=np.int64),
        )
        sized = bool((found.lengths >= 0).all()) and found.offsets[-1] == found.cells.size == found.touches.size
        if not sized or bool(((found.cells < 0) | (found.cells >= columns)).any()):
            raise JourneyError("exposures: lengths and cells do not fit together")
        if bool(((found.touches < 1) | (found.touches > MAX_REPEATS)).any()):
            raise JourneyError(f"exposures: touches must be 1 to {MAX_REPEATS}")
        falls = np.diff(found.cells) <= 0
        starts = found.offsets[1:-1]
        falls[starts[(starts > 0) & (starts < found.cells.size)] - 1] = False
        again, _ = distinct_rows(found.offsets, found.words)
        if (
            bool(falls.any())
            or not np.array_equal(again.offsets, found.offsets)
            or bool((again.words != found.words).any())
        ):
            raise JourneyError("exposures: rows must be distinct and in order")
        return found

    def __len__(self) -> int:
        return int(self.offsets.size) - 1

    @property
    def lengths(self) -> Ints:
        """Number of filled cells of each row, int64[R]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Ints:
        """The row of each entry, int64[e]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @property
    def words(self) -> Ints:
        """Cell and touches of each entry in one number, int64[e]."""
        return words_of(self.cells, self.touches)

    def moved(self, places: Ints) -> tuple[Ints, Ints]:
        """Return offsets and words of the same rows with cell ``c`` called ``places[c]``, which must ascend with it."""
        return self.offsets, words_of(places[self.cells], self.touches)

    def select(self, chosen: Flags) -> Exposures:
        """Return the chosen rows, bool[R]."""
        kept = np.repeat(chosen, self.lengths)
        return Exposures(
            np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(self.lengths[chosen]))),
            self.cells[kept],
            self.touches[kept],
        )

    def dense(self, columns: int) -> NDArray[np.int8]:
        """Return the rows written out, int8[R, columns]."""
        table = np.zeros((len(self), columns), dtype=np.int8)
        table[self.rows, self.cells] = self.touches
        return table


def words_of(cells: Ints, touches: Ints) -> Ints:
    """Return one number for cell and touches of each entry: it ascends as the cells do."""
    found: Ints = cells << _TOUCH_BITS | touches
    return found


def sorted_words(rows: Ints, words: Ints, count: int) -> tuple[Ints, Ints]:
    """Bring entries into the order of rows and cells.

    Args:
        rows: int64[e], the row of each entry, in any order.
        words: int64[e].
        count: how many rows there are, R.

    Returns:
        offsets, int64[R + 1], and the words in order, int64[e].
    """
    bits = _bits(words)
    if count.bit_length() + bits > _KEY_BITS:
        raise JourneyError("exposures: more rows and cells at a time than a number can tell apart")
    entries = np.sort(rows << bits | words)
    lengths = np.bincount(rows, minlength=count).astype(np.int64)
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths))), entries & ((1 << bits) - 1)


def distinct_rows(offsets: Ints, words: Ints) -> tuple[Exposures, Ints]:
    """Return the distinct rows, and the place of each row among them, int64[R].

    Args:
        offsets: int64[R + 1], of the rows.
        words: int64[e], ascending in each row.
    """
    lengths = np.diff(offsets)
    places = np.zeros(lengths.size, dtype=np.int64)
    parts, found_lengths, known = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        chosen = np.flatnonzero(lengths == length)
        table = words[offsets[chosen, None] + np.arange(length)]
        order, is_first = _order(table)
        firsts = order[is_first]
        places[chosen[order]] = known + np.cumsum(is_first) - 1
        parts.append(table[firsts].ravel())
        found_lengths.append(np.full(firsts.size, length, dtype=np.int64))
        known += firsts.size
    joined = np.concatenate(parts)
    bounds = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(found_lengths))))
    return Exposures(bounds, joined >> _TOUCH_BITS, joined & ((1 << _TOUCH_BITS) - 1)), places


def _order(table: Ints) -> tuple[Ints, Flags]:
    """Return the lexicographic order of rows of one length, and which of the ordered are not like the one before."""
    is_first = np.ones(table.shape[0], dtype=np.bool_)
    if table.shape[1] == 0:
        is_first[1:] = False
        return np.arange(table.shape[0], dtype=np.int64), is_first
    # Several words make one number, so that a row is compared in one or two steps.
    bits = _bits(table)
    step = _KEY_BITS // bits
    keys = []
    for low in range(0, table.shape[1], step):
        key = np.zeros(table.shape[0], dtype=np.int64)
        for column in table[:, low : low + step].T:
            key = key << bits | column
        keys.append(key)
    order = np.argsort(keys[0], kind="stable") if len(keys) == 1 else np.lexsort(keys[::-1])
    is_first[1:] = False
    for key in keys:
        ordered = key[order]
        is_first[1:] |= ordered[1:] != ordered[:-1]
    return order, is_first


def _bits(words: Ints) -> int:
    return max(int(words.max(initial=0)).bit_length(), 1)
