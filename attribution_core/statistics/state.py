"""What is remembered of finished journeys: additive integer counts, never the journeys themselves.

Invariant: a state is a sum over journeys. ``fit(a + b) == fit(a) + fit(b)`` bit by bit, in whatever order or partition;
``state + x - x == state``. A late touch, a refund or a conversion after a provisional "no conversion" is therefore a
retraction of the old journey and an addition of the new one. All numbers are int64 (values in micros of one currency),
because sums of floats depend on their order; what 64 bits cannot hold is refused, and so is what no journeys can have
left behind. Adding and taking off needs every set of channels; once that is done, a state can be `bounded` for keeping
(`other_sets`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Ints, JourneyBatch, JourneyError, Outcomes
from attributary.attribution_core.domain.limits import COUNT_LIMIT, LARGEST, VALUE_LIMIT, LimitError, whole_numbers
from attributary.attribution_core.statistics.chain_counts import ChainCounts, count_chain
from attributary.attribution_core.statistics.sets import SET_LIMIT, SetCounts, SetOverflow, distinct_sets, split
from attributary.attribution_core.statistics.state_checks import contradiction, excess, read_sets, read_steps

SCHEMA_VERSION = 1
MAX_CHANNELS = 2_000
"""Of one state: the table of steps has the square of it, 32 MB, and sums hold several."""
_BOUNDED_SCHEMA_VERSION = 2  # with "others": a reader of version 1 must not take the kept sets for all
_KIND = "attributary.journey-state"


class StateError(ValueError):
    """A state that cannot be read, or a retraction of what was not added."""


class StateLimitError(StateError, LimitError):
    """A sum of states that 64 bits cannot hold."""


@dataclass(frozen=True, eq=False)
class JourneyState:
    """The sufficient statistics of the trained models.

    Attributes:
        index: the channels seen.
        chain: counts for the Markov chain.
        sets: set of channels (sorted names) to (conversions, nulls, value in micros); ``()`` holds the journeys
            without any touch. No entry is (0, 0, 0).
        overflow: sums over the sets that `sets` does not hold; none but in a bounded state.
    """

    index: ChannelIndex
    chain: ChainCounts
    sets: SetCounts
    overflow: SetOverflow = field(default_factory=SetOverflow)

    def __eq__(self, other: object) -> bool:
        """Tell whether two states hold the same counts."""
        return isinstance(other, JourneyState) and self.to_document() == other.to_document()

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    @classmethod
    def empty(cls) -> JourneyState:
        """Return the state of no journeys: the neutral element of addition."""
        return _zero(ChannelIndex.of(()))

    @classmethod
    def fit(cls, batch: JourneyBatch, outcomes: Outcomes) -> JourneyState:
        """Count the journeys of a batch. Cost: linear in touches, plus the square of the number of channels.

        Raises:
            JourneyError: when outcomes and journeys differ in number, or there is a value where nobody converted.
            JourneyLimitError: when there are more steps than 64 bits can count.
            StateLimitError: when there are more than `MAX_CHANNELS` channels.
        """
        _check_channels(batch.index)
        if len(outcomes) != len(batch):
            raise JourneyError("outcomes: must have one entry per journey")
        if bool(outcomes.value_micros[outcomes.conversions == 0].any()):
            raise JourneyError("value_micros: must be 0 where nobody converted")
        chain = count_chain(batch.channels, batch.offsets, outcomes, len(batch.index))
        return _tidied(cls(batch.index, chain, _count_sets(batch, outcomes)))

    @property
    def conversions(self) -> int:
        """Number of converted journeys, those without touches included."""
        return sum(entry[0] for entry in self.sets.values()) + self.overflow.total(0)

    @property
    def nulls(self) -> int:
        """Number of journeys that ended without a conversion, those without touches included."""
        return sum(entry[1] for entry in self.sets.values()) + self.overflow.total(1)

    @property
    def value_micros(self) -> int:
        """Value of all conversions, micros."""
        return sum(entry[2] for entry in self.sets.values()) + self.overflow.total(2)

    def conversions_with(self) -> Ints:
        """Return the conversions with the channel in their journey, int64[K]: what an estimate for it rests on."""
        found = np.zeros(len(self.index), dtype=np.int64)
        codes = self.index.codes
        members = np.array([codes[name] for names in self.sets for name in names], dtype=np.int64)
        sizes = np.fromiter(map(len, self.sets), np.int64, len(self.sets))
        numbers = np.fromiter((entry[0] for entry in self.sets.values()), np.int64, len(self.sets))
        np.add.at(found, members, np.repeat(numbers, sizes))
        for (_, name), entry in self.overflow.by_channel.items():
            found[self.index.code(name)] += entry[0]
        return found

    def bounded(self, limit: int = SET_LIMIT) -> JourneyState:
        """Return the same counts with at most `limit` sets one by one, the most frequent, and the overflow summed up.

        Every number that rests on sets stays exact, save the interaction of pairs; see `other_sets`.

        Raises:
            StateError: when the state is bounded already.
        """
        _whole(self)
        sets, overflow = split(self.sets, limit)
        return JourneyState(self.index, self.chain, sets, overflow)

    def add(self, other: JourneyState) -> JourneyState:
        """Return the state of the journeys of both; associative and commutative.

        Raises:
            StateError: when one of them is bounded.
            StateLimitError: when the sums do not fit into 64 bits.
        """
        return self._combined(other, 1)

    def subtract(self, other: JourneyState) -> JourneyState:
        """Return the state without the journeys of the other.

        Raises:
            StateError: when the other holds journeys that were never added, or not with this value, so far as sums can
                tell; or one of them is bounded.
        """
        return self._combined(other, -1)

    def replace(self, old: JourneyState, new: JourneyState) -> JourneyState:
        """Retract the old version of some journeys and add the new one."""
        return self.add(new).subtract(old)

    def without_value(self) -> JourneyState:
        """Return the same counts with all values zero."""
        _whole(self)
        chain = self.chain
        none = np.zeros(len(self.index), dtype=np.int64)
        sets = {names: (entry[0], entry[1], 0) for names, entry in self.sets.items()}
        return JourneyState(
            self.index, ChainCounts(chain.steps, chain.opens, chain.conversions, chain.nulls, none), sets
        )

    @classmethod
    def weighted_sum(cls, parts: Iterable[tuple[int, JourneyState]], *, value_shift: int = 0) -> JourneyState:
        """Add many states up at once, each a whole number of times; their order does not matter.

        Args:
            parts: (weight, state); weights are not negative.
            value_shift: divide the sums of values by two to this power, to the nearest micro: for fixed-point weights,
                under which values would not fit into int64.

        Raises:
            StateError: when one of them is bounded.
            StateLimitError: when the sums do not fit into 64 bits.
        """
        held = [(weight, state) for weight, state in parts if weight]
        for _, state in held:
            _whole(state)
        for counted in ("steps", "opens"):  # nothing else is counted more often
            if sum(weight * int(getattr(state.chain, counted).sum()) for weight, state in held) > LARGEST:
                raise StateLimitError(f"state: all {counted}, weighted, are {COUNT_LIMIT}")
        index = ChannelIndex.of(name for _, state in held for name in state.index.names)
        _check_channels(index)
        total = _zero(index).chain
        steps, opens = total.steps.copy(), total.opens.copy()
        conversions, nulls = opens.copy(), opens.copy()
        values = [0] * len(index)
        sets: dict[tuple[str, ...], list[int]] = {}
        for weight, state in held:
            places = state.index.translation(index)
            chain = state.chain
            steps[np.ix_(places, places)] += weight * chain.steps
            opens[places] += weight * chain.opens
            conversions[places] += weight * chain.conversions
            nulls[places] += weight * chain.nulls
            for place, value in zip(places.tolist(), chain.value_micros.tolist(), strict=True):
                values[place] += weight * value
            for names, entry in state.sets.items():
                mine = sets.setdefault(names, [0, 0, 0])
                for part, number in enumerate(entry):
                    mine[part] += weight * number
        half = (1 << value_shift) >> 1
        values = [(value + half) >> value_shift for value in values]
        if sum(map(abs, values)) > LARGEST:
            raise StateLimitError(f"state: the weighted values are {VALUE_LIMIT}")
        micros = np.array(values, dtype=np.int64)
        return _tidied(
            cls(
                index,
                ChainCounts(steps, opens, conversions, nulls, micros),
                {names: (entry[0], entry[1], (entry[2] + half) >> value_shift) for names, entry in sets.items()},
            )
        )

    def to_document(self) -> dict[str, Any]:
        """Return a JSON-able document: the same counts give the same document."""
        row, column = np.nonzero(self.chain.steps)
        overflow = {"others": self.overflow.to_document(self.index.codes)} if self.overflow.sets else {}
        return overflow | {
            "kind": _KIND,
            "schema": _BOUNDED_SCHEMA_VERSION if overflow else SCHEMA_VERSION,
            "channels": list(self.index.names),
            "steps": np.column_stack((row, column, self.chain.steps[row, column])).tolist(),
            "opens": self.chain.opens.tolist(),
            "conversions": self.chain.conversions.tolist(),
            "nulls": self.chain.nulls.tolist(),
            "value_micros": self.chain.value_micros.tolist(),
            "sets": [[[self.index.code(name) for name in names], *self.sets[names]] for names in sorted(self.sets)],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> JourneyState:
        """Read what `to_document` wrote.

        Raises:
            StateError: when the document is of another kind or schema version, or damaged.
        """
        schema = _BOUNDED_SCHEMA_VERSION if "others" in document else SCHEMA_VERSION
        if document.get("kind") != _KIND or document.get("schema") != schema:
            raise StateError(f"state: expected {_KIND} of schema {schema}")
        try:
            names = tuple(map(str, document["channels"]))
            index = ChannelIndex.of(names)
            if index.names != names:
                raise ValueError("channels: must be sorted and distinct")  # noqa: TRY301  # as all damage below
            _check_channels(index)
            steps = read_steps(document["steps"], len(index))
            opens, conversions, nulls = (
                whole_numbers(document[part], part, 0) for part in ("opens", "conversions", "nulls")
            )
            value_micros = whole_numbers(document["value_micros"], "value_micros")
            if not opens.size == conversions.size == nulls.size == value_micros.size == len(index):
                raise ValueError("opens, conversions, nulls, value_micros: one number per channel is needed")  # noqa: TRY301  # the same
            sets = read_sets(document["sets"], names)
            overflow = SetOverflow.from_document(document["others"], names) if "others" in document else SetOverflow()
        except KeyError as error:
            raise StateError(f"state: damaged document ({error.args[0]}: missing)") from error
        except (IndexError, TypeError, AttributeError, OverflowError, ValueError) as error:
            raise StateError(f"state: damaged document ({error})") from error
        chain = ChainCounts(steps, opens, conversions, nulls, value_micros)
        if fault := excess(chain, sets, overflow) or contradiction(index, chain, sets, overflow):
            raise StateError(f"state: damaged document ({fault})")
        return cls(index, chain, sets, overflow)

    def _combined(self, other: JourneyState, sign: int) -> JourneyState:
        _whole(self)
        _whole(other)
        if not other.sets:  # no journeys: most days of a step retract none
            return self
        if sign > 0 and not self.sets:
            return other
        index = ChannelIndex.of((*self.index.names, *other.index.names))
        _check_channels(index)
        sets = dict(self.sets)
        for names, (conversions, nulls, value) in other.sets.items():
            mine = sets.get(names, (0, 0, 0))
            sets[names] = (mine[0] + sign * conversions, mine[1] + sign * nulls, mine[2] + sign * value)
        chain, addend = _spread(self, index), _spread(other, index)
        total = ChainCounts(
            _sum(chain.steps, addend.steps, sign),
            _sum(chain.opens, addend.opens, sign),
            _sum(chain.conversions, addend.conversions, sign),
            _sum(chain.nulls, addend.nulls, sign),
            _sum(chain.value_micros, addend.value_micros, sign),
        )
        return _tidied(JourneyState(index, total, sets))


def _check_channels(index: ChannelIndex) -> None:
    if len(index) > MAX_CHANNELS:
        raise StateLimitError(
            f"state: {len(index):,} channels are more than {MAX_CHANNELS:,}; a campaign or a keyword is no channel: "
            "publish it in its own field"
        )


def _sum(one: Ints, other: Ints, sign: int) -> Ints:
    """Add or take off; no number of a state is -2^63, so the sign can be turned."""
    addend = sign * other
    total: Ints = one + addend
    if bool(((one ^ total) & (addend ^ total) < 0).any()):  # both of one sign, and their sum of the other: it wrapped
        raise StateLimitError(f"state: a count is {COUNT_LIMIT}, or a value {VALUE_LIMIT}")
    return total


def _whole(state: JourneyState) -> None:
    if state.overflow.sets:
        raise StateError(
            f"state: {state.overflow.sets} rare sets of channels are summed up (bounded); add, retract or bound the "
            "whole state instead"
        )


def _tidied(state: JourneyState) -> JourneyState:
    """Drop empty sets and the channels of which nothing is left, so that equal sums are equal states."""
    sets = {names: entry for names, entry in state.sets.items() if entry != (0, 0, 0)}
    index = ChannelIndex.of(name for names in sets for name in names)
    seen = state.index.translation(index) >= 0
    kept, gone, old = np.flatnonzero(seen), ~seen, state.chain
    if any(bool(part[gone].any()) for part in (old.steps, old.steps.T, old.opens, old.conversions, old.nulls)):
        raise StateError("state: channels in no set have counts; journeys were retracted that had not been added")
    chain = ChainCounts(
        state.chain.steps[np.ix_(kept, kept)],
        state.chain.opens[kept],
        state.chain.conversions[kept],
        state.chain.nulls[kept],
        state.chain.value_micros[kept],
    )
    if fault := excess(chain, sets, state.overflow):
        raise StateLimitError(f"state: {fault}")
    if fault := contradiction(index, chain, sets, state.overflow):
        raise StateError(f"state: {fault}; journeys were retracted that had not been added, or not with this value")
    return JourneyState(index, chain, sets)


def _zero(index: ChannelIndex) -> JourneyState:
    size = len(index)
    none = np.zeros(size, dtype=np.int64)
    return JourneyState(index, ChainCounts(np.zeros((size, size), dtype=np.int64), none, none, none, none), {})


def _spread(state: JourneyState, index: ChannelIndex) -> ChainCounts:
    """Lay the counts of a state out over a larger index."""
    places = state.index.translation(index)
    wide = np.zeros((len(index), len(index)), dtype=np.int64)
    wide[np.ix_(places, places)] = state.chain.steps

    def vector(counts: Ints) -> Ints:
        spread = np.zeros(len(index), dtype=np.int64)
        spread[places] = counts
        return spread

    chain = state.chain
    return ChainCounts(
        wide, vector(chain.opens), vector(chain.conversions), vector(chain.nulls), vector(chain.value_micros)
    )


def _count_sets(batch: JourneyBatch, outcomes: Outcomes) -> SetCounts:
    found = distinct_sets(batch)
    size = len(found.members)
    counts = np.zeros((3, size), dtype=np.int64)
    for row, part in enumerate((outcomes.conversions, outcomes.nulls, outcomes.value_micros)):
        np.add.at(counts[row], found.set_of_journey, part)
    names = batch.index.names
    return {
        tuple(names[code] for code in members): (conversions, nulls, value)
        for members, (conversions, nulls, value) in zip(found.members, counts.T.tolist(), strict=True)
    }
