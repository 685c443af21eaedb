-- Who owns an anonymous id, is owned or has a conversion has a row of attribution_journeys: the stitcher
-- takes people without one for new. Erasures before this migration could remove the row of an anonymous id
-- that an event of another user links. Rows that are there are left alone; times are those of the link or conversion.
INSERT INTO attribution_journeys (tenant_id, journey_key, first_event_us, last_event_us, last_received_us)
SELECT tenant_id, journey_key, min(first_us), max(last_us), max(received_us)
FROM (
    SELECT tenant_id, 'a:' || anonymous_id AS journey_key, linked_at_us AS first_us, linked_at_us AS last_us,
           0::bigint AS received_us
    FROM attribution_identities
    UNION ALL
    SELECT tenant_id, 'u:' || user_id, linked_at_us, linked_at_us, 0 FROM attribution_identities
    UNION ALL
    SELECT tenant_id, journey_key, converted_at_us, converted_at_us, received_at_us FROM attribution_conversions
    WHERE journey_key <> ''
) AS people
WHERE NOT EXISTS (
    SELECT FROM attribution_journeys j WHERE j.tenant_id = people.tenant_id AND j.journey_key = people.journey_key
)
GROUP BY tenant_id, journey_key
ORDER BY tenant_id, journey_key
ON CONFLICT (tenant_id, journey_key) DO NOTHING;
