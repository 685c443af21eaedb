"""The statements of the roll-up, and its staging table: set-based, one a batch, never one a record.

Invariant: each names the tenant, and the roll-up of the tenant is locked by ``LOCK`` before any of the others.
"""

from __future__ import annotations

STAGED = (
    ("tenant_id", "text"), ("reported_day", "date"), ("reason", "text"), ("grain", "text"), ("cash_day", "date"),
    ("accrual_day", "date"), ("conversion_type", "text"), ("currency", "text"), ("is_new", "bool"), ("model", "text"),
    ("channel", "text"), ("platform", "text"), ("campaign_id", "text"), ("campaign", "text"),
    ("credit_billionths", "int8"), ("value_micros", "int8"), ("journeys", "int8"), ("squares", "int8"),
)  # fmt: skip
# What makes a row of the roll-up, beside the tenant.
ROW = "grain, dating, day, conversion_type, currency, is_new, model, channel, platform, campaign_id, campaign"
COUNTED = (
    ("tenant_id", "text"), ("kind", "text"), ("day", "date"), ("conversion_type", "text"), ("currency", "text"),
    ("model", "text"), ("name", "text"), ("part", "text"), ("number", "int4"), ("delay", "int4"),
    ("conversions", "int8"), ("value_micros", "int8"), ("credit_billionths", "int8"),
)  # fmt: skip
TABLE = ";".join(
    f"CREATE TEMP TABLE IF NOT EXISTS {table} "
    f"({', '.join(f'{name} {kind}' for name, kind in columns)}) ON COMMIT DELETE ROWS"
    for table, columns in (("stg_rollup", STAGED), ("stg_rollup_counts", COUNTED))
)
SETTINGS = """
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off;
SET enable_memoize = off; SET join_collapse_limit = 1; SET from_collapse_limit = 1;
SET plan_cache_mode = force_custom_plan; SET idle_in_transaction_session_timeout = '20s';  -- see staging.py
"""

