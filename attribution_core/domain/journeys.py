"""Journeys as compact integer arrays: the one input format of every model.

Invariant: a `JourneyBatch` that exists is valid. Touches of journey ``j`` stand at ``offsets[j]:offsets[j + 1]``, in
ascending time, none later than ``converted_at[j]``. Ties of time are broken by event id when a batch is built, so the
same set of events gives the same arrays. Only a table without event ids falls back on the order of its rows (`events`).
No array of a batch is written to after it was handed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Self
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.limits import COUNT_LIMIT, LARGEST, VALUE_LIMIT, LimitError, magnitude
from attributary.attribution_core.domain.segments import segment_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]

DIRECT = "direct"
# Names that analytics tools give to visits without a source, without case, blanks and marks: GA's `Direct`, `(direct)`
# and `(direct) / (none)`, Adobe's `Typed/Bookmarked` and `Direct Load`, Matomo's `Direct Entry`, PostHog's `$direct`.
_DIRECT_NAMES = frozenset(
    {
        "direct", "directnone", "directtraffic", "directentry", "directvisit", "directvisits", "directload",
        "directaccess", "directsource", "directvisitor", "directvisitors", "directtyped", "typeddirect",
        "directtypein", "typein", "directtypedin", "typedbookmarked", "directtypedbookmarked", "typedorbookmarked",
        "directbookmarked", "directbookmark", "directornone",
    }
)  # fmt: skip
_NO_SOURCE = frozenset({"(none)", "(direct)", "(none) / (none)"})


class JourneyError(ValueError):
    """Arrays that are no journeys; the text names the array and the rule."""


class JourneyLimitError(JourneyError, LimitError):
    """Too many journeys, or values too large, to be summed up in 64 bits."""


@lru_cache(maxsize=16_384)
def is_direct(channel: str) -> bool:
    """Tell whether a channel is the one of visits without a source, in any common spelling: Direct, (direct), (none).

    Case, blanks and marks do not count: ``DIRECT``, ``direct_traffic`` and ``(direct) / (none)`` are direct, too.
    ``direct mail`` and ``none`` alone are not.
    """
    if channel == DIRECT:
        return True
    folded = normalize("NFKC", channel).casefold().strip()
    return folded in _NO_SOURCE or "".join(filter(str.isalnum, folded)) in _DIRECT_NAMES


@dataclass(frozen=True, slots=True)
class ChannelIndex:
    """Channel names and their codes: code = place in the sorted names, so that the same names give the same codes."""

    names: tuple[str, ...]
    codes: Mapping[str, int] = field(repr=False, compare=False)

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Build the index of the distinct names, whatever their order."""
        ordered = tuple(sorted(set(names)))
        return cls(ordered, {name: code for code, name in enumerate(ordered)})

    def __len__(self) -> int:
        return len(self.names)

    def code(self, name: str) -> int:
        """Return the code of one channel, or -1 when the index does not know it."""
        return self.codes.get(name, -1)

    def encode(self, names: Sequence[str]) -> Codes:
        """Return the codes of many channels.

        Raises:
            KeyError: for a name that the index does not know.
        """
        codes = self.codes
        return np.fromiter((codes[name] for name in names), dtype=np.int32, count=len(names))

    def direct(self, codes: Codes | Ints) -> Flags:
        """Return whether each of these codes is a direct channel, bool[m], see `is_direct`."""
        flags = np.array([is_direct(name) for name in self.names], dtype=np.bool_)
        found: Flags = flags[codes] if flags.size else np.zeros(codes.shape, dtype=np.bool_)
        return found

    def translation(self, other: ChannelIndex) -> Ints:
        """Return, for each code of this index, the code of the same channel in `other`; -1 where it is unknown."""
        codes = other.codes
        return np.array([codes.get(name, -1) for name in self.names], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class JourneyBatch:
    """Many journeys in compressed rows.

    Attributes:
        offsets: int64[n + 1], first touch of each journey; starts at 0, ends at the number of touches.
        channels: int32[m], codes in `index`.
        times: int64[m], microseconds since 1970-01-01 UTC, ascending inside a journey.
        converted_at: int64[n], microseconds since 1970-01-01 UTC: the conversion, or the end of a journey without.
        direct: bool[m], whether the touch is of a direct channel, see `is_direct`.
        index: the names behind the codes.
    """

    offsets: Ints
    channels: Codes
    times: Ints
    converted_at: Ints
    direct: Flags
    index: ChannelIndex

    def __post_init__(self) -> None:
        wanted = {"offsets": np.int64, "channels": np.int32, "times": np.int64, "converted_at": np.int64}
        for name, dtype in (*wanted.items(), ("direct", np.bool_)):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
                raise JourneyError(f"{name}: must be a one-dimensional array of {np.dtype(dtype).name}")
        touches = self.channels.size
        if self.times.size != touches or self.direct.size != touches:
            raise JourneyError("channels, times, direct: must have one entry per touch")
        offsets = self.offsets
        if offsets.size != self.converted_at.size + 1 or offsets[0] != 0 or offsets[-1] != touches:
            raise JourneyError("offsets: must go from 0 to the number of touches, one more entry than converted_at")
        if bool((np.diff(offsets) < 0).any()):
            raise JourneyError("offsets: must not fall")
        if touches == 0:
            return
        if int(self.channels.min()) < 0 or int(self.channels.max()) >= len(self.index):
            raise JourneyError("channels: every code must be in the index")
        falls = np.diff(self.times) < 0
        starts = offsets[1:-1]
        falls[starts[(starts > 0) & (starts < touches)] - 1] = False
        if bool(falls.any()):
            raise JourneyError("times: must not fall inside a journey")
        last = offsets[1:][self.lengths > 0] - 1
        if bool((self.times[last] > self.converted_at[self.lengths > 0]).any()):
            raise JourneyError("times: no touch may be later than converted_at")

    @classmethod
    def of(
        cls,
        journeys: Sequence[Sequence[tuple[int, str, str]]],
        converted_at: Sequence[int],
        index: ChannelIndex | None = None,
    ) -> Self:
        """Build a batch of plain Python values; for tests, notebooks and small inputs.

        Args:
            journeys: touches of each journey as (time in microseconds UTC, event id, channel), in any order.
            converted_at: end of each journey, microseconds UTC.
            index: the channels; by default those that occur.
        """
        ordered = [sorted(touches) for touches in journeys]
        names = [channel for touches in ordered for _, _, channel in touches]
        known = ChannelIndex.of(names) if index is None else index
        channels = known.encode(names)
        return cls(
            offsets=np.concatenate(([0], np.cumsum([len(touches) for touches in ordered], dtype=np.int64))).astype(
                np.int64
            ),
            channels=channels,
            times=np.array([time for touches in ordered for time, _, _ in touches], dtype=np.int64),
            converted_at=np.array(converted_at, dtype=np.int64),
            direct=known.direct(channels),
            index=known,
        )

    @classmethod
    def of_paths(cls, paths: Sequence[Sequence[str]], index: ChannelIndex | None = None) -> Self:
        """Build a batch of bare channel paths: touches get the times 0, 1, 2, ... and the end comes with the last."""
        return cls.of(
            [[(place, "", channel) for place, channel in enumerate(path)] for path in paths],
            [max(len(path) - 1, 0) for path in paths],
            index,
        )

    def __len__(self) -> int:
        return int(self.converted_at.size)

    @cached_property
    def lengths(self) -> Ints:
        """Number of touches of each journey, int64[n]."""
        return np.diff(self.offsets)

    @cached_property
    def journey_of_touch(self) -> Ints:
        """The journey of each touch, int64[m]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @cached_property
    def positions(self) -> Ints:
        """Place of each touch inside its journey, from 0, int64[m]."""
        return np.arange(self.channels.size, dtype=np.int64) - np.repeat(self.offsets[:-1], self.lengths)

    def sums(self, values: Floats) -> Floats:
        """Add up a value per touch over each journey, float64[n]."""
        return segment_sums(values, self.offsets)

    def select(self, chosen: Flags) -> JourneyBatch:
        """Return the chosen journeys, bool[n], as a batch of their own."""
        kept = np.repeat(chosen, self.lengths)
        lengths = self.lengths[chosen]
        return JourneyBatch(
            offsets=np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64))),
            channels=self.channels[kept],
            times=self.times[kept],
            converted_at=self.converted_at[chosen],
            direct=self.direct[kept],
            index=self.index,
        )

    def slice(self, start: int, stop: int) -> JourneyBatch:
        """Return the journeys ``start:stop`` as a batch that shares the arrays."""
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        return JourneyBatch(
            offsets=self.offsets[start : stop + 1] - low,
            channels=self.channels[low:high],
            times=self.times[low:high],
            converted_at=self.converted_at[start:stop],
            direct=self.direct[low:high],
            index=self.index,
        )


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How the journeys of a batch ended; one row may stand for many equal journeys.

    Outcomes that exist can be summed up in any order and grouping: all journeys together, and the magnitudes of all
    values, fit into 64 bits.

    Attributes:
        conversions: int64[n], journeys of this path that converted, not negative.
        nulls: int64[n], journeys of this path that ended without a conversion, not negative.
        value_micros: int64[n], net value of all those conversions in micros; may be negative after refunds.
    """

    conversions: Ints
    nulls: Ints
    value_micros: Ints

    def __post_init__(self) -> None:
        for name in ("conversions", "nulls", "value_micros"):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.ndim != 1:
                raise JourneyError(f"{name}: must be a one-dimensional array of int64")
            if array.size != self.conversions.size:
                raise JourneyError(f"{name}: must have one entry per journey")
            if name != "value_micros" and bool((array < 0).any()):
                raise JourneyError(f"{name}: must not be negative")
        if magnitude(self.conversions, self.nulls) > LARGEST:
            raise JourneyLimitError(f"conversions, nulls: all together are {COUNT_LIMIT} journeys")
        if magnitude(self.value_micros) > LARGEST:
            raise JourneyLimitError(f"value_micros: the magnitudes of all values are {VALUE_LIMIT}")

    @classmethod
    def of(cls, converted: Sequence[bool] | Flags, value_micros: Sequence[int] | Ints) -> Self:
        """Build the outcomes of single journeys: converted or not, and the value (0 where not)."""
        flags = np.asarray(converted, dtype=np.bool_)
        return cls(flags.astype(np.int64), (~flags).astype(np.int64), np.asarray(value_micros, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.conversions.size)
