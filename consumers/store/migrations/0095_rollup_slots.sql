-- One row of the roll-up for all models of a combination: sums are arrays by the number of the model. What was told by
-- channel, platform and campaign in four places stands in one table. Nothing is counted anew: the rows are converted.
-- The roll-up of a tenant that was not counted for reports yet is emptied: attributary rebuild --rollup.

CREATE TABLE attribution_rollup_models (
    tenant_id  text COLLATE "C" NOT NULL,
    model      text COLLATE "C" NOT NULL,
    number     integer          NOT NULL CHECK (number > 0),
    created_at timestamptz      NOT NULL DEFAULT now(),
    updated_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, model)
);
CREATE UNIQUE INDEX attribution_rollup_models_number ON attribution_rollup_models (tenant_id, number);
COMMENT ON TABLE attribution_rollup_models IS 'Where in the arrays of the roll-up the sums of a model stand: credit_billionths[number]. Numbers are never given twice.';
COMMENT ON COLUMN attribution_rollup_models.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_models.model IS 'first, last, linear, ...';
COMMENT ON COLUMN attribution_rollup_models.number IS 'From 1 in the order in which models came. A row of before a model came has fewer numbers: null is 0.';
COMMENT ON COLUMN attribution_rollup_models.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_models.updated_at IS 'When it was last changed.';

DELETE FROM attribution_rollup_conversions c USING attribution_rollup_state s
WHERE s.tenant_id = c.tenant_id AND NOT s.is_counted;
DELETE FROM attribution_rollup_days c USING attribution_rollup_state s WHERE s.tenant_id = c.tenant_id AND NOT s.is_counted;
DELETE FROM attribution_rollup_changes c USING attribution_rollup_state s WHERE s.tenant_id = c.tenant_id AND NOT s.is_counted;
DELETE FROM attribution_rollup_counts c USING attribution_rollup_state s WHERE s.tenant_id = c.tenant_id AND NOT s.is_counted;
DELETE FROM attribution_rollup_restatements c USING attribution_rollup_state s WHERE s.tenant_id = c.tenant_id AND NOT s.is_counted;

ALTER TABLE attribution_rollup_days RENAME TO attribution_rollup_days_before;
ALTER TABLE attribution_rollup_changes RENAME TO attribution_rollup_changes_before;
ALTER TABLE attribution_rollup_counts RENAME TO attribution_rollup_counts_before;
ALTER TABLE attribution_rollup_restatements RENAME TO attribution_rollup_restatements_before;
ALTER TABLE attribution_rollup_days_before RENAME CONSTRAINT attribution_rollup_days_pkey TO attribution_rollup_days_before_pkey;
ALTER TABLE attribution_rollup_changes_before RENAME CONSTRAINT attribution_rollup_changes_pkey TO attribution_rollup_changes_before_pkey;
ALTER TABLE attribution_rollup_counts_before RENAME CONSTRAINT attribution_rollup_counts_pkey TO attribution_rollup_counts_before_pkey;
ALTER TABLE attribution_rollup_restatements_before RENAME CONSTRAINT attribution_rollup_restatements_pkey TO attribution_rollup_restatements_before_pkey;
DROP INDEX attribution_rollup_days_day, attribution_rollup_changes_day, attribution_rollup_counts_kind, attribution_rollup_restatements_day;

CREATE TABLE attribution_rollup_days (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    dating            text             NOT NULL CHECK (dating IN ('cash', 'accrual')),
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    is_new            boolean          NOT NULL,
    channel           text             NOT NULL,
    platform          text             NOT NULL,
    campaign_id       text             NOT NULL,
    campaign          text             NOT NULL,
    credit_billionths bigint[]         NOT NULL,
    value_micros      bigint[]         NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70, toast_tuple_target = 8160);
