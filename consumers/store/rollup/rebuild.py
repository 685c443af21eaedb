"""The roll-up made anew from the stored results, and compared with them.

Invariants: a rebuild is one transaction a tenant, in which its roll-up is locked, so readers see the old one or the new
one. It takes the reporter back to where the auditor is, since results that are not stored yet are not in it. The bridge
reaches as far back as versions are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from attributary.consumers.store.repair.verify_reads import Difference

from .apply import Held, apply_results, key_of, lock_rollups
from .cells import Deltas, RolledResult, cells_of
from .counts import Counts

_PAGE = 2_000
_TENANTS = """
WITH RECURSIVE t AS (
    (SELECT tenant_id FROM attribution_results ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant_id FROM attribution_results r WHERE r.tenant_id > t.tenant_id ORDER BY r.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL
UNION SELECT tenant_id FROM attribution_rollup_state ORDER BY 1
"""
_FORGET = tuple(
    f"DELETE FROM attribution_rollup_{table} WHERE tenant_id = %s"
    for table in ("conversions", "days", "changes", "campaigns", "counts", "restatements")
)
_BEGIN = """
UPDATE attribution_rollup_state s SET reported_until_us = 0, is_counted = true, rebuilt_at = now(), updated_at = now(),
    time_zone = COALESCE((SELECT t.time_zone FROM attribution_tenants t WHERE t.tenant_id = s.tenant_id), 'UTC')
WHERE s.tenant_id = %s
"""
_FACTS = (
    "tenant_id, conversion_id, version, version_reason, conversion_type, currency, converted_at_us, journey_key, "
    "net_value_micros, computed_at_us, touchpoints, models, is_final"
)
_RESULTS = f"""
SELECT {_FACTS} FROM attribution_results WHERE tenant_id = %s AND (conversion_id, version) > (%s, %s)
ORDER BY conversion_id, version LIMIT {_PAGE}
"""
_FOLLOW = """
UPDATE attribution_positions p SET next_offset = a.next_offset, updated_at = now()
FROM attribution_positions a
WHERE p.tenant_id = '*' AND p.consumer_group = %s AND a.tenant_id = '*' AND a.consumer_group = %s
  AND a.topic = p.topic AND a.partition = p.partition AND a.next_offset < p.next_offset
"""
_AHEAD = """
SELECT COALESCE(bool_or(p.next_offset > a.next_offset), false), COALESCE(bool_or(p.next_offset < a.next_offset), false)
FROM attribution_positions a LEFT JOIN attribution_positions p
  ON p.tenant_id = a.tenant_id AND p.topic = a.topic AND p.partition = a.partition AND p.consumer_group = %s
WHERE a.tenant_id = '*' AND a.consumer_group = %s
"""
_HELD = (
    "tenant_id, conversion_md5, person_md5, version, reported_at_us, conversion_type, currency, converted_at_us, "
    "is_new, net_micros, cells, first_reported_at_us, first_channel"
)
_CONTRIBUTIONS = f"""
SELECT {_HELD} FROM attribution_rollup_conversions WHERE tenant_id = %s AND conversion_md5 > %s
ORDER BY conversion_md5 LIMIT %s
"""
_NEWEST = f"""
SELECT {_FACTS} FROM (
    SELECT DISTINCT ON (conversion_id) * FROM attribution_results
    WHERE tenant_id = %s AND conversion_id > %s ORDER BY conversion_id, version DESC LIMIT {_PAGE}
) AS r
"""
_DAYS = """
SELECT grain, dating, day, conversion_type, currency, is_new, model, channel, platform, campaign_id, campaign,
       credit_billionths, value_micros, journeys, squares::int8
FROM attribution_rollup_days WHERE tenant_id = %s
  AND (credit_billionths <> 0 OR value_micros <> 0 OR journeys <> 0 OR squares <> 0)
"""
_NOT_FIRST = """
SELECT count(*) FROM (
    SELECT c.is_new, NOT EXISTS (
               SELECT FROM attribution_rollup_people p WHERE p.tenant_id = c.tenant_id
                 AND p.person_md5 = c.person_md5 AND p.conversion_type = c.conversion_type)
           AND row_number() OVER (PARTITION BY c.person_md5, c.conversion_type
                                  ORDER BY c.converted_at_us, c.conversion_md5) = 1 AS is_first
    FROM attribution_rollup_conversions c WHERE c.tenant_id = %s
) AS each WHERE is_new <> is_first
"""
_COUNTS = """
SELECT kind, day, conversion_type, currency, model, name, part, number, delay, conversions, value_micros,
       credit_billionths
FROM attribution_rollup_counts WHERE tenant_id = %s AND split_part(kind, ':', 1) NOT IN ('touched', 'cohort')
  AND (conversions <> 0 OR value_micros <> 0 OR credit_billionths <> 0)
"""
# People in cohorts, counted by the months of their conversions; and what is counted otherwise.
_WRONG_COHORTS = """
WITH dated AS (
    SELECT c.*, (to_timestamp(c.converted_at_us / 1000000) AT TIME ZONE %(zone)s)::date AS day
    FROM attribution_rollup_conversions c WHERE c.tenant_id = %(tenant)s
), cohorts AS (
    SELECT d.*, first_value(day) OVER person AS began, first_value(first_channel) OVER person AS channel
    FROM dated d WINDOW person AS (
        PARTITION BY person_md5, conversion_type, currency ORDER BY converted_at_us, conversion_md5)
), months AS (
    SELECT began, conversion_type, currency, channel, person_md5, net_micros,
           ((EXTRACT(year FROM day) - EXTRACT(year FROM began)) * 12
            + EXTRACT(month FROM day) - EXTRACT(month FROM began))::int AS since
    FROM cohorts
), expected AS (
    SELECT began AS day, conversion_type, currency, channel AS name, since AS number, count(*) AS conversions,
           sum(net_micros) AS value, count(DISTINCT person_md5) AS people
    FROM months GROUP BY 1, 2, 3, 4, 5
), stored AS (
    SELECT day, conversion_type, currency, name, number,
           sum(conversions) FILTER (WHERE part = 'conversion') AS conversions,
           sum(value_micros) AS value, sum(conversions) FILTER (WHERE part = 'person') AS people
    FROM attribution_rollup_counts WHERE tenant_id = %(tenant)s AND kind = 'cohort' AND conversions <> 0
    GROUP BY 1, 2, 3, 4, 5
)
SELECT count(*) FROM expected e FULL JOIN stored s USING (day, conversion_type, currency, name, number)
WHERE (e.conversions, e.value, e.people) IS DISTINCT FROM (s.conversions, s.value, s.people)
"""
_WRONG_RESTATEMENTS = """
SELECT count(*) FROM (
    SELECT grain, day, conversion_type, currency, model, channel || platform || campaign AS name,
           sum(credit_billionths) AS credit, sum(value_micros) AS value
    FROM attribution_rollup_days WHERE tenant_id = %(tenant)s AND grain <> 'touch' GROUP BY 1, 2, 3, 4, 5, 6
    HAVING sum(credit_billionths) <> 0 OR sum(value_micros) <> 0
) AS d FULL JOIN (
    SELECT grain, day, conversion_type, currency, model, name, sum(credit_billionths) AS credit,
           sum(value_micros) AS value
    FROM attribution_rollup_restatements WHERE tenant_id = %(tenant)s GROUP BY 1, 2, 3, 4, 5, 6
    HAVING sum(credit_billionths) <> 0 OR sum(value_micros) <> 0
) AS r USING (grain, day, conversion_type, currency, model, name)
WHERE (d.credit, d.value) IS DISTINCT FROM (r.credit, r.value)
"""
_NIL = "00000000-0000-0000-0000-000000000000"


def rollup_tenants(connection: psycopg.Connection) -> list[str]:
    """Return the tenants that have results or a roll-up."""
    return [row[0] for row in connection.execute(_TENANTS).fetchall()]


def rebuild_rollup(
    connection: psycopg.Connection,
    tenant_id: str,
    groups: tuple[str, str],
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Make the roll-up of a tenant anew, in the time zone that it has now.

    Args:
        connection: in a transaction, with the staging table.
        tenant_id: the tenant.
        groups: of the reporter and of the auditor.
        advance: told how many results were read.

    Returns:
        How many results were read.
    """
    # Between two pages Python adds up: on a busy machine for longer than a stage's transaction may rest.
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    lock_rollups(connection, [tenant_id])
    for statement in _FORGET:
        connection.execute(statement.encode(), (tenant_id,))
    connection.execute(_BEGIN, (tenant_id,))
    read, place = 0, ("", 0)
    while rows := connection.execute(_RESULTS, (tenant_id, *place)).fetchall():
        results = [_rolled(row) for row in rows]
        apply_results(connection, results)
        read += len(rows)
        advance(len(rows))
        place = (results[-1].conversion_id, results[-1].version)
    connection.execute(_FOLLOW, groups)
    return read


def rollup_differences(connection: psycopg.Connection, groups: tuple[str, str]) -> Iterator[Difference]:
    """Yield what the roll-up has otherwise than the newest stored results; memory for the rows of one tenant.

    What reporter or auditor have not read yet is no difference. Where no reporter has ever run there is none.

    Args:
        connection: in a snapshot.
        groups: of the reporter and of the auditor.
    """
    rows = connection.execute(
        "SELECT tenant_id, time_zone, is_counted FROM attribution_rollup_state ORDER BY 1"
    ).fetchall()
    row = connection.execute(_AHEAD, groups).fetchone()
    is_ahead, is_behind = row or (False, False)
    for tenant_id, zone, is_whole in rows:
        yield from _wrong_sums(connection, tenant_id, zone, has_counts=is_whole)
        yield from _wrong_contributions(
            connection, tenant_id, may_lack=is_behind, may_lead=is_ahead, has_counts=is_whole
        )
        wrong = connection.execute(_NOT_FIRST, (tenant_id,)).fetchone()
        if wrong and wrong[0]:
            yield Difference(tenant_id, "roll-up, who is new", f"{wrong[0]} conversions otherwise", "the first one")


def _wrong_sums(connection: psycopg.Connection, tenant_id: str, zone: str, *, has_counts: bool) -> Iterator[Difference]:
    """Compare the rows with the sums of all contributions."""
    deltas, counts, place = Deltas({tenant_id: zone}), Counts({tenant_id: zone}), _NIL
    while rows := [Held(*row) for row in connection.execute(_CONTRIBUTIONS, (tenant_id, place, _PAGE)).fetchall()]:
        for held in rows:
            cells = json.loads(held.cells)
            deltas.add(tenant_id, held.shared, cells, sign=1, reported_at=held.converted_at, reason="")
            if has_counts:
                counts.add(held, cells, sign=1)
        place = str(rows[-1].conversion_md5)
    expected: dict[tuple[Any, ...], list[int]] = {}
    for delta in deltas.rows():
        for dating, day in (("cash", delta.cash_day), ("accrual", delta.accrual_day)):
            if dating == "cash" or delta.grain == "touch":
                key = (delta.grain, dating, day, *delta[6:14])
                sums = expected.setdefault(key, [0, 0, 0, 0])
                for number, part in enumerate(delta[14:]):
                    sums[number] += part
    stored = {tuple(row[:11]): list(row[11:]) for row in connection.execute(_DAYS, (tenant_id,)).fetchall()}
    for key in _unequal(stored, {key: sums for key, sums in expected.items() if any(sums)}):
        what = f"roll-up of {key[2]}, {key[1]}, {key[6]}, {key[7] or key[8]}, {key[0]}"
        yield Difference(tenant_id, what, str(stored.get(key)), str(expected.get(key)))
    if has_counts:
        yield from _wrong_counts(connection, tenant_id, zone, counts)


def _wrong_counts(connection: psycopg.Connection, tenant_id: str, zone: str, counts: Counts) -> Iterator[Difference]:
    """Compare the counts for reports with the sums of all contributions, and of people's conversions."""
    expected = {tuple(row[1:10]): list(row[10:]) for row in counts.rows()}
    stored = {tuple(row[:9]): list(row[9:]) for row in connection.execute(_COUNTS, (tenant_id,)).fetchall()}
    for key in _unequal(stored, expected):
        what = f"roll-up of {key[1]}, {key[0]}, {key[4]}, {key[5]}, {key[6]}"
        yield Difference(tenant_id, what, str(stored.get(key)), str(expected.get(key)))
    for statement, what in ((_WRONG_COHORTS, "cohorts"), (_WRONG_RESTATEMENTS, "changes")):
        row = connection.execute(statement.encode(), {"tenant": tenant_id, "zone": zone}).fetchone()
        if row and row[0]:
            yield Difference(tenant_id, f"roll-up, {what}", f"{row[0]} rows otherwise", "the sums of conversions")


def _unequal(stored: dict[tuple[Any, ...], list[int]], expected: dict[tuple[Any, ...], list[int]]) -> list[Any]:
    return sorted((key for key in stored.keys() | expected.keys() if stored.get(key) != expected.get(key)), key=str)


def _wrong_contributions(
    connection: psycopg.Connection, tenant_id: str, *, may_lack: bool, may_lead: bool, has_counts: bool
) -> Iterator[Difference]:
    """Compare what conversions contribute with their newest stored results."""
    place, matched = "", 0
    while rows := connection.execute(_NEWEST, (tenant_id, place)).fetchall():
        results = [_rolled(row) for row in rows]
        keys = [key_of(tenant_id, result.conversion_id) for result in results]
        known = _held_of(connection, tenant_id, [str(md5) for _, md5 in keys])
        for (_, md5), result in zip(keys, results, strict=True):
            held = known.get(str(md5))
            matched += held is not None
            what = f"roll-up of {result.conversion_id}, version {result.version}"
            if held is None or held.version < result.version:
                if not may_lack:
                    yield Difference(tenant_id, what, f"version {held.version}" if held else "nothing", "this one")
            elif held.version > result.version:
                if not may_lead:
                    yield Difference(tenant_id, what, f"version {held.version}", "this one, the newest that is stored")
            elif (held.shared[:3], held.net_micros) != (
                (result.conversion_type, result.currency, result.converted_at), result.net_micros
            ) or _cells(held.cells, has_counts) != _cells(result.cells, has_counts):  # fmt: skip
                yield Difference(tenant_id, what, "contributes otherwise", "what its result says")
        place = results[-1].conversion_id
    row = connection.execute(
        "SELECT count(*) FROM attribution_rollup_conversions WHERE tenant_id = %s", (tenant_id,)
    ).fetchone()
    if row and row[0] > matched and not may_lead:
        yield Difference(tenant_id, "roll-up", f"{row[0] - matched} conversions without a stored result", "none")


def _cells(text: str, has_counts: bool) -> Any:
    """Return what a contribution says; before a rebuild older ones lack what the counts need."""
    return text if has_counts else [json.loads(text)[name] for name in ("t", "m")]


def _held_of(connection: psycopg.Connection, tenant_id: str, conversions: list[str]) -> dict[str, Held]:
    statement = (
        f"SELECT {_HELD} FROM attribution_rollup_conversions WHERE tenant_id = %s AND conversion_md5 = ANY (%s::uuid[])"
    )
    rows = connection.execute(statement.encode(), (tenant_id, conversions)).fetchall()
    return {str(row[1]): Held(*row) for row in rows}


def _rolled(row: tuple[Any, ...]) -> RolledResult:
    return RolledResult._make((*row[:10], *cells_of(row[10], row[11], is_final=row[12]), None))
