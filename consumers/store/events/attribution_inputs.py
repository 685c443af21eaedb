"""What the attributor reads: the conversions of a batch of commands with their versions, people and touchpoints.

Invariants: all of it is read in one snapshot, so the touchpoints are those of the version that the row shows. Of one
conversion at most ``MAX_REACHED`` touchpoints are read, the newest ones, and of many at most ``MAX_READ`` in one call:
what a person or a batch holds does not decide how much memory a reader takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.identity_sql import device_key, touchpoints_of

# Of one conversion so many of the newest touchpoints are looked at. A result holds far fewer, because it must fit into
# a record (attributor/credits.py): this decides only where windows differ by channel or interaction and thousands of
# touchpoints lie in the longest window and in none of their own.
MAX_REACHED = 5_000
# A person's anonymous ids (devices) that count, unless a setting says otherwise: those that were linked last.
MAX_DEVICES = 2_000
# So many look-ups are made at once, one a device and conversion; more than one conversion needs.
MAX_LOOKUPS = 40_000
# So many are read at once; more than one conversion can have. About 25 MB of rows and 100 MB of results.
MAX_READ = 40_000


class PendingConversion(NamedTuple):
    """A conversion that is owed a result, with everything that its version pins."""

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
    devices: int = 0  # anonymous ids of its person; of more than the limit, one more than it


class ReachedTouchpoint(NamedTuple):
    """A touchpoint of the conversion's person inside the longest window before it, in time and no robot's."""

    conversion: int  # index of the conversion
    event_id: str
    occurred_at: int
    received_at: int
    platform: str
    channel: str
    interaction: str
    campaign: str
    is_bot: bool
    campaign_id: str | None = None
    ad_set_id: str | None = None
    ad_id: str | None = None
    reported: str = ""  # channel under which a policy reports its credit; empty: as it was published

    @property
    def reported_channel(self) -> str:
        """Under which channel its credit is reported; models look at ``channel``."""
        return self.reported or self.channel


# Small result sets from big tables: look-ups by index are always right, whatever the planner's statistics say. Memoize
# kept all touchpoints of a tenant and compared them with each device of a person: quadratic.
READ_SETTINGS = """
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off;
SET enable_memoize = off;
SET join_collapse_limit = 1; SET from_collapse_limit = 1; SET plan_cache_mode = force_custom_plan;
"""

_CONVERSIONS = """
SELECT c.tenant_id, c.conversion_id, c.conversion_type, c.journey_key, c.converted_at_us, c.received_at_us,
       c.gross_value_micros, c.net_value_micros, c.previous_net_micros, c.currency, c.version, c.version_reason,
       c.is_final, c.policy_version, c.model_set, c.observed_version,
       (extract(epoch FROM c.versioned_at) * 1000000)::int8,
       (SELECT count(*)::int4 FROM (
           SELECT FROM attribution_identities i
           WHERE c.journey_key > 'a;' AND i.tenant_id = c.tenant_id AND i.user_id = substr(c.journey_key, 3)
           LIMIT %s + 1) AS device)
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_conversions c USING (tenant_id, conversion_id)
"""

# All identity keys of the person ``w``, as they belong together now.
IDENTITIES_OF_PERSON = f"""CROSS JOIN LATERAL (
    SELECT w.journey_key AS identity_key
    UNION ALL
    SELECT {device_key("i.anonymous_id")} FROM attribution_identities i
    WHERE w.journey_key > 'a;' COLLATE "C" AND i.tenant_id = w.tenant_id AND i.user_id = substr(w.journey_key, 3)
) AS person"""

# The order of the innermost rows is nearly the index's, so a person of many touchpoints costs no more than the limit.
# With ORDINALITY the planner knows that the conversions come in order: it stops at the last limit.
_TOUCHPOINTS = f"""
SELECT w.seq::int4 - 1, t.*
FROM unnest(%(tenants)s::text[], %(journeys)s::text[], %(earliest)s::int8[], %(latest)s::int8[], %(in_time)s::int8[])
     WITH ORDINALITY AS w (tenant_id, journey_key, earliest_us, converted_us, in_time_us, seq)
