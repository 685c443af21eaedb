"""A sealed result is the bytes that the codec would write, and its hash is blind to when it was computed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attributary.schemas.codec import Codec
from tests.attributor.records import encode_record


class _Registry:
    def schema(self, schema_id: int) -> str:
        raise LookupError(str(schema_id))

    def schema_id(self, name: str, schema: str) -> int:
        return len(name) + len(schema)


def _result() -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "conversion_id": "c-1",
        "conversion_type": "purchase",
        "converted_at": 1_700_000_000_000_000,
        "journey_key": "u:1",
        "version": 3,
        "version_reason": "refund",
        "is_final": False,
        "net_value_micros": 10,
        "gross_value_micros": 20,
        "delta_micros": -10,
        "currency": "EUR",
        "policy_version": "default-1",
        "touchpoint_count": 0,
        "touchpoints": [],
        "models": [],
        "insights": [],
    }


@given(st.integers(min_value=0, max_value=2**62))
def test_the_bytes_are_those_of_the_codec(computed_at: int) -> None:
    record = _result()
    value = encode_record(Codec(), record, computed_at)
    assert record["computed_at"] == computed_at
    assert value == Codec().encode("result", record)


def test_time_and_framing_do_not_change_the_hash() -> None:
    one, two, three = _result(), _result(), _result()
    encode_record(Codec(), one, 1)
    encode_record(Codec(), two, 1_800_000_000_000_000)
    encode_record(Codec(_Registry()), three, 1)
    assert one["content_hash"] == two["content_hash"] == three["content_hash"]


def test_content_changes_the_hash() -> None:
    one, two = _result(), _result() | {"net_value_micros": 11}
    encode_record(Codec(), one, 1)
    encode_record(Codec(), two, 1)
    assert one["content_hash"] != two["content_hash"]
