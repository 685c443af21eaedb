"""Records of results encoded as the codec does it: what the attributor's own writer is compared with."""

from __future__ import annotations

from typing import Any

from attributary.consumers.attributor.result_encoding import sealed
from attributary.schemas.codec import Codec


def encode_record(codec: Codec, record: dict[str, Any], computed_at: int) -> bytes:
    """Return the sealed bytes of a record; sets ``computed_at`` and ``content_hash`` in it."""
    value, record["content_hash"] = sealed(
        codec.encode("result", {**record, "computed_at": 0, "content_hash": ""}), computed_at
    )
    record["computed_at"] = computed_at
    return value
