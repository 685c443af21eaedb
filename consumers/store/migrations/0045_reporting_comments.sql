-- The views of `reporting` explain themselves: a comment on every view and column. Amounts are rounded to the micro, so
-- that they print as 54.800000. The newest result is found by its key, without sorting all versions. Names and types stay.

CREATE OR REPLACE VIEW reporting.conversions AS
SELECT tenant_id, conversion_id, conversion_type, journey_key,
       to_timestamp(converted_at_us / 1e6) AS converted_at,
       round(gross_value_micros / 1e6::numeric, 6) AS gross_value, round(net_value_micros / 1e6::numeric, 6) AS net_value,
       currency, order_id, version, version_reason, is_final
FROM attribution_conversions WHERE version > 0;

CREATE OR REPLACE VIEW reporting.results AS
SELECT tenant_id, conversion_id, version, version_reason, is_final, conversion_type, journey_key,
       to_timestamp(converted_at_us / 1e6) AS converted_at,
       round(net_value_micros / 1e6::numeric, 6) AS net_value, round(gross_value_micros / 1e6::numeric, 6) AS gross_value,
       currency, policy_version, touchpoint_count, touchpoints, models, insights,
       to_timestamp(computed_at_us / 1e6) AS computed_at
FROM attribution_results r
WHERE NOT EXISTS (
    SELECT FROM attribution_results n
    WHERE n.tenant_id = r.tenant_id AND n.conversion_id = r.conversion_id AND n.version > r.version
);

CREATE OR REPLACE VIEW reporting.result_versions AS
SELECT tenant_id, conversion_id, version, version_reason, is_final, conversion_type, journey_key,
       to_timestamp(converted_at_us / 1e6) AS converted_at,
       round(net_value_micros / 1e6::numeric, 6) AS net_value, round(gross_value_micros / 1e6::numeric, 6) AS gross_value,
       round(delta_micros / 1e6::numeric, 6) AS delta, currency, policy_version, touchpoint_count, touchpoints, models,
       to_timestamp(computed_at_us / 1e6) AS reported_from,
       to_timestamp(lead(computed_at_us) OVER (PARTITION BY tenant_id, conversion_id ORDER BY version) / 1e6) AS reported_until
FROM attribution_results;

CREATE OR REPLACE VIEW reporting.credit AS
SELECT r.tenant_id, r.conversion_id, r.conversion_type, r.converted_at, r.currency, r.is_final,
       m.model, m.model_version, u.dimension, u.name, u.credit, round(u.value_micros / 1e6::numeric, 6) AS value
FROM reporting.results r
CROSS JOIN LATERAL jsonb_to_recordset(r.models)
    AS m (model text, model_version text, credits jsonb, micros jsonb, unattributed_micros bigint)
CROSS JOIN LATERAL (
    SELECT d.dimension, d.name, sum((m.credits ->> place)::float8) AS credit, sum((m.micros ->> place)::bigint) AS value_micros
    FROM jsonb_array_elements(r.touchpoints) WITH ORDINALITY AS t (touch, number)
    CROSS JOIN LATERAL (SELECT number::int - 1 AS place) AS p
    CROSS JOIN LATERAL (VALUES ('platform', touch ->> 'platform'), ('channel', touch ->> 'channel'),
                               ('campaign', touch ->> 'campaign')) AS d (dimension, name)
    GROUP BY d.dimension, d.name
    UNION ALL
    SELECT dimension, '(unattributed)', rest.credit, m.unattributed_micros
    FROM unnest(ARRAY['platform', 'channel', 'campaign']) AS dimension
    CROSS JOIN (SELECT 1.0 - COALESCE(sum(credit::float8), 0.0) AS credit
                FROM jsonb_array_elements_text(m.credits) AS c (credit)) AS rest
    WHERE r.touchpoint_count = 0 OR m.unattributed_micros <> 0 OR rest.credit > 1e-9
) AS u;

