-- How long things are kept, by tenant: boundaries that only rise, and what is left of conversions that retired.

CREATE TABLE attribution_retention (
    tenant_id             text COLLATE "C" NOT NULL,
    conversions_before_us bigint           NOT NULL DEFAULT 0,
    touchpoints_before_us bigint           NOT NULL DEFAULT 0,
    links_before_us       bigint           NOT NULL DEFAULT 0,
    seen_by_all_from      bigint,
    after_us              bigint           NOT NULL DEFAULT 0,
    after_id              text COLLATE "C" NOT NULL DEFAULT '',
    step                  text             NOT NULL DEFAULT 'conversions' CHECK (step IN ('conversions', 'touchpoints', 'links', 'done')),
    conversions_retired   bigint           NOT NULL DEFAULT 0,
    touchpoints_removed   bigint           NOT NULL DEFAULT 0,
    links_removed         bigint           NOT NULL DEFAULT 0,
    raised_at             timestamptz      NOT NULL DEFAULT now(),
    created_at            timestamptz      NOT NULL DEFAULT now(),
    updated_at            timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE attribution_retention IS 'How far retention has come, by tenant: see attributary retention status.';
COMMENT ON COLUMN attribution_retention.tenant_id IS 'The tenant.';
COMMENT ON COLUMN attribution_retention.conversions_before_us IS 'Conversions of an earlier event time retire, and none is opened any more; microseconds UTC, only rises.';
COMMENT ON COLUMN attribution_retention.touchpoints_before_us IS 'Touchpoints of an earlier event time go; microseconds UTC, only rises.';
COMMENT ON COLUMN attribution_retention.links_before_us IS 'Identity links of an earlier time go, where nothing else of the anonymous id is stored; microseconds UTC.';
COMMENT ON COLUMN attribution_retention.seen_by_all_from IS 'Transactions from this number on see the boundaries; null: they were raised just now. Rows go when all older transactions have ended.';
COMMENT ON COLUMN attribution_retention.after_us IS 'Event time up to which the step has come, microseconds UTC.';
COMMENT ON COLUMN attribution_retention.after_id IS 'Id at which it stands there.';
COMMENT ON COLUMN attribution_retention.step IS 'What is removed now: conversions, then touchpoints, then links; done until the boundaries rise.';
COMMENT ON COLUMN attribution_retention.conversions_retired IS 'How many retired in all.';
COMMENT ON COLUMN attribution_retention.touchpoints_removed IS 'How many touchpoints went in all.';
COMMENT ON COLUMN attribution_retention.links_removed IS 'How many identity links went in all.';
COMMENT ON COLUMN attribution_retention.raised_at IS 'When the boundaries rose last.';
COMMENT ON COLUMN attribution_retention.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_retention.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_retired_conversions (
    tenant_id       text COLLATE "C" NOT NULL,
    conversion_md5  uuid             NOT NULL,
    day             date             NOT NULL,
    conversion_type text COLLATE "C" NOT NULL,
    currency        text COLLATE "C" NOT NULL,
    gross_micros    bigint           NOT NULL,
    net_micros      bigint           NOT NULL,
    created_at      timestamptz      NOT NULL DEFAULT now(),
    updated_at      timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversion_md5)
);
COMMENT ON TABLE attribution_retired_conversions IS 'Conversions that retired: so that a late refund is booked as (retired) and nothing is opened a second time. Names nobody.';
COMMENT ON COLUMN attribution_retired_conversions.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_retired_conversions.conversion_md5 IS 'MD5 of the conversion id: to find it, not to hide it.';
COMMENT ON COLUMN attribution_retired_conversions.day IS 'Day of the conversion, UTC.';
COMMENT ON COLUMN attribution_retired_conversions.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_retired_conversions.currency IS 'ISO 4217.';
COMMENT ON COLUMN attribution_retired_conversions.gross_micros IS 'Value before refunds, micros of the currency.';
COMMENT ON COLUMN attribution_retired_conversions.net_micros IS 'Gross value less all refunds up to now, micros.';
COMMENT ON COLUMN attribution_retired_conversions.created_at IS 'When it retired.';
COMMENT ON COLUMN attribution_retired_conversions.updated_at IS 'When a late refund was last booked.';

CREATE TABLE attribution_retired_credits (
    tenant_id         text COLLATE "C" NOT NULL,
    day               date             NOT NULL,
    conversion_type   text COLLATE "C" NOT NULL,
    currency          text COLLATE "C" NOT NULL,
    model             text COLLATE "C" NOT NULL,
    channel           text COLLATE "C" NOT NULL,
    platform          text COLLATE "C" NOT NULL,
    campaign          text COLLATE "C" NOT NULL,
    credit_billionths bigint           NOT NULL,
    value_micros      bigint           NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, day, conversion_type, currency, model, channel, platform, campaign)
) WITH (fillfactor = 70);
COMMENT ON TABLE attribution_retired_credits IS 'Credits of conversions that retired, summed. For each model the values of a day, type and currency sum to the (retired) net value.';
COMMENT ON COLUMN attribution_retired_credits.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_retired_credits.day IS 'Day of the conversions, UTC.';
COMMENT ON COLUMN attribution_retired_credits.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_retired_credits.currency IS 'ISO 4217.';
COMMENT ON COLUMN attribution_retired_credits.model IS 'first, last, linear, ...';
COMMENT ON COLUMN attribution_retired_credits.channel IS 'The channel; (unattributed): what no touchpoint gets; (retired): corrections that came later.';
COMMENT ON COLUMN attribution_retired_credits.platform IS 'The platform.';
COMMENT ON COLUMN attribution_retired_credits.campaign IS 'The campaign; empty: none named.';
COMMENT ON COLUMN attribution_retired_credits.credit_billionths IS 'Shares of conversions, billionths, so that sums are exact.';
COMMENT ON COLUMN attribution_retired_credits.value_micros IS 'Credited value, micros of the currency.';
COMMENT ON COLUMN attribution_retired_credits.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_retired_credits.updated_at IS 'When it was last changed.';
