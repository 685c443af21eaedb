-- Which devices a suppressed user named: nothing else of such an event is stored. A later erasure takes the devices along.

CREATE TABLE attribution_dropped_links (
    tenant_id      text COLLATE "C" NOT NULL,
    event_id       text COLLATE "C" NOT NULL,
    anonymous_id   text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    linked_at_us   bigint           NOT NULL,
    received_at_us bigint           NOT NULL,
    created_at     timestamptz      NOT NULL DEFAULT now(),
    updated_at     timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_dropped_links_user ON attribution_dropped_links (tenant_id, user_id);
CREATE INDEX attribution_dropped_links_device ON attribution_dropped_links (tenant_id, anonymous_id);
COMMENT ON TABLE attribution_dropped_links IS 'Devices that a suppressed user named in events that were dropped: they decide nothing but whom a later erasure concerns, and go with it.';
COMMENT ON COLUMN attribution_dropped_links.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_dropped_links.event_id IS 'The event that was dropped.';
COMMENT ON COLUMN attribution_dropped_links.anonymous_id IS 'The device that it named.';
COMMENT ON COLUMN attribution_dropped_links.user_id IS 'The user that it named.';
COMMENT ON COLUMN attribution_dropped_links.linked_at_us IS 'Its event time, microseconds UTC.';
COMMENT ON COLUMN attribution_dropped_links.received_at_us IS 'Its log-append time, microseconds UTC.';
COMMENT ON COLUMN attribution_dropped_links.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_dropped_links.updated_at IS 'When it was last changed.';
