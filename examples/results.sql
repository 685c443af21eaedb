-- Results in SQL, for a login that `attributary tenants reader` made (schema `reporting`).
--   psql "$DATABASE_URL" -v tenant=acme -v day=2026-11-24 -f examples/results.sql

-- 1. Conversions and revenue by channel, as every model sees them, now.
SELECT model, name AS channel, currency, round(sum(credit)::numeric, 2) AS conversions, round(sum(value), 2) AS revenue
FROM reporting.credit
WHERE tenant_id = :'tenant' AND dimension = 'channel'
GROUP BY model, name, currency
ORDER BY model, revenue DESC;

-- 2. What was reported at the beginning of a day: the version of each conversion that was the newest one then.
SELECT currency, count(*) AS conversions, round(sum(net_value), 2) AS revenue
FROM reporting.result_versions
WHERE tenant_id = :'tenant'
  AND reported_from <= :'day'::timestamptz
  AND (reported_until > :'day'::timestamptz OR reported_until IS NULL)
GROUP BY currency;

-- 3. Why results changed: versions by reason.
SELECT version_reason, count(*) AS versions
FROM reporting.result_versions
WHERE tenant_id = :'tenant'
GROUP BY version_reason
ORDER BY versions DESC;

-- 4. Conversions by the channel that opened their journey.
SELECT results.touchpoints -> 0 ->> 'channel' AS opener, count(*) AS conversions
FROM reporting.results
WHERE tenant_id = :'tenant' AND touchpoint_count > 0
GROUP BY opener
ORDER BY conversions DESC;
