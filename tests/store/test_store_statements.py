"""Statements stay such that tenants could be divided over several servers: each touches the rows of one tenant.

`statement_offenders.txt` lists what does not, a rule and a statement a line:

- broadcast: with a constant tenant it still reads all partitions of a table that is divided by tenant
- clock, xmin, values, empty: see `statements.RULES`
- part: a part of a statement, which Postgres cannot plan alone

The list may only shrink. A new offender fails here: bind each table to one tenant (`x.tenant_id = %(tenant)s`). A line
that is true no more has to go.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.results.results import RESULT_STAGING
from tests.store.statements import RULES, Statement, statements, with_one_tenant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIST = Path(__file__).with_name("statement_offenders.txt")
MOST = {"broadcast": 70, "clock": 15, "xmin": 2, "values": 4, "empty": 22, "part": 21}
_HOT = ("touchpoints", "conversions", "conversion_events", "identity_links", "identities", "journeys", "results")
_PARTITIONS = 4


def listed() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {rule: set() for rule in MOST}
    for line in LIST.read_text("utf-8").splitlines():
        rule, _, name = line.partition(" ")
        found[rule].add(name)
    return found


@pytest.fixture(scope="module")
def divided(module_database: str) -> Iterator[psycopg.Connection]:
    """A migrated database with the hot tables divided by tenant."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        for table in _HOT:
            connection.execute(
                f"CREATE TABLE divided_{table} (LIKE attribution_{table} INCLUDING ALL) PARTITION BY HASH (tenant_id)"
            )
            for number in range(_PARTITIONS):
                connection.execute(
                    f"CREATE TABLE divided_{table}_{number} PARTITION OF divided_{table} "
                    f"FOR VALUES WITH (MODULUS {_PARTITIONS}, REMAINDER {number})"
                )
            connection.execute(f"ALTER TABLE attribution_{table} RENAME TO whole_{table}")
            connection.execute(f"ALTER TABLE divided_{table} RENAME TO attribution_{table}")
        create_staging(connection)
        connection.execute(RESULT_STAGING)
        yield connection


def partitions(plan: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the partitions that a plan reads, by table."""
    found: dict[str, set[str]] = defaultdict(set)
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        name = node.get("Relation Name", "")
        if name.startswith("divided_"):
            found[name.rpartition("_")[0]].add(name)
        nodes += node.get("Plans", ())
    return found


def planned(connection: psycopg.Connection, statement: Statement) -> dict[str, set[str]] | None:
    """Return what a statement reads with a constant tenant; None: it is a part of one."""
    question = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {with_one_tenant(statement.text)}"
    try:
        row = connection.execute(question.encode()).fetchone()
    except (psycopg.errors.SyntaxError, psycopg.errors.UndefinedTable):
        return None
    assert row is not None
    return partitions(row[0][0]["Plan"])


def test_a_statement_with_a_tenant_reads_one_partition_and_one_without_reads_all(divided: psycopg.Connection) -> None:
    one = planned(divided, Statement("", "SELECT 1 FROM attribution_results WHERE tenant_id = %(tenant)s"))
    every = planned(divided, Statement("", "SELECT 1 FROM attribution_results WHERE conversion_id = %(id)s"))
    assert one is not None
    assert every is not None
    assert [len(parts) for parts in one.values()] == [1]
    assert [len(parts) for parts in every.values()] == [_PARTITIONS]
    assert planned(divided, Statement("", "SELECT 1 FROM attribution_results WHERE")) is None


def test_the_rules_see_what_they_are_for() -> None:
    texts = {
        "clock": "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1, updated_at = now()",
        "xmin": "SELECT t.xmin FROM attribution_touchpoints t",
        "values": "SELECT a FROM t UNION ALL VALUES (1)",
        "empty": "SELECT 1 WHERE EXISTS (SELECT FROM t)",
    }
    assert {rule: [name for name, text in texts.items() if RULES[rule].search(text)] for rule in RULES} == {
        rule: [rule] for rule in texts
    }
    assert not RULES["clock"].search("INSERT INTO t DO UPDATE SET a = excluded.a WHERE t.updated_at < now()")


def test_no_statement_breaks_a_rule_but_those_listed(divided: psycopg.Connection) -> None:
    found: dict[str, set[str]] = {rule: set() for rule in MOST}
    for statement in statements():
        read = planned(divided, statement)
        if read is None:
            found["part"].add(statement.name)
        elif any(len(parts) > 1 for parts in read.values()):
            found["broadcast"].add(statement.name)
        for rule, pattern in RULES.items():
            if pattern.search(statement.text):
                found[rule].add(statement.name)
    known = listed()
    new = [f"{rule} {name}" for rule in MOST for name in sorted(found[rule] - known[rule])]
    gone = [f"{rule} {name}" for rule in MOST for name in sorted(known[rule] - found[rule])]
    assert not new, "new offenders, see the top of this file:\n" + "\n".join(new)
    assert not gone, f"true no more, take these lines out of {LIST.name}:\n" + "\n".join(gone)


def test_the_list_only_shrinks() -> None:
    """Lower the number with each line that goes; a line more needs a decision, not a larger number."""
    assert {rule: len(names) for rule, names in listed().items()} == MOST
    assert sum(map(len, listed().values())) == len(LIST.read_text("utf-8").splitlines())
