"""What every result must satisfy: pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from attributary.consumers.runtime.records import Record
from attributary.consumers.store.results.results import ResultRow
from attributary.schemas.topics import VERSION_RAISED_AT

compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_TOUCHPOINT_FACTS = ("event_id", "channel", "platform", "campaign")
ID_FACTS = ("campaign_id", "ad_set_id", "ad_id")  # kept where there is one: most touchpoints have none


def imbalance(result: Mapping[str, Any], *, with_rollups: bool = True) -> str | None:
    """Return the first model with credits that do not sum to the net value, or None.

    Checked in integers: micros of the touchpoints plus the unattributed rest, and the same micros rolled up.

    Args:
        result: as decoded.
        with_rollups: False for who does not read the roll-ups.
    """
    net = result["net_value_micros"]
    for model in result["models"]:
        attributed = net - model["unattributed_micros"]
        if sum(touch["value_micros"] for touch in model["touchpoints"]) != attributed:
            return str(model["model"])
        if not with_rollups:
            continue
        sums = dict.fromkeys(("platform", "channel", "campaign"), 0)
        for rollup in model["rollups"]:
            sums[rollup["dimension"]] = sums.get(rollup["dimension"], 0) + rollup["value_micros"]
        if any(total != attributed for total in sums.values()):
            return str(model["model"])
    return None


def disagreement(result: Mapping[str, Any]) -> str | None:
    """Return the first model that does not name the same touchpoints as the first one does, or None."""
    models = result["models"]
    if not models:
        return None
    named = [touch["event_id"] for touch in models[0]["touchpoints"]]
    for model in models:
        if [touch["event_id"] for touch in model["touchpoints"]] != named:
            return str(model["model"])
    return None


def not_finite(result: Mapping[str, Any]) -> str | None:
    """Return the first model with a credit that is no number, or None."""
    for model in result["models"]:
        if not all(math.isfinite(touch["credit"]) for touch in model["touchpoints"]):
            return str(model["model"])
    return None


def result_row(result: Mapping[str, Any], record: Record) -> ResultRow:
    """Return the row of a result. All models must agree on the touchpoints: they are kept once, roll-ups not at all."""
    models = result["models"]
    touchpoints = [
        {name: touch[name] for name in _TOUCHPOINT_FACTS}
        | {name: touch[name] for name in ID_FACTS if touch[name] is not None}
        | {"occurred_at": touch["occurred_at"]}
        for touch in (models[0]["touchpoints"] if models else ())
    ]
    compact = [
        {
            "model": model["model"],
            "model_version": model["model_version"],
            "credits": [touch["credit"] for touch in model["touchpoints"]],
            "micros": [touch["value_micros"] for touch in model["touchpoints"]],
            "unattributed_micros": model["unattributed_micros"],
            "confidence": model["confidence"],
            "fallback": model["fallback"],
        }
        for model in models
    ]
    return ResultRow(
        result["tenant_id"],
        result["conversion_id"],
        result["version"],
        result["version_reason"],
        result["is_final"],
        result["conversion_type"],
        result["converted_at"],
        result["journey_key"],
        result["net_value_micros"],
        result["gross_value_micros"],
        result["delta_micros"],
        result["currency"],
        result["policy_version"],
        result["touchpoint_count"],
        compact_json(touchpoints),
        compact_json(compact),
        compact_json(result["insights"]),
        result["computed_at"],
        result["content_hash"],
        record.partition,
        record.offset,
        raised_at(record),
    )


def raised_at(record: Record) -> int | None:
    """Return when the version of a result was raised, microseconds of Postgres's clock; None: it does not say."""
    text = next((value for name, value in record.headers if name == VERSION_RAISED_AT), b"")
    return int(text) if text.isdigit() else None
