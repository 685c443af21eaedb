"""From a result's bytes to its row in one pass, checked on the way.

Every model of a result names the same touchpoints and roll-ups, byte for byte up to the credit: they are read once,
with the first model, and compared as bytes with the others. What is left of each is a credit and micros.

Invariant: the reader returns the row that ``result_row`` makes of the same record, and only of a result that
``disagreement`` and ``imbalance`` find nothing wrong with; or it raises one of ``IRREGULAR``, and codec and checks
judge. A test compares both on mutated results.
"""

from __future__ import annotations

import struct
from typing import Any

from attributary.consumers.store.results.results import ResultRow
from attributary.schemas.compiled_reader import IRREGULAR, IrregularError
from attributary.schemas.schema_catalog import current_schemas

from .result_checks import ID_FACTS, compact_json

__all__ = ["IRREGULAR", "read_result"]

_double = struct.Struct("<d").unpack_from
_NO_IDS = bytes(len(ID_FACTS))  # null, three times
_DIMENSIONS = ("platform", "channel", "campaign")
_LONGEST = 56  # bits before the last byte of a number: from ten bytes on it may overflow 64 bits
_FIELDS = (
    "tenant_id", "conversion_id", "conversion_type", "converted_at", "journey_key", "version", "version_reason",
    "is_final", "net_value_micros", "gross_value_micros", "delta_micros", "currency", "policy_version",
    "touchpoint_count", "models", "insights", "computed_at", "content_hash",
)  # fmt: skip
_PARTS = {
    "models": (
        "model", "model_version", "touchpoints", "rollups", "unattributed_micros", "confidence", "fallback",
    ),
    "touchpoints": (
        "event_id", "channel", "platform", "campaign", "campaign_id", "ad_set_id", "ad_id", "occurred_at", "credit",
        "value_micros",
    ),
    "rollups": ("dimension", "name", "credit", "value_micros"),
    "insights": ("rule_id", "text", "estimate", "low", "high", "n"),
}  # fmt: skip


def _check_schema(schema: Any, fields: tuple[str, ...]) -> None:
    if tuple(field["name"] for field in schema["fields"]) != fields:
        raise AssertionError("result.avsc has other fields than result_reader.py reads")
    for field in schema["fields"]:
        if field["name"] in _PARTS:
            _check_schema(field["type"]["items"], _PARTS[field["name"]])


_check_schema(current_schemas()["result"].source, _FIELDS)


def read_text(b: bytes, i: int) -> tuple[str, int]:
    begin, end = read_span(b, i)
    return b[begin:end].decode(), end


def read_span(b: bytes, i: int) -> tuple[int, int]:
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


def read_long(b: bytes, i: int) -> tuple[int, int]:
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


def read_count(b: bytes, i: int) -> tuple[int, int]:
    """Return how many items the one block of an array has, up to 8,191, and where they begin."""
    begin, end = read_span(b, i)
    return end - begin, begin


def read_optional_double(b: bytes, i: int) -> tuple[float | None, int]:
    if b[i] == 0:
        return None, i + 1
    if b[i] != 2:  # the second branch of a union, zig-zag
        raise IrregularError
    return _double(b, i + 1)[0], i + 9


def read_optional_text(b: bytes, i: int) -> tuple[str | None, int]:
    if b[i] == 0:
        return None, i + 1
    if b[i] != 2:
        raise IrregularError
    return read_text(b, i + 1)


def read_end(b: bytes, i: int, count: int) -> int:
    """Return what follows the items of an array: behind its end, or at once where it has none."""
    if count:
        if b[i]:
            raise IrregularError
        i += 1
    return i


