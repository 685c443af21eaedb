"""Exposure-binned counts of the people of a tenant, read from the store: the training data of the time-aware model.

Every person with a touch is observed, converted or not, finished or still open. The time of observation begins with the
window or with the first touch, the later of the two. It ends with the window or with the data. A touch counts for the
fit while its age has a class, also after a conversion, because one touch may precede several conversions.

Invariants: the counts are a function of the stored events and the window. They are sums of integers, so the size of the
chunks changes nothing. The choice of people depends on touches alone, never on conversions. People are left out, with
their conversions, if their last touch is older than the longest age class when the window begins.

Memory is bounded: with too many different exposures (many channels, very many people) only a half, a quarter, ... of
the people is observed, chosen by a checksum of their key. The report has the share; the errors are those of the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from zlib import crc32

import numpy as np
import psycopg

from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch
from attributary.attribution_core.statistics.exposures import ExposureCounts
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.consumers.store.events.watermark import event_time_watermark
from attributary.consumers.store.models.timelines import (
    Selection,
    TimelineRow,
    count_people,
    person_of_key,
    stream_timelines,
)

from .journeys import MAX_PERSON_PAIRS, parts_of_people
from .name_limits import NameLimit, channel_limit
from .read_journeys import Progress, Window, no_progress

_MAX_PATHS = 200_000
_MAX_PATH_TOUCHES = 2_000_000  # of all paths: about 150 MB
_MAX_SIZE = 40_000_000  # of `ExposureCounts.size`: half a gigabyte while the rates are fitted
_REACH = AGE_BOUNDS[-1]

Path = tuple[tuple[str, int], ...]
"""The touches in reach of a conversion in the order of time: channel and age class."""


@dataclass(slots=True)
class ObservedExposures:
    """The exposures and conversions of a window.

    Attributes:
        counts: observed time and conversions by exposure.
        until: end of the observation, microseconds UTC; None: the tenant has no events.
        halvings: the share of people is ``1 / 2**halvings``.
        people: people observed.
        unwatched: conversions of people without a touch before, or with touches that are too old: not in the counts.
        paths: conversions by the touches in their reach, for the totals of channels; at most 200,000 distinct ones.
        paths_left_out: conversions with a path beyond those.
        left_out: people with more events than a person can have.
        pooled: channels beyond the limit, counted as "(other)".
        path_touches: touches of all distinct paths.
    """

    counts: ExposureCounts
    until: int | None
    halvings: int = 0
    people: int = 0
    unwatched: int = 0
    paths: Counter[Path] = field(default_factory=Counter)
    paths_left_out: int = 0
    left_out: int = 0
    pooled: int = 0
    path_touches: int = 0


class _TooManyError(Exception):
    """The people have more different exposures than the memory limit allows."""


def read_exposures(
    connection: psycopg.Connection,
    window: Window,
    progress: Progress = no_progress,
    max_size: int = _MAX_SIZE,
) -> ObservedExposures:
    """Count the people of a window.

    Args:
        connection: in a snapshot that stays open until the last chunk.
        window: time, people and types of conversions.
        progress: called after each chunk with people read and people in all; may raise to stop. Begins again when the
            share of people is halved.
        max_size: `ExposureCounts.size` beyond which half of the people are left out.
    """
    reach = event_time_watermark(connection, window.tenant_id)
    if reach is None:
        return ObservedExposures(ExposureCounts.none(), None)
    until = reach + 1 if window.until is None else min(reach + 1, window.until)  # the latest event itself is included
    if window.since is not None and window.since >= until:
        return ObservedExposures(ExposureCounts.none(), until)  # the data end before the window begins
    person = window.journey_key and person_of_key(connection, window.tenant_id, window.journey_key)
    earliest = None if window.since is None else window.since - _REACH
    selection = Selection(window.tenant_id, person, earliest, until)
    total = count_people(connection, selection)
    limit = channel_limit(connection, window.tenant_id)
    found = ObservedExposures(ExposureCounts.none(), until, pooled=limit.pooled)
    while True:
        counting, done, large = _Counting(max_size), 0, list[str]()
        progress(done, total)
        try:
            for rows in stream_timelines(connection, selection, on_left_out=large.append):
                for part in parts_of_people(rows):
                    counting.add(_count(part, replace(window, until=until), limit, found))
                done += sum(1 for _ in groupby(rows, attrgetter("journey_key")))
                progress(done, total)
            found.left_out += len(large)
            found.counts = counting.whole()
        except _TooManyError:
            # The share follows from the data alone, because it depends on all people of the window.
            found = ObservedExposures(ExposureCounts.none(), until, found.halvings + 1, pooled=limit.pooled)
        else:
            return found


class _Counting:
    """Adds counts as a binary counter does: each is added a logarithmic number of times."""

    def __init__(self, max_size: int) -> None:
        self._most = max_size
        self._parts: list[ExposureCounts] = []

    def add(self, part: ExposureCounts) -> None:
        """Add the counts of a chunk."""
        parts = self._parts
        parts.append(part)
        while len(parts) > 1 and len(parts[-1].exposures) >= len(parts[-2].exposures) // 2:
            parts.append(parts.pop().add(parts.pop()))
        if sum(each.size for each in parts) > 2 * self._most:  # several parts may hold the same exposures
            self._parts = [self.whole()]

    def whole(self) -> ExposureCounts:
        """Return the sum; raise `_TooManyError` when it is too large."""
        total = ExposureCounts.none()
        for part in reversed(self._parts):
            total = total.add(part)
        if total.size > self._most:
            raise _TooManyError
        return total


def _count(rows: Sequence[TimelineRow], window: Window, limit: NameLimit, found: ObservedExposures) -> ExposureCounts:
    """Return the counts of a chunk; people, paths and left-out conversions are added to `found`."""
    until = window.until or 0
    since = until if window.since is None else window.since
    earliest = None if window.since is None else window.since - _REACH
    people, conversions = _Rows(), _Rows()
    for key, timeline in groupby(rows, attrgetter("journey_key")):
        if crc32(key.encode()) & ((1 << found.halvings) - 1):
            continue
        touches, ended = _events(timeline, window, earliest, until)
        if sum(seen for _, seen in ended) > MAX_PERSON_PAIRS:
            found.left_out += 1
            continue
        touches = _pooled(touches, limit)
        if touches:
            found.people += 1
            people.add(touches, until)
        for row, seen in ended:
            if not seen:
                found.unwatched += 1
                continue
            conversions.add(touches[:seen], row.at)
            _remember(touches[:seen], row.at, found)
    index = ChannelIndex.of(people.names)
    begin = since if window.since is not None else min(people.times, default=until)
    return ExposureCounts.observe(people.batch(index), conversions.batch(index), begin, until)


def _events(
    timeline: Iterable[TimelineRow], window: Window, earliest: int | None, until: int
) -> tuple[list[TimelineRow], list[tuple[TimelineRow, int]]]:
    """Return the touches of a person, and the conversions with the number of touches before each."""
    touches: list[TimelineRow] = []
    ended: list[tuple[TimelineRow, int]] = []
    for row in timeline:
        if row.at >= until or (earliest is not None and row.at < earliest):
            continue
        if not row.is_conversion:
            touches.append(row)
        elif (window.since is None or row.at >= window.since) and (
            not window.conversion_types or row.kind in window.conversion_types
        ):
            ended.append((row, len(touches)))
    return touches, ended


def _pooled(touches: list[TimelineRow], limit: NameLimit) -> list[TimelineRow]:
    if limit.kept is None:
        return touches
    names = limit.names([row.kind for row in touches])
    return [row._replace(kind=name) for row, name in zip(touches, names, strict=True)]


def _remember(touches: Sequence[TimelineRow], at: int, found: ObservedExposures) -> None:
    classes = np.searchsorted(AGE_BOUNDS, [at - touch.at for touch in touches], side="right").tolist()
    path = tuple((touch.kind, age) for touch, age in zip(touches, classes, strict=True) if age < len(AGE_BOUNDS))
    if path in found.paths:
        found.paths[path] += 1
    elif len(found.paths) < _MAX_PATHS and found.path_touches + len(path) <= _MAX_PATH_TOUCHES:
        found.paths[path] = 1
        found.path_touches += len(path)
    else:
        found.paths_left_out += 1


class _Rows:
    """Collects journeys."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.times: list[int] = []
        self._lengths: list[int] = []
        self._ends: list[int] = []

    def add(self, touches: Sequence[TimelineRow], end: int) -> None:
        """Add a journey, in the order of time."""
        self.names += [touch.kind for touch in touches]
        self.times += [touch.at for touch in touches]
        self._lengths.append(len(touches))
        self._ends.append(end)

    def batch(self, index: ChannelIndex) -> JourneyBatch:
        """Return all journeys."""
        channels = index.encode(self.names)
        return JourneyBatch(
            offsets=np.concatenate(([0], np.cumsum(self._lengths, dtype=np.int64))).astype(np.int64),
            channels=channels,
            times=np.array(self.times, dtype=np.int64),
            converted_at=np.array(self._ends, dtype=np.int64),
            direct=index.direct(channels),
            index=index,
        )