COMMENT ON TABLE attribution_rollup_days IS 'Sums over the newest results by channel, platform and campaign: one row a day and combination, in arrays by the number of the model (attribution_rollup_models). Choose one dating, one model and one currency; then credits and values add up, with (unattributed).';
COMMENT ON COLUMN attribution_rollup_days.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_days.row_md5 IS 'MD5 of the columns before the sums.';
COMMENT ON COLUMN attribution_rollup_days.dating IS 'cash: the day of the conversion; accrual: the day of each touchpoint, for what no touchpoint gets the day of the conversion.';
COMMENT ON COLUMN attribution_rollup_days.day IS 'Day in the time zone of attribution_rollup_state.';
COMMENT ON COLUMN attribution_rollup_days.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_days.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_days.is_new IS 'Whether the conversions are the first of their type in the person''s stored history.';
COMMENT ON COLUMN attribution_rollup_days.channel IS 'The channel; (unattributed): what no touchpoint gets.';
COMMENT ON COLUMN attribution_rollup_days.platform IS 'The platform; (unattributed).';
COMMENT ON COLUMN attribution_rollup_days.campaign_id IS 'The platform''s id of the campaign; empty: it has none. Its name stands in attribution_rollup_campaigns.';
COMMENT ON COLUMN attribution_rollup_days.campaign IS 'The campaign''s name where it has no id; empty: none named.';
COMMENT ON COLUMN attribution_rollup_days.credit_billionths IS 'Shares of conversions by model, billionths: the sum over all rows is 1,000,000,000 a conversion, exactly.';
COMMENT ON COLUMN attribution_rollup_days.value_micros IS 'Credited net value by model, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_days.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_days.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_changes (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    reported_day      date             NOT NULL,
    reason            text COLLATE "C" NOT NULL,
    credit_billionths bigint[]         NOT NULL,
    value_micros      bigint[]         NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5, reported_day, reason)
) WITH (fillfactor = 70, toast_tuple_target = 8160);
COMMENT ON TABLE attribution_rollup_changes IS 'What changed a row of attribution_rollup_days, when and why: all changes of a row sum to it. As reported at the end of a day = the row less the changes after that day.';
COMMENT ON COLUMN attribution_rollup_changes.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_changes.row_md5 IS 'The row of attribution_rollup_days.';
COMMENT ON COLUMN attribution_rollup_changes.reported_day IS 'Day on which the version was computed, in the tenant''s time zone.';
COMMENT ON COLUMN attribution_rollup_changes.reason IS 'new, late_touchpoint, identity, restated, refund, final, model_refit, repair, erasure, retirement, new_customer.';
COMMENT ON COLUMN attribution_rollup_changes.credit_billionths IS 'Change by model, billionths of a conversion.';
COMMENT ON COLUMN attribution_rollup_changes.value_micros IS 'Change by model, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_changes.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_changes.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_names (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    grain             text COLLATE "C" NOT NULL CHECK (grain IN ('channel', 'platform', 'campaign')),
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    name              text             NOT NULL,
    credit_billionths bigint[]         NOT NULL,
    value_micros      bigint[]         NOT NULL,
    journeys          bigint[]         NOT NULL,
    squares           numeric[]        NOT NULL,
    touches           bigint[]         NOT NULL,
    early_billionths  bigint[]         NOT NULL,
    early_micros      bigint[]         NOT NULL,
    early_touches     bigint[]         NOT NULL,
    late_billionths   bigint[]         NOT NULL,
    late_micros       bigint[]         NOT NULL,
    late_touches      bigint[]         NOT NULL,
    assists           bigint[]         NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70, toast_tuple_target = 8160);
