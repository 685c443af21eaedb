"""The statements of a stitching transaction. Constants only: every value is a parameter.

``a:`` keys sort before ``u:`` keys and end before ``a;`` (behind the colon), so a range tells anonymous ids from users.
Columns sort by bytes (COLLATE "C"), a parameter as the database does: a range on it names the collation, too.

People who change without an event of their own are noted for the trainer (`told`); those of new events it finds itself.
"""

from __future__ import annotations

from attributary.consumers.store.identity_sql import device_key, person_key, user_key
from attributary.consumers.store.models.changed_people import change_note_sql
from attributary.consumers.store.retention.boundaries import not_retired

from .policies import policy_in_force_sql

_WIDEN = """
ON CONFLICT (tenant_id, journey_key) DO UPDATE SET
    first_event_us = LEAST(j.first_event_us, excluded.first_event_us),
    last_event_us = GREATEST(j.last_event_us, excluded.last_event_us),
    last_received_us = GREATEST(j.last_received_us, excluded.last_received_us),
    closed_at = NULL,
    updated_at = excluded.updated_at
WHERE excluded.last_received_us > j.last_received_us OR excluded.first_event_us < j.first_event_us
   OR excluded.last_event_us > j.last_event_us
"""

# A row that is not widened is locked all the same: ON CONFLICT DO UPDATE locks before it looks at its WHERE. Those that
# are new are returned: a row that stood there before was locked, which leaves its mark in xmax.
LOCK_PEOPLE = f"""
WITH locked AS (
    INSERT INTO attribution_journeys AS j (tenant_id, journey_key, first_event_us, last_event_us, last_received_us)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::int8[], %s::int8[], %s::int8[])
        AS k (tenant_id, journey_key, first_us, last_us, received_us)
    ORDER BY tenant_id COLLATE "C", journey_key COLLATE "C"
    {_WIDEN}
    RETURNING tenant_id, journey_key, xmax = 0 AS is_new
)
SELECT tenant_id, journey_key FROM locked WHERE is_new
"""

# Of locked anonymous ids: nobody else gives one of them another owner.
OWNERS_LOCKED = f"""
SELECT i.tenant_id, {device_key("i.anonymous_id")}, {user_key("i.user_id")}
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, anonymous_id)
JOIN attribution_identities i USING (tenant_id, anonymous_id)
"""

_PLACE = "source_topic, source_partition, source_offset"

_TOUCHPOINT_COLUMNS = (
    "tenant_id, event_id, identity_key, anonymous_id, occurred_at_us, received_at_us, platform, channel, interaction, "
    f"campaign, is_bot, details, content_hash, {_PLACE}"
)
_CONVERSION_EVENT_COLUMNS = (
    "tenant_id, event_id, conversion_id, kind, conversion_type, identity_key, anonymous_id, occurred_at_us, "
    f"received_at_us, value_micros, currency, order_id, details, content_hash, {_PLACE}"
)
_LINK_COLUMNS = (
    f"tenant_id, event_id, anonymous_id, user_id, linked_at_us, source, received_at_us, content_hash, {_PLACE}"
)


# Of touchpoints the text is kept, which jsonb would write anew; but a NUL, which only json takes, is refused.
_DETAILS = {
    "stg_touch": r"CASE WHEN strpos({0}details, '\u0000') > 0 THEN {0}details::jsonb::json ELSE {0}details::json END",
    "stg_conv": "{0}details::jsonb",
}


def _insert(table: str, staging: str, columns: str) -> str:
    staged = columns.replace("details", _DETAILS.get(staging, "").format(""))
    # Sorted: neighbours on one index page, and one order for all transactions that insert the same ids.
    return f"""
    INSERT INTO {table} ({columns}) SELECT {staged} FROM {staging} ORDER BY tenant_id, event_id
    ON CONFLICT (tenant_id, event_id) DO NOTHING RETURNING {_PLACE}
    """


def _replace(table: str, staging: str, columns: str, named: str) -> str:
    staged = ", ".join(f"s.{column.strip()}" for column in columns.split(","))
    staged = staged.replace("s.details", _DETAILS.get(staging, "").format("s."))
    return f"""
    WITH replaced AS MATERIALIZED (
        SELECT s.seq, t.* FROM {staging} s JOIN {table} t ON t.tenant_id = s.tenant_id AND t.event_id = s.event_id
        WHERE s.seq = ANY (%s::int4[])
    ), told AS (
        {
        change_note_sql(
            "t.tenant_id, k.identity_key", f"FROM replaced t CROSS JOIN LATERAL ({named}) AS k (identity_key)"
        )
    }
        WHERE k.identity_key <> ''
    )
    UPDATE {table} AS t SET ({columns}) = ROW ({staged}), updated_at = now()
    FROM replaced r, {staging} s WHERE s.seq = r.seq AND t.tenant_id = s.tenant_id AND t.event_id = s.event_id
    """


