"""A batch of results from their bytes to columns: walked once in Python, decoded and checked by numpy.

A result names its touchpoints once, and each model has an array of credits and one of micros in their order. The walk
notes where the arrays stand; the credits and micros of all models of the batch then become one array each, and are
summed and compared as such. No object is made for a credit.

Invariant: what is read of a result is what codec and checks make of it, and only of a result that they find nothing
wrong with; where the reader returns None, they judge. Tests of auditor and reporter compare both on mutated results.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.schemas.compiled_reader import IRREGULAR, IrregularError
from attributary.schemas.result_layout import check_fields
from attributary.schemas.schema_catalog import current_schemas

from .result_checks import LARGEST_CREDIT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]

_double = struct.Struct("<d").unpack_from
_ID_FACTS = 3  # campaign, ad set, ad
_NO_IDS = bytes(_ID_FACTS)  # null, three times
_CREDIT_BYTES, _TIME_BYTES = 8, 8  # times have eight bytes from 1978 to 3111; others are left to the codec
_LONGEST = 56  # bits before the last byte of a number: from ten bytes on it may overflow 64 bits
_EXACT = 1 << 50  # sums of 8,191 smaller micros fit into 64 bits: larger ones are left to the checks
check_fields(current_schemas()["result"].source, "result_columns.py")


class Facts(NamedTuple):
    """What a touchpoint says beside its own id and time."""

    channel: str
    platform: str
    campaign: str
    campaign_id: str | None
    ad_set_id: str | None
    ad_id: str | None


class ReadModel(NamedTuple):
    """A model without its arrays."""

    model: str
    model_version: str
    unattributed_micros: int
    confidence: float | None
    fallback: str | None


class ReadResult(NamedTuple):
    """A result without its arrays; times in microseconds UTC."""

    tenant_id: str
    conversion_id: str
    conversion_type: str
    converted_at: int
    journey_key: str
    version: int
    version_reason: str
    is_final: bool
    net_value_micros: int
    gross_value_micros: int
    delta_micros: int
    currency: str
    policy_version: str
    touchpoint_count: int
    event_ids: list[str]
    facts: list[Facts]
    models: list[ReadModel]
    insights: list[dict[str, Any]]
    computed_at: int
    content_hash: str
    time: int  # the place of its first time in the columns
    entry: int  # of the first credit of its first model; those of the other models follow
    segment: int  # of its first model


class Columns(NamedTuple):
    """A batch: results, and the arrays of all of them, also of those that were left to codec and checks."""

    results: list[ReadResult | None]
    times: list[int]  # one a touchpoint, microseconds UTC
    credits: npt.NDArray[np.float64]  # one a model and touchpoint; 0 for what is no share
    micros: Integers
    sizes: Integers  # how many credits each model has


def read_results(values: Sequence[tuple[bytes, int]]) -> Columns:
    """Return the columns of a batch; None in place of a result: unusual, broken, or it breaks a promise.

    Args:
        values: of the records, written with the bundled schema, each with the place where its body begins.
    """
    walk = _Walk()
    found: list[ReadResult | None] = []
    for value, begin in values:
        sizes = walk.lengths()
        try:
            found.append(walk.result(value, begin))
        except IRREGULAR:
            walk.forget(sizes)
            found.append(None)
    return walk.columns(found)


class _Walk:
    """Where the arrays of a batch stand: bytes of each, and how many numbers they hold."""

    def __init__(self) -> None:
        self._times: list[bytes] = []
        self._credits: list[bytes] = []
        self._micros: list[bytes] = []
        self._sizes: list[int] = []
        self._rests: list[int] = []  # what the arrays of each model must sum to
        self._lists: tuple[list[Any], ...] = (self._times, self._credits, self._micros, self._sizes, self._rests)
        self._entries = 0
        self._headers: list[tuple[bytes, str, str]] = []  # of the models of the result before: nearly always the same

    def lengths(self) -> list[int]:
        """Return how much there is, for `forget`."""
        return [self._entries, *map(len, self._lists)]

    def forget(self, lengths: Sequence[int]) -> None:
        """Take back what a result added."""
        self._entries = lengths[0]
        for each, length in zip(self._lists, lengths[1:], strict=True):
            del each[length:]

    def result(self, b: bytes, i: int) -> ReadResult:
        """Walk one result, from the place where its body begins to its end."""
        time, entry, segment = len(self._times), self._entries, len(self._sizes)
        tenant_id, i = _text(b, i)
        conversion_id, i = _text(b, i)
        conversion_type, i = _text(b, i)
        converted_at, i = _long(b, i)
        journey_key, i = _text(b, i)
        version, i = _long(b, i)
        reason, i = _text(b, i)
        if b[i] > 1:
            raise IrregularError
        is_final = b[i] == 1
        net, i = _long(b, i + 1)
        gross, i = _long(b, i)
        delta, i = _long(b, i)
        currency, i = _text(b, i)
        policy, i = _text(b, i)
        touchpoint_count, i = _long(b, i)
        if not -(2**31) <= touchpoint_count < 2**31:
            raise IrregularError
        begin = i
        count, i = _count(b, i)
        size = b[begin:i]  # as every array of the models must begin
        event_ids: list[str] = []
        facts: list[Facts] = []
        i = _end(b, self._touchpoints(b, i, count, event_ids, facts), count)
        number, i = _count(b, i)
        models: list[ReadModel] = []
        i = _end(b, self._models(b, i, number, count, size, net, models), number)
        insights, i = _insights(b, i)
        computed_at, i = _long(b, i)
        content_hash, i = _text(b, i)
        if i != len(b):
            raise IrregularError
        return ReadResult(
            tenant_id, conversion_id, conversion_type, converted_at, journey_key, version, reason, is_final, net,
            gross, delta, currency, policy, touchpoint_count, event_ids, facts, models, insights, computed_at,
            content_hash, time, entry, segment,
        )  # fmt: skip

    def _touchpoints(self, b: bytes, i: int, count: int, event_ids: list[str], facts: list[Facts]) -> int:
        for _ in range(count):
            event_id, i = _text(b, i)
            event_ids.append(event_id)
            begin = i
            for _ in range(3):  # channel, platform and campaign: read if they are new
                k = b[i]
                i = _span(b, i)[1] if k & 129 else i + 1 + (k >> 1)
            if b[i : i + _ID_FACTS] == _NO_IDS:
                i += _ID_FACTS
            else:
                for _ in range(_ID_FACTS):
                    i = _span(b, i + 1)[1] if b[i] else i + 1
            facts.append(_facts(b[begin:i]))
            self._times.append(b[i : i + _TIME_BYTES])
            i += _TIME_BYTES
        return i

    def _models(self, b: bytes, i: int, number: int, count: int, size: bytes, net: int, models: list[ReadModel]) -> int:
        headers, width, numbers = self._headers, count * _CREDIT_BYTES, _numbers_pattern(count)
        for place in range(number):
            if place < len(headers) and b.startswith(headers[place][0], i):
                header, model, version = headers[place]
                i += len(header)
            else:
                begin = i
                model, i = _text(b, i)
                version, i = _text(b, i)
                if i > len(b):  # cut off: its header would be the beginning of others
                    raise IrregularError
                headers[place:] = [(b[begin:i], model, version)]
            if not b.startswith(size, i):
                raise IrregularError
            i += len(size)
            if count:
                self._credits.append(b[i : i + width])
                i = _end(b, i + width, count)
                if not b.startswith(size, i) or (array := numbers.match(b, i + len(size))) is None:
                    raise IrregularError
                self._micros.append(array.group())
                i = _end(b, array.end(), count)
                self._entries += count
            elif b[i]:
                raise IrregularError
            else:
                i += 1
            rest, i = _long(b, i)
            confidence, fallback = None, None
            if b[i] or b[i + 1]:
                confidence, i = _optional_double(b, i)
                fallback, i = _optional_text(b, i)
            else:
                i += 2
            self._sizes.append(count)
            self._rests.append(net - rest)
            models.append(ReadModel(model, version, rest, confidence, fallback))
        return i

    def columns(self, found: list[ReadResult | None]) -> Columns:
        """Decode the arrays, and leave results with a number that is none, too large, or in a wrong sum to others."""
        import numpy as np  # a stage starts without it

        shares = np.frombuffer(b"".join(self._credits), "<f8")
        micros = _decoded(b"".join(self._micros))
        sizes = np.array(self._sizes, np.int64)
        ends = np.cumsum(sizes)
        sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(micros)))
        totals = (sums[ends] - sums[ends - sizes]).tolist()
        strange = ~(np.abs(shares) <= LARGEST_CREDIT)
        wrong = strange | (np.abs(micros) >= _EXACT)
        bad = set(np.searchsorted(ends, np.flatnonzero(wrong), side="right").tolist())  # segments
        bad.update(place for place, rest in enumerate(self._rests) if totals[place] != rest)
        octets = np.frombuffer(b"".join(self._times), np.uint8).reshape(-1, _TIME_BYTES)
        no_time = set(np.flatnonzero((octets[:, :-1] < 128).any(axis=1) | (octets[:, -1] > 127)).tolist())
        raw = ((octets & 127).astype(np.int64) << (7 * np.arange(_TIME_BYTES))).sum(axis=1)
        times = ((raw >> 1) ^ -(raw & 1)).tolist()
        if bad or no_time:
            found = [None if each is None or _is_bad(each, bad, no_time) else each for each in found]
        return Columns(found, times, np.where(strange, 0.0, shares), micros, sizes)


def _is_bad(result: ReadResult, bad: set[int], no_time: set[int]) -> bool:
    return not (
        bad.isdisjoint(range(result.segment, result.segment + len(result.models)))
        and no_time.isdisjoint(range(result.time, result.time + len(result.facts)))
    )


@lru_cache(maxsize=1024)
def _numbers_pattern(count: int) -> re.Pattern[bytes]:
    """Return what so many numbers of up to 63 bits look like: all bytes of one but the last have the highest bit."""
    return re.compile(rb"(?:[\x80-\xff]{0,8}[\x00-\x7f]){%d}" % count)


def _decoded(joined: bytes) -> Integers:
    """Return numbers in Avro's variable-length zig-zag encoding, one behind the other, each of up to nine bytes."""
    import numpy as np

    data = np.frombuffer(joined, np.uint8)
    ends = np.flatnonzero(data < 128)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate((np.zeros(1, np.intp), ends[:-1] + 1))
    place = np.arange(len(data)) - np.repeat(starts, ends - starts + 1)
    raw = np.add.reduceat((data & 127).astype(np.int64) << (7 * place), starts)
    return (raw >> 1) ^ -(raw & 1)


