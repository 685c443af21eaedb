-- The roll-up for people and dashboards: sums by day that answer in milliseconds, where reporting.credit opens every
-- result. Days are those of the tenant's time zone; a roll-up that is not counted for reports yet is not shown.

CREATE VIEW reporting.rollups AS
SELECT s.tenant_id, s.time_zone, to_timestamp(s.reported_until_us / 1e6) AS complete_to, s.revision,
       ARRAY(SELECT m.model FROM attribution_rollup_models m WHERE m.tenant_id = s.tenant_id ORDER BY m.model) AS models
FROM attribution_rollup_state s WHERE s.is_counted;
COMMENT ON VIEW reporting.rollups IS 'The roll-up behind the daily views: one row a tenant. Without a row the reporter has not begun, or needs: attributary rebuild --rollup.';
COMMENT ON COLUMN reporting.rollups.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.rollups.time_zone IS 'IANA name of the zone in which its days begin.';
COMMENT ON COLUMN reporting.rollups.complete_to IS 'Computing time of the newest result in it.';
COMMENT ON COLUMN reporting.rollups.revision IS 'Rises with every change: the same number, the same sums.';
COMMENT ON COLUMN reporting.rollups.models IS 'Models that credit conversions of it.';

CREATE VIEW reporting.daily_conversions AS
SELECT c.tenant_id, c.day, c.day::timestamp AT TIME ZONE 'UTC' AS charted_at, c.conversion_type, c.currency,
       sum(c.conversions[1])::bigint AS conversions,
       COALESCE(sum(c.conversions[1]) FILTER (WHERE c.part = 'final'), 0)::bigint AS final_conversions,
       round(sum(c.value_micros[1]) / 1e6::numeric, 6) AS net_value
FROM attribution_rollup_counts c
JOIN attribution_rollup_state s ON s.tenant_id = c.tenant_id AND s.is_counted
WHERE c.kind = 'conversion'
GROUP BY c.tenant_id, c.day, c.conversion_type, c.currency
HAVING sum(c.conversions[1]) <> 0;
COMMENT ON VIEW reporting.daily_conversions IS 'Conversions and net value by day, with their newest results: one row a day, type and currency. All numbers add up, within a currency.';
COMMENT ON COLUMN reporting.daily_conversions.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.daily_conversions.day IS 'Day of the conversions in the tenant''s time zone (reporting.rollups).';
COMMENT ON COLUMN reporting.daily_conversions.charted_at IS 'The day as midnight UTC: for charts with an axis in UTC, which then show every viewer the tenant''s days. No moment of its own.';
COMMENT ON COLUMN reporting.daily_conversions.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.daily_conversions.currency IS 'ISO 4217; never add two. XXX: conversions without value.';
COMMENT ON COLUMN reporting.daily_conversions.conversions IS 'How many; additive.';
COMMENT ON COLUMN reporting.daily_conversions.final_conversions IS 'Those of them that touchpoints cannot change any more; additive.';
COMMENT ON COLUMN reporting.daily_conversions.net_value IS 'Value less refunds, in the currency; additive.';

CREATE VIEW reporting.daily_credit AS
SELECT n.tenant_id, n.day, n.day::timestamp AT TIME ZONE 'UTC' AS charted_at, n.conversion_type, n.currency, m.model,
       n.grain AS dimension, n.name, round(n.credit_billionths[m.number] / 1e9::numeric, 6) AS credit,
       round(n.value_micros[m.number] / 1e6::numeric, 6) AS value, n.journeys[m.number] AS journeys,
       round(n.squares[m.number] / 1e12::numeric, 6) AS credit_squares
FROM attribution_rollup_names n
JOIN attribution_rollup_state s ON s.tenant_id = n.tenant_id AND s.is_counted
JOIN attribution_rollup_models m ON m.tenant_id = n.tenant_id
WHERE n.journeys[m.number] <> 0 OR n.credit_billionths[m.number] <> 0 OR n.value_micros[m.number] <> 0;
COMMENT ON VIEW reporting.daily_credit IS 'Credit by day of the conversion and by channel, platform or campaign. Choose one dimension, one model and one currency; then credit and value sum to the conversions and their net value, with (unattributed).';
COMMENT ON COLUMN reporting.daily_credit.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.daily_credit.day IS 'Day of the conversions in the tenant''s time zone (reporting.rollups).';
COMMENT ON COLUMN reporting.daily_credit.charted_at IS 'The day as midnight UTC: for charts with an axis in UTC. No moment of its own.';
COMMENT ON COLUMN reporting.daily_credit.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.daily_credit.currency IS 'ISO 4217; never add two. XXX: conversions without value.';
COMMENT ON COLUMN reporting.daily_credit.model IS 'first, last, linear, ...: choose one.';
COMMENT ON COLUMN reporting.daily_credit.dimension IS 'channel, platform or campaign: choose one.';
COMMENT ON COLUMN reporting.daily_credit.name IS 'The name of the dimension; (unattributed): what no touchpoint gets; (none): touchpoints without a campaign''s name.';
COMMENT ON COLUMN reporting.daily_credit.credit IS 'Credited conversions, a sum of shares; additive, each row rounded to a millionth.';
COMMENT ON COLUMN reporting.daily_credit.value IS 'Credited net value, in the currency; additive, exact.';
COMMENT ON COLUMN reporting.daily_credit.journeys IS 'Conversions with a touchpoint of the name, credited or not; additive over days, never over names.';
COMMENT ON COLUMN reporting.daily_credit.credit_squares IS 'Sum over conversions of the squared credit; additive. With credit c of n conversions, a share''s standard error is sqrt((credit_squares / n - (c / n) ^ 2) / n).';

