"""Migrations 0095 and 0118 make the roll-up of before the rows that the reporter of today writes, hashes included."""

from __future__ import annotations

import random
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import apply_results, prepare_rollup
from attributary.consumers.store.rollup.counts import COUNT_SUMS
from attributary.consumers.store.rollup.names import NAME_SUMS
from attributary.consumers.store.rollup.statements import KEYS
from tests.factories.rolled_results import Sale

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.postgres

DAY_US = 86_400_000_000
NOW_US = 1_774_742_400_000_000
SUMS = {
    "days": ("credit_billionths", "value_micros"), "names": (*NAME_SUMS, "assists"),
    "restatements": ("credit_billionths", "value_micros", "versions"), "counts": COUNT_SUMS,
}  # fmt: skip
# What changed these tables since, beside views over them.
SINCE = ("0095_rollup_slots.sql", "0118_rollup_one_index.sql")
# The rows of before, from those of today: a row for each model, and what stands in one row now in four kinds of rows.
BEFORE = (
    """
    INSERT INTO attribution_rollup_days (tenant_id, row_md5, grain, dating, day, conversion_type, currency, is_new,
        model, channel, platform, campaign_id, campaign, credit_billionths, value_micros, journeys, squares)
    SELECT d.tenant_id, md5(row_md5::text || model)::uuid, 'touch', dating, day, conversion_type, currency, is_new,
           m.model, channel, platform, campaign_id, campaign, credit_billionths[m.number], value_micros[m.number], 0, 0
    FROM kept_days d JOIN kept_models m USING (tenant_id)
    """,
    # By name there were rows for new and for returning customers; here all but one journey of each row is new.
    """
    INSERT INTO attribution_rollup_days (tenant_id, row_md5, grain, dating, day, conversion_type, currency, is_new,
        model, channel, platform, campaign_id, campaign, credit_billionths, value_micros, journeys, squares)
    SELECT n.tenant_id, md5(row_md5::text || model || is_new)::uuid, grain, 'cash', day, conversion_type, currency,
           is_new, m.model, CASE grain WHEN 'channel' THEN name ELSE '' END,
           CASE grain WHEN 'platform' THEN name ELSE '' END, '', CASE grain WHEN 'campaign' THEN name ELSE '' END,
           CASE WHEN is_new THEN credit_billionths[m.number] - 7 ELSE 7 END,
           CASE WHEN is_new THEN value_micros[m.number] + 5 ELSE -5 END,
           CASE WHEN is_new THEN journeys[m.number] - 1 ELSE 1 END,
           CASE WHEN is_new THEN squares[m.number] - 3 ELSE 3 END
    FROM kept_names n JOIN kept_models m USING (tenant_id) CROSS JOIN (VALUES (true), (false)) AS of (is_new)
    """,
    """
    INSERT INTO attribution_rollup_restatements (tenant_id, row_md5, grain, reported_day, reason, day, conversion_type,
        currency, model, name, credit_billionths, value_micros)
    SELECT r.tenant_id, md5(row_md5::text || model)::uuid, grain, reported_day, reason, day, conversion_type, currency,
           m.model, name, credit_billionths[m.number], value_micros[m.number]
    FROM kept_restatements r JOIN kept_models m USING (tenant_id)
    WHERE credit_billionths[m.number] <> 0 OR value_micros[m.number] <> 0
    """,
    """
    INSERT INTO attribution_rollup_counts (tenant_id, row_md5, kind, day, conversion_type, currency, model, name, part,
        number, delay, conversions, value_micros, credit_billionths)
    SELECT tenant_id, gen_random_uuid(), kind, day, conversion_type, currency, model, name, part, number, delay,
           conversions, value_micros, credit FROM (
        SELECT c.tenant_id, kind, day, conversion_type, currency, m.model, name, part, c.number, delay,
               conversions[m.number] AS conversions, value_micros[m.number] AS value_micros,
               credit_billionths[m.number] AS credit
        FROM kept_counts c JOIN kept_models m ON m.tenant_id = c.tenant_id WHERE kind IN ('accrual', 'rest', 'use')
        UNION ALL
        SELECT tenant_id, kind, day, conversion_type, currency, '', name,
               CASE WHEN kind = 'cohort' THEN (ARRAY['conversion', 'person'])[s] ELSE part END, number, delay,
               conversions[s], CASE s WHEN 1 THEN value_micros[1] ELSE 0 END, 0
        FROM kept_counts CROSS JOIN generate_series(1, 2) AS s WHERE kind NOT IN ('accrual', 'rest', 'use')
        UNION ALL
        SELECT tenant_id, 'length:channel', day, conversion_type, currency, '', '', '', number, 0, conversions[1], 0, 0
        FROM kept_counts WHERE kind = 'path:channel'
        UNION ALL
        SELECT tenant_id, 'assist:' || grain, day, conversion_type, currency, '', name,
               (ARRAY['touched', 'assisted', 'closed', 'only'])[s], 0, 0, assists[s], 0, 0
        FROM kept_names CROSS JOIN generate_series(1, 4) AS s
        UNION ALL
        SELECT tenant_id, 'touched:' || grain, day, conversion_type, currency, '', name, reason, 0, reported_day - day,
               versions, 0, 0 FROM kept_restatements
        UNION ALL
        SELECT n.tenant_id, 'position:' || grain, day, conversion_type, currency, m.model, name, part, 0, 0,
               CASE part WHEN 'early' THEN early_touches[m.number] WHEN 'late' THEN late_touches[m.number]
                    ELSE touches[m.number] - early_touches[m.number] - late_touches[m.number] END,
               CASE part WHEN 'early' THEN early_micros[m.number] WHEN 'late' THEN late_micros[m.number]
                    ELSE value_micros[m.number] - early_micros[m.number] - late_micros[m.number] END,
               CASE part WHEN 'early' THEN early_billionths[m.number] WHEN 'late' THEN late_billionths[m.number]
                    ELSE credit_billionths[m.number] - early_billionths[m.number] - late_billionths[m.number] END
        FROM kept_names n JOIN kept_models m USING (tenant_id)
        CROSS JOIN (VALUES ('early'), ('mid'), ('late')) AS of (part)
    ) AS rows WHERE conversions <> 0 OR value_micros <> 0 OR credit <> 0
    """,
)


