"""Derived rows made right again from the raw events, under the locks of stitching: safe beside running stitchers.

Invariant: what is written is what ``attribution_core`` makes of the stored events; a version never falls below one that
was published, and rises (reason ``repair``) only where the newest published result is not what it must be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX
from attributary.consumers.store.events.rows import LOCKS_ONLY, Bounds, ConversionRow, Key, widen
from attributary.consumers.store.events.stitch import StitchTransaction

_MOST_TRIES = 10


class PeopleGrewError(Exception):
    """More people must be locked: roll back and try again with these as well."""

    def __init__(self, keys: Mapping[Key, Bounds]) -> None:
        super().__init__(f"{len(keys)} more people to lock")
        self.keys = keys


class Repaired(NamedTuple):
    """What was done to a page of conversions."""

    restated: int  # person, time or value put right
    taken_back: int  # set to the version of their newest published result
    raised: int  # owe a new version


# Both tables: a conversion's row may be lost, or stand there without any event.
_PAGE = """
SELECT tenant_id, conversion_id FROM (
    (SELECT DISTINCT tenant_id, conversion_id FROM attribution_conversion_events
     WHERE (tenant_id, conversion_id) > (%(tenant)s, %(id)s) AND (%(only)s = '*' OR tenant_id = %(only)s)
     ORDER BY tenant_id, conversion_id LIMIT %(limit)s)
    UNION
    (SELECT tenant_id, conversion_id FROM attribution_conversions
     WHERE (tenant_id, conversion_id) > (%(tenant)s, %(id)s) AND (%(only)s = '*' OR tenant_id = %(only)s)
     ORDER BY tenant_id, conversion_id LIMIT %(limit)s)
) AS found ORDER BY tenant_id, conversion_id LIMIT %(limit)s
"""

# The newest published result that is stored, beside what the row says. The value that it told is taken from its
# credits, of which every model has the same sum: one field alone that was changed does not decide.
_PUBLISHED = """
SELECT c.tenant_id, c.conversion_id, COALESCE(r.version, 0), c.observed_version,
       c.versioned_at >= to_timestamp(%s::numeric / 1000000)
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_conversions c USING (tenant_id, conversion_id)
LEFT JOIN LATERAL (
    SELECT version FROM attribution_results r
    WHERE r.tenant_id = k.tenant_id AND r.conversion_id = k.conversion_id ORDER BY version DESC LIMIT 1
) AS r ON true
"""

_TAKE_BACK = """
UPDATE attribution_conversions AS c SET
    version = r.version, observed_version = r.version, version_reason = r.version_reason, is_final = r.is_final,
    policy_version = r.policy_version, previous_net_micros = r.net_value_micros - r.delta_micros,
    model_set = CASE WHEN c.policy_version <> '' THEN c.model_set ELSE COALESCE(
        (SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = c.tenant_id), 0) END,
    observed_at = now(), versioned_at = now(), updated_at = now(),
    owner_topic = '', owner_partition = 0, owner_offset = 0
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS n (tenant_id, conversion_id, version)
JOIN attribution_results r USING (tenant_id, conversion_id, version)
WHERE c.tenant_id = n.tenant_id AND c.conversion_id = n.conversion_id
"""

_RAISE = """
UPDATE attribution_conversions AS c SET
    version = GREATEST(c.version, c.observed_version, COALESCE(r.version, 0)) + 1, version_reason = 'repair',
    previous_net_micros = COALESCE(r.told_micros, c.net_value_micros),
    policy_version = CASE WHEN p.policy_version IS NULL THEN %(policy)s ELSE c.policy_version END,
    model_set = CASE WHEN c.policy_version <> '' THEN c.model_set ELSE COALESCE(
        (SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = c.tenant_id), 0) END,
    owner_topic = '', owner_partition = 0, owner_offset = 0, event_published_us = %(now_us)s,
    versioned_at = now(), updated_at = now()
