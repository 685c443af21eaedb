"""The metrics of one trainer; what all trainers have before them, the sweeper tells."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter, histogram

jobs = counter(
    "attribution_jobs",
    "Jobs by what became of them: succeeded, failed, cancelled, given_back, lost.",
    "kind",
    "outcome",
)
job_conflicts = counter(
    "attribution_job_conflicts", "Jobs not stored, because another one of other kind or parameters has their id."
)
job_seconds = histogram(
    "attribution_job_seconds", "Time that a job took.", "kind", buckets=(0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0)
)
training_changes_found = counter(
    "attribution_training_changes_found", "People of new events noted for the training state that is kept up to date."
)
training_people = counter(
    "attribution_training_people",
    "People looked at for that state, by what came of it: replaced (retracted and added), unchanged.",
    "outcome",
)
