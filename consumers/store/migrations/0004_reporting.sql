-- Views for analysts and dashboards: names of the field, times as timestamptz, money as numeric. Read-only by nature;
-- deploy/postgres/least_privilege.sql gives a reader role these and nothing else.

CREATE SCHEMA reporting;
COMMENT ON SCHEMA reporting IS 'Views for people and dashboards; stable while the tables behind them may change.';

CREATE VIEW reporting.touchpoints AS
SELECT tenant_id, event_id, identity_key,
       to_timestamp(occurred_at_us / 1e6) AS occurred_at,
       platform, channel, interaction, campaign, is_bot,
       details ->> 'utm_source' AS utm_source, details ->> 'utm_medium' AS utm_medium,
       details ->> 'utm_campaign' AS utm_campaign, details ->> 'utm_term' AS utm_term,
       details ->> 'utm_content' AS utm_content, details ->> 'landing_url' AS landing_url,
       details ->> 'referrer' AS referrer, details ->> 'country' AS country, details ->> 'device' AS device,
       details
FROM attribution_touchpoints;
COMMENT ON VIEW reporting.touchpoints IS 'Touchpoints, one row each.';

CREATE VIEW reporting.conversions AS
SELECT tenant_id, conversion_id, conversion_type, journey_key,
       to_timestamp(converted_at_us / 1e6) AS converted_at,
       gross_value_micros / 1e6::numeric AS gross_value, net_value_micros / 1e6::numeric AS net_value, currency, order_id,
       version, version_reason, is_final
FROM attribution_conversions WHERE version > 0;
COMMENT ON VIEW reporting.conversions IS 'Conversions, one row each, with their value of today.';

CREATE VIEW reporting.results AS
SELECT DISTINCT ON (tenant_id, conversion_id)
       tenant_id, conversion_id, version, version_reason, is_final, conversion_type, journey_key,
       to_timestamp(converted_at_us / 1e6) AS converted_at,
       net_value_micros / 1e6::numeric AS net_value, gross_value_micros / 1e6::numeric AS gross_value, currency,
       policy_version, touchpoint_count, touchpoints, models, insights,
       to_timestamp(computed_at_us / 1e6) AS computed_at
FROM attribution_results ORDER BY tenant_id, conversion_id, version DESC;
COMMENT ON VIEW reporting.results IS 'The newest result of each conversion.';

CREATE VIEW reporting.credit AS
SELECT r.tenant_id, r.conversion_id, r.conversion_type, r.converted_at, r.currency, r.is_final,
       m.model, m.model_version, u.dimension, u.name, u.credit, u.value_micros / 1e6::numeric AS value
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
    SELECT dimension, '(unattributed)', 1.0, m.unattributed_micros
    FROM unnest(ARRAY['platform', 'channel', 'campaign']) AS dimension WHERE r.touchpoint_count = 0
) AS u;
COMMENT ON VIEW reporting.credit IS 'Credit of the newest results: one row per conversion, model, dimension (platform, channel, campaign) and name. Sum value over one model and one dimension to get net revenue.';