INSERT_TOUCHPOINTS = _insert("attribution_touchpoints", "stg_touch", _TOUCHPOINT_COLUMNS)
INSERT_CONVERSION_EVENTS = _insert("attribution_conversion_events", "stg_conv", _CONVERSION_EVENT_COLUMNS)
INSERT_LINKS = _insert("attribution_identity_links", "stg_link", _LINK_COLUMNS)
_EVENT_KEYS = f"VALUES (t.identity_key), ({device_key('t.anonymous_id')})"
_CONVERSION_KEYS = f"""{_EVENT_KEYS} UNION ALL
    SELECT c.journey_key FROM attribution_conversions c
    WHERE c.tenant_id = t.tenant_id AND c.conversion_id = t.conversion_id"""
_LINK_KEYS = f"VALUES ({device_key('t.anonymous_id')}), ({user_key('t.user_id')})"
REPLACE_TOUCHPOINTS = _replace("attribution_touchpoints", "stg_touch", _TOUCHPOINT_COLUMNS, _EVENT_KEYS)
REPLACE_CONVERSION_EVENTS = _replace(
    "attribution_conversion_events", "stg_conv", _CONVERSION_EVENT_COLUMNS, _CONVERSION_KEYS
)
REPLACE_LINKS = _replace("attribution_identity_links", "stg_link", _LINK_COLUMNS, _LINK_KEYS)


def _stored(table: str, identity: str, more: str = "") -> str:
    return f"""
    SELECT t.event_id, t.tenant_id, {identity}, t.content_hash, t.received_at_us, t.source_topic, t.source_partition,
           t.source_offset{more}
    FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, event_id) JOIN {table} t USING (tenant_id, event_id)
    """


STORED_TOUCHPOINTS = _stored("attribution_touchpoints", "t.identity_key")
STORED_CONVERSION_EVENTS = _stored(
    "attribution_conversion_events", "t.identity_key", ", t.conversion_id, t.value_micros, t.currency"
)
STORED_LINKS = _stored("attribution_identity_links", f"{user_key('t.user_id')}")

# A content is noted once; of its records the first in the log is named, whatever the order of arrival.
STORE_CONFLICTS = """
WITH n AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::text[], %s::int8[], %s::text[],
                         %s::int8[], %s::text[], %s::int4[], %s::int8[])
        AS n (tenant_id, record_name, event_id, content_hash, conversion_id, value_micros, currency, received_at_us,
              source_topic, source_partition, source_offset)
), stored AS (
    INSERT INTO attribution_event_conflicts AS c (
        tenant_id, record_name, event_id, content_hash, conversion_id, value_micros, currency, received_at_us,
        source_topic, source_partition, source_offset)
    SELECT * FROM n ORDER BY tenant_id COLLATE "C", record_name COLLATE "C", event_id COLLATE "C", content_hash
    ON CONFLICT (tenant_id, record_name, event_id, content_hash) DO UPDATE SET
        received_at_us = excluded.received_at_us, source_topic = excluded.source_topic,
        source_partition = excluded.source_partition, source_offset = excluded.source_offset, updated_at = now()
    WHERE (excluded.received_at_us, excluded.source_topic, excluded.source_partition, excluded.source_offset)
        < (c.received_at_us, c.source_topic, c.source_partition, c.source_offset)
    RETURNING tenant_id, record_name, event_id, content_hash, (xmax = 0) AS is_new
)
SELECT tenant_id, record_name, event_id, content_hash FROM stored WHERE is_new
"""

CONVERSIONS_OF_REPLACED = """
SELECT t.tenant_id, t.conversion_id FROM stg_conv s JOIN attribution_conversion_events t USING (tenant_id, event_id)
WHERE s.seq = ANY (%s::int4[])
"""

ANONYMOUS_IDS_OF = " UNION ".join(
    f"""
    SELECT t.tenant_id, t.anonymous_id
    FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS k (tenant_id, event_id)
    JOIN {table} t USING (tenant_id, event_id)
    WHERE t.anonymous_id IS NOT NULL
    """
    for table in ("attribution_touchpoints", "attribution_conversion_events", "attribution_identity_links")
)

