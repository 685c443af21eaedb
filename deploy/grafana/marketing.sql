-- The queries of the marketing dashboard, one panel each, on the views of the schema `reporting`. Money is in units of
-- its currency; a conversion counts with its newest version. $__timeFilter is Grafana's macro.

-- panel (table): Revenue by channel and model
SELECT name AS channel,
       model,
       currency,
       round(sum(value), 2) AS revenue,
       round(sum(credit)::numeric, 2) AS conversions
FROM reporting.credit
WHERE dimension = 'channel' AND $__timeFilter(converted_at)
GROUP BY 1, 2, 3
ORDER BY 2, 4 DESC;

-- panel (table): Revenue by campaign, last-touch beside time-decay
SELECT name AS campaign,
       currency,
       round(sum(value) FILTER (WHERE model = 'last'), 2) AS last_touch,
       round(sum(value) FILTER (WHERE model = 'time_decay'), 2) AS time_decay
FROM reporting.credit
WHERE dimension = 'campaign' AND model IN ('last', 'time_decay') AND $__timeFilter(converted_at)
GROUP BY 1, 2
ORDER BY 4 DESC NULLS LAST
LIMIT 50;

-- panel (timeseries): Net revenue per day
SELECT date_trunc('day', converted_at) AS time, currency AS metric, sum(net_value) AS revenue
FROM reporting.conversions
WHERE $__timeFilter(converted_at)
GROUP BY 1, 2
ORDER BY 1;

-- panel (timeseries): Touchpoints per hour and channel
SELECT date_trunc('hour', occurred_at) AS time, channel AS metric, count(*) AS touchpoints
FROM reporting.touchpoints
WHERE $__timeFilter(occurred_at) AND NOT is_bot
GROUP BY 1, 2
ORDER BY 1;

-- panel (table): Conversions by type
SELECT conversion_type,
       currency,
       count(*) AS conversions,
       round(sum(net_value), 2) AS net_revenue,
       round(sum(gross_value - net_value), 2) AS refunded,
       count(*) FILTER (WHERE is_final) AS final
FROM reporting.conversions
WHERE $__timeFilter(converted_at)
GROUP BY 1, 2
ORDER BY 3 DESC;

-- panel (table): Why results stand as they do
SELECT version_reason AS reason,
       count(*) AS conversions,
       round(avg(version), 2) AS versions_each,
       round(avg(touchpoint_count), 1) AS touchpoints_each
FROM reporting.results
WHERE $__timeFilter(converted_at)
GROUP BY 1
ORDER BY 2 DESC;
