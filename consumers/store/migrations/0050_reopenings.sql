-- People with very many conversions: their late touchpoints raise versions later, many touchpoints by one version.

CREATE TABLE attribution_reopenings (
    tenant_id             text COLLATE "C" NOT NULL,
    journey_key           text COLLATE "C" NOT NULL,
    first_us              bigint,
    until_us              bigint,
    received_from_us      bigint,
    published_us          bigint,
    touchpoints           bigint           NOT NULL,
    conversions           bigint           NOT NULL,
    marked_at             timestamptz      NOT NULL DEFAULT now(),
    pass_first_us         bigint,
    pass_until_us         bigint,
    pass_received_from_us bigint,
    pass_published_us     bigint,
    after_us              bigint,
    after_id              text COLLATE "C",
    reopened              bigint           NOT NULL DEFAULT 0,
    served_at             timestamptz,
    created_at            timestamptz      NOT NULL DEFAULT now(),
    updated_at            timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, journey_key)
);
COMMENT ON TABLE attribution_reopenings IS 'People whose late touchpoints are in reach of more conversions than ATTRIBUTION_MAX_REOPENED: the sweeper raises their versions, page by page. A row goes when all are raised.';
COMMENT ON COLUMN attribution_reopenings.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_reopenings.journey_key IS 'The person.';
COMMENT ON COLUMN attribution_reopenings.first_us IS 'Conversions from this event time on are concerned: that of the earliest touchpoint since the last pass began, microseconds UTC. Null: none since.';
COMMENT ON COLUMN attribution_reopenings.until_us IS 'And up to this event time: that of the latest touchpoint and the longest window.';
COMMENT ON COLUMN attribution_reopenings.received_from_us IS 'And that arrived from this time on: for the others each touchpoint came too late.';
COMMENT ON COLUMN attribution_reopenings.published_us IS 'Log-append time of the latest of the touchpoints, microseconds UTC.';
COMMENT ON COLUMN attribution_reopenings.touchpoints IS 'How many touchpoints were put off in all.';
COMMENT ON COLUMN attribution_reopenings.conversions IS 'How many conversions were in reach of the last ones; counted up to one more than the limit.';
COMMENT ON COLUMN attribution_reopenings.marked_at IS 'When the first of the touchpoints since the last pass began was stored: the next pass begins SWEEP_REOPEN_AFTER_SECONDS later.';
COMMENT ON COLUMN attribution_reopenings.pass_first_us IS 'Of the pass that is under way, as first_us; null: none is.';
COMMENT ON COLUMN attribution_reopenings.pass_until_us IS 'Of the pass, as until_us.';
COMMENT ON COLUMN attribution_reopenings.pass_received_from_us IS 'Of the pass, as received_from_us.';
COMMENT ON COLUMN attribution_reopenings.pass_published_us IS 'Of the pass, as published_us.';
COMMENT ON COLUMN attribution_reopenings.after_us IS 'Event time of the last conversion that the pass raised.';
COMMENT ON COLUMN attribution_reopenings.after_id IS 'Its id.';
COMMENT ON COLUMN attribution_reopenings.reopened IS 'How many versions were raised in all.';
COMMENT ON COLUMN attribution_reopenings.served_at IS 'When the last page was raised: people take turns.';
COMMENT ON COLUMN attribution_reopenings.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_reopenings.updated_at IS 'When it was last changed.';
