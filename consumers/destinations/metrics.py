"""The metrics of forwarding to destinations."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter, gauge, histogram

forward_events = counter(
    "attribution_forward_events",
    "Events by what became of them: sent, skipped, expired, rejected, uncertain, held, pending, duplicate, off.",
    "destination",
    "state",
)
forward_attempts = counter(
    "attribution_forward_attempts",
    "Requests by answer: delivered, rejected, retry, ambiguous, throttled, channel_dead, name_stopped.",
    "destination",
    "outcome",
)
forward_request_seconds = histogram(
    "attribution_forward_request_seconds", "Time of one request to a destination.", "destination"
)
forward_oldest_pending_seconds = gauge(
    "attribution_forward_oldest_pending_seconds", "Age of the oldest event that waits for a destination.", "destination"
)
forward_channels_stopped = gauge(
    "attribution_forward_channels_stopped",
    "Accounts stopped by wrong credentials or settings; their events are kept.",
    "destination",
)
forward_names_stopped = gauge(
    "attribution_forward_names_stopped",
    "Event names (rules, tags, actions, goals) that the destination does not take; their events are held.",
    "destination",
)
forward_left_behind_tenants = gauge(
    "attribution_forward_left_behind_tenants",
    "Tenants (counted at each account) with events that were left pending; they come back by the ledger.",
    "destination",
)
forward_usage_percent = gauge(
    "attribution_forward_usage_percent",
    "Share of the destination's rate limit in use, by its own headers.",
    "destination",
)
forward_budget_used_percent = gauge(
    "attribution_forward_budget_used_percent",
    "Share in use of the requests that accounts of one app, project or developer may make together in this process.",
    "destination",
)
forward_probe_findings = counter(
    "attribution_forward_probe_findings", "Faults found by the destination's validation endpoint.", "destination"
)
forward_api_left_seconds = gauge(
    "attribution_forward_api_left_seconds",
    "Time for which the version of the destination's API is still promised; below 0: it may be refused any day.",
    "destination",
)
forward_token_left_seconds = gauge(
    "attribution_forward_token_left_seconds",
    "Time until the first token of an account ends, of those with a known end; below 0: it has ended.",
    "destination",
)
forward_late_verdicts = counter(
    "attribution_forward_late_verdicts",
    "Events by the verdict that their destination gave later: accepted, refused, unknown (it never told).",
    "destination",
    "verdict",
)
forward_late_refusals = counter(
    "attribution_forward_late_refusals",
    "Events that a destination refused after it had received them, by its reason.",
    "destination",
    "reason",
)
forward_token_refreshes = counter(
    "attribution_forward_token_refreshes",
    "Access tokens asked for at a platform's token endpoint: refreshed, failed (passes), refused (a person must act).",
    "destination",
    "outcome",
)
forward_refresh_token_left_seconds = gauge(
    "attribution_forward_refresh_token_left_seconds",
    "Time until the first refresh token of an account ends, where the platform says so.",
    "destination",
)