APPLY_LINKS = f"""
WITH wins AS MATERIALIZED (
    SELECT c.tenant_id, c.anonymous_id, c.user_id, c.linked_at_us, c.link_event_id, i.user_id AS old_user_id
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::text[])
         AS c (tenant_id, anonymous_id, user_id, linked_at_us, link_event_id)
    LEFT JOIN attribution_identities i USING (tenant_id, anonymous_id)
    WHERE i.user_id IS NULL
       OR (c.linked_at_us, c.link_event_id, c.user_id) < (i.linked_at_us, i.link_event_id, i.user_id)
), stored AS (
    INSERT INTO attribution_identities (tenant_id, anonymous_id, user_id, linked_at_us, link_event_id)
    SELECT tenant_id, anonymous_id, user_id, linked_at_us, link_event_id FROM wins ORDER BY tenant_id, anonymous_id
    ON CONFLICT (tenant_id, anonymous_id) DO UPDATE SET
        user_id = excluded.user_id, linked_at_us = excluded.linked_at_us, link_event_id = excluded.link_event_id,
        updated_at = now()
), told AS (
    {change_note_sql("tenant_id, " + user_key("old_user_id"), "FROM wins WHERE old_user_id <> user_id")}
)
SELECT tenant_id, anonymous_id, old_user_id, user_id, link_event_id FROM wins WHERE old_user_id IS DISTINCT FROM user_id
"""

_BEST_LINKS = """
WITH k AS (SELECT * FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS k (tenant_id, anonymous_id)),
links AS (
    SELECT l.tenant_id, l.anonymous_id, l.user_id, l.linked_at_us, l.event_id
    FROM k JOIN attribution_identity_links l USING (tenant_id, anonymous_id)
    UNION ALL
    SELECT t.tenant_id, t.anonymous_id, substr(t.identity_key, 3), t.occurred_at_us, t.event_id
    FROM k JOIN attribution_touchpoints t USING (tenant_id, anonymous_id)
    UNION ALL
    SELECT t.tenant_id, t.anonymous_id, substr(t.identity_key, 3), t.occurred_at_us, t.event_id
    FROM k JOIN attribution_conversion_events t USING (tenant_id, anonymous_id)
),
best AS (
    SELECT DISTINCT ON (tenant_id, anonymous_id) * FROM links
    ORDER BY tenant_id, anonymous_id, linked_at_us, event_id, user_id
)
"""
USERS_LINKED = f"{_BEST_LINKS} SELECT DISTINCT tenant_id, {user_key('user_id')} FROM links"
OWNERS_ANEW = f"""{_BEST_LINKS}
SELECT k.tenant_id, k.anonymous_id, i.user_id, COALESCE(b.user_id, ''), COALESCE(b.event_id, '')
FROM k LEFT JOIN best b USING (tenant_id, anonymous_id)
LEFT JOIN attribution_identities i USING (tenant_id, anonymous_id)
WHERE i.user_id IS DISTINCT FROM b.user_id
"""
_ANEW_TOLD = change_note_sql(
    "tenant_id, identity_key",
    f"""FROM (
        SELECT tenant_id, {device_key("anonymous_id")} FROM k
        UNION ALL SELECT tenant_id, {user_key("user_id")} FROM links
        UNION ALL
        SELECT tenant_id, {user_key("i.user_id")} FROM k JOIN attribution_identities i USING (tenant_id, anonymous_id)
    ) AS named (tenant_id, identity_key)""",
)
STORE_OWNERS_ANEW = f"""{_BEST_LINKS}, told AS (
    {_ANEW_TOLD}
), gone AS (
    DELETE FROM attribution_identities i USING k
    WHERE i.tenant_id = k.tenant_id AND i.anonymous_id = k.anonymous_id
      AND NOT EXISTS (SELECT FROM best b WHERE b.tenant_id = k.tenant_id AND b.anonymous_id = k.anonymous_id)
)
INSERT INTO attribution_identities (tenant_id, anonymous_id, user_id, linked_at_us, link_event_id)
SELECT tenant_id, anonymous_id, user_id, linked_at_us, event_id FROM best ORDER BY tenant_id, anonymous_id
ON CONFLICT (tenant_id, anonymous_id) DO UPDATE SET
    user_id = excluded.user_id, linked_at_us = excluded.linked_at_us, link_event_id = excluded.link_event_id,
    updated_at = now()
"""

# "+ 0" keeps the time out of the choice of an index: without statistics the planner would look through all conversions
# of a month instead of those of one person. A row a person, and then a row a conversion, never one a pair of the two.
_IN_REACH = """attribution_conversions c
  {join} c.tenant_id = p.tenant_id AND c.journey_key = p.journey_key COLLATE "C"
 AND c.converted_at_us + 0 BETWEEN p.first_us AND p.last_us + %(window)s"""
