"""The metrics of the stitcher."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter, gauge

events = counter(
    "attribution_events",
    "Events by kind and outcome: new, duplicate, replayed, conflict_kept (another content was first in the log), "
    "conflict_replaced (a later record of the log had been stored before it), erased (left out: "
    "its person was erased), relayed (left out: its tenant moves to another installation).",
    "kind",
    "outcome",
)
event_conflicts = counter(
    "attribution_event_conflicts",
    "Distinct contents that were set aside because an earlier record of the log has their event id.",
    "kind",
)
ignored_events = counter(
    "attribution_conversion_events_ignored",
    "New events about conversions that change nothing, by verdict: repeat, other_person, other_currency.",
    "verdict",
)
shared_orders = counter(
    "attribution_orders_shared", "New conversions that name an order under which another conversion is stored."
)
versions_raised = counter("attribution_versions_raised", "Conversion versions raised, by reason.", "reason")
identity_moves = counter("attribution_identity_moves", "Anonymous ids that got another owner.")
late_touchpoints = counter("attribution_touchpoints_too_late", "Touchpoints stored but too late for some conversion.")
touchpoints_put_off = counter(
    "attribution_touchpoints_put_off",
    "Touchpoints with more conversions of their person in reach than ATTRIBUTION_MAX_REOPENED: the sweeper raises the "
    "versions later, see attributary people hot.",
)
changes_put_off = counter(
    "attribution_identity_changes_put_off",
    "Links that moved an anonymous id from or to a person with more conversions than ATTRIBUTION_MAX_REOPENED, and "
    "contents of its touchpoints that gave way to another: the sweeper raises the versions later.",
)

# Of the express lane
express_records = counter(
    "attribution_express_records",
    "Records that the express lane read: stitched, in_turn (the stitcher had been there), over_rate (more than "
    "EXPRESS_RATE of the tenant: they wait in turn), left (a batch that Postgres refuses).",
    "outcome",
)
express_delay_seconds = gauge(
    "attribution_express_delay_seconds", "Age of the newest record that the express lane read last; 0: none to read."
)
