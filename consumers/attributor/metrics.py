"""The metrics of the attributor."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import LATENCY_BUCKETS, counter, histogram

results_emitted = counter("attribution_results_emitted", "Results produced, by reason of their version.", "reason")
results_erased = counter("attribution_results_erased", "Results taken back by a tombstone: their person was erased.")
commands_skipped = counter(
    "attribution_commands_skipped", "Commands not answered: repeated, stale, observed, published, unknown.", "why"
)
journeys_cut = counter(
    "attribution_journeys_cut", "Results of the newest touchpoints only, because all would not fit into a record."
)
people_cut = counter(
    "attribution_people_cut",
    "Results of the devices alone that were linked last, because the user has more than ATTRIBUTION_MAX_DEVICES.",
)
model_fallbacks = counter("attribution_model_fallbacks", "Journeys answered by a fallback model.", "model", "fallback")
model_versions_unusable = counter(
    "attribution_model_versions_unusable",
    "Trained versions in a model set that could not be built: all their journeys are answered by the fallback, and the "
    "log names tenant, version and reason. Counted when the set is loaded.",
    "model",
)
end_to_end_seconds = histogram(
    "attribution_end_to_end_latency_seconds",
    "From the log-append time of the event that raised a version to its result's production.",
    "reason",
    buckets=LATENCY_BUCKETS,
)