def migration(name: str) -> str:
    return resources.files("attributary.consumers.store.migrations").joinpath(name).read_text("utf-8")


def table_of(name: str, file: str) -> str:
    """What made a table of before."""
    found = re.search(rf"CREATE TABLE attribution_rollup_{name} \(.*?\n\).*?;", migration(file), re.DOTALL)
    assert found
    return found[0].replace("'channel', 'platform')", "'channel', 'platform', 'campaign')")


def drawn(draw: random.Random) -> Sale:
    conversion, version = draw.randrange(40), draw.randrange(1, 4)
    content = random.Random(f"{conversion} {version}")
    touches = [
        (content.choice(("search", "(unattributed)", "é-mail")), content.choice(("google", "meta")),
         content.choice(("", "7")), content.choice(("", "Frühling \U0001f600")),
         NOW_US - content.randrange(90) * DAY_US)
        for _ in range(content.randrange(6))
    ]  # fmt: skip
    return Sale(
        f"t{conversion % 2}", f"c{conversion}", version, content.choice(("new", "refund")),
        f"u:{content.randrange(9)}", content.choice(("purchase", "lead")), content.choice(("EUR", "JPY")),
        NOW_US + content.randrange(-40, 40) * DAY_US, NOW_US + version * DAY_US, content.randrange(-5, 90_000_000),
        touches,
    )  # fmt: skip


def stored(connection: psycopg.Connection) -> dict[tuple[Any, ...], Any]:
    """Every sum that is not zero, by the row's hash and keys, and by model."""
    found: dict[tuple[Any, ...], Any] = {}
    models = {}
    for tenant, model, number in connection.execute("SELECT tenant_id, model, number FROM attribution_rollup_models"):
        models[tenant, number] = model
    for table, sums in SUMS.items():
        columns = ", ".join(("tenant_id", "row_md5", *KEYS[table], *sums))
        for row in connection.execute(f"SELECT {columns} FROM attribution_rollup_{table}".encode()).fetchall():
            key, is_plain = row[: -len(sums)], table == "counts" and row[2] not in {"accrual", "rest", "use"}
            for name, column in zip(sums, row[-len(sums) :], strict=True):
                for number, value in enumerate(column if isinstance(column, list) else [column], 1):
                    by_number = is_plain or name in {"assists", "versions"}
                    if value:
                        found[table, *key, name, number if by_number else models[row[0], number]] = int(value)
    return found


def to_before(connection: psycopg.Connection) -> None:
    """Take the tables back to those of migration 0094; views over them came later."""
    for table in (*SUMS, "models"):
        connection.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM attribution_rollup_{table}".encode())
        connection.execute(f"DROP TABLE attribution_rollup_{table} CASCADE".encode())
    for name, file in (
        ("days", "0086_rollup.sql"), ("changes", "0086_rollup.sql"), ("counts", "0087_rollup_counts.sql"),
        ("restatements", "0087_rollup_counts.sql"),
    ):  # fmt: skip
        connection.execute(table_of(name, file).encode())
        index = "kind" if name == "counts" else "day"
        connection.execute(
            f"CREATE INDEX attribution_rollup_{name}_{index} ON attribution_rollup_{name} (tenant_id)".encode()
        )
    for statement in BEFORE:
        connection.execute(statement)


def test_the_rows_of_before_become_those_of_today(database: str) -> None:
    draw = random.Random(5)
    with connect(database, application_name="tests") as connection:
        prepare_rollup(connection)
        apply_results(connection, [drawn(draw).rolled() for _ in range(150)])
        apply_results(connection, [drawn(draw).rolled() for _ in range(20)], [("t0", "c2"), ("t1", "c5")])
        expected = stored(connection)
        assert {key[0] for key in expected} == set(SUMS)
        to_before(connection)
        for name in SINCE:
            connection.execute(migration(name))
        assert stored(connection) == expected
        again = drawn(draw).rolled()
        apply_results(connection, [again._replace(version=9)])  # the reporter finds the rows and goes on


def test_a_rollup_that_was_not_counted_is_emptied(database: str) -> None:
    draw = random.Random(6)
    with connect(database, application_name="tests") as connection:
        prepare_rollup(connection)
        apply_results(connection, [drawn(draw).rolled() for _ in range(60)])
        connection.execute("UPDATE attribution_rollup_state SET is_counted = false WHERE tenant_id = 't0'")
        expected = {key: value for key, value in stored(connection).items() if key[1] == "t1"}
        to_before(connection)
        for name in SINCE:
            connection.execute(migration(name))
        assert stored(connection) == expected
        held = connection.execute("SELECT DISTINCT tenant_id FROM attribution_rollup_conversions").fetchall()
        assert held == [("t1",)]
