"""The statements of `report_reads`; their parts {newest}, {touches}, {name}, {inside} are constants of this module.

Invariant: credits are summed as decimals, exactly: a sum does not depend on the order in which a plan reads rows.
What is summed further comes in order.
"""

from __future__ import annotations

NAMES = {
    "channel": "COALESCE(t.touch ->> 'channel', '')",
    "platform": "COALESCE(t.touch ->> 'platform', '')",
    "campaign": "COALESCE(NULLIF(t.touch ->> 'campaign', ''), '(none)')",
}
FILTER = """
    AND n.converted_at_us >= %(from_us)s AND n.converted_at_us < %(to_us)s AND n.currency = %(currency)s
    AND (%(types)s::text[] IS NULL OR n.conversion_type = ANY (%(types)s))
"""
_NEWEST = f"""
WITH newest AS MATERIALIZED (
    SELECT n.* FROM (
        SELECT DISTINCT conversion_id FROM attribution_results
        WHERE tenant_id = %(tenant)s AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
    ) AS c CROSS JOIN LATERAL (
        SELECT r.conversion_id, r.conversion_type, r.currency, r.journey_key, r.converted_at_us, r.net_value_micros,
               r.touchpoint_count, r.is_final, {{json}} r.version
        FROM attribution_results r
        WHERE r.tenant_id = %(tenant)s AND r.conversion_id = c.conversion_id AND r.computed_at_us <= %(as_of_us)s
        ORDER BY r.version DESC LIMIT 1
    ) AS n
    WHERE true {FILTER}
)
"""
_PLAIN = _NEWEST.format(json="")
PATHS_OF = _NEWEST.format(json="r.touchpoints,")
WHOLE = _NEWEST.format(json="r.touchpoints, r.models,")
_DAY = "(to_timestamp({micros} / 1000000) AT TIME ZONE %(zone)s)::date"
_MONTH = "date_trunc('month', to_timestamp({micros} / 1000000) AT TIME ZONE %(zone)s)::date"
# Touches of each conversion with the credit of each model, in the order of time.
TOUCHES = """, touches AS (
    SELECT n.conversion_id, n.converted_at_us, n.touchpoint_count AS steps, m.model, t.place, {name} AS name,
           (t.touch ->> 'occurred_at')::int8 AS occurred_at_us, t.credit::numeric AS credit, t.micros::int8 AS micros
    FROM newest n CROSS JOIN LATERAL jsonb_to_recordset(n.models) AS m (model text, credits jsonb, micros jsonb)
    CROSS JOIN LATERAL ROWS FROM (
        jsonb_array_elements(n.touchpoints), jsonb_array_elements_text(m.credits), jsonb_array_elements_text(m.micros)
    ) WITH ORDINALITY AS t (touch, credit, micros, place)
    WHERE m.model = ANY (%(models)s)
)
"""
TOTALS = f"""
{_PLAIN.replace("AND n.currency = %(currency)s", "")}
SELECT currency, count(*), sum(net_value_micros)::int8, count(*) FILTER (WHERE is_final)
FROM newest GROUP BY 1 ORDER BY 2 DESC, 1
"""
MODELS = f"{WHOLE} SELECT DISTINCT m ->> 'model' FROM newest CROSS JOIN jsonb_array_elements(models) AS m ORDER BY 1"
CREDITS = """{newest}{touches}, parts AS (
    SELECT conversion_id, model, name, sum(credit) AS credit, sum(micros) AS micros FROM touches GROUP BY 1, 2, 3
)
SELECT model, name, count(*), sum(credit)::float8, sum(credit * credit)::float8, sum(micros)::int8
FROM parts GROUP BY 1, 2 ORDER BY 1, 2
"""
RESTS = f"""{WHOLE}, rests AS (
    SELECT m.model, n.touchpoint_count = 0 AS is_empty, m.unattributed_micros AS micros, m.fallback,
           1.0 - COALESCE((SELECT sum(c.credit::numeric) FROM jsonb_array_elements_text(m.credits) AS c (credit)), 0.0)
               AS credit
    FROM newest n CROSS JOIN LATERAL jsonb_to_recordset(n.models)
        AS m (model text, credits jsonb, unattributed_micros int8, fallback text)
    WHERE m.model = ANY (%(models)s)
)
SELECT model, count(*), count(*) FILTER (WHERE fallback IS NOT NULL),
       COALESCE(sum(1.0) FILTER (WHERE is_empty), 0)::float8, COALESCE(sum(micros) FILTER (WHERE is_empty), 0)::int8,
       COALESCE(sum(credit) FILTER (WHERE NOT is_empty AND credit > 1e-9), 0.0)::float8,
       COALESCE(sum(micros) FILTER (WHERE NOT is_empty), 0)::int8,
       COALESCE(sum(credit * credit) FILTER (WHERE credit > 1e-9), 0.0)::float8
FROM rests GROUP BY 1 ORDER BY 1
"""
USES = f"""{WHOLE}
SELECT m.model, m.model_version, m.fallback, count(*)
FROM newest n CROSS JOIN LATERAL jsonb_to_recordset(n.models) AS m (model text, model_version text, fallback text)
WHERE m.model = ANY (%(models)s) GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC, 2, 3 NULLS FIRST
"""
# A quarter of the touches, half rounded up, is early; a quarter rounded up is late; a single touch is late.
POSITIONS = """{newest}{touches}
SELECT name, CASE WHEN place > steps - ceil(steps / 4.0) THEN 'late'
                  WHEN steps > 1 AND place <= floor(steps / 4.0 + 0.5) THEN 'early' ELSE 'mid' END,
       sum(credit)::float8, sum(micros)::int8
FROM touches GROUP BY 1, 2 ORDER BY 1, 2
"""
ASSISTS = """{newest}, names AS (
    SELECT n.conversion_id, {name} AS name, bool_or(t.place = n.touchpoint_count) AS is_last,
           bool_or(t.place < n.touchpoint_count) AS is_earlier
    FROM newest n CROSS JOIN LATERAL jsonb_array_elements(n.touchpoints) WITH ORDINALITY AS t (touch, place)
    GROUP BY 1, 2
)
SELECT name, count(*), count(*) FILTER (WHERE is_earlier), count(*) FILTER (WHERE is_last),
       count(*) FILTER (WHERE is_earlier AND NOT is_last)
FROM names GROUP BY 1
"""
PATHS = """{newest}, paths AS (
    SELECT (
        SELECT array_agg({name} ORDER BY t.place)
        FROM jsonb_array_elements(n.touchpoints) WITH ORDINALITY AS t (touch, place)
    ) AS steps, n.net_value_micros
    FROM newest n
)
SELECT COALESCE(steps, ARRAY[]::text[]), count(*), sum(net_value_micros)::int8 FROM paths GROUP BY 1
"""
LAGS = f"""{PATHS_OF}
SELECT v.is_first, (n.converted_at_us - (n.touchpoints -> v.place ->> 'occurred_at')::int8) / 86400000000, count(*),
       sum(n.net_value_micros)::int8
FROM newest n CROSS JOIN (VALUES (true, 0), (false, -1)) AS v (is_first, place) WHERE n.touchpoint_count > 0
GROUP BY 1, 2
"""
_CASH = _DAY.format(micros="converted_at_us")
_ACCRUAL = _DAY.format(micros="occurred_at_us")
DAYS = f"""{{newest}}{{touches}}, dated AS (
    SELECT {_CASH} AS cash, {_ACCRUAL} AS accrual, sum(credit) AS credit, sum(micros) AS micros
    FROM touches GROUP BY 1, 2
)
SELECT cash, accrual, sum(credit)::float8, sum(micros)::int8
FROM dated GROUP BY GROUPING SETS ((cash), (accrual)) ORDER BY 1, 2
"""
REST_DAYS = f"""{WHOLE}
SELECT {_CASH}, count(*), count(*) FILTER (WHERE is_final), sum(net_value_micros)::int8,
       COALESCE(sum(m.unattributed_micros), 0)::int8, COALESCE(sum(1.0 - COALESCE((
           SELECT sum(c.credit::numeric) FROM jsonb_array_elements_text(m.credits) AS c (credit)), 0.0)), 0.0)::float8
FROM newest LEFT JOIN LATERAL (
    SELECT * FROM jsonb_to_recordset(models) AS a (model text, credits jsonb, unattributed_micros int8)
    WHERE a.model = ANY (%(models)s)
) AS m ON true
GROUP BY 1
"""
# A person's first conversion of a type is looked for in all that is stored, not in the period alone.
COHORTS = f"""
WITH history AS MATERIALIZED (
    SELECT DISTINCT ON (n.conversion_id) n.conversion_id, n.conversion_type, n.currency, n.journey_key,
           n.converted_at_us, n.net_value_micros,
           COALESCE(n.touchpoints -> 0 ->> 'channel', '(no touchpoint)') AS channel
    FROM attribution_results n WHERE n.tenant_id = %(tenant)s AND n.computed_at_us <= %(as_of_us)s
    ORDER BY n.conversion_id, n.version DESC
), firsts AS (
    SELECT DISTINCT ON (journey_key, conversion_type) journey_key, conversion_type, channel, converted_at_us,
           {_MONTH.format(micros="converted_at_us")} AS month
    FROM history n
    WHERE n.currency = %(currency)s AND (%(types)s::text[] IS NULL OR n.conversion_type = ANY (%(types)s))
    ORDER BY journey_key, conversion_type, converted_at_us, md5(conversion_id)  -- as the roll-up decides
), later AS (
    SELECT f.month, f.channel, h.journey_key, h.conversion_type, h.net_value_micros,
           {_MONTH.format(micros="h.converted_at_us")} AS at
    FROM firsts f JOIN history h USING (journey_key, conversion_type)
    WHERE h.currency = %(currency)s AND f.converted_at_us >= %(from_us)s AND f.converted_at_us < %(to_us)s
)
SELECT month, channel, (EXTRACT(year FROM age(at, month)) * 12 + EXTRACT(month FROM age(at, month)))::int,
       count(DISTINCT (journey_key, conversion_type)), count(*), sum(net_value_micros)::int8
FROM later GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
# When each conversion was first reported, beside the day of the conversion or of the touch that the credit is dated by.
_FIRST_REPORTED = """LATERAL (
    SELECT min(r.computed_at_us) AS reported_at_us FROM attribution_results r
    WHERE r.tenant_id = %(tenant)s AND r.conversion_id = n.conversion_id
) AS f"""
_REPORTED = _DAY.format(micros="reported_at_us")
CASH_DELAYS = f"""{_PLAIN}
SELECT {_CASH}, {_REPORTED} - {_CASH}, count(*)::float8 FROM newest n CROSS JOIN {_FIRST_REPORTED}
GROUP BY 1, 2 ORDER BY 1, 2
"""
ACCRUAL_DELAYS = f"""{{newest}}{{touches}}, dated AS (
    SELECT conversion_id, {_ACCRUAL} AS day, sum(credit) AS credit FROM touches GROUP BY 1, 2
)
SELECT day, {_REPORTED} - day, sum(credit)::float8 FROM dated n CROSS JOIN {_FIRST_REPORTED} GROUP BY 1, 2 ORDER BY 1, 2
"""
# What each version since a moment added to and took off each name. A version that left the period counts as nothing.
CHANGES = """
WITH changed AS (
    SELECT DISTINCT conversion_id FROM attribution_results
    WHERE tenant_id = %(tenant)s AND computed_at_us > %(since_us)s AND computed_at_us <= %(as_of_us)s
), versions AS (
    SELECT n.conversion_id, n.version, n.version_reason, n.computed_at_us, n.touchpoints, n.models, n.net_value_micros,
           (true {inside}) AS is_inside,
           n.converted_at_us, n.conversion_type,
           lead(n.version) OVER (PARTITION BY n.conversion_id ORDER BY n.version) AS next_version,
           lead(n.version_reason) OVER (PARTITION BY n.conversion_id ORDER BY n.version) AS next_reason,
           lead(n.computed_at_us) OVER (PARTITION BY n.conversion_id ORDER BY n.version) AS next_at
    FROM attribution_results n JOIN changed USING (conversion_id)
    WHERE n.tenant_id = %(tenant)s AND n.computed_at_us <= %(as_of_us)s
), signed AS (
    SELECT conversion_id, version, {day} AS day, conversion_type, touchpoints, models, version_reason AS reason,
           1 AS sign
    FROM versions WHERE is_inside AND computed_at_us > %(since_us)s
    UNION ALL
    SELECT conversion_id, next_version, {day}, conversion_type, touchpoints, models, next_reason, -1
    FROM versions WHERE is_inside AND next_at > %(since_us)s
), touched AS (  -- a version counts once a name, and once more where it moves the conversion to another day or type
    SELECT name, reason, count(DISTINCT (conversion_id, version, day, conversion_type)) AS versions FROM (
        SELECT n.*, {name} AS name FROM signed n CROSS JOIN LATERAL jsonb_array_elements(n.touchpoints) AS t (touch)
        UNION ALL SELECT n.*, '(unattributed)' FROM signed n
    ) AS each GROUP BY 1, 2
), parts AS (
    SELECT n.reason, n.sign, {name} AS name, t.credit::numeric AS credit, t.micros::int8 AS micros
    FROM signed n CROSS JOIN LATERAL jsonb_to_recordset(n.models) AS m (model text, credits jsonb, micros jsonb)
    CROSS JOIN LATERAL ROWS FROM (
        jsonb_array_elements(n.touchpoints), jsonb_array_elements_text(m.credits), jsonb_array_elements_text(m.micros)
    ) AS t (touch, credit, micros)
    WHERE m.model = ANY (%(models)s)
    UNION ALL
    SELECT n.reason, n.sign, '(unattributed)', 1.0 - COALESCE((
               SELECT sum(c.credit::numeric) FROM jsonb_array_elements_text(m.credits) AS c (credit)), 0.0),
           m.unattributed_micros
    FROM signed n CROSS JOIN LATERAL jsonb_to_recordset(n.models)
        AS m (model text, credits jsonb, unattributed_micros int8)
    WHERE m.model = ANY (%(models)s)
)
SELECT p.name, p.reason, t.versions, sum(p.sign * p.credit)::float8, sum(p.sign * p.micros)::int8
FROM parts p JOIN touched t USING (name, reason) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""".replace("{day}", _CASH)
REMOVED = """
SELECT bucket, sum(conversions)::int8, sum(net_micros)::int8 FROM attribution_removed_totals
WHERE tenant_id = %(tenant)s AND currency = %(currency)s
  AND EXTRACT(epoch FROM day)::int8 * 1000000 >= %(from_us)s AND EXTRACT(epoch FROM day)::int8 * 1000000 < %(to_us)s
  AND (%(types)s::text[] IS NULL OR conversion_type = ANY (%(types)s))
