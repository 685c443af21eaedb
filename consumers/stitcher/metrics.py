"""The metrics of the stitcher."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter

events = counter(
    "attribution_events",
    "Events by kind and outcome: new, duplicate, replayed, conflict_kept, conflict_replaced.",
    "kind",
    "outcome",
)
versions_raised = counter("attribution_versions_raised", "Conversion versions raised, by reason.", "reason")
identity_moves = counter("attribution_identity_moves", "Anonymous ids that got another owner.")
late_touchpoints = counter("attribution_touchpoints_too_late", "Touchpoints stored but too late for some conversion.")
