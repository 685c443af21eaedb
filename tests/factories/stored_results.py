"""Rows of `attribution_results` as the auditor stores them, for tests of reports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attributary.consumers.store.results.results import RESULT_COLUMNS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    import psycopg

_JSON = {"touchpoints", "models", "insights"}


def stored_result(
    conversion_id: str,
    version: int,
    touches: Sequence[tuple[str, str, str, str]],
    *,
    net: int,
    currency: str = "EUR",
    conversion_type: str = "purchase",
    converted_at: int,
    computed_at: int,
    models: Sequence[str] = ("linear",),
    draw: random.Random | None = None,
) -> dict[str, Any]:
    """Return a row: linear and last as they are, `baseline` keeps a fifth, `markov` is linear's fallback.

    Args:
        conversion_id: of the conversion.
        version: of the result.
        touches: event id, channel, platform, campaign of each touchpoint, in the order of time.
        net: net value, micros.
        currency: of the value.
        conversion_type: of the conversion.
        converted_at: microseconds UTC.
        computed_at: microseconds UTC.
        models: which are in the result.
        draw: where a second version of `linear` may have credited.
    """
    touchpoints = [
        {"event_id": event, "channel": channel, "platform": platform, "campaign": campaign, "occurred_at": converted_at}
        for event, channel, platform, campaign in touches
    ]
    several = draw is not None and draw.random() < 0.3
    return {
        "tenant_id": "acme", "conversion_id": conversion_id, "version": version, "version_reason": "new",
        "is_final": False, "conversion_type": conversion_type, "converted_at_us": converted_at, "journey_key": "u:ann",
        "net_value_micros": net, "gross_value_micros": max(net, 0), "delta_micros": 0, "currency": currency,
        "policy_version": "p", "touchpoint_count": len(touchpoints), "touchpoints": json.dumps(touchpoints),
        "models": json.dumps([_model(name, len(touches), net, "2" if several else "1") for name in models]),
        "insights": "[]", "computed_at_us": computed_at, "content_hash": "",
    }  # fmt: skip


def _model(name: str, touches: int, net: int, version: str) -> dict[str, Any]:
    whole = 0.8 if name == "baseline" else 1.0
    credits_ = [whole / max(touches, 1)] * touches if name != "last" else [0.0] * (touches - 1) + [1.0] * (touches > 0)
    micros = [int(net * credit) for credit in credits_]
    rest = net - sum(micros)
    if touches and name != "baseline":
        micros[-1] += rest
        rest = 0
    return {
        "model": name, "model_version": "untrained" if name == "markov" else version, "credits": credits_,
        "micros": micros, "unattributed_micros": rest, "confidence": None,
        "fallback": "linear" if name == "markov" else None,
    }  # fmt: skip


def insert_results(connection: psycopg.Connection, results: Sequence[dict[str, Any]]) -> None:
    """Store rows."""
    columns = ", ".join([*RESULT_COLUMNS, "source_partition", "source_offset"])
    values = ", ".join(f"%({name})s{'::jsonb' if name in _JSON else ''}" for name in RESULT_COLUMNS)
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO attribution_results ({columns}) VALUES ({values}, 0, 0)", results)
