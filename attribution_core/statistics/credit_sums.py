"""Sums of per-journey credits and of their squares: all that the totals of a rule, and their precision, need.

A rule (or the simplified Shapley value) gives every channel of a journey a fixed credit ``a``. With the sums of ``a``
and ``a^2`` over single conversions, and the same weighted with their values, the shares follow, and their standard
errors in closed form:

    SE(share_i) = sqrt(sum_j w_j^2 (a_ij - share_i)^2) / sum_j w_j        w: 1, or the value of conversion j

Invariant: sums are whole numbers of any size, so they are the same whatever the order and the partition of the rows,
and rows can be taken out again. A credit counts in units of 2^-30: shares and errors are off by less than 1e-8. The
conversions of one row are taken to be worth the same, to the micro squared; rows are what is added and taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Floats, JourneyBatch, Outcomes

_UNIT_BITS = 30
_UNIT = 1 << _UNIT_BITS
_SCHEMA_VERSION = 1
_KIND = "attributary.credit-sums"
_ROWS = 1 << 16  # at a time, so that memory does not grow with the journeys
_PARTS = 5
_Sums = tuple[int, ...]


class CreditSumsError(ValueError):
    """Sums that cannot be read, or that are of other models."""


@dataclass(frozen=True)
class CreditSums:
    """Sums over the conversions of journeys with touches.

    Attributes:
        model: its name and all parameters that change its credits; only sums of one model are added.
        conversions: their number.
        value_micros: their value.
        value_squares: sum of the squares of the values of single conversions.
        channels: by name: sum of credits, of squared credits, of value x credit, of squared value x credit, and of
            squared value x squared credit; credits in units of 2^-30. No entry is all 0.
    """

    model: str
    conversions: int = 0
    value_micros: int = 0
    value_squares: int = 0
    channels: Mapping[str, _Sums] = field(default_factory=dict)

    @classmethod
    def fit(cls, model: str, batch: JourneyBatch, credits_: Floats, outcomes: Outcomes) -> CreditSums:
        """Sum up the credits float64[m] of the touches of a batch."""
        total = cls(model)
        for low in range(0, len(batch), _ROWS):
            part = batch.slice(low, low + _ROWS)
            touches = slice(int(batch.offsets[low]), int(batch.offsets[low]) + part.channels.size)
            rows = slice(low, low + _ROWS)
            ends = Outcomes(outcomes.conversions[rows], outcomes.nulls[rows], outcomes.value_micros[rows])
            total = total.add(_of_rows(model, part, credits_[touches], ends))
        return total

    def add(self, other: CreditSums) -> CreditSums:
        """Return the sums over the rows of both; associative and commutative.

        Raises:
            CreditSumsError: when they are of different models.
        """
        return self._combined(other, 1)

    def subtract(self, other: CreditSums) -> CreditSums:
        """Return the sums without the rows of the other.

        Raises:
            CreditSumsError: when they are of different models, or the other holds rows that were never added, or not
                with this value, so far as sums can tell.
        """
        return self._combined(other, -1)

    def shares(self, index: ChannelIndex, *, of_value: bool = False) -> Floats:
        """Return the share of each channel in the conversions (or the value), float64[K]; NaN without any."""
        whole = self.value_micros if of_value else self.conversions
        if whole == 0:
            return np.full(len(index), np.nan)
        return self._column(index, 2 if of_value else 0) / _UNIT / whole

    def errors(self, index: ChannelIndex, *, of_value: bool = False) -> Floats:
        """Return the standard errors of the shares, float64[K]; NaN where there are none."""
        whole = self.value_micros if of_value else self.conversions
        share = self.shares(index, of_value=of_value)
        credit, square = (self._column(index, part) for part in ((3, 4) if of_value else (0, 1)))
        squares = self.value_squares if of_value else self.conversions
        variance = square / _UNIT**2 - 2 * share * credit / _UNIT + share**2 * float(squares)
        errors: Floats = np.sqrt(np.maximum(variance, 0.0)) / abs(whole or 1)
        return errors

    def to_document(self) -> dict[str, Any]:
        """Return a JSON-able document: the same sums give the same document."""
        return {
            "kind": _KIND,
            "schema": _SCHEMA_VERSION,
            "model": self.model,
            "sums": [self.conversions, self.value_micros, self.value_squares],
            "channels": {name: list(self.channels[name]) for name in sorted(self.channels)},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> CreditSums:
        """Read what `to_document` wrote.

        Raises:
            CreditSumsError: when the document is of another kind or schema version, or damaged.
        """
        if document.get("kind") != _KIND or document.get("schema") != _SCHEMA_VERSION:
            raise CreditSumsError(f"credit sums: expected {_KIND} of schema {_SCHEMA_VERSION}")
        try:
            conversions, value, squares = _whole_numbers(document["sums"], "sums", 3)
            channels = {
                str(name): _whole_numbers(sums, f"channels.{name}", _PARTS)
                for name, sums in document["channels"].items()
            }
            model = str(document["model"])
        except KeyError as error:
            raise CreditSumsError(f"credit sums: damaged document ({error.args[0]}: missing)") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise CreditSumsError(f"credit sums: damaged document ({error})") from error
        found = cls(model, conversions, value, squares, channels)
        if fault := _contradiction(found):
            raise CreditSumsError(f"credit sums: damaged document ({fault})")
        return found

    def _column(self, index: ChannelIndex, part: int) -> Floats:
        nothing = (0,) * _PARTS
        return np.array([self.channels.get(name, nothing)[part] for name in index.names], dtype=np.float64)

    def _combined(self, other: CreditSums, sign: int) -> CreditSums:
        if self.model != other.model:
            raise CreditSumsError(f"credit sums: of {self.model} and of {other.model} cannot be added")
        channels = dict(self.channels)
        nothing = (0,) * _PARTS
        for name, sums in other.channels.items():
            mine = channels.get(name, nothing)
            channels[name] = tuple(one + sign * two for one, two in zip(mine, sums, strict=True))
        found = CreditSums(
            self.model,
            self.conversions + sign * other.conversions,
            self.value_micros + sign * other.value_micros,
            self.value_squares + sign * other.value_squares,
            {name: sums for name, sums in channels.items() if any(sums)},
        )
        if fault := _contradiction(found):
            raise CreditSumsError(f"credit sums: {fault}; rows were taken out that had not been added")
        return found


def _contradiction(sums: CreditSums) -> str | None:
    """Tell what no rows can have left behind."""
    if min(sums.conversions, sums.value_squares) < 0:
        return "conversions or squares are negative"
    if sums.conversions == 0 and (sums.value_micros or sums.value_squares or sums.channels):
        return "credits or values stand where nobody converted"
    for name, (credit, square, *_, squared_worth) in sums.channels.items():
        if min(credit, square, squared_worth) < 0:
            return f"credits of {name!r} are negative"
    return None


def _whole_numbers(numbers: Any, place: str, count: int) -> _Sums:
    """Read whole numbers of any size: squares of values in micros pass 64 bits."""
    if not isinstance(numbers, list) or len(numbers) != count or set(map(type, numbers)) != {int}:
        raise ValueError(f"{place}: {count} whole numbers are needed")
    return tuple(numbers)


def _of_rows(model: str, batch: JourneyBatch, credits_: Floats, outcomes: Outcomes) -> CreditSums:
    chosen = (outcomes.conversions > 0) & (batch.lengths > 0)
    kept = np.repeat(chosen, batch.lengths)
    converting = batch.select(chosen)
    channels = len(batch.index)
    cells = converting.channels.astype(np.int64) * len(converting) + converting.journey_of_touch
    occupied, places = np.unique(cells, return_inverse=True)  # by channel, then by journey
    credit = np.rint(np.bincount(places, credits_[kept], occupied.size) * _UNIT).astype(np.int64)
    channel, row = np.divmod(occupied, max(len(converting), 1))
    # Python's whole numbers, for squares of values in micros pass 64 bits
    number = outcomes.conversions[chosen].astype(object)
    value = outcomes.value_micros[chosen].astype(object)
    squared = (2 * value * value + number) // (2 * number)  # over the row's conversions; to the nearest
    worth = credit.astype(object)
    parts = (number[row] * worth, number[row] * worth * worth, value[row] * worth, squared[row] * worth)
    columns = [*parts, parts[3] * worth]
    starts = np.flatnonzero(np.diff(channel, prepend=-1))
    names = [batch.index.names[code] for code in channel[starts].tolist()] if channels else []
    sums = [np.add.reduceat(column, starts).tolist() if starts.size else [] for column in columns]
    return CreditSums(
        model,
        int(outcomes.conversions[chosen].sum()),
        int(sum(value.tolist())),
        int(sum(squared.tolist())),
        {name: entry for name, *found in zip(names, *sums, strict=True) if any(entry := tuple(map(int, found)))},
    )
