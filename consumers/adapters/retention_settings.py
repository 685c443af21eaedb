"""How short a tenant may keep things without breaking a promise: one rule for the command line and the sweeper."""

from __future__ import annotations

import math

from pydantic import Field

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.runtime.settings import Settings

_DAY_MICROS = 86_400_000_000


class RetentionLimits(Settings):
    """What retention must leave room for."""

    refund_horizon_days: int = Field(
        default=180,
        ge=1,
        alias="ATTRIBUTION_REFUND_HORIZON_DAYS",
        description="How long after a conversion a refund may come: no tenant may keep conversions for less than this, "
        "the longest lookback window and the lateness together; days. Later refunds are booked as (retired).",
    )

    def least_days(self, policy: LookbackPolicy) -> dict[str, int]:
        """Return the fewest days that a tenant may keep things, by column of the table of tenants.

        A touchpoint must outlive the conversions that credit it; the sweeper sees to that, whatever is set. Here: it
        must stay for a conversion that comes as late as a window and the lateness allow.
        """
        window = policy.longest_window_micros + policy.lateness_micros
        return {
            "touchpoints_kept_days": math.ceil(window / _DAY_MICROS),
            "conversions_kept_days": math.ceil(window / _DAY_MICROS) + self.refund_horizon_days,
            "links_kept_days": math.ceil(window / _DAY_MICROS) + self.refund_horizon_days,
        }