class _Models:
    """The models of one result; the first says which touchpoints and roll-ups the others must name."""

    def __init__(self, net_micros: int) -> None:
        self._net_micros = net_micros
        self._touches: list[bytes] | None = None
        self._rollups: list[tuple[bytes, str]] = []
        self.touchpoints: list[dict[str, Any]] = []
        self.compact: list[dict[str, Any]] = []

    def read(self, b: bytes, i: int) -> int:
        """Read a model; return where the next begins."""
        model, i = read_text(b, i)
        model_version, i = read_text(b, i)
        if self._touches is None:
            i = self._first(b, i)
        touch_credits, micros, i = self._credits(b, i)
        sums, i = self._sums(b, i)
        unattributed, i = read_long(b, i)
        confidence, i = read_optional_double(b, i)
        fallback, i = read_optional_text(b, i)
        attributed = self._net_micros - unattributed
        if sum(micros) != attributed or any(total != attributed for total in sums.values()):
            raise IrregularError
        self.compact.append({
            "model": model, "model_version": model_version, "credits": touch_credits, "micros": micros,
            "unattributed_micros": unattributed, "confidence": confidence, "fallback": fallback,
        })  # fmt: skip
        return i

    def _first(self, b: bytes, i: int) -> int:
        """Learn the touchpoints and roll-ups of the first model; return the place where they begin."""
        begin, self._touches = i, []
        count, i = read_count(b, i)
        for _ in range(count):
            start = i
            event_id, i = read_text(b, i)
            channel, i = read_text(b, i)
            platform, i = read_text(b, i)
            campaign, i = read_text(b, i)
            facts: dict[str, Any] = {
                "event_id": event_id, "channel": channel, "platform": platform, "campaign": campaign,
            }  # fmt: skip
            if b[i : i + 3] == _NO_IDS:
                i += 3
            else:
                for name in ID_FACTS:
                    text, i = read_optional_text(b, i)
                    if text is not None:
                        facts[name] = text
            facts["occurred_at"], i = read_long(b, i)
            self._touches.append(b[start:i])
            self.touchpoints.append(facts)
            _, i = read_long(b, i + 8)
        count, i = read_count(b, read_end(b, i, count))
        for _ in range(count):
            start = i
            dimension, i = read_text(b, i)
            _, i = read_text(b, i)
            self._rollups.append((b[start:i], dimension))
            _, i = read_long(b, i + 8)
        return begin

    def _credits(self, b: bytes, i: int) -> tuple[list[float], list[int], int]:
        touch_credits, micros = [], []
        count, i = read_count(b, i)
        touches = self._touches or []
        if count != len(touches):
            raise IrregularError
        for touch in touches:
            if not b.startswith(touch, i):
                raise IrregularError
            i += len(touch)
            touch_credits.append(_double(b, i)[0])
            k, i, s = b[i + 8], i + 9, 0  # a number, as in read_long: nearly all the time goes here
            x = k & 127
            while k > 127:
                k = b[i]
                i += 1
                s += 7
                x |= (k & 127) << s
            if s > _LONGEST:
                raise IrregularError
            micros.append((x >> 1) ^ -(x & 1))
        return touch_credits, micros, read_end(b, i, count)

    def _sums(self, b: bytes, i: int) -> tuple[dict[str, int], int]:
        """Return the micros that the roll-ups of each dimension come to."""
        sums = dict.fromkeys(_DIMENSIONS, 0)
        count, i = read_count(b, i)
        if count != len(self._rollups):
            raise IrregularError
        for begin, dimension in self._rollups:
            if not b.startswith(begin, i):
                raise IrregularError
            i += len(begin)
            k, i, s = b[i + 8], i + 9, 0
            x = k & 127
            while k > 127:
                k = b[i]
                i += 1
                s += 7
                x |= (k & 127) << s
            if s > _LONGEST:
                raise IrregularError
            sums[dimension] = sums.get(dimension, 0) + ((x >> 1) ^ -(x & 1))
        return sums, read_end(b, i, count)


def _insights(b: bytes, i: int) -> tuple[list[dict[str, Any]], int]:
    found = []
    count, i = read_count(b, i)
    for _ in range(count):
        rule_id, i = read_text(b, i)
        text, i = read_text(b, i)
        estimate, i = read_optional_double(b, i)
        low, i = read_optional_double(b, i)
        high, i = read_optional_double(b, i)
        number, i = read_long(b, i)
        found.append({"rule_id": rule_id, "text": text, "estimate": estimate, "low": low, "high": high, "n": number})
    return found, read_end(b, i, count)


def read_result(b: bytes, i: int, partition: int, offset: int, raised_at: int | None) -> ResultRow:
    """Return the row of a result that was written with the bundled schema.

    Args:
        b: the value.
        i: where its body begins.
        partition: of the record.
        offset: of the record.
        raised_at: when its version was raised, as its header says; microseconds.

    Raises:
        IrregularError: or another of ``IRREGULAR``: unusual, broken, or a promise is broken.
    """
    tenant_id, i = read_text(b, i)
    conversion_id, i = read_text(b, i)
    conversion_type, i = read_text(b, i)
    converted_at, i = read_long(b, i)
    journey_key, i = read_text(b, i)
    version, i = read_long(b, i)
    version_reason, i = read_text(b, i)
    is_final = b[i]
    if is_final > 1:
        raise IrregularError
    net, i = read_long(b, i + 1)
    gross, i = read_long(b, i)
    delta, i = read_long(b, i)
    currency, i = read_text(b, i)
    policy_version, i = read_text(b, i)
    touchpoint_count, i = read_long(b, i)
    if not -(2**31) <= touchpoint_count < 2**31:
        raise IrregularError
    models = _Models(net)
    count, i = read_count(b, i)
    for _ in range(count):
        i = models.read(b, i)
    insights, i = _insights(b, read_end(b, i, count))
    computed_at, i = read_long(b, i)
    content_hash, i = read_text(b, i)
    if i != len(b):
        raise IrregularError
    return ResultRow(
        tenant_id, conversion_id, version, version_reason, is_final == 1, conversion_type, converted_at, journey_key,
        net, gross, delta, currency, policy_version, touchpoint_count, compact_json(models.touchpoints),
        compact_json(models.compact), compact_json(insights), computed_at, content_hash, partition, offset, raised_at,
    )  # fmt: skip
