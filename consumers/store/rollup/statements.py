"""The statements of the roll-up: set-based, one a batch and table, never one a record.

Invariant: each names the tenant, and the roll-up of the tenant is locked by ``LOCK`` before any of the others.
"""

from __future__ import annotations

from functools import lru_cache

# What makes a row, beside the tenant, with the types of its parameters; days are numbered from 2000-01-01.
KEYS = {
    "days": {"dating": "text", "day": "int8", "conversion_type": "text", "currency": "text", "is_new": "bool",
             "channel": "text", "platform": "text", "campaign_id": "text", "campaign": "text"},
    "names": {"grain": "text", "day": "int8", "conversion_type": "text", "currency": "text", "name": "text"},
    "restatements": {"grain": "text", "reported_day": "int8", "reason": "text", "day": "int8",
                     "conversion_type": "text", "currency": "text", "name": "text"},
    "counts": {"kind": "text", "day": "int8", "conversion_type": "text", "currency": "text", "name": "text",
               "part": "text", "number": "int8", "delay": "int8"},
}  # fmt: skip
# What its primary key has before the hash: what reports look for.
_SOUGHT = {
    "days": "dating, day", "names": "grain, day", "restatements": "grain, reported_day", "counts": "kind, day",
}  # fmt: skip
_DAYS = ("day", "reported_day")
_NUMERIC = ("squares",)
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
SELECT n.* FROM unnest(%s::text[], %s::uuid[], %s::uuid[], %s::int8[], %s::int8[], %s::text[], %s::text[], %s::int8[],
                       %s::bool[], %s::int8[], %s::text[], %s::int8[], %s::text[])
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
MARK = """
UPDATE attribution_rollup_conversions c SET is_new = k.is_new, updated_at = now()
FROM unnest(%s::text[], %s::uuid[], %s::bool[]) AS k (tenant_id, conversion_md5, is_new)
WHERE c.tenant_id = k.tenant_id COLLATE "C" AND c.conversion_md5 = k.conversion_md5
"""
# All conversions of people, before anything is stored, and who has retired ones: by number of the person.
BOUGHT = """
SELECT p.seq, c.conversion_md5, c.is_new, c.converted_at_us, c.currency, c.net_micros, c.first_channel
FROM unnest(%s::text[], %s::uuid[], %s::text[]) WITH ORDINALITY AS p (tenant_id, person_md5, conversion_type, seq)
JOIN attribution_rollup_conversions c
  ON c.tenant_id = p.tenant_id COLLATE "C" AND c.person_md5 = p.person_md5
 AND c.conversion_type = p.conversion_type COLLATE "C"
"""
RETIRED_PEOPLE = """
SELECT p.seq
FROM unnest(%s::text[], %s::uuid[], %s::text[]) WITH ORDINALITY AS p (tenant_id, person_md5, conversion_type, seq)
JOIN attribution_rollup_people r
  ON r.tenant_id = p.tenant_id COLLATE "C" AND r.person_md5 = p.person_md5
 AND r.conversion_type = p.conversion_type COLLATE "C"
"""
MODELS = "SELECT tenant_id, model, number FROM attribution_rollup_models WHERE tenant_id = ANY (%s::text[])"
NEW_MODELS = """
INSERT INTO attribution_rollup_models (tenant_id, model, number)
SELECT * FROM unnest(%s::text[], %s::text[], %s::int4[])
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


@lru_cache(maxsize=256)
def upsert(table: str, names: tuple[str, ...], widths: tuple[int, ...]) -> bytes:
    """Return the statement that adds a batch's rows to a table.

    Args:
        table: without its prefix.
        names: of the columns with sums.
        widths: how many slots each has; 0: it is one number.
    """
    keys = KEYS[table]
    columns = ", ".join([*keys, *names])
    listed = ", ".join(("tenant_id", "row_md5", *keys))
    lists = ", ".join(f"%s::{kind}[]" for kind in ("text", "uuid", *keys.values()))
    given = [f"DATE '2000-01-01' + n.{key}::int4" if key in _DAYS else f"n.{key}" for key in keys]
    for name, width in zip(names, widths, strict=True):
        if width:
            slots = f"(%s::int8[])[(n.place - 1) * {width} + 1 : n.place * {width}]"
            given.append(f"{slots}::numeric[]" if name in _NUMERIC else slots)
        else:
            given.append("(%s::int8[])[n.place]")
    added = ", ".join(_added(name, width) for name, width in zip(names, widths, strict=True))
    return f"""
INSERT INTO attribution_rollup_{table} AS r (tenant_id, row_md5, {columns})
SELECT n.tenant_id, n.row_md5, {", ".join(given)}
FROM unnest({lists}) WITH ORDINALITY AS n ({listed}, place)
ON CONFLICT (tenant_id, {_SOUGHT[table]}, row_md5) DO UPDATE SET {added}, updated_at = now()
""".encode()


def _added(name: str, width: int) -> str:
    if not width:
        return f"{name} = r.{name} + excluded.{name}"
    # A row of before a model came has fewer slots.
    slots = (f"COALESCE(r.{name}[{slot}], 0) + excluded.{name}[{slot}]" for slot in range(1, width + 1))
    return f"{name} = ARRAY[{', '.join(slots)}]"