GROUP BY 1 HAVING sum(conversions) <> 0 OR sum(net_micros) <> 0 ORDER BY 1
"""
TOUCHPOINT_QUALITY = """
SELECT count(*), count(*) FILTER (WHERE is_bot), count(*) FILTER (WHERE campaign = ''),
       count(*) FILTER (WHERE channel IN ('', 'other', '(other)', 'unknown')),
       count(*) FILTER (WHERE received_at_us - occurred_at_us > 86400000000)
FROM (
    SELECT * FROM attribution_touchpoints
    WHERE tenant_id = %(tenant)s AND occurred_at_us >= %(from_us)s AND occurred_at_us < %(to_us)s
    LIMIT %(most)s
) AS t
"""
CONVERSION_QUALITY = """
SELECT count(*), count(*) FILTER (WHERE observed_version < version), count(*) FILTER (WHERE currency = 'XXX'),
       count(*) FILTER (WHERE received_at_us - converted_at_us > 86400000000),
       count(*) FILTER (WHERE net_value_micros < 0)
FROM (
    SELECT * FROM attribution_conversions
    WHERE tenant_id = %(tenant)s AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s AND version > 0
    LIMIT %(most)s
) AS c
"""
CONFLICTS = """
SELECT count(*) FROM (
    SELECT FROM attribution_event_conflicts
    WHERE tenant_id = %(tenant)s AND received_at_us >= %(from_us)s AND received_at_us < %(to_us)s
    LIMIT %(most)s
) AS c
"""