COMMENT ON TABLE attribution_rollup_names IS 'Sums over the newest results by channel, platform or campaign alone: one row a day and name, in arrays by the number of the model (attribution_rollup_models). Choose one grain, one model and one currency.';
COMMENT ON COLUMN attribution_rollup_names.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_names.row_md5 IS 'MD5 of the columns before the sums.';
COMMENT ON COLUMN attribution_rollup_names.grain IS 'What the name is: channel, platform, or campaign by the name that events carry.';
COMMENT ON COLUMN attribution_rollup_names.day IS 'Day of the conversion in the time zone of attribution_rollup_state.';
COMMENT ON COLUMN attribution_rollup_names.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_names.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_names.name IS 'The name; (unattributed): what no touchpoint gets; (none): touchpoints without a campaign.';
COMMENT ON COLUMN attribution_rollup_names.credit_billionths IS 'Shares of conversions by model, billionths.';
COMMENT ON COLUMN attribution_rollup_names.value_micros IS 'Credited net value by model, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_names.journeys IS 'Conversions with a touchpoint of the name by model, each once; not additive over names.';
COMMENT ON COLUMN attribution_rollup_names.squares IS 'Sum over conversions of the squared credit in millionths by model, for intervals.';
COMMENT ON COLUMN attribution_rollup_names.touches IS 'Touchpoints of the name by model.';
COMMENT ON COLUMN attribution_rollup_names.early_billionths IS 'Of credit_billionths what early touchpoints get; what is neither early nor late is mid.';
COMMENT ON COLUMN attribution_rollup_names.early_micros IS 'Of value_micros what early touchpoints get.';
COMMENT ON COLUMN attribution_rollup_names.early_touches IS 'Of touches the early ones.';
COMMENT ON COLUMN attribution_rollup_names.late_billionths IS 'Of credit_billionths what late touchpoints get.';
COMMENT ON COLUMN attribution_rollup_names.late_micros IS 'Of value_micros what late touchpoints get.';
COMMENT ON COLUMN attribution_rollup_names.late_touches IS 'Of touches the late ones.';
COMMENT ON COLUMN attribution_rollup_names.assists IS 'Conversions, the same for every model: 1 with the name in the path, 2 with it before the last touchpoint, 3 with it as the last one, 4 with it and another one as the last.';
COMMENT ON COLUMN attribution_rollup_names.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_names.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_restatements (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    grain             text COLLATE "C" NOT NULL CHECK (grain IN ('channel', 'platform', 'campaign')),
    reported_day      date             NOT NULL,
    reason            text             NOT NULL,
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    name              text             NOT NULL,
    credit_billionths bigint[]         NOT NULL,
    value_micros      bigint[]         NOT NULL,
    versions          bigint           NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70, toast_tuple_target = 8160);
COMMENT ON TABLE attribution_rollup_restatements IS 'What changed the credit of a channel, platform or campaign, when and why: all changes of a name and day sum to its row of attribution_rollup_names.';
COMMENT ON COLUMN attribution_rollup_restatements.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_restatements.row_md5 IS 'MD5 of the columns before the sums.';
COMMENT ON COLUMN attribution_rollup_restatements.grain IS 'What the name is.';
COMMENT ON COLUMN attribution_rollup_restatements.reported_day IS 'Day on which the version was computed, in the tenant''s time zone.';
COMMENT ON COLUMN attribution_rollup_restatements.reason IS 'As in attribution_rollup_changes.';
COMMENT ON COLUMN attribution_rollup_restatements.day IS 'Day of the conversion.';
COMMENT ON COLUMN attribution_rollup_restatements.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_restatements.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_restatements.name IS 'Channel, platform or campaign; (unattributed).';
COMMENT ON COLUMN attribution_rollup_restatements.credit_billionths IS 'Change by model, billionths of a conversion.';
COMMENT ON COLUMN attribution_rollup_restatements.value_micros IS 'Change by model, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_restatements.versions IS 'Versions of conversions with the name in them or in the version before.';
COMMENT ON COLUMN attribution_rollup_restatements.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_restatements.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_counts (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    kind              text COLLATE "C" NOT NULL,
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    name              text             NOT NULL,
    part              text             NOT NULL,
    number            integer          NOT NULL,
    delay             integer          NOT NULL,
    conversions       bigint[]         NOT NULL,
    value_micros      bigint[]         NOT NULL,
    credit_billionths bigint[]         NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70, toast_tuple_target = 8160);
