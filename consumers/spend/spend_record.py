"""Slices of spend as records of the topic, and back.

Invariant: a slice that went through a record is the same slice, to the micro; so a report that is published and one
that is written straight leave the same revisions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

from attributary.attribution_core.spend.slices import Given, SliceKey, SpendRow, entity_of
from attributary.consumers.store.spend.slices import Slice
from attributary.schemas.limits import SPEND_ROWS

_EPOCH = date(1970, 1, 1).toordinal()
_MICROS = 1_000_000
# Fields with one name on both sides.
_SAME = (
    "currency", "net_micros", "tax_micros", "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id",
    "ad_name", "impressions", "clicks", "claimed_value_micros",
)  # fmt: skip


def within_rows(piece: Slice, most: int = SPEND_ROWS) -> Iterator[Slice]:
    """Yield a slice in parts of so many rows as a record may have.

    Args:
        piece: the slice.
        most: rows of a record.

    Raises:
        ValueError: it is complete and has more: a part of it would say that the rest cost nothing.
    """
    rows, key = piece.given.rows, piece.key
    if len(rows) <= most:
        yield piece
        return
    if piece.given.is_complete:
        raise ValueError(
            f"{key.platform} {key.account} has {len(rows):,} rows on {key.day}, and a record of a complete report "
            f"{most:,} at most"
        )
    for start in range(0, len(rows), most):
        yield replace(piece, given=piece.given._replace(rows=rows[start : start + most]))


def record_of(tenant_id: str, piece: Slice) -> dict[str, Any]:
    """Return the record of a slice; its event id is made of its content, so the same report twice is the same record.

    Args:
        tenant_id: the owner.
        piece: with rows that have no finer part than a millionth of a claimed conversion.
    """
    record = {
        "tenant_id": tenant_id,
        "platform": piece.key.platform,
        "account": piece.key.account,
        "day": piece.key.day.toordinal() - _EPOCH,
        "level": piece.key.level,
        "reported_at": piece.given.reported_at_us,
        "report_id": piece.report_id,
        "time_zone": piece.time_zone,
        "is_complete": piece.given.is_complete,
        "rows": [_line(row) for row in piece.given.rows],
    }
    content = json.dumps(record, sort_keys=True, ensure_ascii=False).encode()
    return record | {"event_id": f"spend-{hashlib.sha256(content).hexdigest()[:32]}"}


def _line(row: SpendRow) -> dict[str, Any]:
    line = {name: getattr(row, name) for name in _SAME}
    return line | {"claimed_conversions_micros": int(row.claimed_conversions * _MICROS)}


def slice_of(record: Mapping[str, Any]) -> Slice:
    """Return the slice of a record that keeps the rules of `schemas/spend_rules.py`."""
    level, account = record["level"], record["account"]
    key = SliceKey(record["platform"], account, date.fromordinal(_EPOCH + record["day"]), level)
    rows = [
        SpendRow(
            entity=entity_of(level, account, line),
            claimed_conversions=Decimal(line["claimed_conversions_micros"]) / _MICROS,
            **{name: line[name] for name in _SAME},
        )
        for line in record["rows"]
    ]
    given = Given(rows, record["is_complete"], record["reported_at"])
    return Slice(key, given, record["time_zone"], record["report_id"])
