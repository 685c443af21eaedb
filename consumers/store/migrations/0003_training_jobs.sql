-- What the trainer needs beside a job's state: who works on it, whether it shall stop, and which status was published.

ALTER TABLE attribution_batch_jobs
    ADD COLUMN claim               bigint  NOT NULL DEFAULT 0,
    ADD COLUMN attempts            integer NOT NULL DEFAULT 0,
    ADD COLUMN cancel_requested_at timestamptz,
    ADD COLUMN status_number       bigint  NOT NULL DEFAULT 1,
    ADD COLUMN published_number    bigint  NOT NULL DEFAULT 0;
CREATE INDEX attribution_batch_jobs_unfinished ON attribution_batch_jobs (submitted_at) WHERE state IN ('submitted', 'running');
CREATE INDEX attribution_batch_jobs_unpublished ON attribution_batch_jobs (updated_at) WHERE published_number < status_number;
-- A cancellation may arrive before the job that it is about: the two have different keys.
CREATE INDEX attribution_batch_jobs_cancels ON attribution_batch_jobs (tenant_id, (parameters ->> 'target_job_id')) WHERE kind = 'cancel';
COMMENT ON COLUMN attribution_batch_jobs.kind IS 'analyze_journey, analyze_batch, train, activate, rollback, backtest, cancel.';
COMMENT ON COLUMN attribution_batch_jobs.claim IS 'Rises with every claim by a worker: only the newest claim may write.';
COMMENT ON COLUMN attribution_batch_jobs.attempts IS 'Claims that neither finished nor were given back; too many end the job.';
COMMENT ON COLUMN attribution_batch_jobs.cancel_requested_at IS 'When a cancellation arrived; the worker stops at its next step.';
COMMENT ON COLUMN attribution_batch_jobs.status_number IS 'Rises with every change that subscribers should see.';
COMMENT ON COLUMN attribution_batch_jobs.published_number IS 'The newest change that is on the job-status topic.';