COMMENT ON TABLE attribution_rollup_counts IS 'Sums over the newest results that reports need beside days and names. Choose one kind and one currency; of accrual, rest and use one model, by its number in attribution_rollup_models.';
COMMENT ON COLUMN attribution_rollup_counts.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_counts.row_md5 IS 'MD5 of kind, day and the other columns before the sums.';
COMMENT ON COLUMN attribution_rollup_counts.kind IS 'By model: accrual, rest, use. The same for every model: conversion, lag:first, lag:last, length, length:campaign, path:channel, path:platform, cohort: docs/decisions/0041-reports-answer-from-counts-beside-the-rollup.md.';
COMMENT ON COLUMN attribution_rollup_counts.day IS 'Day of the conversion in the time zone of attribution_rollup_state; of a cohort the day of the first conversion.';
COMMENT ON COLUMN attribution_rollup_counts.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_counts.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_counts.name IS 'path: a JSON list of names; use: the version of the model; cohort: the first channel.';
COMMENT ON COLUMN attribution_rollup_counts.part IS 'rest: untouched, baseline; use: the fallback rule; conversion: final or open.';
COMMENT ON COLUMN attribution_rollup_counts.number IS 'lag: whole days of 24 hours; length, path: steps; cohort: months since the first conversion; accrual: days from the conversion to the touch, below zero.';
COMMENT ON COLUMN attribution_rollup_counts.delay IS 'conversion, accrual: days from the conversion until it was first reported.';
COMMENT ON COLUMN attribution_rollup_counts.conversions IS 'By model: conversions, of accrual touches. Else 1: conversions; 2, of cohort: people.';
COMMENT ON COLUMN attribution_rollup_counts.value_micros IS 'By model: credited value. Else 1: net value of the conversions. Micros of the currency.';
COMMENT ON COLUMN attribution_rollup_counts.credit_billionths IS 'accrual, rest: shares of conversions by model, billionths.';
COMMENT ON COLUMN attribution_rollup_counts.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_counts.updated_at IS 'When it was last changed.';

