"""What the attributor reads: the conversions of a batch of commands with their versions, people and touchpoints.

Invariant: all of it is read in one snapshot, so the touchpoints are those of the version that the row shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg


class PendingConversion(NamedTuple):
    """A conversion whose result is owed, with everything that its version pins."""

    tenant_id: str
    conversion_id: str
    conversion_type: str
    journey_key: str
    converted_at: int
    received_at: int
    gross_value_micros: int
    net_value_micros: int
    previous_net_micros: int
    currency: str
    version: int
    version_reason: str
    is_final: bool
    policy_version: str
    model_set: int
    observed_version: int
    raised_at: int  # microseconds of Postgres's clock; tells this version from one of the same number that was lost


class ReachedTouchpoint(NamedTuple):
    """A touchpoint of the conversion's person inside the longest window before it."""

    conversion: int  # index of the conversion
    event_id: str
    occurred_at: int
    received_at: int
    platform: str
    channel: str
    interaction: str
    campaign: str
    is_bot: bool


# Small result sets from big tables: look-ups by index are always right, whatever the planner's statistics say.
READ_SETTINGS = """
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off;
SET join_collapse_limit = 1; SET from_collapse_limit = 1; SET plan_cache_mode = force_custom_plan;
"""

_CONVERSIONS = """
SELECT c.tenant_id, c.conversion_id, c.conversion_type, c.journey_key, c.converted_at_us, c.received_at_us,
       c.gross_value_micros, c.net_value_micros, c.previous_net_micros, c.currency, c.version, c.version_reason,
       c.is_final, c.policy_version, c.model_set, c.observed_version,
       (extract(epoch FROM c.versioned_at) * 1000000)::int8
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_conversions c USING (tenant_id, conversion_id)
"""

# All identity keys of the person ``w``, as they belong together now.
IDENTITIES_OF_PERSON = """CROSS JOIN LATERAL (
    SELECT w.journey_key AS identity_key
    UNION ALL
    SELECT 'a:' || i.anonymous_id FROM attribution_identities i
    WHERE w.journey_key > 'a;' COLLATE "C" AND i.tenant_id = w.tenant_id AND i.user_id = substr(w.journey_key, 3)
) AS person"""

_TOUCHPOINTS = f"""
SELECT w.seq, t.event_id, t.occurred_at_us, t.received_at_us, t.platform, t.channel, t.interaction, t.campaign, t.is_bot
FROM unnest(%s::int4[], %s::text[], %s::text[], %s::int8[], %s::int8[])
     AS w (seq, tenant_id, journey_key, earliest_us, converted_us)
{IDENTITIES_OF_PERSON}
JOIN attribution_touchpoints t
  ON t.tenant_id = w.tenant_id AND t.identity_key = person.identity_key COLLATE "C"
 AND t.occurred_at_us BETWEEN w.earliest_us AND w.converted_us
ORDER BY w.seq, t.occurred_at_us, t.event_id
"""


def prepare_reading(connection: psycopg.Connection) -> None:
    """Fix the planner settings of a new session."""
    connection.execute(READ_SETTINGS)


def conversions_by_id(connection: psycopg.Connection, keys: Sequence[tuple[str, str]]) -> list[PendingConversion]:
    """Return the conversions of (tenant, conversion id), those that exist, in no particular order."""
    if not keys:
        return []
    columns = ([key[0] for key in keys], [key[1] for key in keys])
    return [PendingConversion(*row) for row in connection.execute(_CONVERSIONS, columns).fetchall()]


def touchpoints_in_reach(
    connection: psycopg.Connection, conversions: Sequence[PendingConversion], longest_windows_micros: Sequence[int]
) -> list[ReachedTouchpoint]:
    """Return the touchpoints of each conversion's person, by conversion, then time, then event id.

    Args:
        connection: in a snapshot.
        conversions: their keys.
        longest_windows_micros: for each conversion, how far back to look, microseconds.
    """
    if not conversions:
        return []
    columns = (
        list(range(len(conversions))),
        [conversion.tenant_id for conversion in conversions],
        [conversion.journey_key for conversion in conversions],
        [
            conversion.converted_at - window
            for conversion, window in zip(conversions, longest_windows_micros, strict=True)
        ],
        [conversion.converted_at for conversion in conversions],
    )
    return [ReachedTouchpoint(*row) for row in connection.execute(_TOUCHPOINTS, columns).fetchall()]
