"""Experiments in Postgres, and the sales that tests are planned by.

Invariant: revisions are only added, writers of a tenant take turns, and what is as before makes no revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

import psycopg
from psycopg.rows import dict_row

from attributary.attribution_core.budget.experiments import SpendExperiment
from attributary.consumers.store.audit import note_action

_ROW = tuple(each.name for each in fields(SpendExperiment))
# Not a lock of the table: that would need a right which nobody has but its owner.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('attribution_experiments'), hashtext(%s))"
_NEWEST = f"""
SELECT DISTINCT ON (experiment) {", ".join(_ROW)}, revision, created_at FROM attribution_experiments
WHERE tenant_id = %(tenant)s AND (%(names)s::text[] IS NULL OR experiment = ANY (%(names)s))
ORDER BY experiment, revision DESC
"""
_ALL = f"""
SELECT {", ".join(_ROW)}, revision, created_at FROM attribution_experiments
WHERE tenant_id = %(tenant)s AND experiment = %(name)s ORDER BY revision DESC
"""
_ADD = f"""
INSERT INTO attribution_experiments (tenant_id, revision, {", ".join(_ROW)})
VALUES (%(tenant)s, %(revision)s, {", ".join(f"%({name})s" for name in _ROW)})
"""
_SALES = """
SELECT (to_timestamp(converted_at_us / 1e6) AT TIME ZONE %(zone)s)::date AS day, sum(net_value_micros)
FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND version > 0
  AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
GROUP BY 1 ORDER BY 1
"""
_SQUARES = """
SELECT COALESCE(sum(value * value), 0) FROM (
    SELECT sum(net_value_micros) / 1e6::numeric AS value FROM attribution_conversions
    WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND version > 0
      AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
    GROUP BY journey_key
) AS persons
"""
_CURRENCY = """
SELECT currency FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND version > 0 AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
GROUP BY currency ORDER BY count(*) DESC, currency LIMIT 1
"""


class StoredExperiment(NamedTuple):
    """A revision of an experiment, its number and when it was stored."""

    experiment: SpendExperiment
    revision: int
    created_at: datetime


class Added(NamedTuple):
    """What adding experiments changed."""

    new: int
    corrected: int
    unchanged: int


def add_experiments(connection: psycopg.Connection, tenant_id: str, given: Sequence[SpendExperiment]) -> Added:
    """Add experiments, or corrections of them, in the caller's transaction; each change is audited.

    Args:
        connection: in a transaction at READ COMMITTED.
        tenant_id: the owner.
        given: each name once.
    """
    connection.execute(_LOCK, (tenant_id,))
    known = {each.experiment.experiment: each
             for each in experiments(connection, tenant_id, [one.experiment for one in given])}  # fmt: skip
    counts = [0, 0, 0]
    for each in sorted(given, key=lambda one: one.experiment):
        before = known.get(each.experiment)
        if before is not None and before.experiment == each:
            counts[2] += 1
            continue
        revision = 1 if before is None else before.revision + 1
        row = {name: getattr(each, name) for name in _ROW}
        connection.execute(_ADD, row | {"tenant": tenant_id, "revision": revision})
        counts[0 if before is None else 1] += 1
        action = "withdrawn" if each.is_withdrawn else "added" if before is None else "corrected"
        details = {"revision": revision, "channel": each.channel, "design": each.design,
                   "effect_micros": each.effect_micros, "error_micros": each.error_micros}  # fmt: skip
        note_action(connection, tenant_id, f"experiment.{action}", each.experiment, details)
    return Added(*counts)


def experiments(
    connection: psycopg.Connection, tenant_id: str, names: Sequence[str] | None = None
) -> list[StoredExperiment]:
    """Return the newest revision of each experiment of a tenant, by name; `names`: of these only."""
    return _rows(connection, _NEWEST, {"tenant": tenant_id, "names": None if names is None else list(names)})


def revisions(connection: psycopg.Connection, tenant_id: str, name: str) -> list[StoredExperiment]:
    """Return all revisions of one experiment, the newest first."""
    return _rows(connection, _ALL, {"tenant": tenant_id, "name": name})


def _rows(connection: psycopg.Connection, statement: str, parameters: dict[str, object]) -> list[StoredExperiment]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement, parameters).fetchall()
    return [
        StoredExperiment(SpendExperiment(**{name: row[name] for name in _ROW}), row["revision"], row["created_at"])
        for row in rows
    ]


def usual_currency(connection: psycopg.Connection, tenant_id: str, period_us: tuple[int, int]) -> str | None:
    """Return the currency of most conversions of a period; None: there is none."""
    parameters = {"tenant": tenant_id, "from_us": period_us[0], "to_us": period_us[1]}
    found = connection.execute(_CURRENCY, parameters).fetchone()
    return None if found is None else str(found[0])


def sales_by_day(
    connection: psycopg.Connection, tenant_id: str, currency: str, period_us: tuple[int, int], zone: str
) -> list[tuple[date, int]]:
    """Return net sales of each day with a conversion, in micros of the currency.

    Args:
        connection: any.
        tenant_id: the tenant.
        currency: of the conversions; others are left out.
        period_us: from (included) to (excluded), microseconds UTC.
        zone: IANA name of the zone in which days begin.
    """
    parameters = {"tenant": tenant_id, "currency": currency, "from_us": period_us[0], "to_us": period_us[1],
                  "zone": zone}  # fmt: skip
    return [(day, int(micros)) for day, micros in connection.execute(_SALES, parameters).fetchall()]


def person_squares(
    connection: psycopg.Connection, tenant_id: str, currency: str, period_us: tuple[int, int]
) -> Decimal:  # fmt: skip
    """Return the sum over persons of the square of what each bought in a period, in units of the currency."""
    parameters = {"tenant": tenant_id, "currency": currency, "from_us": period_us[0], "to_us": period_us[1]}
    found = connection.execute(_SQUARES, parameters).fetchone()
    return Decimal(found[0]) if found else Decimal(0)
