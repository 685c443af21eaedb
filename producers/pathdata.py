"""The reference data set of path-based attribution, "PathData", as events.

The file lists distinct paths, each with how many journeys along it converted, what they were worth together and how
many ended without a conversion. It names neither people nor times, so every journey becomes a person of its own, and
its touches get rising times inside the lookback window.

Invariant: the events depend on the file, the choice of paths and the seed alone. Per channel path, touchpoints,
conversions and journeys are exactly the file's. The value of all conversions is that of the chosen paths, rounded to
the cent once: fractions of a cent that a path leaves over are carried to the next, none is made or lost.

The file is not part of this project. It ships in the MIT-licensed package `mta` 0.0.9; `find_pathdata` says where it is
looked for.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attributary.producers.simulator.arrival import draw_arrivals
from attributary.producers.simulator.config import MICROS, MICROS_PER_DAY, Disorder
from attributary.producers.simulator.population import Ints, draw_ages, stream
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS, partition_key

PATH_VARIABLE = "ATTRIBUTARY_PATHDATA"
CURRENCY = "EUR"
PLATFORM = "pathdata"
_CENT_MICROS = 10_000
_QUIET_END_MICROS = 60 * MICROS
_COLUMNS = ("path", "total_conversions", "total_conversion_value", "total_null")
_USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class PathDataMissingError(FileNotFoundError):
    """The file is in none of the places; the text lists them."""


class PathDataError(ValueError):
    """The file is not PathData; the text names the line and the rule."""


class PathRow(NamedTuple):
    """One distinct path of the file."""

    channels: tuple[str, ...]
    conversions: int
    value: Decimal  # of all its conversions together
    nulls: int

    @property
    def journeys(self) -> int:
        """Journeys along it, converting or not."""
        return self.conversions + self.nulls


@dataclass(frozen=True)
class ReplayConfig:
    """How to turn paths into events.

    Attributes:
        now_micros: nothing happens after it; microseconds since 1970-01-01 UTC.
        seed: of times and disorder.
        tenant_id: tenant of all events.
        span_days: days over which journeys end.
        disorder: how badly the events arrive.
    """

    now_micros: int
    seed: int = 0
    tenant_id: str = "pathdata"
    span_days: float = 14.0
    disorder: Disorder = field(default_factory=Disorder)


def find_pathdata(root: Path | None = None) -> Path:
    """Return where the file is: named by ATTRIBUTARY_PATHDATA, in `../shared/data` beside the project, or in `mta`.

    Args:
        root: the project's root; the folder above this package's when None.

    Raises:
        PathDataMissingError: when it is in none of these places, or the variable names no file.
    """
    named = os.environ.get(PATH_VARIABLE, "").strip()
    if named:
        if not Path(named).is_file():
            raise PathDataMissingError(f"{PATH_VARIABLE}={named}: there is no such file")
        return Path(named)
    beside = (root or Path(__file__).resolve().parents[1]).parent / "shared" / "data" / "pathdata.csv"
    if beside.is_file():
        return beside
    spec = find_spec("mta")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        shipped = Path(folder) / "data" / "data.csv.gz"
        if shipped.is_file():
            return shipped
    raise PathDataMissingError(
        f"PathData was not found: name the file by {PATH_VARIABLE}, put it into {beside}, "
        "or install the package mta 0.0.9, which ships it."
    )


def read_paths(file: Path) -> list[PathRow]:
    """Read the file, which may be compressed by gzip (`.gz`).

    Raises:
        PathDataError: when a line is not of the expected form.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if missing := sorted(set(_COLUMNS) - set(reader.fieldnames or ())):
            raise PathDataError(f"{file.name}: column {missing[0]} is missing")
        rows = []
        for number, line in enumerate(reader, start=2):
            try:
                row = PathRow(
                    channels=tuple(channel.strip() for channel in line["path"].split(">")),
                    conversions=int(line["total_conversions"]),
                    value=Decimal(line["total_conversion_value"]),
                    nulls=int(line["total_null"]),
                )
            except (ValueError, ArithmeticError):
                raise PathDataError(f"{file.name} line {number}: counts and value must be numbers") from None
            if not all(row.channels) or row.conversions < 0 or row.nulls < 0 or row.value < 0:
                raise PathDataError(f"{file.name} line {number}: channels must be named, numbers not negative")
            rows.append(row)
    return rows


def choose_paths(
    rows: Sequence[PathRow], *, sample: float = 1.0, limit: int | None = None, seed: int = 0
) -> list[PathRow]:
    """Choose whole paths at random, so that what is chosen keeps the file's statistics.

    Args:
        rows: the file's paths.
        sample: share of the paths, 0 to 1.
        limit: most touchpoints of all journeys together; paths are taken while they fit.
        seed: of the choice.
    """
    if not 0.0 <= sample <= 1.0 or (limit is not None and limit < 0):
        raise ValueError("sample: a share from 0 to 1 is wanted; limit: not negative")
    order = stream(seed, "paths").permutation(len(rows))[: round(sample * len(rows))]
    chosen, touchpoints = [], 0
    for number in order.tolist():
        size = len(rows[number].channels) * rows[number].journeys
        if limit is None or touchpoints + size <= limit:
            touchpoints += size
            chosen.append(number)
    return [rows[number] for number in sorted(chosen)]


