-- The tables of `floor 2026-11`, as they were then: a yardstick that stays while the pipeline's tables change.
-- Copied from the migrations up to 0008; never change it.
CREATE TABLE attribution_touchpoints (
    tenant_id        text COLLATE "C"        NOT NULL,
    event_id         text COLLATE "C"        NOT NULL,
    identity_key     text COLLATE "C"        NOT NULL,
    anonymous_id     text,
    occurred_at_us   bigint      NOT NULL,
    received_at_us   bigint      NOT NULL,
    platform         text        NOT NULL,
    channel          text        NOT NULL,
    interaction      text        NOT NULL,
    campaign         text        NOT NULL,
    is_bot           boolean     NOT NULL,
    details          jsonb       NOT NULL,
    content_hash     bigint      NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_touchpoints_journey ON attribution_touchpoints (tenant_id, identity_key, occurred_at_us);
CREATE INDEX attribution_touchpoints_linking ON attribution_touchpoints (tenant_id, anonymous_id) WHERE anonymous_id IS NOT NULL;
CREATE INDEX attribution_touchpoints_time ON attribution_touchpoints USING brin (occurred_at_us) WITH (pages_per_range = 32);
CREATE INDEX attribution_touchpoints_written ON attribution_touchpoints USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE attribution_conversion_events (
    tenant_id        text COLLATE "C"        NOT NULL,
    event_id         text COLLATE "C"        NOT NULL,
    conversion_id    text COLLATE "C"        NOT NULL,
    kind             text        NOT NULL,
    conversion_type  text        NOT NULL,
    identity_key     text COLLATE "C"        NOT NULL,
    anonymous_id     text,
    occurred_at_us   bigint      NOT NULL,
    received_at_us   bigint      NOT NULL,
    value_micros     bigint      NOT NULL,
    currency         text        NOT NULL,
    order_id         text,
    details          jsonb       NOT NULL,
    content_hash     bigint      NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_conversion_events_conversion ON attribution_conversion_events (tenant_id, conversion_id);
CREATE INDEX attribution_conversion_events_linking ON attribution_conversion_events (tenant_id, anonymous_id) WHERE anonymous_id IS NOT NULL;
CREATE INDEX attribution_conversion_events_time ON attribution_conversion_events USING brin (occurred_at_us);
CREATE INDEX attribution_conversion_events_written ON attribution_conversion_events USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX attribution_conversion_events_order ON attribution_conversion_events (tenant_id, order_id) WHERE order_id IS NOT NULL;
CREATE TABLE attribution_identity_links (
    tenant_id        text COLLATE "C"        NOT NULL,
    event_id         text COLLATE "C"        NOT NULL,
    anonymous_id     text COLLATE "C"        NOT NULL,
    user_id          text COLLATE "C"        NOT NULL,
    linked_at_us     bigint      NOT NULL,
    source           text,
    received_at_us   bigint      NOT NULL,
    content_hash     bigint      NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_identity_links_anonymous ON attribution_identity_links (tenant_id, anonymous_id);
CREATE INDEX attribution_identity_links_written ON attribution_identity_links USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on);
