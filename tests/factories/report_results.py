"""Results with real times, versions and people, for tests of the catalogue of reports; drawn from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

HOUR = 3_600_000_000
DAY = 24 * HOUR
BEGIN = 1_772_323_200_000_000  # 2026-03-01 00:00 UTC: the days hold the change to summer time of Berlin
CHANNELS = ("paid_search", "paid_social", "email", "organic", "affiliates", "display")
HOSTILE = ("</svg><script>alert(1)</script>", "a > b & c", "=cmd|'/c'", "\u202egnirts", "\n", "")
MODELS = ("linear", "last", "baseline", "first")


def reported(
    conversion_id: str,
    version: int = 1,
    touches: Any = (),
    *,
    net: int = 0,
    at: int = BEGIN,
    computed_at: int | None = None,
    reason: str = "new",
    tenant: str = "acme",
    person: str = "u:ann",
    currency: str = "EUR",
    conversion_type: str = "purchase",
    is_final: bool = False,
    models: Any = MODELS,
) -> dict[str, Any]:
    """Return a row of `attribution_results`.

    Args:
        conversion_id: of the conversion.
        version: of the result.
        touches: channel, campaign and microseconds before the conversion of each, the earliest first.
        net: micros.
        at: of the conversion, microseconds UTC.
        computed_at: of the version; None: a minute later.
        reason: of the version.
        tenant: the tenant.
        person: the journey key.
        currency: ISO 4217.
        conversion_type: of the conversion.
        is_final: closed.
        models: which credit it.
    """
    touchpoints = [
        {"event_id": f"{conversion_id}-{place}", "channel": channel, "platform": f"p_{channel}", "campaign": campaign,
         "occurred_at": at - before}
        for place, (channel, campaign, before) in enumerate(touches)
    ]  # fmt: skip
    return {
        "tenant_id": tenant, "conversion_id": conversion_id, "version": version, "version_reason": reason,
        "is_final": is_final, "conversion_type": conversion_type, "converted_at_us": at, "journey_key": person,
        "net_value_micros": net, "gross_value_micros": max(net, 0), "delta_micros": 0, "currency": currency,
        "policy_version": "p", "touchpoint_count": len(touchpoints), "touchpoints": json.dumps(touchpoints),
        "models": json.dumps([_model(name, len(touchpoints), net) for name in models]), "insights": "[]",
        "computed_at_us": at + 60_000_000 if computed_at is None else computed_at, "content_hash": "",
    }  # fmt: skip


def _model(name: str, touches: int, net: int) -> dict[str, Any]:
    whole = 0.8 if name == "baseline" else 1.0
    parts = [whole / max(touches, 1)] * touches
    if name in {"last", "first"} and touches:
        parts = [0.0] * touches
        parts[-1 if name == "last" else 0] = 1.0
    micros = [int(net * part) for part in parts]
    rest = net - sum(micros)
    if touches and name != "baseline":
        micros[-1 if name == "last" else 0] += rest
        rest = 0
    return {
        "model": name, "model_version": "1", "credits": parts, "micros": micros, "unattributed_micros": rest,
        "confidence": None, "fallback": "linear" if name == "first" and touches == 3 else None,
    }  # fmt: skip


def drawn_results(conversions: int, *, seed: int = 1, days: int = 45, tenant: str = "acme") -> list[dict[str, Any]]:
    """Return results of a shop: several versions, people who come back, hostile names, two currencies, refunds."""
    draw = random.Random(seed)
    names = (*CHANNELS, *HOSTILE)
    weights = (30, 20, 15, 12, 8, 6, 1, 1, 1, 1, 1, 1)
    found = []
    for number in range(conversions):
        at = BEGIN + draw.randrange(days * 24) * HOUR + draw.randrange(HOUR)
        befores = sorted(
            (draw.randrange(1, 20 * DAY) for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4, 5, 7)))), reverse=True
        )
        touches = [
            (draw.choices(names, weights)[0], draw.choice(("spring", "brand", "", "=1+1")), before)
            for before in befores
        ]
        net = draw.randrange(1, 300) * 1_000_000 + draw.randrange(1_000_000)
        person = f"u:{draw.randrange(conversions // 2 + 1)}"
        currency = "JPY" if number % 11 == 10 else "EUR"
        computed = at + draw.choice((1, 1, 1, 30, 80)) * HOUR
        versions = draw.choice((1, 1, 1, 2, 3))
        for version in range(1, versions + 1):
            reason = "new"
            if version > 1:
                reason = draw.choice(("refund", "late_touchpoint", "identity", "restated"))
                if reason == "refund":
                    net -= draw.randrange(1, 200) * 1_000_000
                elif reason == "restated" and draw.random() < 0.2:
                    at += 50 * DAY
                else:
                    touches = touches[1:] or [("email", "spring", HOUR)]
                computed += draw.randrange(1, 10 * 24) * HOUR
            found.append(
                reported(
                    f"o{number}", version, touches, net=net, at=at, computed_at=computed, reason=reason, tenant=tenant,
                    person=person, currency=currency,
                    conversion_type="lead" if number % 7 == 6 else "purchase", is_final=version == versions,
                )
            )  # fmt: skip
    return found