class Replay:
    """The events of paths, in the order of arrival: (topic, key, record). Records are built while iterating.

    Attributes:
        touchpoints: distinct touchpoints.
        conversions: distinct conversions.
        journeys: people.
        value_micros: value of all conversions together, micros of EUR.
        duplicates: events that arrive a second time.
        late: distinct events that arrive late.
    """

    def __init__(self, rows: Sequence[PathRow], config: ReplayConfig) -> None:
        self._config = config
        self._rows = rows
        counts = np.array([row.journeys for row in rows], dtype=np.int64)
        self._row: Ints = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
        lengths = np.array([len(row.channels) for row in rows], dtype=np.int64)[self._row]
        self._first: Ints = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        ends, touched_at = self._draw_times(lengths)
        self._values = _divide(rows)
        # The first journeys of a path are those that convert.
        start = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        place = np.arange(len(self._row)) - start[self._row]
        self._converted: Ints = np.flatnonzero(place < np.array([row.conversions for row in rows], np.int64)[self._row])
        self._journey: Ints = np.repeat(np.arange(len(self._row)), lengths)
        self._at: Ints = np.concatenate((touched_at, ends[self._converted]))
        groups = np.repeat(np.arange(2), (len(touched_at), len(self._converted)))
        self._arrivals = draw_arrivals(config.seed, config.disorder, self._at, groups)
        self.touchpoints = len(touched_at)
        self.conversions = len(self._converted)
        self.journeys = len(self._row)
        self.value_micros = sum(self._values)
        self.duplicates = int(self._arrivals.duplicate.sum())
        self.late = int((self._arrivals.late & ~self._arrivals.duplicate).sum())

    def __len__(self) -> int:
        """Arrivals, duplicates included."""
        return len(self._arrivals.event)

    def __iter__(self) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        tenant, at = self._config.tenant_id, self._at.tolist()
        journeys, firsts, rows = self._journey.tolist(), self._first.tolist(), self._row.tolist()
        converted = self._converted.tolist()
        for event in self._arrivals.event.tolist():
            if event < self.touchpoints:
                journey = journeys[event]
                place = event - firsts[journey]
                channel = self._rows[rows[journey]].channels[place]
                record = _touchpoint(tenant, journey, place, channel, at[event])
                yield TOUCHPOINTS, partition_key(tenant, record["anonymous_id"], None), record
            else:
                number = event - self.touchpoints
                record = _conversion(tenant, converted[number], self._values[number], at[event])
                yield CONVERSIONS, partition_key(tenant, record["anonymous_id"], None), record

    def _draw_times(self, lengths: Ints) -> tuple[Ints, Ints]:
        """Times of the journeys' ends and of all touches."""
        random = stream(self._config.seed, "pathdata times")
        spread = (random.random(len(lengths)) * self._config.span_days * MICROS_PER_DAY).astype(np.int64)
        ends = self._config.now_micros - _QUIET_END_MICROS - spread
        journey = np.repeat(np.arange(len(lengths)), lengths)
        ages = draw_ages(random, int(lengths.sum()))
        ages = ages[np.lexsort((-ages, journey))]
        return ends, ends[journey] - (ages * MICROS).astype(np.int64)


def _divide(rows: Sequence[PathRow]) -> list[int]:
    """Micros of every conversion, path by path: whole cents, evenly, what is left over to the first ones."""
    values: list[int] = []
    exact, given = Decimal(0), 0
    for row in rows:
        if not row.conversions:
            continue
        exact += row.value
        cents = round(exact * 100) - given
        given += cents
        each, over = divmod(cents, row.conversions)
        values.extend((each + (number < over)) * _CENT_MICROS for number in range(row.conversions))
    return values


def _touchpoint(tenant: str, journey: int, place: int, channel: str, at: int) -> dict[str, Any]:
    return {
        "tenant_id": tenant,
        "event_id": f"journey-{journey}-touch-{place}",
        "user_id": None,
        "anonymous_id": f"person-{journey}",
        "occurred_at": at,
        "platform": PLATFORM,
        "channel": channel,
        "interaction": "click",
    }


def _conversion(tenant: str, journey: int, value_micros: int, at: int) -> dict[str, Any]:
    return {
        "tenant_id": tenant,
        "event_id": f"journey-{journey}-order",
        "conversion_type": "purchase",
        "user_id": None,
        "anonymous_id": f"person-{journey}",
        "occurred_at": at,
        "value_micros": value_micros,
        "currency": CURRENCY,
        "order_id": f"order-{journey}",
        "user_data": {"email": f"person-{journey}@example.com"},
        "event_source_url": "https://shop.example/thanks",
        "client_user_agent": _USER_AGENT,
        "ga_client_id": f"{journey + 10**8}.{at // MICROS}",
        "consent": {"ad_storage": True, "ad_user_data": True, "ad_personalization": True, "analytics_storage": True},
    }
