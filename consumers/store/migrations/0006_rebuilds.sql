-- How far a rebuild has come: written in the transactions of its steps, so that one that was cut short is taken up again.

CREATE TABLE attribution_rebuilds (
    tenant_id      text COLLATE "C" NOT NULL,
    rebuild_number bigint           NOT NULL,
    from_log       boolean          NOT NULL,
    step           text             NOT NULL,
    after_tenant   text COLLATE "C" NOT NULL DEFAULT '',
    after_id       text COLLATE "C" NOT NULL DEFAULT '',
    looked_at      bigint           NOT NULL DEFAULT 0,
    changed        jsonb            NOT NULL DEFAULT '{}',
    started_at     timestamptz      NOT NULL DEFAULT now(),
    finished_at    timestamptz,
    created_at     timestamptz      NOT NULL DEFAULT now(),
    updated_at     timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, rebuild_number)
);
COMMENT ON TABLE attribution_rebuilds IS 'Every run of `attributary rebuild`: where it stands, what it changed. Unfinished ones are taken up by the next run.';
COMMENT ON COLUMN attribution_rebuilds.tenant_id IS 'Whose conversions; * for all.';
COMMENT ON COLUMN attribution_rebuilds.rebuild_number IS '1, 2, 3, ...';
COMMENT ON COLUMN attribution_rebuilds.from_log IS 'Whether events and results are read from the log first.';
COMMENT ON COLUMN attribution_rebuilds.step IS 'The step in hand: topic, log, owners, journeys, conversions, results, done.';
COMMENT ON COLUMN attribution_rebuilds.after_tenant IS 'In a step that goes through the conversions: tenant of the last one done.';
COMMENT ON COLUMN attribution_rebuilds.after_id IS 'The last conversion done.';
COMMENT ON COLUMN attribution_rebuilds.looked_at IS 'Conversions looked at in this step.';
COMMENT ON COLUMN attribution_rebuilds.changed IS 'What was changed, by kind.';
COMMENT ON COLUMN attribution_rebuilds.started_at IS 'When it was begun.';
COMMENT ON COLUMN attribution_rebuilds.finished_at IS 'When its last step ended; null: not yet.';
COMMENT ON COLUMN attribution_rebuilds.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rebuilds.updated_at IS 'When it was last changed.';

-- "As reported on day D": every version with the time in which it was the newest one.
CREATE VIEW reporting.result_versions AS
SELECT tenant_id, conversion_id, version, version_reason, is_final, conversion_type, journey_key,
       to_timestamp(converted_at_us / 1e6) AS converted_at,
       net_value_micros / 1e6::numeric AS net_value, gross_value_micros / 1e6::numeric AS gross_value,
       delta_micros / 1e6::numeric AS delta, currency, policy_version, touchpoint_count, touchpoints, models,
       to_timestamp(computed_at_us / 1e6) AS reported_from,
       to_timestamp(lead(computed_at_us) OVER (PARTITION BY tenant_id, conversion_id ORDER BY version) / 1e6) AS reported_until
FROM attribution_results;
COMMENT ON VIEW reporting.result_versions IS 'Every kept version of every result. What was reported at a time T: reported_from <= T AND (reported_until > T OR reported_until IS NULL).';
