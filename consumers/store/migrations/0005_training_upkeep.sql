-- The training state that is kept up to date: what each person contributes, the sums by day, and who changed since.
-- See docs/decisions/0011-training-state-by-retraction.md.

-- Finds the events that were written or replaced since a time: almost free to write, for rows come in the order of time.
CREATE INDEX attribution_touchpoints_written ON attribution_touchpoints USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX attribution_conversion_events_written ON attribution_conversion_events USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX attribution_identity_links_written ON attribution_identity_links USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE attribution_training_changes (
    tenant_id     text COLLATE "C" NOT NULL,
    change_number bigint           NOT NULL GENERATED ALWAYS AS IDENTITY,
    identity_key  text COLLATE "C" NOT NULL,
    created_at    timestamptz      NOT NULL DEFAULT now(),
    updated_at    timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, change_number)
);
COMMENT ON TABLE attribution_training_changes IS 'People whose contribution to the training state must be looked at again. Whatever changes a person without a new event writes a row in its own transaction; the trainer adds the people of new events and deletes what it has done.';
COMMENT ON COLUMN attribution_training_changes.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_training_changes.change_number IS 'Rises; decides nothing but the order of work.';
COMMENT ON COLUMN attribution_training_changes.identity_key IS 'u:<user id> or a:<anonymous id>; an anonymous id stands for its owner as well.';
COMMENT ON COLUMN attribution_training_changes.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_training_changes.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_training_watermark (
    tenant_id      text COLLATE "C" NOT NULL DEFAULT '*',
    snapshot_xmin  bigint           NOT NULL,
    written_since  timestamptz,
    looked_at      timestamptz      NOT NULL,
    running        text[]           NOT NULL,
    found_at       timestamptz      NOT NULL,
    server_started timestamptz      NOT NULL,
    created_at     timestamptz      NOT NULL DEFAULT now(),
    updated_at     timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE attribution_training_watermark IS 'Up to where new events were looked for.';
COMMENT ON COLUMN attribution_training_watermark.tenant_id IS 'Always *: events of all tenants are looked for at once.';
COMMENT ON COLUMN attribution_training_watermark.snapshot_xmin IS 'Transactions below it had ended when events were last looked for; rows of all others are new.';
COMMENT ON COLUMN attribution_training_watermark.written_since IS 'No row of those was written before it; null: that is not known, look at all rows.';
COMMENT ON COLUMN attribution_training_watermark.looked_at IS 'A time that takes its place once the transactions in running have ended.';
COMMENT ON COLUMN attribution_training_watermark.running IS 'Virtual ids of the transactions that ran then.';
COMMENT ON COLUMN attribution_training_watermark.found_at IS 'When events were last looked for.';
COMMENT ON COLUMN attribution_training_watermark.server_started IS 'Start of the Postgres server that these times are of.';
COMMENT ON COLUMN attribution_training_watermark.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_training_watermark.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_training_upkeep (
    tenant_id         text COLLATE "C" NOT NULL,
    inactivity_micros bigint           NOT NULL,
    people            bigint           NOT NULL DEFAULT 0,
    open_touches      bigint           NOT NULL DEFAULT 0,
    passed_over       bigint           NOT NULL DEFAULT 0,
    policies          jsonb            NOT NULL DEFAULT '{}',
    replaced          bigint           NOT NULL DEFAULT 0,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE attribution_training_upkeep IS 'The training state of a tenant that is kept up to date: what it counts, and totals.';
COMMENT ON COLUMN attribution_training_upkeep.tenant_id IS 'Whose.';
COMMENT ON COLUMN attribution_training_upkeep.inactivity_micros IS 'Silence that ends a journey without conversion, microseconds; another one means another state.';
COMMENT ON COLUMN attribution_training_upkeep.people IS 'People in it.';
COMMENT ON COLUMN attribution_training_upkeep.open_touches IS 'Their touchpoints in journeys that are not finished.';
COMMENT ON COLUMN attribution_training_upkeep.passed_over IS 'Their touchpoints that count for no conversion although one followed.';
COMMENT ON COLUMN attribution_training_upkeep.policies IS 'Conversions by the version of the lookback policy that they pin.';
COMMENT ON COLUMN attribution_training_upkeep.replaced IS 'How often a person''s contribution was replaced since the state was begun.';
COMMENT ON COLUMN attribution_training_upkeep.created_at IS 'When the state was begun.';
COMMENT ON COLUMN attribution_training_upkeep.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_training_people (
    tenant_id    text COLLATE "C" NOT NULL,
    journey_key  text COLLATE "C" NOT NULL,
    journeys     text             NOT NULL,
    open_touches integer          NOT NULL,
    passed_over  integer          NOT NULL,
    created_at   timestamptz      NOT NULL DEFAULT now(),
    updated_at   timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, journey_key)
);
COMMENT ON TABLE attribution_training_people IS 'What each person contributes to the training state now: what is retracted when the person changes.';
COMMENT ON COLUMN attribution_training_people.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_training_people.journey_key IS 'The person.';
COMMENT ON COLUMN attribution_training_people.journeys IS 'JSON: the finished journeys as [day of the end since 1970-01-01, currency or empty for one without conversion, policy version, value in micros, [channels]], sorted.';
COMMENT ON COLUMN attribution_training_people.open_touches IS 'Touchpoints in journeys that are not finished.';
COMMENT ON COLUMN attribution_training_people.passed_over IS 'Touchpoints that count for no conversion although one followed.';
COMMENT ON COLUMN attribution_training_people.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_training_people.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_training_periods (
    tenant_id  text COLLATE "C" NOT NULL,
    day        integer          NOT NULL,
    currency   text COLLATE "C" NOT NULL,
    state      jsonb            NOT NULL,
    created_at timestamptz      NOT NULL DEFAULT now(),
    updated_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, day, currency)
);
COMMENT ON TABLE attribution_training_periods IS 'The training state: counts of the journeys that ended on a day, by the currency of their conversion.';
COMMENT ON COLUMN attribution_training_periods.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_training_periods.day IS 'Day of the end, UTC, days since 1970-01-01.';
COMMENT ON COLUMN attribution_training_periods.currency IS 'ISO 4217; empty: journeys without conversion.';
COMMENT ON COLUMN attribution_training_periods.state IS 'Their sufficient statistics: integers, so that adding and taking off are exact.';
COMMENT ON COLUMN attribution_training_periods.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_training_periods.updated_at IS 'When it was last changed.';
