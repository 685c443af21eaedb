"""From the bytes of a batch of results to what the roll-up needs of them: walked once in Python, decoded by numpy.

All models of a result name the same touchpoints, byte for byte up to the credit. The first model says which they are;
in the others the walk only finds where each credit stands. Credits and micros are then arrays of the whole batch, and
checked as such: no object is made for a credit. Roll-ups of a result repeat its credits; they are passed over.

Invariant: what this reader returns for a result is ``cells_of`` of the row that codec and checks make of it; where it
returns None, they judge. A test compares both on mutated results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from attributary.consumers.store.rollup.cells import NO_TOUCHPOINT, ModelCells, RolledResult, cells_text, rounded
from attributary.schemas.compiled_reader import IRREGULAR, IrregularError

from .result_checks import ID_FACTS
from .result_reader import (
    read_count,
    read_end,
    read_long,
    read_optional_double,
    read_optional_text,
    read_span,
    read_text,
)

_MOST_FACTS = 20_000  # kept by their bytes: a shop has a few hundred
_NO_IDS = bytes(len(ID_FACTS))
_CREDIT_BYTES, _TIME_BYTES, _LONGEST = 8, 8, 9  # the last one: of a number with up to 63 bits
_LEAST, _MOST = _CREDIT_BYTES + 1, _CREDIT_BYTES + _LONGEST  # of a credit and micros
_EXACT = 1 << 53  # sums of a batch of smaller micros fit into 64 bits
_LARGEST = 1e6  # of a credit, which is a share: an absurd one is left to the checks
_PADDING = bytes(_LONGEST + _CREDIT_BYTES)

Facts = tuple[str, str, str, str, str]  # channel, platform, campaign id, campaign without an id, the campaign's name
Places = npt.NDArray[np.intp]
Integers = npt.NDArray[np.int64]


class _Head(NamedTuple):
    """A result as walked: what is left is in the arrays of the batch."""

    fields: tuple[Any, ...]  # those of RolledResult before the cells
    facts: list[Facts]
    models: list[str]
    unattributed: list[int]
    uses: list[tuple[str, str]]  # version and fallback rule of each model
    is_final: bool


class _Walk:
    """Where the numbers of a batch stand: one entry a touchpoint and model, and one a touchpoint for its time."""

    def __init__(self) -> None:
        self.credit_at: list[int] = []
        self.credit_end: list[int] = []  # behind the micros that follow the credit
        self.time_at: list[int] = []
        self._lists = (self.credit_at, self.credit_end, self.time_at)
        self._headers: list[tuple[bytes, str, str]] = []  # of the models of the result before: nearly always the same
        self._facts: dict[bytes, Facts] = {}

    def sizes(self) -> list[int]:
        """Return how much there is, for `forget`."""
        return [len(each) for each in self._lists]

    def forget(self, sizes: list[int]) -> None:
        """Take back what a result added."""
        for each, size in zip(self._lists, sizes, strict=True):
            del each[size:]

    def result(self, b: bytes, i: int, end: int) -> _Head:
        """Walk one result, from the place where its body begins to its end."""
        tenant_id, i = read_text(b, i)
        conversion_id, i = read_text(b, i)
        conversion_type, i = read_text(b, i)
        converted_at, i = read_long(b, i)
        journey_key, i = read_text(b, i)
        version, i = read_long(b, i)
        reason, i = read_text(b, i)
        if b[i] > 1:
            raise IrregularError
        is_final = b[i] == 1
        net, i = read_long(b, i + 1)
        _, i = read_long(b, i)
        _, i = read_long(b, i)
        currency, i = read_text(b, i)
        _, i = read_text(b, i)
        count, i = read_long(b, i)
        if not -(2**31) <= count < 2**31:
            raise IrregularError
        models: list[str] = []
        unattributed: list[int] = []
        count, i = read_count(b, i)
        uses: list[tuple[str, str]] = []
        facts, i = self._models(b, i, count, models, unattributed, uses)
        computed_at, i = read_long(b, self._insights(b, read_end(b, i, count)))
        _, i = read_text(b, i)
        if i != end:
            raise IrregularError
        fields = (
            tenant_id, conversion_id, version, reason, conversion_type, currency, converted_at, journey_key, net,
            computed_at,
        )  # fmt: skip
        return _Head(fields, facts, models, unattributed, uses, is_final)

    def _models(
        self,
        b: bytes,
        i: int,
        count: int,
        models: list[str],
        unattributed: list[int],
        uses: list[tuple[str, str]],
    ) -> tuple[list[Facts], int]:
        touches: list[tuple[bytes, int]] = []
        facts: list[Facts] = []
        headers = self._headers
        pass_over = _Rollups()
        for place in range(count):
            if place < len(headers) and b.startswith(headers[place][0], i):
                header, model, version = headers[place]
                i += len(header)
            else:
                begin = i
                model, i = read_text(b, i)
                version, i = read_text(b, i)
                headers[place:] = [(b[begin:i], model, version)]
            models.append(model)
            if place == 0:
                i = pass_over.first(b, self._first(b, i, touches, facts))
            else:
                i = pass_over.other(b, self._other(b, i, touches))
            if b[i]:
                rest, i = read_long(b, i)
                unattributed.append(rest)
            else:
                unattributed.append(0)
                i += 1
            if b[i] or b[i + 1]:
                _, i = read_optional_double(b, i)
                fallback, i = read_optional_text(b, i)
                uses.append((version, fallback or ""))
            else:
                uses.append((version, ""))
                i += 2
        return facts, i

    def _first(self, b: bytes, i: int, touches: list[tuple[bytes, int]], facts: list[Facts]) -> int:
        """Learn the touchpoints from the first model."""
        known = self._facts
        count, i = read_count(b, i)
        for _ in range(count):
            start = i
            here = i = _checked(b, i)  # behind the event id
            for _ in range(3):  # channel, platform and campaign: read if they are new
                i = read_span(b, i)[1]
            if b[i : i + 3] == _NO_IDS:
                i += 3
            else:
                for _ in ID_FACTS:
                    i = read_span(b, i + 1)[1] if b[i] else i + 1
            found = known.get(text := b[here:i])
            facts.append(self._learn(text) if found is None else found)
            self.time_at.append(i)
            i += _TIME_BYTES
            touches.append((b[start:i], i - start))
            self.credit_at.append(i)
            i = _behind_number(b, i + _CREDIT_BYTES)
            self.credit_end.append(i)
        return read_end(b, i, count)

    def _other(self, b: bytes, i: int, touches: list[tuple[bytes, int]]) -> int:
        """Find the credits of the touchpoints that the first model named."""
        count, i = read_count(b, i)
        if count != len(touches):
            raise IrregularError
        if not count:
            return i
        starts, ends, find = self.credit_at, self.credit_end, b.find
        text, size = touches[0]
        if not b.startswith(text, i):
            raise IrregularError
        i += size
        starts.append(i)
        for text, size in touches[1:]:
            # Micros have one byte at least; how long they are is checked with their value.
            i = find(text, i + _LEAST, i + _MOST + size)
            if i < 0:
                raise IrregularError
            ends.append(i)
            i += size
            starts.append(i)
        i = _behind_number(b, i + _CREDIT_BYTES)
        ends.append(i)
        return read_end(b, i, count)

    def _learn(self, text: bytes) -> Facts:
        """Return the facts of a touchpoint by its bytes from the channel to the ids."""
        channel, i = read_text(text, 0)
        platform, i = read_text(text, i)
        name, i = read_text(text, i)
        campaign_id, i = read_optional_text(text, i)
        _, i = read_optional_text(text, i)
        _, i = read_optional_text(text, i)
        if len(self._facts) >= _MOST_FACTS:
            self._facts.clear()
        found = (channel, platform, campaign_id or "", "" if campaign_id else name, name)
        self._facts[text] = found
        return found

    @staticmethod
    def _insights(b: bytes, i: int) -> int:
        count, i = read_count(b, i)
        for _ in range(count):
            i = _checked(b, _checked(b, i))
            for _ in range(3):
                _, i = read_optional_double(b, i)
            _, i = read_long(b, i)
        return read_end(b, i, count)


class _Rollups:
    """The roll-ups of the models of one result: read with the first model, found by the last one in the others."""

    def __init__(self) -> None:
        self._count = 0
        self._last = b""
        self._least = self._most = 0  # bytes before the last one

    def first(self, b: bytes, i: int) -> int:
        """Return what follows the roll-ups of the first model."""
        self._count, i = read_count(b, i)
        for _ in range(self._count):
            start = i
            i = _checked(b, _checked(b, i))
            self._last = b[start:i]
            self._least += i - start
            i = _behind_number(b, i + _CREDIT_BYTES)
        self._least += (self._count - 1) * _LEAST - len(self._last)
        self._most = self._least + (self._count - 1) * (_MOST - _LEAST)
        return read_end(b, i, self._count)

    def other(self, b: bytes, i: int) -> int:
        """Return what follows the roll-ups of another model, which are the same."""
        count, i = read_count(b, i)
        if count != self._count:
            raise IrregularError
        if not count:
            return i
        i = b.find(self._last, i + self._least, i + self._most + len(self._last))
        if i < 0:
            raise IrregularError
        return read_end(b, _behind_number(b, i + len(self._last) + _CREDIT_BYTES), count)


def _checked(b: bytes, i: int) -> int:
    """Return what follows a text that nobody reads; it is a text."""
    begin, end = read_span(b, i)
    if not (text := b[begin:end]).isascii():
        text.decode()
    return end


def _behind_number(b: bytes, i: int) -> int:
    while b[i] > 127:  # another byte follows
        i += 1
    return i + 1


def read_rolled(values: Sequence[tuple[bytes, int]]) -> list[RolledResult | None]:
    """Return what the roll-up needs of each result; None: unusual, broken, or it breaks a promise.

    Args:
        values: of the records, written with the bundled schema, each with the place where its body begins.
    """
    joined = b"".join([*(value for value, _ in values), _PADDING])
    walk = _Walk()
    heads: list[_Head | None] = []
    base = 0
    for value, begin in values:
        sizes = walk.sizes()
        try:
            heads.append(walk.result(joined, base + begin, base + len(value)))
        except IRREGULAR:
            walk.forget(sizes)
            heads.append(None)
        base += len(value)
    return _Columns(joined, walk, [head for head in heads if head is not None]).results(heads)


class _Columns:
    """The numbers of a batch as arrays; a segment is one model of one result.

    Args:
        joined: all values.
        walk: where the numbers stand.
        heads: the results, in the order of the walk.
    """

    def __init__(self, joined: bytes, walk: _Walk, heads: Sequence[_Head]) -> None:
        data = np.frombuffer(joined, np.uint8)
        touches = np.array([len(head.facts) for head in heads], np.intp)
        models = np.array([len(head.models) for head in heads], np.intp)
        of_segment = np.repeat(np.arange(len(heads)), models)
        sizes = touches[of_segment]
        segment = np.repeat(np.arange(len(sizes)), sizes)
        credit_at = np.array(walk.credit_at, np.intp)
        self._micros, wrong = _numbers(data, credit_at + _CREDIT_BYTES, np.array(walk.credit_end, np.intp))
        is_bad = np.zeros(len(heads), bool)
        is_bad[of_segment[segment[wrong]]] = True
        shares = data[credit_at[:, None] + np.arange(_CREDIT_BYTES)].view("<f8").ravel()
        strange = ~(np.abs(shares) <= _LARGEST)
        is_bad[of_segment[segment[strange]]] = True
        self._parts, self._rests = rounded(np.where(strange, 0.0, shares), segment, sizes)
        net = np.array([head.fields[8] for head in heads], object)
        rest = np.array([each for head in heads for each in head.unattributed], object)
        total = np.zeros(len(sizes), np.int64)
        np.add.at(total, segment, self._micros)
        is_bad[of_segment[total != net[of_segment] - rest]] = True
        # Times have eight bytes from 1978 to 3111.
        times_at = np.array(walk.time_at, np.intp)
        self._times, wrong = _numbers(data, times_at, times_at + _TIME_BYTES)
        is_bad[np.repeat(np.arange(len(heads)), touches * (models > 0))[wrong]] = True
        self._is_bad = is_bad

    def results(self, heads: Sequence[_Head | None]) -> list[RolledResult | None]:
        """Return the results in the order of the batch."""
        parts, micros, rests = self._parts.tolist(), self._micros.tolist(), self._rests.tolist()
        times, bad = self._times.tolist(), self._is_bad.tolist()
        found: list[RolledResult | None] = []
        entry = segment = time = place = 0
        for head in heads:
            if head is None:
                found.append(None)
                continue
            count = len(head.facts)
            models = []
            for model, rest_micros in zip(head.models, head.unattributed, strict=True):
                end = entry + count
                models.append((model, parts[entry:end], micros[entry:end], rests[segment], rest_micros))
                entry, segment = end, segment + 1
            at = times[time : time + count]
            time += count
            found.append(None if bad[place] else _rolled(head, at, models))
            place += 1
        return found


def _rolled(head: _Head, times: Sequence[int], models: Sequence[ModelCells]) -> RolledResult:
    touches = [(*facts[:4], at) for facts, at in zip(head.facts, times, strict=True)]
    names = [(facts[1], facts[2], facts[4], at) for facts, at in zip(head.facts, times, strict=True) if facts[2]]
    named = {str(place): facts[4] for place, facts in enumerate(head.facts) if facts[2]}
    cells = {"t": touches, "m": models, "n": named, "u": head.uses, "f": int(head.is_final)}
    first = touches[0][0] if touches else NO_TOUCHPOINT
    return RolledResult._make((*head.fields, cells_text(cells), names, first, cells))


def _numbers(data: npt.NDArray[np.uint8], starts: Places, ends: Places) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return the numbers that stand between places, and which of them do not, or are too large to be summed here."""
    octets = data[starts[:, None] + np.arange(_LONGEST)]
    more = octets > 127  # another byte follows
    length = np.argmin(more, axis=1) + 1
    wrong = more.all(axis=1) | (length != ends - starts)
    octets = np.where(np.arange(_LONGEST) < length[:, None], octets & 127, 0).astype(np.int64)
    raw = (octets << (7 * np.arange(_LONGEST))).sum(axis=1)
    value = (raw >> 1) ^ -(raw & 1)
    wrong |= np.abs(value) >= _EXACT
    return np.where(wrong, 0, value), wrong
