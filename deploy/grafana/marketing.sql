-- The queries of the marketing dashboard, one panel each. Money is shown in units of its currency; a conversion counts
-- with its newest version. $__timeFilter and $__unixEpochFilter are Grafana's macros.

-- panel (table): Revenue by channel and model
WITH newest AS (
    SELECT DISTINCT ON (tenant_id, conversion_id) tenant_id, currency, models
    FROM attribution_results
    WHERE $__timeFilter(to_timestamp(converted_at_us / 1e6))
    ORDER BY tenant_id, conversion_id, version DESC
)
SELECT rollup ->> 'name' AS channel,
       model ->> 'model' AS model,
       newest.currency,
       round(sum((rollup ->> 'value_micros')::bigint) / 1e6, 2) AS revenue,
       round(sum((rollup ->> 'credit')::numeric), 2) AS conversions
FROM newest
CROSS JOIN LATERAL jsonb_array_elements(newest.models) AS model
CROSS JOIN LATERAL jsonb_array_elements(model -> 'rollups') AS rollup
WHERE rollup ->> 'dimension' = 'channel'
GROUP BY 1, 2, 3
ORDER BY 2, 4 DESC;

-- panel (timeseries): Net revenue per day
SELECT date_trunc('day', to_timestamp(converted_at_us / 1e6)) AS time,
       currency AS metric,
       sum(net_value_micros) / 1e6 AS revenue
FROM attribution_conversions
WHERE $__timeFilter(to_timestamp(converted_at_us / 1e6))
GROUP BY 1, 2
ORDER BY 1;

-- panel (timeseries): Touchpoints per hour and channel
SELECT date_trunc('hour', to_timestamp(occurred_at_us / 1e6)) AS time,
       channel AS metric,
       count(*) AS touchpoints
FROM attribution_touchpoints
WHERE $__timeFilter(to_timestamp(occurred_at_us / 1e6)) AND NOT is_bot
GROUP BY 1, 2
ORDER BY 1;

-- panel (table): Conversions by type
SELECT conversion_type,
       currency,
       count(*) AS conversions,
       round(sum(net_value_micros) / 1e6, 2) AS net_revenue,
       round(sum(gross_value_micros - net_value_micros) / 1e6, 2) AS refunded,
       count(*) FILTER (WHERE is_final) AS final
FROM attribution_conversions
WHERE $__timeFilter(to_timestamp(converted_at_us / 1e6)) AND version > 0
GROUP BY 1, 2
ORDER BY 3 DESC;

-- panel (table): Deliveries by destination
SELECT destination, state, coalesce(reason, '') AS reason, count(*) AS events, max(updated_at) AS latest
FROM attribution_deliveries
WHERE $__timeFilter(occurred_at)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 4 DESC;

-- panel (table): Why results were restated
SELECT version_reason, count(*) AS versions, round(sum(delta_micros) / 1e6, 2) AS revenue_change
FROM attribution_results
WHERE $__timeFilter(created_at)
GROUP BY 1
ORDER BY 2 DESC;
