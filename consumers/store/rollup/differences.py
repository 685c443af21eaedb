"""The roll-up compared with the newest stored results: contributions with results, sums with contributions.

Invariants: memory is bounded by ``MOST_ROWS``, not by the roll-up: where a tenant has more rows, its contributions are
read several times, each time for a part of the rows, by their MD5. What Postgres compares alone, it compares there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import zip_longest
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import psycopg

from attributary.consumers.store.repair.verify_reads import Difference

from .apply import Held, key_of, read_slots
from .batch_sums import Integers, Rows
from .cells import FIRST_DAY
from .counts import COUNT_SUMS
from .fold import Fold
from .names import NAME_SUMS
from .rebuild import FACTS, rolled_of
from .statements import KEYS

MOST_ROWS = 40_000  # that are held at once, of about 1 kB
_PAGE = 2_000
_SPACE = 1 << 32  # of the first four bytes of an MD5
_SUMS = {
    "days": ("credit_billionths", "value_micros"), "names": (*NAME_SUMS, "assists"), "counts": COUNT_SUMS,
}  # fmt: skip
_WITHOUT_COHORTS = {"counts": " AND kind <> 'cohort'"}  # those are compared by people
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
SELECT {FACTS} FROM (
    SELECT DISTINCT ON (conversion_id) * FROM attribution_results
    WHERE tenant_id = %s AND conversion_id > %s ORDER BY conversion_id, version DESC LIMIT {_PAGE}
) AS r
"""
_SIZE = """
SELECT (SELECT count(*) FROM attribution_rollup_days WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM attribution_rollup_names WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM attribution_rollup_counts WHERE tenant_id = %(tenant)s)
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
    SELECT day, conversion_type, currency, name, number, conversions[1] AS conversions, value_micros[1] AS value,
           conversions[2] AS people
    FROM attribution_rollup_counts
    WHERE tenant_id = %(tenant)s AND kind = 'cohort' AND (conversions[1] <> 0 OR conversions[2] <> 0)
)
SELECT count(*) FROM expected e FULL JOIN stored s USING (day, conversion_type, currency, name, number)
WHERE (e.conversions, e.value, e.people) IS DISTINCT FROM (s.conversions, s.value, s.people)
"""
_WRONG_RESTATEMENTS = """
SELECT count(*) FROM (
    SELECT r.grain, r.day, r.conversion_type, r.currency, m.number, r.name,
           COALESCE(r.credit_billionths[m.number], 0) AS credit, COALESCE(r.value_micros[m.number], 0) AS value
    FROM attribution_rollup_names r JOIN attribution_rollup_models m USING (tenant_id) WHERE tenant_id = %(tenant)s
) AS d FULL JOIN (
    SELECT r.grain, r.day, r.conversion_type, r.currency, m.number, r.name,
           COALESCE(sum(r.credit_billionths[m.number]), 0) AS credit,
           COALESCE(sum(r.value_micros[m.number]), 0) AS value
    FROM attribution_rollup_restatements r JOIN attribution_rollup_models m USING (tenant_id)
    WHERE tenant_id = %(tenant)s GROUP BY 1, 2, 3, 4, 5, 6
) AS r USING (grain, day, conversion_type, currency, number, name)
WHERE (COALESCE(d.credit, 0), COALESCE(d.value, 0)) <> (COALESCE(r.credit, 0), COALESCE(r.value, 0))
"""
_NIL = "00000000-0000-0000-0000-000000000000"


