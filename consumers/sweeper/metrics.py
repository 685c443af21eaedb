"""The metrics of the sweeper.

The last ones are of all trainers. The sweeper reads them from Postgres: a trainer that is busy or off cannot tell.
"""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter, gauge, histogram

unobserved_conversions = gauge(
    "attribution_unobserved_conversions", "Conversions without a result for the newest version."
)
oldest_unobserved_seconds = gauge("attribution_oldest_unobserved_seconds", "Age of the oldest of them.")
commands_repaired = counter("attribution_commands_repaired", "Commands issued again by the sweeper.")
oldest_unread_input_seconds = gauge(
    "attribution_oldest_unread_input_seconds",
    "Age of the oldest touchpoint, conversion or link that the stitcher has not stored; 0: none.",
)
finalising_held = gauge(
    "attribution_finalising_held",
    "1 while nothing becomes final in time: input older than SWEEP_GRACE_SECONDS is unread, or Kafka does not say.",
)
conversions_finalised = counter("attribution_conversions_finalised", "Conversions that became final.")
journeys_closed = counter("attribution_journeys_closed", "Journeys closed by inactivity.")
conversions_reopened = counter(
    "attribution_conversions_reopened", "Versions raised for late touchpoints and links that had been put off."
)
people_put_off = gauge(
    "attribution_people_put_off",
    "People with late touchpoints or links that wait for their versions: see attributary people hot.",
)
oldest_put_off_seconds = gauge(
    "attribution_oldest_put_off_seconds", "How long the first of them has waited; 0 without any."
)
versions_expired = counter(
    "attribution_versions_expired", "Versions of results deleted after ATTRIBUTION_VERSIONS_KEPT_DAYS."
)
conversions_retired = counter(
    "attribution_conversions_retired", "Conversions that were kept no longer: their worth is in the (retired) totals."
)
touchpoints_removed = counter("attribution_touchpoints_removed", "Touchpoints that were kept no longer.")
links_removed = counter("attribution_links_removed", "Identity links that were kept no longer.")
retention_behind_seconds = gauge(
    "attribution_retention_behind_seconds",
    "How long the tenant has waited that has most to remove: time since its boundaries rose; 0: nothing is left.",
)
retention_refused_tenants = gauge(
    "attribution_retention_refused_tenants",
    "Tenants that keep things for less than policy and ATTRIBUTION_REFUND_HORIZON_DAYS allow: nothing of them goes.",
)

suspicious_identities = gauge(
    "attribution_suspicious_identities",
    "Ids that have more touchpoints (or users more anonymous ids) on one of the last two days than "
    "ATTRIBUTION_SUSPICIOUS_TOUCHPOINTS (ATTRIBUTION_SUSPICIOUS_ANONYMOUS_IDS) says.",
    "rule",
)

stale_spend_accounts = gauge(
    "attribution_stale_spend_accounts",
    "Ad accounts in use without spend of the last ATTRIBUTION_SPEND_STALE_DAYS: see attributary spend accounts.",
)

# Of all trainers
waiting_jobs = gauge("attribution_waiting_jobs", "Jobs stored and in nobody's hands.")
oldest_waiting_job_seconds = gauge(
    "attribution_oldest_waiting_job_seconds", "Time since the oldest of them was stored; 0 without any."
)
running_jobs = gauge("attribution_running_jobs", "Jobs in the hands of a worker.")
oldest_running_job_seconds = gauge(
    "attribution_oldest_running_job_seconds", "Time since the first start of the oldest of them; 0 without any."
)
jobs_expired = counter("attribution_jobs_expired", "Ended jobs deleted after ATTRIBUTION_JOBS_KEPT_DAYS.")
training_changes_pending = gauge("attribution_training_changes_pending", "Noted people who are not yet looked at.")
training_lag_seconds = gauge(
    "attribution_training_lag_seconds",
    "How old the training state that is kept up to date may be: age of the oldest of them, or of the last look for new "
    "events if that is longer; 0 while no such state was begun.",
)
model_drift_channels = gauge(
    "attribution_model_drift_channels",
    "Most channels that one tenant has drift in: their share in its newest version, which is not in force, differs by "
    "more than noise (10 % false findings) from the one in the version in force when a job trained it.",
    "model",
)
model_drift_tenants = gauge(
    "attribution_model_drift_tenants",
    "Tenants with drift in at least one channel; the results of their newest training jobs name the channels.",
    "model",
)
erasures_executed = counter("attribution_erasures_executed", "Requests to erase people that were carried out.")
erasures_open = gauge("attribution_open_erasures", "Requests to erase people that are not completed.")
erasures_oldest_seconds = gauge("attribution_erasures_oldest_seconds", "Age of the oldest of them; seconds.")
erasures_overdue = gauge(
    "attribution_overdue_erasures", "1 while a request is older than ATTRIBUTION_ERASURE_DEADLINE_DAYS, else 0."
)
erasure_seconds = histogram(
    "attribution_erasure_seconds",
    "From the log-append time of a request until the last result was taken back; seconds.",
    buckets=(1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 86_400.0, 604_800.0),
)
