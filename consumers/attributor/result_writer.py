"""A credited result's bytes, written from its arrays: no mapping a touchpoint and model.

Invariant: the bytes are those that the codec writes of ``CreditedResult.record``, with an empty ``computed_at``
and ``content_hash`` at the end, which ``seal`` of result_encoding fills in. A test compares both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from attributary.attribution_core.analysis.insights import Insight
from attributary.schemas.compiled_writer import zigzag
from attributary.schemas.result_layout import check_fields
from attributary.schemas.schema_catalog import current_schemas

from .credits import CreditedResult

_double = struct.Struct("<d").pack
_doubles = [struct.Struct(f"<{count}d").pack for count in range(128)]  # of as many at once
_LONG = 1 << 63
_EMPTY_END = b"\0\0"  # computed_at 0, content_hash ""
check_fields(current_schemas()["result"].source, "result_writer.py")


def _text(text: str) -> bytes:
    raw = text.encode()
    return zigzag(len(raw)) + raw


_name = lru_cache(maxsize=4_096)(_text)  # of a channel, platform, campaign, model: they come again and again


def _id(text: str | None) -> bytes:
    return b"\0" if text is None else b"\x02" + _text(text)


@lru_cache(maxsize=4_096)
def _facts(
    channel: str, platform: str, campaign: str, campaign_id: str | None, ad_set_id: str | None, ad_id: str | None
) -> bytes:
    """Return what a touchpoint says beside its own id and time: a shop has some hundreds of these."""
    return b"".join((_text(channel), _text(platform), _text(campaign), _id(campaign_id), _id(ad_set_id), _id(ad_id)))


@lru_cache(maxsize=1_024)
def _model(name: str, version: str) -> bytes:
    return _text(name) + _text(version)


def _packed(credits_: Sequence[float]) -> bytes:
    count = len(credits_)
    return _doubles[count](*credits_) if count < len(_doubles) else struct.pack(f"<{count}d", *credits_)


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
    c, touchpoints = result.conversion, result.touchpoints
    count = zigzag(len(touchpoints))
    out = bytearray(framing)
    out += b"".join((
        _name(c.tenant_id), _text(c.conversion_id), _name(c.conversion_type), _long(c.converted_at),
        _text(c.journey_key), _long(c.version), _name(c.version_reason), b"\x01" if c.is_final else b"\0",
        _long(c.net_value_micros), _long(c.gross_value_micros), _long(result.delta_micros), _name(c.currency),
        _name(c.policy_version), _long(len(touchpoints)),
    ))  # fmt: skip
    if touchpoints:
        out += count
        for t in touchpoints:
            out += _text(t.event_id)
            out += _facts(t.reported or t.channel, t.platform, t.campaign, t.campaign_id, t.ad_set_id, t.ad_id)
            out += _long(t.occurred_at)
    out += b"\0"
    if result.models:
        out += zigzag(len(result.models))
    for model in result.models:
        out += _model(model.name, model.version)
        if touchpoints:
            out += count
            out += _packed(model.credits)
            out += b"\0"
            out += count
            out += b"".join(map(zigzag, model.micros))
        else:
            out += b"\0"
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
