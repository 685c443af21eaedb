-- An event name (rule, tag, action, goal) that a destination does not know or not allow stops one type of one account:
-- its events are held, and say for which name. Existing rows meet the wider check, so none is read.

ALTER TABLE attribution_deliveries
    DROP CONSTRAINT attribution_deliveries_state_known,
    ADD CONSTRAINT attribution_deliveries_state_known
        CHECK (state IN ('pending', 'held', 'sent', 'skipped', 'expired', 'rejected', 'uncertain')) NOT VALID,
    ADD COLUMN event_name text COLLATE "C";

CREATE TABLE attribution_stopped_names (
    tenant_id     text COLLATE "C" NOT NULL,
    destination   text COLLATE "C" NOT NULL,
    event_name    text COLLATE "C" NOT NULL,
    reason        text             NOT NULL,
    response_code text             NOT NULL,
    refusals      integer          NOT NULL DEFAULT 1,
    stopped_at    timestamptz      NOT NULL,
    retry_at      timestamptz      NOT NULL,
    created_at    timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at    timestamptz      NOT NULL DEFAULT now(),
    CONSTRAINT attribution_stopped_names_pkey PRIMARY KEY (tenant_id, destination, event_name)
);

COMMENT ON COLUMN attribution_deliveries.state IS
    'pending, held (the destination does not take its event name), sent, skipped (never meant to go), expired (too old), rejected (refused for good), uncertain (perhaps sent).';
COMMENT ON COLUMN attribution_deliveries.event_name IS
    'Of a held delivery: the name at the destination that it waits for (rule, tag, action, goal); else NULL.';
COMMENT ON TABLE attribution_stopped_names IS
    'Event names that an account''s destination does not know or not allow; events with them are held. No person.';
COMMENT ON COLUMN attribution_stopped_names.tenant_id IS 'The tenant that owns the events.';
COMMENT ON COLUMN attribution_stopped_names.destination IS 'As in attribution_deliveries: with the account when a tenant has several.';
COMMENT ON COLUMN attribution_stopped_names.event_name IS 'The conversion rule, event tag, conversion action or goal.';
COMMENT ON COLUMN attribution_stopped_names.reason IS 'What the destination has against it, for people.';
COMMENT ON COLUMN attribution_stopped_names.response_code IS 'HTTP status and the codes of the destination.';
COMMENT ON COLUMN attribution_stopped_names.refusals IS 'How often it was refused, with one event or many.';
COMMENT ON COLUMN attribution_stopped_names.stopped_at IS 'When it was first refused.';
COMMENT ON COLUMN attribution_stopped_names.retry_at IS 'When one event tries it again.';
COMMENT ON COLUMN attribution_stopped_names.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_stopped_names.updated_at IS 'When it was last changed.';