OPEN = """
INSERT INTO attribution_rollup_state (tenant_id, time_zone)
SELECT n.tenant_id, COALESCE(t.time_zone, 'UTC') FROM unnest(%s::text[]) AS n (tenant_id)
LEFT JOIN attribution_tenants t ON t.tenant_id = n.tenant_id COLLATE "C"
ORDER BY n.tenant_id COLLATE "C" ON CONFLICT (tenant_id) DO NOTHING
"""
LOCK = """
SELECT tenant_id, time_zone FROM attribution_rollup_state WHERE tenant_id = ANY (%s::text[])
ORDER BY tenant_id FOR UPDATE
"""
RETIRED = """
SELECT k.tenant_id, k.conversion_md5 FROM unnest(%s::text[], %s::uuid[]) AS k (tenant_id, conversion_md5)
JOIN attribution_retired_conversions m ON m.tenant_id = k.tenant_id COLLATE "C" AND m.conversion_md5 = k.conversion_md5
"""
HELD = """
SELECT c.tenant_id, c.conversion_md5, c.person_md5, c.version, c.reported_at_us, c.conversion_type, c.currency,
       c.converted_at_us, c.is_new, c.net_micros, c.cells, c.first_reported_at_us, c.first_channel
FROM unnest(%s::text[], %s::uuid[]) AS k (tenant_id, conversion_md5)
JOIN attribution_rollup_conversions c ON c.tenant_id = k.tenant_id COLLATE "C" AND c.conversion_md5 = k.conversion_md5
"""
STORE = """
INSERT INTO attribution_rollup_conversions AS c (
    tenant_id, conversion_md5, person_md5, version, reported_at_us, conversion_type, currency, converted_at_us, is_new,
    net_micros, cells, first_reported_at_us, first_channel)
SELECT n.* FROM unnest(%b::text[], %s::uuid[], %s::uuid[], %s::int8[], %s::int8[], %b::text[], %b::text[], %s::int8[],
                       %s::bool[], %s::int8[], %b::text[], %s::int8[], %b::text[])
    AS n (tenant_id, conversion_md5, person_md5, version, reported_at_us, conversion_type, currency, converted_at_us,
          is_new, net_micros, cells, first_reported_at_us, first_channel)
ON CONFLICT (tenant_id, conversion_md5) DO UPDATE SET
    person_md5 = excluded.person_md5, version = excluded.version, reported_at_us = excluded.reported_at_us,
    conversion_type = excluded.conversion_type, currency = excluded.currency,
    converted_at_us = excluded.converted_at_us, is_new = excluded.is_new, net_micros = excluded.net_micros,
    cells = excluded.cells, first_reported_at_us = excluded.first_reported_at_us,
    first_channel = excluded.first_channel, updated_at = now()
"""
DELETE = """
DELETE FROM attribution_rollup_conversions c USING unnest(%s::text[], %s::uuid[]) AS k (tenant_id, conversion_md5)
WHERE c.tenant_id = k.tenant_id COLLATE "C" AND c.conversion_md5 = k.conversion_md5
"""
# Of each person the earliest conversion, and those that are marked as it: at most a few rows a person, by index.
FIRST = """
SELECT p.seq, f.conversion_md5, EXISTS (
    SELECT FROM attribution_rollup_people r WHERE r.tenant_id = p.tenant_id COLLATE "C"
      AND r.person_md5 = p.person_md5 AND r.conversion_type = p.conversion_type COLLATE "C")
FROM unnest(%s::text[], %s::uuid[], %s::text[]) WITH ORDINALITY AS p (tenant_id, person_md5, conversion_type, seq)
CROSS JOIN LATERAL (
    SELECT c.conversion_md5 FROM attribution_rollup_conversions c
    WHERE c.tenant_id = p.tenant_id COLLATE "C" AND c.person_md5 = p.person_md5
      AND c.conversion_type = p.conversion_type COLLATE "C"
    ORDER BY c.converted_at_us, c.conversion_md5 LIMIT 1
) AS f
"""
MARKED = """
SELECT c.tenant_id, c.conversion_md5, c.person_md5, c.conversion_type
FROM unnest(%s::text[], %s::uuid[], %s::text[]) AS p (tenant_id, person_md5, conversion_type)
JOIN attribution_rollup_conversions c
  ON c.tenant_id = p.tenant_id COLLATE "C" AND c.person_md5 = p.person_md5
 AND c.conversion_type = p.conversion_type COLLATE "C" AND c.is_new
"""
MARK = """
UPDATE attribution_rollup_conversions c SET is_new = k.is_new, updated_at = now()
FROM unnest(%s::text[], %s::uuid[], %s::bool[]) AS k (tenant_id, conversion_md5, is_new)
WHERE c.tenant_id = k.tenant_id COLLATE "C" AND c.conversion_md5 = k.conversion_md5
"""
# All conversions of people, before anything is stored.
BOUGHT = """
SELECT c.tenant_id, c.person_md5, c.conversion_type, c.conversion_md5, c.converted_at_us, c.currency, c.net_micros,
       c.first_channel
FROM unnest(%s::text[], %s::uuid[], %s::text[]) AS p (tenant_id, person_md5, conversion_type)
JOIN attribution_rollup_conversions c
  ON c.tenant_id = p.tenant_id COLLATE "C" AND c.person_md5 = p.person_md5
 AND c.conversion_type = p.conversion_type COLLATE "C"
"""
SPREAD = """
SELECT s.*, d.dating, d.day, md5(ROW(
    s.grain, d.dating, d.day - DATE '2000-01-01', s.conversion_type, s.currency, s.is_new, s.model, s.channel,
    s.platform, s.campaign_id, s.campaign)::text)::uuid AS row_md5
FROM stg_rollup s CROSS JOIN LATERAL (VALUES ('cash', s.cash_day), ('accrual', s.accrual_day)) AS d (dating, day)
WHERE d.dating = 'cash' OR s.grain = 'touch'
"""
SUM_DAYS = f"""
WITH spread AS ({SPREAD})
INSERT INTO attribution_rollup_days AS d (
    tenant_id, row_md5, {ROW}, credit_billionths, value_micros, journeys, squares)
SELECT tenant_id, row_md5, {ROW}, sum(credit_billionths), sum(value_micros), sum(journeys), sum(squares)
FROM spread GROUP BY tenant_id, row_md5, {ROW}
ON CONFLICT (tenant_id, row_md5) DO UPDATE SET
    credit_billionths = d.credit_billionths + excluded.credit_billionths,
    value_micros = d.value_micros + excluded.value_micros, journeys = d.journeys + excluded.journeys,
    squares = d.squares + excluded.squares, updated_at = now()
"""
SUM_CHANGES = f"""
WITH spread AS ({SPREAD})
INSERT INTO attribution_rollup_changes AS c (
    tenant_id, row_md5, reported_day, reason, credit_billionths, value_micros)
SELECT tenant_id, row_md5, reported_day, reason, sum(credit_billionths), sum(value_micros)
FROM spread WHERE grain = 'touch' GROUP BY tenant_id, row_md5, reported_day, reason
ON CONFLICT (tenant_id, row_md5, reported_day, reason) DO UPDATE SET
    credit_billionths = c.credit_billionths + excluded.credit_billionths,
    value_micros = c.value_micros + excluded.value_micros, updated_at = now()
"""
SUM_RESTATEMENTS = """
INSERT INTO attribution_rollup_restatements AS r (
    tenant_id, row_md5, grain, reported_day, reason, day, conversion_type, currency, model, name, credit_billionths,
    value_micros)
SELECT s.tenant_id, md5(ROW(
           s.grain, s.reported_day - DATE '2000-01-01', s.reason, s.cash_day - DATE '2000-01-01', s.conversion_type,
           s.currency, s.model, n.name)::text)::uuid,
       s.grain, s.reported_day, s.reason, s.cash_day, s.conversion_type, s.currency, s.model, n.name,
       sum(s.credit_billionths), sum(s.value_micros)
FROM stg_rollup s CROSS JOIN LATERAL (VALUES (s.channel || s.platform || s.campaign)) AS n (name)  -- two are empty
WHERE s.grain <> 'touch'
GROUP BY s.tenant_id, s.grain, s.reported_day, s.reason, s.cash_day, s.conversion_type, s.currency, s.model, n.name
HAVING sum(s.credit_billionths) <> 0 OR sum(s.value_micros) <> 0
ON CONFLICT (tenant_id, row_md5) DO UPDATE SET
    credit_billionths = r.credit_billionths + excluded.credit_billionths,
    value_micros = r.value_micros + excluded.value_micros, updated_at = now()
"""
SUM_COUNTS = """
INSERT INTO attribution_rollup_counts AS c (
    tenant_id, row_md5, kind, day, conversion_type, currency, model, name, part, number, delay, conversions,
    value_micros, credit_billionths)
SELECT tenant_id, md5(ROW(
           kind, day - DATE '2000-01-01', conversion_type, currency, model, name, part, number, delay)::text)::uuid,
       kind, day, conversion_type, currency, model, name, part, number, delay, conversions, value_micros,
       credit_billionths
FROM stg_rollup_counts
ON CONFLICT (tenant_id, row_md5) DO UPDATE SET
    conversions = c.conversions + excluded.conversions, value_micros = c.value_micros + excluded.value_micros,
    credit_billionths = c.credit_billionths + excluded.credit_billionths, updated_at = now()
"""
NAME = """
INSERT INTO attribution_rollup_campaigns AS c (tenant_id, platform, campaign_id, campaign, named_at_us)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::int8[])
ON CONFLICT (tenant_id, platform, campaign_id) DO UPDATE SET
    campaign = excluded.campaign, named_at_us = excluded.named_at_us, updated_at = now()
WHERE (excluded.named_at_us, excluded.campaign) > (c.named_at_us, c.campaign)
"""
REVISE = """
UPDATE attribution_rollup_state s SET revision = s.revision + 1, updated_at = now(),
    reported_until_us = GREATEST(s.reported_until_us, n.until_us)
FROM unnest(%s::text[], %s::int8[]) AS n (tenant_id, until_us) WHERE s.tenant_id = n.tenant_id COLLATE "C"
"""
