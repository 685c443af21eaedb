-- One event id, several contents: the first record in the log is stored, the contents that were set aside stand here.

CREATE TABLE attribution_event_conflicts (
    tenant_id        text COLLATE "C" NOT NULL,
    record_name      text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    content_hash     bigint           NOT NULL,
    conversion_id    text COLLATE "C",
    value_micros     bigint,
    currency         text,
    received_at_us   bigint           NOT NULL,
    source_topic     text             NOT NULL,
    source_partition integer          NOT NULL,
    source_offset    bigint           NOT NULL,
    created_at       timestamptz      NOT NULL DEFAULT now(),
    updated_at       timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, record_name, event_id, content_hash)
);
CREATE INDEX attribution_event_conflicts_conversion ON attribution_event_conflicts (tenant_id, conversion_id) WHERE conversion_id IS NOT NULL;
COMMENT ON TABLE attribution_event_conflicts IS 'Contents that came under an event id which has another content: set aside, once per distinct content. A row whose content is the stored one after all is no conflict.';
COMMENT ON COLUMN attribution_event_conflicts.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_event_conflicts.record_name IS 'touchpoint, conversion or identity_link: event ids are unique in each.';
COMMENT ON COLUMN attribution_event_conflicts.event_id IS 'The event id that came with several contents.';
COMMENT ON COLUMN attribution_event_conflicts.content_hash IS '64-bit BLAKE2b of the Avro bytes that were set aside.';
COMMENT ON COLUMN attribution_event_conflicts.conversion_id IS 'The conversion that the content names; null for touchpoints and links.';
COMMENT ON COLUMN attribution_event_conflicts.value_micros IS 'The value that the content states, micros of the currency; null for touchpoints and links.';
COMMENT ON COLUMN attribution_event_conflicts.currency IS 'ISO 4217; null for touchpoints and links.';
COMMENT ON COLUMN attribution_event_conflicts.received_at_us IS 'Log-append time of the first record with this content that was set aside, microseconds UTC.';
COMMENT ON COLUMN attribution_event_conflicts.source_topic IS 'Its topic.';
COMMENT ON COLUMN attribution_event_conflicts.source_partition IS 'Its partition.';
COMMENT ON COLUMN attribution_event_conflicts.source_offset IS 'Its offset.';
COMMENT ON COLUMN attribution_event_conflicts.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_event_conflicts.updated_at IS 'When it was last changed.';

-- Finds orders that came under several conversions.
CREATE INDEX attribution_conversion_events_order ON attribution_conversion_events (tenant_id, order_id) WHERE order_id IS NOT NULL;

COMMENT ON COLUMN attribution_touchpoints.content_hash IS '64-bit BLAKE2b of the event''s Avro bytes: tells a repeat from another content under the same event id. The first in the log is stored.';
COMMENT ON TABLE attribution_identities IS 'Whose an anonymous id is: its link with the smallest (linked_at, event_id, user_id), over explicit links and events that named both ids.';