CREATE VIEW reporting.daily_campaigns AS
SELECT d.tenant_id, d.dating, d.day, d.day::timestamp AT TIME ZONE 'UTC' AS charted_at, d.conversion_type, d.currency,
       d.is_new, m.model, d.channel, d.platform, d.campaign_id, COALESCE(NULLIF(d.campaign, ''), k.campaign, '') AS campaign,
       round(d.credit_billionths[m.number] / 1e9::numeric, 6) AS credit,
       round(d.value_micros[m.number] / 1e6::numeric, 6) AS value
FROM attribution_rollup_days d
JOIN attribution_rollup_state s ON s.tenant_id = d.tenant_id AND s.is_counted
JOIN attribution_rollup_models m ON m.tenant_id = d.tenant_id
LEFT JOIN attribution_rollup_campaigns k
  ON k.tenant_id = d.tenant_id AND k.platform = d.platform AND k.campaign_id = d.campaign_id
WHERE d.credit_billionths[m.number] <> 0 OR d.value_micros[m.number] <> 0;
COMMENT ON VIEW reporting.daily_campaigns IS 'Credit by day, channel, platform and campaign together, dated both ways. Choose one dating, one model and one currency; then credit and value sum to the conversions and their net value, with (unattributed).';
COMMENT ON COLUMN reporting.daily_campaigns.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.daily_campaigns.dating IS 'cash: the day of the conversion; accrual: the day of each touchpoint, beside the ads that were paid for that day. Choose one.';
COMMENT ON COLUMN reporting.daily_campaigns.day IS 'Day in the tenant''s time zone (reporting.rollups).';
COMMENT ON COLUMN reporting.daily_campaigns.charted_at IS 'The day as midnight UTC: for charts with an axis in UTC. No moment of its own.';
COMMENT ON COLUMN reporting.daily_campaigns.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.daily_campaigns.currency IS 'ISO 4217; never add two. XXX: conversions without value.';
COMMENT ON COLUMN reporting.daily_campaigns.is_new IS 'Whether the conversions are the first of their type in the person''s stored history.';
COMMENT ON COLUMN reporting.daily_campaigns.model IS 'first, last, linear, ...: choose one.';
COMMENT ON COLUMN reporting.daily_campaigns.channel IS 'The channel; (unattributed): what no touchpoint gets.';
COMMENT ON COLUMN reporting.daily_campaigns.platform IS 'The platform; (unattributed).';
COMMENT ON COLUMN reporting.daily_campaigns.campaign_id IS 'The platform''s id of the campaign; empty: the touchpoints have none.';
COMMENT ON COLUMN reporting.daily_campaigns.campaign IS 'Its newest name; empty: none named.';
COMMENT ON COLUMN reporting.daily_campaigns.credit IS 'Credited conversions, a sum of shares; additive, each row rounded to a millionth.';
COMMENT ON COLUMN reporting.daily_campaigns.value IS 'Credited net value, in the currency; additive, exact.';

CREATE VIEW reporting.daily_changes AS
SELECT r.tenant_id, r.reported_day, r.reported_day::timestamp AT TIME ZONE 'UTC' AS charted_at, r.reason, r.day,
       r.conversion_type, r.currency, m.model, r.grain AS dimension, r.name,
       round(r.credit_billionths[m.number] / 1e9::numeric, 6) AS credit,
       round(r.value_micros[m.number] / 1e6::numeric, 6) AS value
FROM attribution_rollup_restatements r
JOIN attribution_rollup_state s ON s.tenant_id = r.tenant_id AND s.is_counted
JOIN attribution_rollup_models m ON m.tenant_id = r.tenant_id
WHERE r.credit_billionths[m.number] <> 0 OR r.value_micros[m.number] <> 0;
COMMENT ON VIEW reporting.daily_changes IS 'What changed the credit of reporting.daily_credit, by the day on which it was reported and by reason: all changes of a name and day sum to its row there. What stood on the evening of a day is the row less the changes reported later.';
COMMENT ON COLUMN reporting.daily_changes.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.daily_changes.reported_day IS 'Day on which the change was computed, in the tenant''s time zone (reporting.rollups).';
COMMENT ON COLUMN reporting.daily_changes.charted_at IS 'That day as midnight UTC: for charts with an axis in UTC. No moment of its own.';
COMMENT ON COLUMN reporting.daily_changes.reason IS 'new, late_touchpoint, identity, restated, refund, final, model_refit, repair, erasure, retirement.';
COMMENT ON COLUMN reporting.daily_changes.day IS 'Day of the conversions with the changed credit, in the tenant''s time zone.';
COMMENT ON COLUMN reporting.daily_changes.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.daily_changes.currency IS 'ISO 4217; never add two. XXX: conversions without value.';
COMMENT ON COLUMN reporting.daily_changes.model IS 'first, last, linear, ...: choose one.';
COMMENT ON COLUMN reporting.daily_changes.dimension IS 'channel, platform or campaign: choose one.';
COMMENT ON COLUMN reporting.daily_changes.name IS 'The name of the dimension; (unattributed): what no touchpoint gets.';
COMMENT ON COLUMN reporting.daily_changes.credit IS 'By how much the credit changed; additive, each row rounded to a millionth.';
COMMENT ON COLUMN reporting.daily_changes.value IS 'By how much the credited net value changed, in the currency; additive, exact.';