-- The rows of before, converted. A part of a hash is a text with its length, or a number with a semicolon.
CREATE FUNCTION pg_temp.piece(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN length($1) || ':' || $1;
CREATE FUNCTION pg_temp.piece(date) RETURNS text LANGUAGE sql IMMUTABLE RETURN ($1 - DATE '2000-01-01') || ';';
CREATE FUNCTION pg_temp.piece(integer) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || ';';
-- The sums of a value by model, as an expression over rows with the numbers of their models.
CREATE FUNCTION pg_temp.slots(value text, condition text DEFAULT 'true') RETURNS text LANGUAGE sql STABLE
RETURN (SELECT 'ARRAY[' || string_agg(
                   format('COALESCE(sum(%s) FILTER (WHERE slot = %s AND %s), 0)', value, number, condition), ', '
                   ORDER BY number) || ']'
        FROM generate_series(1, (SELECT GREATEST(max(m.number), 1) FROM attribution_rollup_models m)) AS number);

INSERT INTO attribution_rollup_models (tenant_id, model, number)
SELECT tenant_id, model, row_number() OVER (PARTITION BY tenant_id ORDER BY model) FROM (
    SELECT tenant_id, model FROM attribution_rollup_days_before
    UNION SELECT tenant_id, model FROM attribution_rollup_counts_before WHERE model <> ''
    UNION SELECT tenant_id, model FROM attribution_rollup_restatements_before
) AS known;

CREATE TEMP TABLE rollup_days_new AS
SELECT d.tenant_id, d.row_md5, m.number AS slot, md5(convert_to(
           pg_temp.piece(d.conversion_type) || pg_temp.piece(d.currency)
           || pg_temp.piece(CASE WHEN d.is_new THEN 't' ELSE 'f' END) || pg_temp.piece(d.dating)
           || pg_temp.piece(d.day) || pg_temp.piece(d.channel) || pg_temp.piece(d.platform)
           || pg_temp.piece(d.campaign_id) || pg_temp.piece(d.campaign), 'UTF8'))::uuid AS new_md5
FROM attribution_rollup_days_before d JOIN attribution_rollup_models m USING (tenant_id, model)
WHERE d.grain = 'touch';
CREATE TEMP VIEW rollup_names_new AS
SELECT d.tenant_id, d.grain, d.day, d.conversion_type, d.currency, d.channel || d.platform || d.campaign AS name,
       m.number AS slot, '' AS part, d.credit_billionths, d.value_micros, d.journeys, d.squares, 0::bigint AS conversions
FROM attribution_rollup_days_before d JOIN attribution_rollup_models m USING (tenant_id, model)
WHERE d.grain <> 'touch'
UNION ALL
SELECT c.tenant_id, split_part(c.kind, ':', 2), c.day, c.conversion_type, c.currency, c.name, m.number, c.part,
       c.credit_billionths, c.value_micros, 0, 0, c.conversions
FROM attribution_rollup_counts_before c JOIN attribution_rollup_models m USING (tenant_id, model)
WHERE c.kind LIKE 'position:%'
UNION ALL
SELECT tenant_id, split_part(kind, ':', 2), day, conversion_type, currency, name, 1, part, 0, 0, 0, 0, conversions
FROM attribution_rollup_counts_before WHERE kind LIKE 'assist:%';
CREATE TEMP VIEW rollup_restatements_new AS
SELECT r.tenant_id, r.grain, r.reported_day, r.reason, r.day, r.conversion_type, r.currency, r.name, m.number AS slot,
       r.credit_billionths, r.value_micros, 0::bigint AS versions
FROM attribution_rollup_restatements_before r JOIN attribution_rollup_models m USING (tenant_id, model)
UNION ALL
SELECT tenant_id, split_part(kind, ':', 2), day + delay, part, day, conversion_type, currency, name, 1, 0, 0,
       conversions
FROM attribution_rollup_counts_before WHERE kind LIKE 'touched:%';

DO $convert$
BEGIN
    EXECUTE format($sql$
INSERT INTO attribution_rollup_days (
    tenant_id, row_md5, dating, day, conversion_type, currency, is_new, channel, platform, campaign_id, campaign,
    credit_billionths, value_micros)
SELECT tenant_id, n.new_md5, d.dating, d.day, d.conversion_type, d.currency, d.is_new, d.channel, d.platform,
       d.campaign_id, d.campaign, %s, %s
FROM attribution_rollup_days_before d JOIN rollup_days_new n USING (tenant_id, row_md5)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
$sql$, pg_temp.slots('credit_billionths'), pg_temp.slots('value_micros'));
    EXECUTE format($sql$
INSERT INTO attribution_rollup_changes (tenant_id, row_md5, reported_day, reason, credit_billionths, value_micros)
SELECT tenant_id, n.new_md5, c.reported_day, c.reason, %s, %s
FROM attribution_rollup_changes_before c JOIN rollup_days_new n USING (tenant_id, row_md5) GROUP BY 1, 2, 3, 4
$sql$, pg_temp.slots('credit_billionths'), pg_temp.slots('value_micros'));
    EXECUTE format($sql$
INSERT INTO attribution_rollup_names (
    tenant_id, row_md5, grain, day, conversion_type, currency, name, credit_billionths, value_micros, journeys, squares,
    touches, early_billionths, early_micros, early_touches, late_billionths, late_micros, late_touches, assists)
SELECT tenant_id, md5(convert_to(
           pg_temp.piece(conversion_type) || pg_temp.piece(currency) || pg_temp.piece(grain) || pg_temp.piece(day)
           || pg_temp.piece(name), 'UTF8'))::uuid,
       grain, day, conversion_type, currency, name, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
       ARRAY[COALESCE(sum(conversions) FILTER (WHERE part = 'touched'), 0),
             COALESCE(sum(conversions) FILTER (WHERE part = 'assisted'), 0),
             COALESCE(sum(conversions) FILTER (WHERE part = 'closed'), 0),
             COALESCE(sum(conversions) FILTER (WHERE part = 'only'), 0)]
FROM rollup_names_new GROUP BY tenant_id, grain, day, conversion_type, currency, name
$sql$, pg_temp.slots('credit_billionths', 'part = $$$$'), pg_temp.slots('value_micros', 'part = $$$$'),
       pg_temp.slots('journeys'), pg_temp.slots('squares'),
       pg_temp.slots('conversions', 'part IN ($$early$$, $$mid$$, $$late$$)'),
       pg_temp.slots('credit_billionths', 'part = $$early$$'), pg_temp.slots('value_micros', 'part = $$early$$'),
       pg_temp.slots('conversions', 'part = $$early$$'),
       pg_temp.slots('credit_billionths', 'part = $$late$$'), pg_temp.slots('value_micros', 'part = $$late$$'),
       pg_temp.slots('conversions', 'part = $$late$$'));
    EXECUTE format($sql$
INSERT INTO attribution_rollup_restatements (
    tenant_id, row_md5, grain, reported_day, reason, day, conversion_type, currency, name, credit_billionths,
    value_micros, versions)
SELECT tenant_id, md5(convert_to(
           pg_temp.piece(conversion_type) || pg_temp.piece(currency) || pg_temp.piece(grain) || pg_temp.piece(day)
           || pg_temp.piece(name) || pg_temp.piece(reported_day) || pg_temp.piece(reason), 'UTF8'))::uuid,
       grain, reported_day, reason, day, conversion_type, currency, name, %s, %s, sum(versions)
FROM rollup_restatements_new GROUP BY tenant_id, grain, reported_day, reason, day, conversion_type, currency, name
$sql$, pg_temp.slots('credit_billionths'), pg_temp.slots('value_micros'));
    EXECUTE format($sql$
INSERT INTO attribution_rollup_counts (
    tenant_id, row_md5, kind, day, conversion_type, currency, name, part, number, delay, conversions, value_micros,
    credit_billionths)
SELECT tenant_id, md5(convert_to(
           pg_temp.piece(kind) || pg_temp.piece(name) || pg_temp.piece(part) || pg_temp.piece(day)
           || pg_temp.piece(conversion_type) || pg_temp.piece(currency) || pg_temp.piece(number)
           || pg_temp.piece(delay), 'UTF8'))::uuid,
       kind, day, conversion_type, currency, name, part, number, delay, %s, %s, %s
FROM (SELECT c.*, m.number AS slot FROM attribution_rollup_counts_before c
      JOIN attribution_rollup_models m USING (tenant_id, model) WHERE c.kind IN ('accrual', 'rest', 'use')) AS c
GROUP BY tenant_id, kind, day, conversion_type, currency, name, part, number, delay
$sql$, pg_temp.slots('conversions'), pg_temp.slots('value_micros'), pg_temp.slots('credit_billionths'));
END
$convert$;

INSERT INTO attribution_rollup_counts (
    tenant_id, row_md5, kind, day, conversion_type, currency, name, part, number, delay, conversions, value_micros,
    credit_billionths)
WITH plain AS (
    SELECT c.tenant_id, c.kind, c.day, c.conversion_type, c.currency, c.name,
           CASE WHEN c.kind = 'cohort' THEN '' ELSE c.part END AS part, c.number, c.delay,
           c.kind = 'cohort' AND c.part = 'person' AS is_person, c.conversions, c.value_micros
    FROM attribution_rollup_counts_before c
    WHERE c.kind IN ('conversion', 'lag:first', 'lag:last', 'length', 'length:campaign', 'path:channel',
                     'path:platform', 'cohort')
)
SELECT tenant_id, md5(convert_to(
           pg_temp.piece(kind) || pg_temp.piece(name) || pg_temp.piece(part) || pg_temp.piece(day)
           || pg_temp.piece(conversion_type) || pg_temp.piece(currency) || pg_temp.piece(number)
           || pg_temp.piece(delay), 'UTF8'))::uuid,
       kind, day, conversion_type, currency, name, part, number, delay,
       ARRAY[COALESCE(sum(conversions) FILTER (WHERE NOT is_person), 0),
             COALESCE(sum(conversions) FILTER (WHERE is_person), 0)],
       ARRAY[sum(value_micros), 0], ARRAY[0, 0]
FROM plain GROUP BY tenant_id, kind, day, conversion_type, currency, name, part, number, delay;

CREATE INDEX attribution_rollup_days_day ON attribution_rollup_days (tenant_id, dating, day);
CREATE INDEX attribution_rollup_changes_day ON attribution_rollup_changes (tenant_id, reported_day);
CREATE INDEX attribution_rollup_names_day ON attribution_rollup_names (tenant_id, grain, day);
CREATE INDEX attribution_rollup_restatements_day
    ON attribution_rollup_restatements (tenant_id, grain, reported_day);
CREATE INDEX attribution_rollup_counts_kind ON attribution_rollup_counts (tenant_id, kind, day);

DROP VIEW rollup_names_new, rollup_restatements_new;
DROP TABLE attribution_rollup_days_before, attribution_rollup_changes_before, attribution_rollup_counts_before,
    attribution_rollup_restatements_before, rollup_days_new;
DROP FUNCTION pg_temp.piece(text), pg_temp.piece(date), pg_temp.piece(integer), pg_temp.slots(text, text);
COMMENT ON COLUMN attribution_rollup_state.is_counted IS 'False: it was made by an earlier version and has been emptied, until: attributary rebuild --rollup.';