def rollup_differences(connection: psycopg.Connection, groups: tuple[str, str]) -> Iterator[Difference]:
    """Yield what the roll-up has otherwise than the newest stored results.

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
        if not is_whole:
            yield Difference(tenant_id, "roll-up", "emptied by an upgrade", "attributary rebuild --rollup")
            continue
        yield from _wrong_sums(connection, tenant_id, zone)
        yield from _wrong_contributions(connection, tenant_id, may_lack=is_behind, may_lead=is_ahead)
        wrong = connection.execute(_NOT_FIRST, (tenant_id,)).fetchone()
        if wrong and wrong[0]:
            yield Difference(tenant_id, "roll-up, who is new", f"{wrong[0]} conversions otherwise", "the first one")
        for statement, what in ((_WRONG_COHORTS, "cohorts"), (_WRONG_RESTATEMENTS, "changes of names")):
            wrong = connection.execute(statement.encode(), {"tenant": tenant_id, "zone": zone}).fetchone()
            if wrong and wrong[0]:
                yield Difference(tenant_id, f"roll-up, {what}", f"{wrong[0]} rows otherwise", "the sums of conversions")


def _wrong_sums(connection: psycopg.Connection, tenant_id: str, zone: str) -> Iterator[Difference]:
    """Compare the rows with the sums of all contributions, so many at once as memory is for."""
    row = connection.execute(_SIZE, {"tenant": tenant_id}).fetchone()
    passes = max(1, -(-row[0] // MOST_ROWS)) if row else 1
    for number in range(passes):
        part = number * _SPACE // passes, (number + 1) * _SPACE // passes
        expected = _expected(connection, tenant_id, zone, part)
        for table, md5, keys, sums in _stored(connection, tenant_id, part):
            wanted = expected.pop((table, md5), None)
            if any(any(column) for column in sums) if wanted is None else not _is_same(sums, wanted):
                yield _difference(tenant_id, keys, str(sums), str(wanted and wanted.columns()))
        for wanted in expected.values():
            if wanted.sums.any():
                yield _difference(tenant_id, wanted.keys, "None", str(wanted.columns()))


class _Wanted(NamedTuple):
    """A row as contributions sum to it."""

    keys: tuple[Any, ...]
    sums: Integers  # of all columns
    widths: tuple[int, ...]

    def columns(self) -> list[list[int]]:
        """Return the sums by column."""
        return [each.tolist() for each in np.split(self.sums, np.cumsum(self.widths)[:-1])]


def _is_same(stored: Sequence[Sequence[Any]], wanted: _Wanted) -> bool:
    """Compare sums by slots; a slot that is not there is 0."""
    return all(
        sum_ == other
        for column, expected in zip(stored, wanted.columns(), strict=True)
        for sum_, other in zip_longest(column, expected, fillvalue=0)
    )


def _difference(tenant_id: str, keys: Sequence[Any], stored: str, wanted: str) -> Difference:
    return Difference(tenant_id, f"roll-up of {', '.join(str(key) for key in keys)}", stored, wanted)


def _expected(
    connection: psycopg.Connection, tenant_id: str, zone: str, part: tuple[int, int]
) -> dict[tuple[str, bytes], _Wanted]:
    """Return a part of the rows that all contributions sum to."""
    found: dict[tuple[str, bytes], _Wanted] = {}
    slots, place = read_slots(connection, [tenant_id]), _NIL
    while rows := [Held(*row) for row in connection.execute(_CONTRIBUTIONS, (tenant_id, place, _PAGE)).fetchall()]:
        fold = Fold({tenant_id: zone}, slots)
        for held in rows:
            cells = json.loads(held.cells)
            fold.keep(held, cells, weight=1)
            fold.change([(held, cells, held.is_new, 1)], held.converted_at, "", is_version=False)
        tables = fold.rows()
        for table, names in _SUMS.items():
            for each in tables[table]:
                _add(found, table, names, each, part)
        place = str(rows[-1].conversion_md5)
    return found


def _add(
    found: dict[tuple[str, bytes], _Wanted], table: str, names: Sequence[str], rows: Rows, part: tuple[int, int]
) -> None:
    columns = [rows.sums[name] for name in names]
    widths = tuple(column.shape[1] for column in columns)
    sums = np.concatenate(columns, axis=1)
    for place, md5 in enumerate(rows.ids):
        if part[0] <= int.from_bytes(md5[:4]) < part[1]:
            known = found.get((table, md5))
            if known is None:
                keys = tuple(_shown(name, rows.keys[name][place]) for name in KEYS[table])
                found[table, md5] = _Wanted(keys, sums[place].copy(), widths)
            else:
                known.sums[:] += sums[place]


def _shown(name: str, value: Any) -> Any:
    """Return a key as Postgres returns it."""
    if name == "day":
        return FIRST_DAY + timedelta(days=value)
    return value == "t" if name == "is_new" else value


def _stored(
    connection: psycopg.Connection, tenant_id: str, part: tuple[int, int]
) -> Iterator[tuple[str, bytes, tuple[Any, ...], list[list[Any]]]]:
    """Yield a part of the rows that are stored."""
    first, behind = (str(UUID(int=bound << 96)) for bound in (part[0], min(part[1], _SPACE - 1)))
    is_last = part[1] == _SPACE
    for table, names in _SUMS.items():
        keys = KEYS[table]
        statement = (
            f"SELECT row_md5, {', '.join((*keys, *names))} FROM attribution_rollup_{table} WHERE tenant_id = %s "
            f"AND row_md5 >= %s AND (%s OR row_md5 < %s){_WITHOUT_COHORTS.get(table, '')}"
        )
        with connection.cursor("attributary_verify_rollup") as cursor:
            cursor.itersize = _PAGE
            for row in cursor.execute(statement.encode(), (tenant_id, first, is_last, behind)):
                yield table, row[0].bytes, row[1 : 1 + len(keys)], list(row[1 + len(keys) :])


def _wrong_contributions(
    connection: psycopg.Connection, tenant_id: str, *, may_lack: bool, may_lead: bool
) -> Iterator[Difference]:
    """Compare what conversions contribute with their newest stored results."""
    place, matched = "", 0
    while rows := connection.execute(_NEWEST, (tenant_id, place)).fetchall():
        results = [rolled_of(row) for row in rows]
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
            ) or held.cells != result.cells:  # fmt: skip
                yield Difference(tenant_id, what, "contributes otherwise", "what its result says")
        place = results[-1].conversion_id
    row = connection.execute(
        "SELECT count(*) FROM attribution_rollup_conversions WHERE tenant_id = %s", (tenant_id,)
    ).fetchone()
    if row and row[0] > matched and not may_lead:
        yield Difference(tenant_id, "roll-up", f"{row[0] - matched} conversions without a stored result", "none")


def _held_of(connection: psycopg.Connection, tenant_id: str, conversions: list[str]) -> dict[str, Held]:
    statement = (
        f"SELECT {_HELD} FROM attribution_rollup_conversions WHERE tenant_id = %s AND conversion_md5 = ANY (%s::uuid[])"
    )
    rows = connection.execute(statement.encode(), (tenant_id, conversions)).fetchall()
    return {str(row[1]): Held(*row) for row in rows}
