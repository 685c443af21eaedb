"""A credited result's bytes, written from its arrays: no mapping a touchpoint and model.

Every model names the same touchpoints and roll-ups: what stands before their credit is encoded once, and repeated as
bytes. Invariant: the bytes are those that the codec writes of ``CreditedResult.record``, with an empty ``computed_at``
and ``content_hash`` at the end, which ``seal`` of result_encoding fills in. A test compares both.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from attributary.attribution_core.analysis.insights import Insight
from attributary.schemas.compiled_writer import zigzag
from attributary.schemas.schema_catalog import current_schemas

from .credits import CreditedResult

_double = struct.Struct("<d").pack
_LONG = 1 << 63
_EMPTY_END = b"\0\0"  # computed_at 0, content_hash ""
_FIELDS = {
    "": (
        "tenant_id", "conversion_id", "conversion_type", "converted_at", "journey_key", "version", "version_reason",
        "is_final", "net_value_micros", "gross_value_micros", "delta_micros", "currency", "policy_version",
        "touchpoint_count", "models", "insights", "computed_at", "content_hash",
    ),
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


def _check_schema(schema: Any, name: str) -> None:
    if tuple(field["name"] for field in schema["fields"]) != _FIELDS[name]:
        raise AssertionError("result.avsc has other fields than result_writer.py writes")
    for field in schema["fields"]:
        if field["name"] in _FIELDS:
            _check_schema(field["type"]["items"], field["name"])


_check_schema(current_schemas()["result"].source, "")


def _text(text: str) -> bytes:
    raw = text.encode()
    return zigzag(len(raw)) + raw


_name = lru_cache(maxsize=4_096)(_text)  # of a channel, platform, campaign, model: they come again and again


@lru_cache(maxsize=4_096)
def _id(text: str | None) -> bytes:
    return b"\0" if text is None else b"\x02" + _text(text)


def _long(number: int) -> bytes:
    if not -_LONG <= number < _LONG:
        raise OverflowError("a number of a result is beyond 64 bits")
    return zigzag(number)


def _optional(number: float | None) -> bytes:
    return b"\0" if number is None else b"\x02" + _double(number)


def _insight(insight: Insight) -> bytes:
    return b"".join((
        _text(insight.rule_id), _text(insight.text or ""), _optional(insight.estimate), _optional(insight.low),
        _optional(insight.high), _long(insight.n),
    ))  # fmt: skip


def write_result(result: CreditedResult, framing: bytes) -> bytes:
    """Return the encoded result with an empty ``computed_at`` and ``content_hash``.

    Args:
        result: what was credited.
        framing: what stands before the body.
    """
    c, touchpoints, groups = result.conversion, result.touchpoints, result.groups
    out = bytearray(framing)
    out += b"".join((
        _name(c.tenant_id), _text(c.conversion_id), _name(c.conversion_type), _long(c.converted_at),
        _text(c.journey_key), _long(c.version), _name(c.version_reason), b"\x01" if c.is_final else b"\0",
        _long(c.net_value_micros), _long(c.gross_value_micros), _long(result.delta_micros), _name(c.currency),
        _name(c.policy_version), _long(len(touchpoints)),
    ))  # fmt: skip
    touches = [
        b"".join(
            (
                _text(t.event_id),
                _name(t.reported or t.channel),
                _name(t.platform),
                _name(t.campaign),
                _id(t.campaign_id),
                _id(t.ad_set_id),
                _id(t.ad_id),
                _long(t.occurred_at),
            )
        )
        for t in touchpoints
    ]
    rollups = [(_name(dimension) + _name(name), members) for dimension, name, members in groups]
    if result.models:
        out += zigzag(len(result.models))
    for model in result.models:
        out += _name(model.name)
        out += _name(model.version)
        credits_, micros = model.credits, model.micros
        if touches:
            out += zigzag(len(touches))
            for begin, credit, value in zip(touches, credits_, micros, strict=True):
                out += begin
                out += _double(credit)
                out += zigzag(value)
        out += b"\0"
        if rollups:
            out += zigzag(len(rollups))
            for begin, members in rollups:
                out += begin
                if len(members) == 1:
                    out += _double(credits_[members[0]])
                    out += zigzag(micros[members[0]])
                else:
                    out += _double(sum([credits_[number] for number in members]))
                    out += _long(sum([micros[number] for number in members]))
        out += b"\0"
        out += _long(model.unattributed_micros)
        out += _optional(model.confidence)
        out += b"\0" if model.fallback is None else b"\x02" + _name(model.fallback)
    out += b"\0"
    if result.insights:
        out += zigzag(len(result.insights))
        for insight in result.insights:
            out += _insight(insight)
    return bytes(out + b"\0" + _EMPTY_END)