COMMENT ON VIEW reporting.touchpoints IS 'Touchpoints, one row each.';
COMMENT ON COLUMN reporting.touchpoints.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.touchpoints.event_id IS 'The event''s id, unique in the tenant.';
COMMENT ON COLUMN reporting.touchpoints.identity_key IS 'u:<user id> when the event named a user, else a:<anonymous id>.';
COMMENT ON COLUMN reporting.touchpoints.occurred_at IS 'Event time.';
COMMENT ON COLUMN reporting.touchpoints.platform IS 'Where the contact was bought or made.';
COMMENT ON COLUMN reporting.touchpoints.channel IS 'The marketing channel that gets the credit.';
COMMENT ON COLUMN reporting.touchpoints.interaction IS 'click, impression, view, ...: decides the lookback window.';
COMMENT ON COLUMN reporting.touchpoints.campaign IS 'The campaign''s name, else its id, else empty.';
COMMENT ON COLUMN reporting.touchpoints.is_bot IS 'Sent by a known robot: kept, never credited. Leave these rows out when you count.';
COMMENT ON COLUMN reporting.touchpoints.utm_source IS 'utm_source of the landing URL; null: none.';
COMMENT ON COLUMN reporting.touchpoints.utm_medium IS 'utm_medium; null: none.';
COMMENT ON COLUMN reporting.touchpoints.utm_campaign IS 'utm_campaign; null: none.';
COMMENT ON COLUMN reporting.touchpoints.utm_term IS 'utm_term; null: none.';
COMMENT ON COLUMN reporting.touchpoints.utm_content IS 'utm_content; null: none.';
COMMENT ON COLUMN reporting.touchpoints.landing_url IS 'Page that was landed on; null: unknown.';
COMMENT ON COLUMN reporting.touchpoints.referrer IS 'Page before it; null: unknown.';
COMMENT ON COLUMN reporting.touchpoints.country IS 'ISO 3166-1 alpha-2; null: unknown.';
COMMENT ON COLUMN reporting.touchpoints.device IS 'Kind of device; null: unknown.';
COMMENT ON COLUMN reporting.touchpoints.details IS 'All other fields of the event that are set, JSON.';

COMMENT ON VIEW reporting.conversions IS 'Conversions, one row each, with their value of today. Never add values of different currencies.';
COMMENT ON COLUMN reporting.conversions.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.conversions.conversion_id IS 'Unique in the tenant.';
COMMENT ON COLUMN reporting.conversions.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.conversions.journey_key IS 'The person after identity links: u:<user id> or a:<anonymous id>.';
COMMENT ON COLUMN reporting.conversions.converted_at IS 'Event time.';
COMMENT ON COLUMN reporting.conversions.gross_value IS 'Value before refunds, units of the currency. Additive in one currency.';
COMMENT ON COLUMN reporting.conversions.net_value IS 'Gross value less refunds, units of the currency; zero when cancelled, negative when over-refunded. Additive in one currency.';
COMMENT ON COLUMN reporting.conversions.currency IS 'ISO 4217; XXX: a conversion without value.';
COMMENT ON COLUMN reporting.conversions.order_id IS 'The tenant''s order number; null: none.';
COMMENT ON COLUMN reporting.conversions.version IS '1, 2, 3, ...: the newest version; its result may still be on its way.';
COMMENT ON COLUMN reporting.conversions.version_reason IS 'Why that version exists: new, late_touchpoint, identity, restated, refund, final, model_refit, repair.';
COMMENT ON COLUMN reporting.conversions.is_final IS 'Closed by the lateness policy: later touchpoints change nothing.';

COMMENT ON VIEW reporting.results IS 'The newest result of each conversion, one row each.';
COMMENT ON COLUMN reporting.results.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.results.conversion_id IS 'Unique in the tenant.';
COMMENT ON COLUMN reporting.results.version IS 'Version of the result: 1, 2, 3, ...';
COMMENT ON COLUMN reporting.results.version_reason IS 'Why this version exists: new, late_touchpoint, identity, restated, refund, final, model_refit, repair.';
COMMENT ON COLUMN reporting.results.is_final IS 'Closed by the lateness policy.';
COMMENT ON COLUMN reporting.results.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.results.journey_key IS 'The person: u:<user id> or a:<anonymous id>.';
COMMENT ON COLUMN reporting.results.converted_at IS 'Event time of the conversion.';
COMMENT ON COLUMN reporting.results.net_value IS 'Value that is credited, units of the currency. Additive in one currency.';
COMMENT ON COLUMN reporting.results.gross_value IS 'Value before refunds, units of the currency. Additive in one currency.';
COMMENT ON COLUMN reporting.results.currency IS 'ISO 4217; XXX: a conversion without value.';
COMMENT ON COLUMN reporting.results.policy_version IS 'The lookback policy that chose the touchpoints.';
COMMENT ON COLUMN reporting.results.touchpoint_count IS 'Touchpoints in the lookback windows. Additive.';
COMMENT ON COLUMN reporting.results.touchpoints IS 'JSON array in the order of time: event_id, channel, platform, campaign, occurred_at (microseconds UTC).';
COMMENT ON COLUMN reporting.results.models IS 'JSON array: model, model_version, credits and micros in the order of touchpoints, unattributed_micros, confidence, fallback. reporting.credit unfolds it.';
COMMENT ON COLUMN reporting.results.insights IS 'JSON array of findings about the journey.';
COMMENT ON COLUMN reporting.results.computed_at IS 'When the result was computed.';