PEOPLE_TOUCHED = f"""
SELECT p.seq::int4 - 1, c.conversions
FROM unnest(%(tenants)s::text[], %(keys)s::text[], %(first)s::int8[], %(last)s::int8[])
     WITH ORDINALITY AS p (tenant_id, journey_key, first_us, last_us, seq)
CROSS JOIN LATERAL (
    SELECT count(*)::int4 AS conversions
    FROM (SELECT FROM {_IN_REACH.format(join="WHERE")} LIMIT %(most)s + 1) AS reached
) AS c
WHERE c.conversions > 0
"""

CONVERSIONS_TOUCHED = f"""
SELECT p.seq::int4 - 1, c.conversion_id, c.conversion_type, c.converted_at_us, c.received_at_us, c.policy_version
FROM unnest(%(tenants)s::text[], %(keys)s::text[], %(first)s::int8[], %(last)s::int8[])
     WITH ORDINALITY AS p (tenant_id, journey_key, first_us, last_us, seq)
JOIN {_IN_REACH.format(join="ON")}
ORDER BY p.seq
"""

CONVERSIONS_OF_PEOPLE = """
SELECT c.tenant_id, c.conversion_id FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, journey_key)
JOIN attribution_conversions c USING (tenant_id, journey_key)
"""

CONVERSIONS_COUNTED = """
SELECT k.tenant_id, k.journey_key, c.conversions
FROM unnest(%(tenants)s::text[], %(keys)s::text[]) AS k (tenant_id, journey_key)
CROSS JOIN LATERAL (
    SELECT count(*)::int4 AS conversions
    FROM (SELECT FROM attribution_conversions c
          WHERE c.tenant_id = k.tenant_id AND c.journey_key = k.journey_key COLLATE "C" LIMIT %(most)s + 1) AS counted
) AS c
WHERE c.conversions > 0
"""

# ON CONFLICT DO UPDATE locks a row before it looks at its WHERE. One statement, so that new and known ones are locked
# in one order; those that no event of the batch is about are never created.
_LOCK_CONVERSIONS = """
INSERT INTO attribution_conversions (
    tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, received_at_us,
    gross_value_micros, net_value_micros, previous_net_micros, currency, version, version_reason, policy_version,
    owner_topic, owner_partition, owner_offset, event_published_us)
SELECT k.tenant_id, k.conversion_id, '', '', '', 0, 0, 0, 0, 0, 'XXX', 0, 'waiting', '', '', 0, 0, 0
FROM {keys}
WHERE k.opens OR EXISTS (
    SELECT FROM attribution_conversions c WHERE c.tenant_id = k.tenant_id AND c.conversion_id = k.conversion_id
)
ORDER BY k.tenant_id COLLATE "C", k.conversion_id COLLATE "C"
ON CONFLICT (tenant_id, conversion_id) DO UPDATE SET updated_at = now() WHERE false
"""
_KEYS = "unnest(%s::text[], %s::text[], %s::bool[]) AS k (tenant_id, conversion_id, opens)"
LOCK_CONVERSIONS = _LOCK_CONVERSIONS.format(keys=_KEYS)
_WITH_MOVED = f"""(
    SELECT tenant_id, conversion_id, bool_or(opens) AS opens
    FROM (
        SELECT * FROM {_KEYS}
        UNION ALL
        SELECT c.tenant_id, c.conversion_id, false
        FROM unnest(%s::text[], %s::text[], %s::text[]) AS n (tenant_id, identity_key, journey_key)
        JOIN attribution_conversions c USING (tenant_id, journey_key, identity_key)
    ) AS each
    GROUP BY tenant_id, conversion_id
) AS k"""
LOCK_MOVED_CONVERSIONS = _LOCK_CONVERSIONS.format(keys=_WITH_MOVED)

STORED_CONVERSIONS = """
SELECT c.version, c.tenant_id, c.conversion_id, c.conversion_type, c.identity_key, c.journey_key, c.converted_at_us,
       c.received_at_us, c.gross_value_micros, c.net_value_micros, c.currency, c.order_id
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_conversions c USING (tenant_id, conversion_id)
"""

EVENTS_OF_CONVERSIONS = f"""
SELECT e.occurred_at_us, e.event_id, e.kind, e.value_micros, e.currency, e.tenant_id, e.conversion_id,
       e.conversion_type, e.identity_key, {person_key("e.identity_key")}, e.occurred_at_us, e.received_at_us,
       e.value_micros, e.value_micros, e.currency, e.order_id
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_conversion_events e USING (tenant_id, conversion_id)
LEFT JOIN attribution_identities i
  ON e.identity_key < 'a;' AND i.tenant_id = e.tenant_id AND i.anonymous_id = substr(e.identity_key, 3)
WHERE {not_retired("k")}
"""

