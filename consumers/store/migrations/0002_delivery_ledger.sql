-- The delivery ledger: what became of every event at every destination. Written before sending, so that neither a
-- crash nor a replay sends an event twice. No personal data: the event itself stays in Kafka, the row says where.

CREATE TABLE attribution_deliveries (
    tenant_id        text        NOT NULL,
    destination      text        NOT NULL,
    event_id         text        NOT NULL,
    state            text        NOT NULL
        CONSTRAINT attribution_deliveries_state_known
        CHECK (state IN ('pending', 'sent', 'skipped', 'expired', 'rejected', 'uncertain')),
    reason           text,
    in_flight        boolean     NOT NULL DEFAULT false,
    attempts         integer     NOT NULL DEFAULT 0,
    occurred_at      timestamptz NOT NULL,
    first_sent_at    timestamptz,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    request_hash     text,
    response_code    text,
    trace_id         text,
    match_keys       text[]      NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT attribution_deliveries_pkey PRIMARY KEY (tenant_id, destination, event_id)
) WITH (fillfactor = 70);  -- two updates a row follow its insert: leave room for them on the page

CREATE INDEX attribution_deliveries_not_final
    ON attribution_deliveries (destination, state, occurred_at)
    WHERE state IN ('pending', 'uncertain', 'rejected');

CREATE INDEX attribution_deliveries_occurred_at ON attribution_deliveries USING brin (occurred_at);

COMMENT ON TABLE attribution_deliveries IS
    'Delivery ledger of the forwarder: one row per tenant, destination and event, written before sending.';
COMMENT ON COLUMN attribution_deliveries.tenant_id IS 'The tenant that owns the event.';
COMMENT ON COLUMN attribution_deliveries.destination IS
    'meta, ga4; with ":" and the account when a tenant has more than one channel there.';
COMMENT ON COLUMN attribution_deliveries.event_id IS 'The event; also the id by which destinations remove duplicates.';
COMMENT ON COLUMN attribution_deliveries.state IS
    'pending, sent, skipped (never meant to go), expired (too old), rejected (refused for good), uncertain (perhaps sent).';
COMMENT ON COLUMN attribution_deliveries.reason IS 'Why it is in this state; never a value of the event.';
COMMENT ON COLUMN attribution_deliveries.in_flight IS
    'True from just before a request until its answer is known; after a crash it means perhaps sent.';
COMMENT ON COLUMN attribution_deliveries.attempts IS 'How often the event was handed over.';
COMMENT ON COLUMN attribution_deliveries.occurred_at IS 'Event time.';
COMMENT ON COLUMN attribution_deliveries.first_sent_at IS 'When it was first handed over and perhaps taken; NULL when it surely was not.';
COMMENT ON COLUMN attribution_deliveries.source_topic IS 'Kafka topic that holds the event.';
COMMENT ON COLUMN attribution_deliveries.source_partition IS 'Its partition.';
COMMENT ON COLUMN attribution_deliveries.source_offset IS 'Its offset.';
COMMENT ON COLUMN attribution_deliveries.request_hash IS 'SHA-256 of the body of the last request that carried it.';
COMMENT ON COLUMN attribution_deliveries.response_code IS 'HTTP status and the codes of the destination.';
COMMENT ON COLUMN attribution_deliveries.trace_id IS 'The destination''s own id of the answer (Meta: fbtrace_id).';
COMMENT ON COLUMN attribution_deliveries.match_keys IS 'Names of the match keys that the event carried.';
COMMENT ON COLUMN attribution_deliveries.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_deliveries.updated_at IS 'When the row last changed.';
