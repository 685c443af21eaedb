"""The metrics of the reporter."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter, gauge

results_rolled_up = counter(
    "attribution_rollup_results",
    "Results by what the roll-up made of them: applied, ignored (not above the version in it, or retired), taken_off.",
    "outcome",
)
rollup_rows = counter("attribution_rollup_summands", "Rows of the roll-up that were written.")
rolled_up_until = gauge(
    "attribution_rollup_until_seconds", "Computing time of the newest result in the roll-up, seconds since 1970 UTC."
)
