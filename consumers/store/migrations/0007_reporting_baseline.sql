-- A model with a baseline leaves a part of a conversion to nobody although there are touchpoints: that part is
-- "(unattributed)" as well, so that credits still sum to 1 and values to the net value.

CREATE OR REPLACE VIEW reporting.credit AS
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
    SELECT dimension, '(unattributed)', rest.credit, m.unattributed_micros
    FROM unnest(ARRAY['platform', 'channel', 'campaign']) AS dimension
    CROSS JOIN (SELECT 1.0 - COALESCE(sum(credit::float8), 0.0) AS credit
                FROM jsonb_array_elements_text(m.credits) AS c (credit)) AS rest
    WHERE r.touchpoint_count = 0 OR m.unattributed_micros <> 0 OR rest.credit > 1e-9
) AS u;
