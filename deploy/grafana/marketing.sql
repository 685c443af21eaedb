-- The queries of the marketing dashboard, one panel each, on the views of the schema `reporting`: on the daily ones, which
-- come from the roll-up, wherever they know the answer. Money is in units of its currency; a conversion counts with its
-- newest version. charted_at is the tenant's day as midnight UTC, and the dashboard's time zone is UTC. $__timeFilter is Grafana's macro; $tenant, $currency, $model,
-- $models and $type are the dashboard's variables.
--
--   row: TITLE                                   begins a row of panels
--   panel (KIND, UNIT, WIDTHxHEIGHT): TITLE      KIND is Grafana's, or matrix: first column x second column
--   about: SENTENCE                              what the panel says
--   thresholds: YELLOW RED                       where its colour changes

-- row: What stands

-- panel (stat, locale, 4x4): Conversions
-- about: Conversions of the period in the chosen currency and types.
SELECT COALESCE(sum(conversions), 0) AS conversions
FROM reporting.daily_conversions
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND $__timeFilter(charted_at);

-- panel (stat, locale, 4x4): Net revenue, $currency
-- about: Value less refunds. Currencies are never added up.
SELECT round(sum(net_value), 2) AS revenue
FROM reporting.daily_conversions
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND $__timeFilter(charted_at);

-- panel (stat, percentunit, 4x4): Unattributed by $model
-- about: Share of conversions that no touchpoint gets: no touchpoint in the lookback window, or the model's baseline.
-- thresholds: 0.4 0.7
SELECT COALESCE(sum(credit) FILTER (WHERE name = '(unattributed)'), 0) / NULLIF(sum(credit), 0) AS unattributed
FROM reporting.daily_credit
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model = ${model:sqlstring} AND $__timeFilter(charted_at);

-- panel (stat, percentunit, 4x4): Credited by a fallback rule
-- about: Share of conversions for which $model had no usable version or too little data. Its numbers are then the rule's.
-- thresholds: 0.1 0.5
SELECT avg((m.fallback IS NOT NULL)::int) AS fallback
FROM reporting.results r
CROSS JOIN LATERAL jsonb_to_recordset(r.models) AS m (model text, fallback text)
WHERE r.tenant_id = ${tenant:sqlstring} AND r.currency = ${currency:sqlstring}
  AND r.conversion_type IN (${type:sqlstring}) AND m.model = ${model:sqlstring} AND $__timeFilter(r.converted_at);

-- panel (stat, percentunit, 4x4): Final
-- about: Share of conversions that the lateness policy has closed. The others may still change.
SELECT sum(final_conversions) / NULLIF(sum(conversions), 0) AS final
FROM reporting.daily_conversions
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND $__timeFilter(charted_at);

-- panel (stat, locale, 4x4): Over-refunded conversions
-- about: Refunds exceed the value: credited with a negative value. attributary explain names the refunds.
-- thresholds: 1 10
SELECT count(*) AS over_refunded
FROM reporting.conversions
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND net_value < 0 AND gross_value >= 0 AND $__timeFilter(converted_at);

-- panel (stat, dateTimeAsIso, 4x4): Roll-up complete to
-- about: Computing time of the newest result in the sums by day. Empty: start the reporter, or attributary rebuild --rollup.
SELECT (EXTRACT(epoch FROM complete_to) * 1000)::bigint AS complete_to
FROM reporting.rollups
WHERE tenant_id = ${tenant:sqlstring};

-- row: Who gets the credit

-- panel (barchart, locale, 12x9): Net revenue by channel, $model, $currency
-- about: Credited net revenue. The bars add up to the net revenue of the period.
SELECT name AS channel, round(sum(value), 2) AS revenue
FROM reporting.daily_credit
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model = ${model:sqlstring} AND $__timeFilter(charted_at)
GROUP BY name
ORDER BY revenue DESC;

-- panel (matrix, locale, 12x9): Net revenue by channel and model, $currency
-- about: Models side by side. Each column adds up to the net revenue of the period.
SELECT name AS channel, model, round(sum(value), 2) AS revenue
FROM reporting.daily_credit
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model IN (${models:sqlstring}) AND $__timeFilter(charted_at)
GROUP BY name, model
ORDER BY name, model;

