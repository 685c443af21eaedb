"""What every result must satisfy: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attributary.consumers.runtime.records import Record
from attributary.consumers.store.results.results import ResultRow
from attributary.schemas.topics import VERSION_RAISED_AT

compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
LARGEST_CREDIT = 1e6  # of a credit, which is a share: a larger one is absurd, and may be too large to be rounded
ID_FACTS = ("campaign_id", "ad_set_id", "ad_id")  # kept where there is one: most touchpoints have none


def imbalance(result: Mapping[str, Any]) -> str | None:
    """Return the first model with credits that do not sum to the net value, or None.

    Checked in integers: micros of the touchpoints plus the unattributed rest.

    Args:
        result: as decoded.
    """
    net = result["net_value_micros"]
    for model in result["models"]:
        if sum(model["micros"]) + model["unattributed_micros"] != net:
            return str(model["model"])
    return None


def disagreement(result: Mapping[str, Any]) -> str | None:
    """Return the first model that has not one credit and one number of micros for each touchpoint, or None."""
    count = len(result["touchpoints"])
    for model in result["models"]:
        if not len(model["credits"]) == len(model["micros"]) == count:
            return str(model["model"])
    return None


def no_share(result: Mapping[str, Any]) -> str | None:
    """Return the first model with a credit that is no share: no number, or an absurd one; or None."""
    for model in result["models"]:
        if not all(abs(credit) <= LARGEST_CREDIT for credit in model["credits"]):  # NaN is not, either
            return str(model["model"])
    return None


def result_row(result: Mapping[str, Any], record: Record) -> ResultRow:
    """Return the row of a result, which is stored as it is sent; ids that a touchpoint does not have are left out."""
    touchpoints = [
        {name: value for name, value in touch.items() if value is not None or name not in ID_FACTS}
        for touch in result["touchpoints"]
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
        compact_json(result["models"]),
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
