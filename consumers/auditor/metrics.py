"""The metrics of the auditor: the last three stay 0 while the promises hold."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter

results_stored = counter("attribution_results_stored", "Results stored, by outcome: new, repeated.", "outcome")
over_refunded = counter(
    "attribution_over_refunded", "Results with a net value that a refund made negative: refunded above the value."
)
credit_imbalance = counter("attribution_credit_imbalance", "Results with credits that do not sum to the net value.")
result_conflicts = counter("attribution_result_conflicts", "Two results with one version and different content.")
versions_out_of_order = counter("attribution_versions_out_of_order", "Results not above the version before.")
tombstones_seen = counter("attribution_tombstones_seen", "Null values seen in the results topic: results that go.")