-- panel (table, locale, 12x9): Campaigns, $model, $currency
-- about: The 50 campaigns with the most credited net revenue; conversions are credit, they add up.
SELECT name AS campaign,
       round(sum(credit), 2) AS conversions,
       round(sum(value), 2) AS revenue
FROM reporting.daily_credit
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'campaign' AND model = ${model:sqlstring} AND $__timeFilter(charted_at)
GROUP BY name
ORDER BY revenue DESC
LIMIT 50;

-- panel (matrix, locale, 12x9): Conversions by channel and model
-- about: Credit as conversions. Each column adds up to the conversions of the period.
SELECT name AS channel, model, round(sum(credit), 2) AS conversions
FROM reporting.daily_credit
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model IN (${models:sqlstring}) AND $__timeFilter(charted_at)
GROUP BY name, model
ORDER BY name, model;

-- row: Over time

-- panel (timeseries, locale, 12x9): Net revenue a day by channel, $model, $currency
-- about: By the tenant's day of the conversion, whatever the viewer's time zone is. The last days still change.
SELECT charted_at AS time, name AS metric, round(sum(value), 2) AS revenue
FROM reporting.daily_credit
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model = ${model:sqlstring} AND $__timeFilter(charted_at)
GROUP BY 1, 2
ORDER BY 1, 2;

-- panel (timeseries, locale, 12x9): Conversions a day by type
-- about: By the tenant's day of the conversion.
SELECT charted_at AS time, conversion_type AS metric, sum(conversions) AS conversions
FROM reporting.daily_conversions
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND $__timeFilter(charted_at)
GROUP BY 1, 2
ORDER BY 1, 2;

-- panel (timeseries, locale, 24x8): Touchpoints a day by channel
-- about: Of people, not of robots. A channel that falls to nothing is often a tag that broke.
SELECT date_trunc('day', occurred_at, 'UTC') AS time, channel AS metric, count(*) AS touchpoints
FROM reporting.touchpoints
WHERE tenant_id = ${tenant:sqlstring} AND NOT is_bot AND $__timeFilter(occurred_at)
GROUP BY 1, 2
ORDER BY 1, 2;

-- row: Why results stand as they do

-- panel (table, locale, 12x8): What changed, by reason, $model, $currency
-- about: Changes that were reported in the period, whenever the conversions were: what they did to conversions and revenue.
SELECT reason,
       round(sum(credit), 2) AS conversions,
       round(sum(value), 2) AS revenue
FROM reporting.daily_changes
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model = ${model:sqlstring} AND $__timeFilter(charted_at)
GROUP BY reason
ORDER BY abs(sum(value)) DESC, reason;

-- panel (matrix, locale, 12x8): What changed by channel and reason, $model, $currency
-- about: The same by channel, in revenue. Late touchpoints and identity links move it between channels and leave the sum.
SELECT name AS channel, reason, round(sum(value), 2) AS revenue
FROM reporting.daily_changes
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND dimension = 'channel' AND model = ${model:sqlstring} AND $__timeFilter(charted_at)
GROUP BY name, reason
ORDER BY name, reason;

-- panel (table, locale, 12x8): Conversions by type
-- about: Gross less refunds is net. Final conversions do not change any more.
SELECT conversion_type AS type,
       count(*) AS conversions,
       round(sum(net_value), 2) AS net_revenue,
       round(sum(gross_value - net_value), 2) AS refunded,
       count(*) FILTER (WHERE is_final) AS final
FROM reporting.conversions
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND $__timeFilter(converted_at)
GROUP BY 1
ORDER BY 2 DESC;

-- panel (table, locale, 12x8): Reasons of the newest versions
-- about: Why the newest version of each conversion exists: a late touchpoint, a refund, an identity link, ...
SELECT version_reason AS reason,
       count(*) AS conversions,
       round(avg(version), 2) AS versions_each,
       round(avg(touchpoint_count), 1) AS touchpoints_each
FROM reporting.results
WHERE tenant_id = ${tenant:sqlstring} AND currency = ${currency:sqlstring} AND conversion_type IN (${type:sqlstring})
  AND $__timeFilter(converted_at)
GROUP BY 1
ORDER BY 2 DESC;
