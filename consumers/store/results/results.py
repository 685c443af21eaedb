"""What the auditor stores: every result that the results topic carries, and which version of each conversion was seen.

Invariant: a result is stored once per (tenant, conversion, version); a second one with the same content changes
nothing; one with other content, or one of a version that Postgres does not know or raised anew under the same number
(it lost commits), makes the conversion owe a version above both, reason ``repair``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg


class ResultRow(NamedTuple):
    """One result as it is stored; ``touchpoints``, ``models``, ``insights`` are JSON text, times microseconds UTC."""

    tenant_id: str
    conversion_id: str
    version: int
    version_reason: str
    is_final: bool
    conversion_type: str
    converted_at: int
    journey_key: str
    net_value_micros: int
    gross_value_micros: int
    delta_micros: int
    currency: str
    policy_version: str
    touchpoint_count: int
    touchpoints: str
    models: str
    insights: str
    computed_at: int
    content_hash: str
    partition: int
    offset: int
    raised_at: int | None  # of the version, as its result says; None: it does not say


class Stored(NamedTuple):
    """What came of a batch of results."""

    new: int
    repeated: int
    conflicting: int  # same version, other content
    out_of_order: int  # below a version that was seen before
    repaired: int  # conversions that owe a further version because of the two


# Tenant, conversion, version and content of a result; then the highest version seen before (also while the conversion
# itself was lost), the version that is owed (None: no such conversion) and the
# content stored under that version (None: none); whether the result is of a lost version with the number of this one.
Before = tuple[str, str, int, str, int | None, int | None, str | None, bool]

RESULT_STAGING = """
CREATE TEMP TABLE stg_result (
    tenant_id text COLLATE "C", conversion_id text COLLATE "C", version bigint, version_reason text, is_final boolean,
    conversion_type text, converted_at_us bigint, journey_key text, net_value_micros bigint, gross_value_micros bigint,
    delta_micros bigint, currency text, policy_version text, touchpoint_count integer, touchpoints text, models text,
    insights text,
    computed_at_us bigint, content_hash text, source_partition integer, source_offset bigint, raised_at_us bigint
) ON COMMIT DELETE ROWS;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off;
SET enable_memoize = off;
SET join_collapse_limit = 1; SET from_collapse_limit = 1; SET plan_cache_mode = force_custom_plan;
SET idle_in_transaction_session_timeout = '20s';  -- see staging.py
"""

_TYPES = ["text", "text", "int8", "text", "bool", "text", "int8", "text", "int8", "int8", "int8", "text", "text",
          "int4", "text", "text", "text", "int8", "text", "int4", "int8", "int8"]  # fmt: skip

# Sorted, so that two auditors lock conversions in one order. Read before anything is written: what was seen before.
_BEFORE = """
SELECT s.tenant_id, s.conversion_id, s.version, s.content_hash,
       CASE WHEN c.observed_version > 0 THEN c.observed_version ELSE COALESCE((
           SELECT max(o.version) FROM attribution_results o
           WHERE o.tenant_id = s.tenant_id AND o.conversion_id = s.conversion_id
       ), 0) END,
       c.version, r.content_hash,
       COALESCE(s.version = c.version AND s.raised_at_us <> (extract(epoch FROM c.versioned_at) * 1000000)::int8, false)
FROM stg_result s
LEFT JOIN attribution_conversions c USING (tenant_id, conversion_id)
LEFT JOIN attribution_results r
  ON r.tenant_id = s.tenant_id AND r.conversion_id = s.conversion_id AND r.version = s.version