FROM unnest(%(tenants)s::text[], %(ids)s::text[], %(versions)s::int8[]) AS n (tenant_id, conversion_id, version)
LEFT JOIN LATERAL (
    SELECT r.version, (r.models #>> '{0,unattributed_micros}')::int8 + COALESCE(
        (SELECT sum(m::int8) FROM jsonb_array_elements_text(r.models #> '{0,micros}') AS m), 0)::int8 AS told_micros
    FROM attribution_results r
    WHERE r.tenant_id = n.tenant_id AND r.conversion_id = n.conversion_id ORDER BY r.version DESC LIMIT 1
) AS r ON true
LEFT JOIN attribution_conversions o ON o.tenant_id = n.tenant_id AND o.conversion_id = n.conversion_id
LEFT JOIN attribution_policies p ON p.tenant_id = '*' AND p.policy_version = o.policy_version
WHERE c.tenant_id = n.tenant_id AND c.conversion_id = n.conversion_id AND c.version = n.version
"""

# After a stitching transaction of a rebuild: versions stay above those that were published before.
_LIFT = """
UPDATE attribution_conversions AS c SET version = r.version + 1, version_reason = 'repair', updated_at = now()
FROM (
    SELECT k.tenant_id, k.conversion_id, max(o.version) AS version
    FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
    JOIN attribution_results o USING (tenant_id, conversion_id) GROUP BY k.tenant_id, k.conversion_id
) AS r
WHERE c.tenant_id = r.tenant_id AND c.conversion_id = r.conversion_id AND c.version <= r.version
"""


def conversion_page(connection: psycopg.Connection, tenant_id: str, after: Key, limit: int) -> list[Key]:
    """Return the next (tenant, conversion id) after one, of conversions that have events or a row."""
    parameters = {"tenant": after[0], "id": after[1], "only": tenant_id, "limit": limit}
    return connection.execute(_PAGE, parameters).fetchall()


def repair_owners(connection: psycopg.Connection, ids: Mapping[Key, int]) -> int:
    """Decide the owners of anonymous ids anew; return how many had another owner.

    Args:
        connection: with staging tables, outside a transaction.
        ids: (tenant, anonymous id), each with the time of its deciding link, microseconds UTC.
    """
    keys = {(tenant, ANONYMOUS_PREFIX + anonymous_id): (at, at, 0) for (tenant, anonymous_id), at in ids.items()}
    at = min(ids.values())
    for _ in range(_MOST_TRIES):
        with connection.transaction():
            transaction = StitchTransaction(connection, (), (), ())
            transaction.lock_people(keys)
            # The ids are locked: nobody else can link them now. Every possible owner must be locked as well.
            more = set(transaction.users_linked(list(ids))) - keys.keys()
            if not more:
                return len(transaction.recompute_owners(list(ids)))
        keys |= dict.fromkeys(more, (at, at, 0))
    raise PeopleGrewError(keys)


def widen_journeys(connection: psycopg.Connection, bounds: Mapping[Key, Bounds]) -> None:
    """Make the rows of journeys reach as far as their events do."""
    with connection.transaction():
        StitchTransaction(connection, (), (), ()).lock_people(bounds)


def repair_conversions(
    connection: psycopg.Connection, page: Sequence[Key], policy_version: str, now_us: int, since_us: int | None
) -> Repaired:
    """Make conversions what their events say, in the caller's transaction.

    Args:
        connection: in a transaction, with staging tables.
        page: which.
        policy_version: the lookback policy in force; stored already.
        now_us: the time, microseconds UTC.
        since_us: versions that were raised since and never published may be taken back (no attributor runs since then);
            None: only versions below a published one are set.

    Raises:
        PeopleGrewError: see there.
    """
    transaction = StitchTransaction(connection, (), (), ())
    people = _people(transaction, page)
    transaction.lock_people(people)
    transaction.lock_conversions(page, ())
    stored = transaction.stored_conversions(page)
    all_events = transaction.events_of(page)
    now_there = _people(transaction, page)
    if now_there.keys() - people.keys():
        raise PeopleGrewError(now_there)
    columns = _columns(page)
    published = {
        (row[0], row[1]): row[2:] for row in connection.execute(_PUBLISHED, (since_us or 0, *columns)).fetchall()
    }
    states: list[ConversionRow] = []
    back: list[tuple[str, str, int]] = []
    raises: list[tuple[str, str, int]] = []
    for key in page:
        version, old = stored[key]
        now = _state(all_events.get(key, ()), version, old)
        if now is None:
            continue
        newest, observed, is_recent = published[key]
        if now != old:
            states.append(now)
        unpublished = since_us is not None and is_recent and observed < version and newest < version
        if newest > version or (newest and unpublished):
            back.append((*key, newest))
        elif version == 0 or (now != old and observed < version):
            raises.append((*key, version))
    if back:
        connection.execute(_TAKE_BACK, _columns(back))
    raise_repairs(connection, raises, policy_version, now_us)
    transaction.store_states(states)
    return Repaired(len(states), len(back), len(raises))


def raise_repairs(
    connection: psycopg.Connection, conversions: Sequence[tuple[str, str, int]], policy_version: str, now_us: int
) -> int:
    """Raise versions, reason ``repair``, of those of (tenant, conversion id, version) that still have it; how many."""
    if not conversions:
        return 0
    StitchTransaction(connection, (), (), ()).lock_conversions((), [row[:2] for row in conversions])
    tenants, ids, versions = _columns(sorted(conversions))
    columns = {"tenants": tenants, "ids": ids, "versions": versions}
    return connection.execute(_RAISE, columns | {"policy": policy_version, "now_us": now_us}).rowcount


def lift_versions(connection: psycopg.Connection, conversions: Sequence[Key]) -> None:
    """Set versions that are not above the newest stored result of their conversion to the number after it."""
    if conversions:
        connection.execute(_LIFT, _columns(conversions))


def _people(transaction: StitchTransaction, page: Sequence[Key]) -> dict[Key, Bounds]:
    """Return all people that the events of the conversions name, with the bounds of these events, or belong to."""
    found: dict[Key, Bounds] = {}
    for events in transaction.events_of(page).values():
        for event, row in events:
            widen(found, (row.tenant_id, row.identity_key), event.occurred_at, row.received_at)
            found.setdefault((row.tenant_id, row.journey_key), LOCKS_ONLY)
    return found


def _state(
    events: Sequence[tuple[ConversionEvent, ConversionRow]], version: int, old: ConversionRow
) -> ConversionRow | None:
    """Return what the events make of a conversion; None while only corrections have arrived."""
    state = fold(event for event, _ in events)
    if state.opened_by is None:
        return None if version == 0 else old._replace(gross_value_micros=0, net_value_micros=0)
    opening = next(row for event, row in events if event.event_id == state.opened_by)
    return opening._replace(
        gross_value_micros=state.gross_value_micros, net_value_micros=state.net_value_micros, currency=state.currency
    )


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