@lru_cache(maxsize=20_000)  # by their bytes: a shop has some hundreds
def _facts(b: bytes) -> Facts:
    channel, i = _text(b, 0)
    platform, i = _text(b, i)
    campaign, i = _text(b, i)
    campaign_id, i = _optional_text(b, i)
    ad_set_id, i = _optional_text(b, i)
    ad_id, _ = _optional_text(b, i)
    return Facts(channel, platform, campaign, campaign_id, ad_set_id, ad_id)


def _insights(b: bytes, i: int) -> tuple[list[dict[str, Any]], int]:
    found = []
    count, i = _count(b, i)
    for _ in range(count):
        rule_id, i = _text(b, i)
        text, i = _text(b, i)
        estimate, i = _optional_double(b, i)
        low, i = _optional_double(b, i)
        high, i = _optional_double(b, i)
        number, i = _long(b, i)
        found.append({"rule_id": rule_id, "text": text, "estimate": estimate, "low": low, "high": high, "n": number})
    return found, _end(b, i, count)


def _text(b: bytes, i: int) -> tuple[str, int]:
    begin, end = _span(b, i)
    return b[begin:end].decode(), end


def _span(b: bytes, i: int) -> tuple[int, int]:
    """Return where a text of up to 8,191 bytes begins and ends, from the place of its length."""
    k = b[i]
    i += 1
    if k & 129:
        m = b[i]
        i += 1
        if k & 1 or m & 128:
            raise IrregularError
        k = k & 127 | m << 7
    return i, i + (k >> 1)


def _long(b: bytes, i: int) -> tuple[int, int]:
    k = b[i]
    i += 1
    x, s = k & 127, 0
    while k > 127:
        k = b[i]
        i += 1
        s += 7
        x |= (k & 127) << s
    if s > _LONGEST:
        raise IrregularError
    return (x >> 1) ^ -(x & 1), i


def _count(b: bytes, i: int) -> tuple[int, int]:
    """Return how many items the one block of an array has, up to 8,191, and where they begin."""
    begin, end = _span(b, i)
    return end - begin, begin


def _optional_double(b: bytes, i: int) -> tuple[float | None, int]:
    if b[i] == 0:
        return None, i + 1
    if b[i] != 2:  # the second branch of a union, zig-zag
        raise IrregularError
    return _double(b, i + 1)[0], i + 9


def _optional_text(b: bytes, i: int) -> tuple[str | None, int]:
    if b[i] == 0:
        return None, i + 1
    if b[i] != 2:
        raise IrregularError
    return _text(b, i + 1)


def _end(b: bytes, i: int, count: int) -> int:
    """Return what follows the items of an array: behind its end, or at once where it has none."""
    if count:
        if b[i]:
            raise IrregularError
        i += 1
    return i