CROSS JOIN LATERAL (
    SELECT n.*
    FROM (
        SELECT w.journey_key AS identity_key
        UNION ALL
        SELECT {device_key("device.anonymous_id")}
        FROM (
            SELECT i.anonymous_id FROM attribution_identities i
            WHERE w.journey_key > 'a;' COLLATE "C"
              AND i.tenant_id = w.tenant_id AND i.user_id = substr(w.journey_key, 3)
            ORDER BY i.linked_at_us DESC, i.anonymous_id DESC LIMIT %(devices)s
        ) AS device
    ) AS person
    CROSS JOIN LATERAL (
        SELECT t.event_id, t.occurred_at_us, t.received_at_us, t.platform, t.channel, t.interaction, t.campaign,
               t.is_bot, t.details ->> 'campaign_id', t.details ->> 'ad_set_id', t.details ->> 'ad_id'
        FROM attribution_touchpoints t
        WHERE {touchpoints_of("t", "w.tenant_id", "person.identity_key")}
          AND t.occurred_at_us BETWEEN w.earliest_us AND w.converted_us
          AND t.received_at_us <= w.in_time_us AND NOT t.is_bot
        ORDER BY t.occurred_at_us DESC, t.event_id DESC LIMIT %(newest)s
    ) AS n
    ORDER BY n.occurred_at_us DESC, n.event_id DESC LIMIT %(newest)s
) AS t
ORDER BY w.seq, t.occurred_at_us, t.event_id
LIMIT %(most)s
"""


def prepare_reading(connection: psycopg.Connection) -> None:
    """Fix the planner settings of a new session."""
    connection.execute(READ_SETTINGS)


def conversions_by_id(
    connection: psycopg.Connection, keys: Sequence[tuple[str, str]], max_devices: int = MAX_DEVICES
) -> list[PendingConversion]:
    """Return the conversions of (tenant, conversion id), those that exist, in no particular order.

    Args:
        connection: any.
        keys: the conversions.
        max_devices: how far the anonymous ids of their people are counted.
    """
    if not keys:
        return []
    parameters = (max_devices, [key[0] for key in keys], [key[1] for key in keys])
    return [PendingConversion(*row) for row in connection.execute(_CONVERSIONS, parameters).fetchall()]


def touchpoints_in_reach(
    connection: psycopg.Connection,
    conversions: Sequence[PendingConversion],
    policies: Mapping[str, LookbackPolicy],
    max_devices: int = MAX_DEVICES,
    max_read: int = MAX_READ,
) -> tuple[list[ReachedTouchpoint], int]:
    """Return touchpoints of the conversions' people, by conversion, then time, then event id.

    They are no robot's, lie in the longest window of the policy and arrived in time; windows by channel and
    interaction are not looked at. Of each conversion the newest ``MAX_REACHED`` are returned.

    Args:
        connection: in a snapshot.
        conversions: their keys.
        policies: by version; every conversion's is among them.
        max_devices: so many of a person's anonymous ids count, those that were linked last.
        max_read: no more in all; above ``MAX_REACHED``, so that the first conversion is always complete.

    Returns:
        The touchpoints, and of how many of the first conversions all that there is to return was read.
    """
    conversions = conversions[: _within_lookups(conversions)]
    if not conversions:
        return [], 0
    pinned = [policies[conversion.policy_version] for conversion in conversions]
    columns = {
        "tenants": [conversion.tenant_id for conversion in conversions],
        "journeys": [conversion.journey_key for conversion in conversions],
        "earliest": [
            c.converted_at - policy.longest_window_micros for c, policy in zip(conversions, pinned, strict=True)
        ],
        "latest": [conversion.converted_at for conversion in conversions],
        "in_time": [c.received_at + policy.lateness_micros for c, policy in zip(conversions, pinned, strict=True)],
    }
    limits = {"newest": MAX_REACHED, "most": max_read, "devices": max_devices}
    found = [ReachedTouchpoint(*row) for row in connection.execute(_TOUCHPOINTS, columns | limits).fetchall()]
    if len(found) < max_read:
        return found, len(conversions)
    complete = found[-1].conversion  # perhaps not all of the last one
    while found and found[-1].conversion == complete:
        found.pop()
    return found, complete


def _within_lookups(conversions: Sequence[PendingConversion]) -> int:
    """Return how many of the first conversions may be looked up at once: at least one."""
    lookups = 0
    for number, conversion in enumerate(conversions):
        lookups += 1 + conversion.devices
        if lookups > MAX_LOOKUPS and number:
            return number
    return len(conversions)