COMMENT ON VIEW reporting.result_versions IS 'Every kept version of every result. What was reported at a time T: reported_from <= T AND (reported_until > T OR reported_until IS NULL).';
COMMENT ON COLUMN reporting.result_versions.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.result_versions.conversion_id IS 'Unique in the tenant.';
COMMENT ON COLUMN reporting.result_versions.version IS 'Version of the result: 1, 2, 3, ...';
COMMENT ON COLUMN reporting.result_versions.version_reason IS 'Why this version exists: new, late_touchpoint, identity, restated, refund, final, model_refit, repair.';
COMMENT ON COLUMN reporting.result_versions.is_final IS 'Closed by the lateness policy.';
COMMENT ON COLUMN reporting.result_versions.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.result_versions.journey_key IS 'The person: u:<user id> or a:<anonymous id>.';
COMMENT ON COLUMN reporting.result_versions.converted_at IS 'Event time of the conversion, as this version states it.';
COMMENT ON COLUMN reporting.result_versions.net_value IS 'Value that this version credits, units of the currency. Additive over the versions of one moment.';
COMMENT ON COLUMN reporting.result_versions.gross_value IS 'Value before refunds, units of the currency. Additive over the versions of one moment.';
COMMENT ON COLUMN reporting.result_versions.delta IS 'Net value less that of the version before; 0 for version 1.';
COMMENT ON COLUMN reporting.result_versions.currency IS 'ISO 4217; XXX: a conversion without value.';
COMMENT ON COLUMN reporting.result_versions.policy_version IS 'The lookback policy that chose the touchpoints.';
COMMENT ON COLUMN reporting.result_versions.touchpoint_count IS 'Touchpoints in the lookback windows.';
COMMENT ON COLUMN reporting.result_versions.touchpoints IS 'As in reporting.results.';
COMMENT ON COLUMN reporting.result_versions.models IS 'As in reporting.results.';
COMMENT ON COLUMN reporting.result_versions.reported_from IS 'From this moment on the version was the newest one.';
COMMENT ON COLUMN reporting.result_versions.reported_until IS 'Until this moment; null: it still is.';

COMMENT ON VIEW reporting.credit IS 'Credit of the newest results: one row per conversion, model, dimension (platform, channel, campaign) and name. Sum over one model, one dimension and one currency.';
COMMENT ON COLUMN reporting.credit.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.credit.conversion_id IS 'Unique in the tenant.';
COMMENT ON COLUMN reporting.credit.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.credit.converted_at IS 'Event time of the conversion.';
COMMENT ON COLUMN reporting.credit.currency IS 'ISO 4217; XXX: a conversion without value.';
COMMENT ON COLUMN reporting.credit.is_final IS 'Closed by the lateness policy.';
COMMENT ON COLUMN reporting.credit.model IS 'first, last, linear, time_decay, markov, shapley, ...';
COMMENT ON COLUMN reporting.credit.model_version IS 'Version of the model; untrained: its fallback rule credited.';
COMMENT ON COLUMN reporting.credit.dimension IS 'platform, channel or campaign: choose one, each has the whole credit.';
COMMENT ON COLUMN reporting.credit.name IS 'The platform, channel or campaign (empty: none named); (unattributed): what no touchpoint gets.';
COMMENT ON COLUMN reporting.credit.credit IS 'Share of the conversion, 0 to 1. Summed it is the number of conversions. Additive in one model and dimension.';
COMMENT ON COLUMN reporting.credit.value IS 'Share of the net value, units of the currency. Additive in one model, dimension and currency.';