# Each order is asked for once a batch.
ORDERS_SHARED = """
SELECT count(*) FROM (SELECT DISTINCT tenant_id, order_id, conversion_id FROM stg_conv
      WHERE order_id IS NOT NULL AND kind = 'conversion') AS s
WHERE EXISTS (
    SELECT FROM attribution_conversion_events e WHERE e.tenant_id = s.tenant_id AND e.order_id = s.order_id
       AND e.kind = 'conversion' AND e.conversion_id <> s.conversion_id
)
"""

_STATES_TOLD = change_note_sql(
    "c.tenant_id, k.identity_key",
    """FROM n JOIN attribution_conversions c ON c.tenant_id = n.tenant_id AND c.conversion_id = n.conversion_id
    CROSS JOIN LATERAL unnest(ARRAY[c.journey_key, n.journey_key]) AS k (identity_key)
    WHERE c.journey_key <> '' AND c.journey_key <> n.journey_key""",
)
_STATES = "%s::text[], %s::text[], %s::text[], %s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::text[], %s::text[]"
_STATE_COLUMNS = """conversion_type, identity_key, journey_key, converted_at_us, received_at_us, gross_value_micros,
    net_value_micros, currency, order_id"""
_NEW_STATE = """conversion_type = COALESCE(n.conversion_type, c.conversion_type),
    identity_key = COALESCE(n.identity_key, c.identity_key), journey_key = COALESCE(n.journey_key, c.journey_key),
    converted_at_us = COALESCE(n.converted_at_us, c.converted_at_us),
    received_at_us = COALESCE(n.received_at_us, c.received_at_us),
    gross_value_micros = COALESCE(n.gross_value_micros, c.gross_value_micros),
    net_value_micros = COALESCE(n.net_value_micros, c.net_value_micros), currency = COALESCE(n.currency, c.currency),
    order_id = CASE WHEN n.identity_key IS NULL THEN c.order_id ELSE n.order_id END, updated_at = now()"""
STORE_STATES = f"""
WITH n AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::text[], {_STATES}) AS n (tenant_id, conversion_id, {_STATE_COLUMNS})
), told AS (
    {_STATES_TOLD}
)
UPDATE attribution_conversions AS c SET {_NEW_STATE}
FROM n WHERE c.tenant_id = n.tenant_id AND c.conversion_id = n.conversion_id
"""

MOVE_CONVERSIONS = """
UPDATE attribution_conversions AS c SET journey_key = n.new_key, updated_at = now()
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS n (tenant_id, identity_key, old_key, new_key)
WHERE c.tenant_id = n.tenant_id AND c.journey_key = n.old_key AND c.identity_key = n.identity_key
"""

# Rows are locked: LOCK_CONVERSIONS.
_RAISED = f"""
    version = c.version + 1, version_reason = n.reason, previous_net_micros = c.net_value_micros,
    policy_version = {policy_in_force_sql("c.tenant_id", "%s")},
    model_set = COALESCE((SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = c.tenant_id), 0),
    owner_topic = n.owner_topic, owner_partition = n.owner_partition, owner_offset = n.owner_offset,
    event_published_us = n.published_us, versioned_at = now()"""
_RAISED_COLUMNS = "tenant_id, conversion_id, reason, owner_topic, owner_partition, owner_offset, published_us"
# Of a conversion without a new state all columns of one are null. Version and state at once: a row and the entries of
# its indexes are written once. What stands right of a "=" is what was there before.
RAISE_VERSIONS = f"""
WITH n AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::int4[], %s::int8[], %s::int8[], {_STATES})
        AS n ({_RAISED_COLUMNS}, {_STATE_COLUMNS})
), told AS (
    {_STATES_TOLD}
)
UPDATE attribution_conversions AS c SET {_RAISED},
    {_NEW_STATE}
FROM n WHERE c.tenant_id = n.tenant_id AND c.conversion_id = n.conversion_id
RETURNING c.tenant_id, c.conversion_id, c.version, c.version_reason, c.event_published_us
"""

VERSIONS_CAUSED_BY = """
SELECT c.tenant_id, c.conversion_id, c.version, c.version_reason, c.event_published_us
FROM unnest(%s::text[], %s::int4[], %s::int8[]) AS p (owner_topic, owner_partition, owner_offset)
JOIN attribution_conversions c USING (owner_topic, owner_partition, owner_offset)
WHERE c.version > 0
"""
