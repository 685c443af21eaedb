"""Null values in the results topic, as auditor and reporter read them: results that are taken back.

Invariant: what stands before the last null value of a key in the log is forgotten, so a batch stores nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attributary.consumers.runtime.records import Record

Place = tuple[int, bytes | None]


def last_tombstones(batch: Sequence[Record]) -> dict[Place, int]:
    """Return the offset of the last null value of each partition and key."""
    return {(record.partition, record.key): record.offset for record in batch if record.value is None}


def without_forgotten(batch: Sequence[Record], forgotten: Mapping[Place, int]) -> list[Record]:
    """Return the results that no null value of their key follows."""
    if not forgotten:
        return list(batch)
    return [
        each for each in batch if each.value is not None and each.offset > forgotten.get((each.partition, each.key), -1)
    ]


def conversion_of(key: bytes | None) -> tuple[str, str] | None:
    """Return tenant and conversion id of a record's key; None: it is not a key of ours."""
    try:
        tenant_id, separator, conversion_id = (key or b"").decode().partition("|")
    except UnicodeDecodeError:
        return None
    return (tenant_id, conversion_id) if separator and "\0" not in conversion_id + tenant_id else None