ORDER BY s.tenant_id, s.conversion_id, s.source_partition, s.source_offset
"""

_LOCK = """
SELECT FROM (SELECT DISTINCT tenant_id, conversion_id FROM stg_result) AS s
JOIN attribution_conversions c USING (tenant_id, conversion_id)
ORDER BY c.tenant_id, c.conversion_id FOR UPDATE OF c
"""

# What a result says, in the order of ``ResultRow``; all but its place in the topic.
RESULT_COLUMNS = (
    "tenant_id", "conversion_id", "version", "version_reason", "is_final", "conversion_type", "converted_at_us",
    "journey_key", "net_value_micros", "gross_value_micros", "delta_micros", "currency", "policy_version",
    "touchpoint_count", "touchpoints", "models", "insights", "computed_at_us", "content_hash",
)  # fmt: skip
_STORED_COLUMNS = (*RESULT_COLUMNS, "source_partition", "source_offset")
_JSON_COLUMNS = {"touchpoints", "models", "insights"}

# A result that is read again after its conversion retired would count beside the totals that it is in.
_INSERT = f"""
INSERT INTO attribution_results ({", ".join(_STORED_COLUMNS)})
SELECT {", ".join(f"{column}::jsonb" if column in _JSON_COLUMNS else column for column in _STORED_COLUMNS)}
FROM stg_result AS s WHERE NOT EXISTS (
    SELECT FROM attribution_retired_conversions m
    WHERE m.tenant_id = s.tenant_id AND m.conversion_md5 = md5(s.conversion_id)::uuid
)
ORDER BY tenant_id, conversion_id, version, source_offset
ON CONFLICT (tenant_id, conversion_id, version) DO NOTHING
"""

_OBSERVE = """
UPDATE attribution_conversions AS c
SET observed_version = s.version, observed_at = now(), updated_at = now()
FROM (SELECT tenant_id, conversion_id, max(version) AS version FROM stg_result GROUP BY tenant_id, conversion_id) AS s
WHERE c.tenant_id = s.tenant_id AND c.conversion_id = s.conversion_id AND c.observed_version < s.version
"""

_REPAIR = """
UPDATE attribution_conversions AS c
SET version = GREATEST(c.version, n.seen) + 1, version_reason = 'repair', previous_net_micros = c.net_value_micros,
    versioned_at = now(), updated_at = now()
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS n (tenant_id, conversion_id, seen)
WHERE c.tenant_id = n.tenant_id AND c.conversion_id = n.conversion_id
"""


def create_result_staging(connection: psycopg.Connection) -> None:
    """Create the staging table of a new session."""
    connection.execute(RESULT_STAGING)


def store_results(connection: psycopg.Connection, rows: Sequence[ResultRow]) -> Stored:
    """Store a batch of results in the order of the log, and note which versions were seen.

    Args:
        connection: in a transaction, with the staging table.
        rows: as they were read.
    """
    if not rows:
        return Stored(0, 0, 0, 0, 0)
    with connection.cursor().copy("COPY stg_result FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(_TYPES)
        for row in rows:
            copy.write_row(row)
    connection.execute(_LOCK)
    stored, repair = judge(connection.execute(_BEFORE).fetchall())
    connection.execute(_INSERT)
    connection.execute(_OBSERVE)
    if repair:
        ordered = sorted(repair)
        connection.execute(
            _REPAIR, ([key[0] for key in ordered], [key[1] for key in ordered], [repair[key] for key in ordered])
        )
    return stored


def judge(before: Sequence[Before]) -> tuple[Stored, dict[tuple[str, str], int]]:
    """Compare results with what was there before them: pure.

    Args:
        before: one entry a result, in the order of the log for each conversion.

    Returns:
        What to count, and the conversions that owe a further version, each with the highest version seen of it.
    """
    new, repeated, conflicting, out_of_order = 0, 0, 0, 0
    repair: dict[tuple[str, str], int] = {}
    seen: dict[tuple[str, str], dict[int, str]] = {}
    for tenant_id, conversion_id, version, content, observed, known, stored, is_namesake in before:
        key = (tenant_id, conversion_id)
        here = seen.setdefault(key, {})
        earlier = here.get(version, stored)
        highest = max([observed or 0, *here])
        if earlier is not None:
            repeated += earlier == content
            conflicting += earlier != content
        else:
            new += 1
            out_of_order += version < highest
        differs = earlier is not None and earlier != content
        if known is not None and (max(version, observed or 0) > known or differs or is_namesake):
            repair[key] = max(version, highest)
        here.setdefault(version, content if stored is None else stored)
    return Stored(new, repeated, conflicting, out_of_order, len(repair)), repair
