"""Time under exposure and conversions in it: the additive counts of the time-aware model.

Pieces of histories (`histories`) with equal exposure are added up, in whole seconds and whole conversions.

Invariant: counts are sums over journeys, so parts may be counted apart and added, and a journey that went on is
retracted and added again. A journey that is still open counts with the time it was watched: no outcome is invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Floats, Ints, JourneyBatch, JourneyError
from attributary.attribution_core.domain.limits import whole_numbers
from attributary.attribution_core.statistics.exposure_rows import Exposures, distinct_rows
from attributary.attribution_core.statistics.histories import AGE_BOUNDS, Pieces, pieces, stacked

SECONDS_PER_DAY = 86_400
_MICROS_PER_SECOND = 1_000_000
SCHEMA_VERSION = 2
_KIND = "attributary.exposure-counts"


@dataclass(frozen=True, eq=False)
class ExposureCounts:
    """Watched time and conversions by exposure.

    Attributes:
        index: the channels.
        bounds: upper ends of the age classes, microseconds, ascending.
        exposures: R distinct ones.
        seconds: int64[R], time watched under the exposure.
        conversions: int64[R], conversions that happened under it.
    """

    index: ChannelIndex
    bounds: tuple[int, ...]
    exposures: Exposures
    seconds: Ints
    conversions: Ints

    @classmethod
    def none(cls, bounds: Sequence[int] = AGE_BOUNDS) -> ExposureCounts:
        """Return the counts of nobody."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(ChannelIndex.of(()), tuple(bounds), Exposures.none(), nothing, nothing)

    @classmethod
    def fit(
        cls, batch: JourneyBatch, converted: Ints, watched_until: Ints, bounds: Sequence[int] = AGE_BOUNDS
    ) -> ExposureCounts:
        """Count single journeys.

        Args:
            batch: journeys.
            converted: int64[n], 1 where the journey ended in a conversion, else 0.
            watched_until: int64[n], when watching ended: the conversion, or as far as the data reach; microseconds UTC.
            bounds: of the age classes, microseconds.
        """
        found = pieces(batch, watched_until, bounds)
        conversions = np.zeros(len(found.exposures), dtype=np.int64)
        ended = found.at_end >= 0
        np.add.at(conversions, found.at_end[ended], converted[ended])
        return cls(batch.index, tuple(bounds), found.exposures, _seconds(found), conversions).filled()

    @classmethod
    def observe(
        cls,
        people: JourneyBatch,
        conversions: JourneyBatch,
        since: int,
        until: int,
        bounds: Sequence[int] = AGE_BOUNDS,
    ) -> ExposureCounts:
        """Count people who are watched from `since`, or their first touch, to `until`, and may convert repeatedly.

        Args:
            people: all touches of each person.
            conversions: the touches before each conversion, in the same index; those without touches are not counted.
            since: begin of watching, microseconds UTC.
            until: end of watching, whether somebody converted or not.
            bounds: of the age classes, microseconds.
        """
        none = np.zeros(len(people), dtype=np.int64)
        watched = cls.fit(people, none, np.full(len(people), until, dtype=np.int64), bounds)
        before = cls.fit(people, none, np.full(len(people), since, dtype=np.int64), bounds)
        found = pieces(conversions, conversions.converted_at, bounds)
        ended = np.bincount(found.at_end[found.at_end >= 0], minlength=len(found.exposures)).astype(np.int64)
        events = cls(people.index, tuple(bounds), found.exposures, np.zeros_like(ended), ended)
        return watched.subtract(before).add(events)

    @property
    def days(self) -> Floats:
        """Time watched under each exposure, float64[R], days."""
        found: Floats = self.seconds / SECONDS_PER_DAY
        return found

    @property
    def size(self) -> int:
        """What a fit has to keep: the pairs of filled cells of each exposure, and ten for the exposure itself.

        Some 11 bytes each.
        """
        lengths = self.exposures.lengths
        return int((lengths * (lengths + 1) // 2 + 10).sum())

    def conversions_with(self) -> Ints:
        """Return the conversions under an exposure to each channel, int64[K]."""
        rows, channels = self.exposures.rows, self.exposures.cells // len(self.bounds)
        # the ages of a channel stand beside each other in a row
        fresh = np.ones(rows.size, dtype=np.bool_)
        fresh[1:] = (rows[1:] != rows[:-1]) | (channels[1:] != channels[:-1])
        found = np.zeros(len(self.index), dtype=np.int64)
        np.add.at(found, channels[fresh], self.conversions[rows[fresh]])
        return found

    def add(self, other: ExposureCounts) -> ExposureCounts:
        """Return the counts of both; associative and commutative.

        Raises:
            JourneyError: their age bounds differ.
        """
        if self.bounds != other.bounds:
            raise JourneyError("exposures: age bounds differ")
        index = ChannelIndex.of(self.index.names + other.index.names)
        exposures, places = distinct_rows(*stacked([_moved(self, index), _moved(other, index)]))
        seconds, conversions = (np.zeros(len(exposures), dtype=np.int64) for _ in range(2))
        np.add.at(seconds, places, np.concatenate((self.seconds, other.seconds)))
        np.add.at(conversions, places, np.concatenate((self.conversions, other.conversions)))
        return ExposureCounts(index, self.bounds, exposures, seconds, conversions).filled()

    def subtract(self, other: ExposureCounts) -> ExposureCounts:
        """Return the counts without those of the other.

        Raises:
            JourneyError: when the other holds what was never added.
        """
        left = self.add(ExposureCounts(other.index, other.bounds, other.exposures, -other.seconds, -other.conversions))
        if bool((left.seconds < 0).any() or (left.conversions < 0).any()):
            raise JourneyError("exposures: more was retracted than had been added")
        return left

    def to_document(self) -> dict[str, Any]:
        """Return a JSON-able document: the same counts give the same document, channels without any are left out."""
        channels, ages = np.divmod(self.exposures.cells, len(self.bounds))
        codes, places = np.unique(channels, return_inverse=True)
        index = ChannelIndex.of(self.index.names[code] for code in codes.tolist())
        return {
            "kind": _KIND,
            "schema": SCHEMA_VERSION,
            "channels": list(index.names),
            "bounds": list(self.bounds),
            "lengths": self.exposures.lengths.tolist(),
            "cells": (places * len(self.bounds) + ages).tolist(),
            "touches": self.exposures.touches.tolist(),
            "seconds": self.seconds.tolist(),
            "conversions": self.conversions.tolist(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ExposureCounts:
        """Read what `to_document` wrote.

        Raises:
            JourneyError: when the document is of another kind or schema version, or damaged.
        """
        if document.get("kind") != _KIND or document.get("schema") != SCHEMA_VERSION:
            raise JourneyError(f"exposures: expected {_KIND} of schema {SCHEMA_VERSION}")
        try:
            names = [str(name) for name in document["channels"]]
            index = ChannelIndex.of(names)
            if list(index.names) != names:
                raise ValueError("channels: must be sorted and distinct")  # noqa: TRY301  # as all damage below
            bounds = tuple(whole_numbers(document["bounds"], "bounds", 1).tolist())
            columns = {
                part: whole_numbers(document[part], part, 0)
                for part in ("lengths", "cells", "touches", "seconds", "conversions")
            }
            seconds, conversions = columns["seconds"], columns["conversions"]
            if not columns["lengths"].size == seconds.size == conversions.size:
                raise ValueError("lengths, seconds, conversions: one number per exposure is needed")  # noqa: TRY301  # the same
            rows = Exposures.checked(
                document["lengths"], document["cells"], document["touches"], len(index) * len(bounds)
            )
        except KeyError as error:
            raise JourneyError(f"exposures: damaged document ({error.args[0]}: missing)") from error
        except (TypeError, OverflowError, ValueError) as error:
            raise JourneyError(f"exposures: damaged document ({error})") from error
        return cls(index, bounds, rows, seconds, conversions)

    def filled(self) -> ExposureCounts:
        """Return the same without the exposures under which nothing was seen."""
        kept = (self.seconds != 0) | (self.conversions != 0)
        if bool(kept.all()):
            return self
        return ExposureCounts(
            self.index, self.bounds, self.exposures.select(kept), self.seconds[kept], self.conversions[kept]
        )


def _moved(counts: ExposureCounts, index: ChannelIndex) -> tuple[Ints, Ints]:
    """Return the rows with the codes of another index that knows all channels; both are sorted by name."""
    ages = len(counts.bounds)
    places = counts.index.translation(index)[:, None] * ages + np.arange(ages)
    return counts.exposures.moved(places.ravel())


def _seconds(found: Pieces) -> Ints:
    """Add the pieces up by exposure, int64[R].

    Begin and end are cut down to whole seconds, so that a history has its whole length however it is cut. In
    microseconds the sum over a few million people would not fit into 64 bits.
    """
    seconds = np.zeros(len(found.exposures), dtype=np.int64)
    whole = found.until // _MICROS_PER_SECOND - found.since // _MICROS_PER_SECOND
    np.add.at(seconds, found.exposure, whole)
    return seconds
