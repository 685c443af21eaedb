"""What a result must satisfy, whoever wrote it: pure."""

import json
from collections.abc import Mapping
from typing import Any

from attributary.consumers.runtime.records import Record
from attributary.consumers.store.results import ResultRow

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def imbalance(result: Mapping[str, Any]) -> str | None:
    """Return the first model whose credits do not sum to the net value, or None when all do.

    Checked in integers: micros of the touchpoints plus the unattributed rest, and the same micros rolled up.
    """
    net = result["net_value_micros"]
    for model in result["models"]:
        attributed = net - model["unattributed_micros"]
        if sum(touch["value_micros"] for touch in model["touchpoints"]) != attributed:
            return str(model["model"])
        sums = dict.fromkeys(("platform", "channel", "campaign"), 0)
        for rollup in model["rollups"]:
            sums[rollup["dimension"]] = sums.get(rollup["dimension"], 0) + rollup["value_micros"]
        if any(total != attributed for total in sums.values()):
            return str(model["model"])
    return None


def result_row(result: Mapping[str, Any], record: Record) -> ResultRow:
    """Return the row of a result."""
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
        _json(result["models"]),
        _json(result["insights"]),
        result["computed_at"],
        result["content_hash"],
        record.partition,
        record.offset,
    )
