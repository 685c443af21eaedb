-- What reports ask beside credit by day: counts of journeys, and changes by channel, platform and campaign. Kept by the
-- same retraction as the roll-up. What was counted before this migration is not in them: attributary rebuild --rollup.

ALTER TABLE attribution_rollup_state ADD COLUMN is_counted boolean NOT NULL DEFAULT true;
UPDATE attribution_rollup_state SET is_counted = false;
COMMENT ON COLUMN attribution_rollup_state.is_counted IS 'Whether every conversion of the roll-up is in attribution_rollup_counts; false after an upgrade, until: attributary rebuild --rollup.';

ALTER TABLE attribution_rollup_conversions
    ADD COLUMN first_reported_at_us bigint NOT NULL DEFAULT 0,
    ADD COLUMN first_channel text NOT NULL DEFAULT '';
COMMENT ON COLUMN attribution_rollup_conversions.first_reported_at_us IS 'When the earliest version was computed, microseconds UTC.';
COMMENT ON COLUMN attribution_rollup_conversions.first_channel IS 'Channel of the first touchpoint; (no touchpoint): it has none.';
COMMENT ON COLUMN attribution_rollup_conversions.cells IS 'JSON: t, the touchpoints as [channel, platform, campaign id, campaign without an id, microseconds UTC]; m, the models as [name, billionths, micros, rest of billionths, rest of micros]; n, names of campaigns with an id, by place; u, version and fallback rule of each model; f, 1: final. Without n it is not in attribution_rollup_counts.';

ALTER TABLE attribution_rollup_days
    DROP CONSTRAINT attribution_rollup_days_grain_check,
    ADD CONSTRAINT attribution_rollup_days_grain_check CHECK (grain IN ('touch', 'channel', 'platform', 'campaign'));
COMMENT ON COLUMN attribution_rollup_days.grain IS 'touch: by channel, platform and campaign; channel, platform, campaign: by that alone, with journeys and squares, dated cash only; campaign by the name that events carry.';

CREATE TABLE attribution_rollup_counts (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    kind              text COLLATE "C" NOT NULL,
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    model             text COLLATE "C" NOT NULL,
    name              text             NOT NULL,
    part              text             NOT NULL,
    number            integer          NOT NULL,
    delay             integer          NOT NULL,
    conversions       bigint           NOT NULL,
    value_micros      bigint           NOT NULL,
    credit_billionths bigint           NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70);
CREATE INDEX attribution_rollup_counts_kind ON attribution_rollup_counts (tenant_id, kind, model, day);
COMMENT ON TABLE attribution_rollup_counts IS 'Sums over the newest results that reports need beside attribution_rollup_days. Choose one kind, one model and one currency.';
COMMENT ON COLUMN attribution_rollup_counts.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_counts.row_md5 IS 'MD5 of kind, day and the other columns before the sums.';
COMMENT ON COLUMN attribution_rollup_counts.kind IS 'conversion, use, rest, accrual, lag:first, lag:last, length, cohort; assist, path, length, position, touched of channel, platform or campaign: docs/decisions/0041-reports-answer-from-counts-beside-the-rollup.md.';
COMMENT ON COLUMN attribution_rollup_counts.day IS 'Day of the conversion in the time zone of attribution_rollup_state; of a cohort the day of the first conversion.';
COMMENT ON COLUMN attribution_rollup_counts.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_counts.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_counts.model IS 'The model; empty: the count is the same for every model.';
COMMENT ON COLUMN attribution_rollup_counts.name IS 'Channel, platform or campaign; path: a JSON list of names; use: the version of the model; cohort: the first channel.';
COMMENT ON COLUMN attribution_rollup_counts.part IS 'position: early, mid, late; assist: touched, assisted, closed, only; rest: untouched, baseline; use: the fallback rule; touched: the reason of the change; conversion: final or open; cohort: conversion or person.';
COMMENT ON COLUMN attribution_rollup_counts.number IS 'lag: whole days of 24 hours; length, path: steps; cohort: months since the first conversion; accrual: days from the conversion to the touch, below zero.';
COMMENT ON COLUMN attribution_rollup_counts.delay IS 'conversion, accrual, touched: days from the conversion until it was first reported, or until the change was.';
COMMENT ON COLUMN attribution_rollup_counts.conversions IS 'Conversions; of cohort, part person, people; of touched versions; of accrual and position touches.';
COMMENT ON COLUMN attribution_rollup_counts.value_micros IS 'Net value of the conversions, or of the credit; micros of the currency.';
COMMENT ON COLUMN attribution_rollup_counts.credit_billionths IS 'accrual, position, rest: shares of conversions, billionths.';
COMMENT ON COLUMN attribution_rollup_counts.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_counts.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_restatements (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    grain             text COLLATE "C" NOT NULL CHECK (grain IN ('channel', 'platform', 'campaign')),
    reported_day      date             NOT NULL,
    reason            text             NOT NULL,
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    model             text COLLATE "C" NOT NULL,
    name              text             NOT NULL,
    credit_billionths bigint           NOT NULL,
    value_micros      bigint           NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70);
CREATE INDEX attribution_rollup_restatements_day
    ON attribution_rollup_restatements (tenant_id, grain, model, reported_day);
COMMENT ON TABLE attribution_rollup_restatements IS 'What changed the credit of a channel, platform or campaign, when and why: all changes of a name and day sum to its row of attribution_rollup_days.';
COMMENT ON COLUMN attribution_rollup_restatements.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_restatements.row_md5 IS 'MD5 of the columns before the sums.';
COMMENT ON COLUMN attribution_rollup_restatements.grain IS 'What the name is.';
COMMENT ON COLUMN attribution_rollup_restatements.reported_day IS 'Day on which the version was computed, in the tenant''s time zone.';
COMMENT ON COLUMN attribution_rollup_restatements.reason IS 'As in attribution_rollup_changes.';
COMMENT ON COLUMN attribution_rollup_restatements.day IS 'Day of the conversion.';
COMMENT ON COLUMN attribution_rollup_restatements.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_restatements.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_restatements.model IS 'The model.';
COMMENT ON COLUMN attribution_rollup_restatements.name IS 'Channel, platform or campaign; (unattributed).';
COMMENT ON COLUMN attribution_rollup_restatements.credit_billionths IS 'Change, billionths of a conversion.';
COMMENT ON COLUMN attribution_rollup_restatements.value_micros IS 'Change, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_restatements.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_restatements.updated_at IS 'When it was last changed.';
