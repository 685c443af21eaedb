-- Touchpoints of a person are found by 8 bytes instead of their key as text, and `details` is kept as the
-- text that it came as (docs/decisions/0055). One rewrite of the table, in one transaction: a try that fails leaves
-- nothing behind. It holds the table alone meanwhile, about 40 seconds a million rows, and needs its size on disk again.

-- The views name the column that changes its type; those who read them keep all names and types.
CREATE OR REPLACE VIEW reporting.touchpoints AS
SELECT tenant_id, event_id, identity_key,
       to_timestamp(occurred_at_us / 1e6) AS occurred_at,
       platform, channel, interaction, campaign, is_bot,
       NULL::text AS utm_source, NULL::text AS utm_medium, NULL::text AS utm_campaign, NULL::text AS utm_term,
       NULL::text AS utm_content, NULL::text AS landing_url, NULL::text AS referrer, NULL::text AS country,
       NULL::text AS device, NULL::jsonb AS details
FROM attribution_touchpoints;
ALTER TABLE attribution_touchpoints
    ALTER COLUMN details TYPE json USING details::text::json,
    ADD COLUMN identity_hash bigint NOT NULL
        GENERATED ALWAYS AS (hashtextextended(identity_key, 0)) STORED;
COMMENT ON COLUMN attribution_touchpoints.identity_hash IS 'Hash of identity_key, for the index by person. Two people may share one: compare the keys as well.';
CREATE OR REPLACE VIEW reporting.touchpoints AS
SELECT tenant_id, event_id, identity_key,
       to_timestamp(occurred_at_us / 1e6) AS occurred_at,
       platform, channel, interaction, campaign, is_bot,
       details ->> 'utm_source' AS utm_source, details ->> 'utm_medium' AS utm_medium,
       details ->> 'utm_campaign' AS utm_campaign, details ->> 'utm_term' AS utm_term,
       details ->> 'utm_content' AS utm_content, details ->> 'landing_url' AS landing_url,
       details ->> 'referrer' AS referrer, details ->> 'country' AS country, details ->> 'device' AS device,
       details::jsonb AS details
FROM attribution_touchpoints;
