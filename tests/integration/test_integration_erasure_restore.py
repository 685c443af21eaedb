"""A restored backup, a rebuild, an access request after an erasure: nobody comes back, no micro of revenue is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.factories.traffic import publish, traffic
from tests.integration.test_integration_erasure import REVENUE, STAGES, command, completed, people, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


class Backup:
    """A copy of the test's database, taken while no stage is connected."""

    def __init__(self, dsn: str) -> None:
        self._name = str(conninfo_to_dict(dsn)["dbname"])
        self._copy = f"{self._name}_backup"
        self._admin = make_conninfo(dsn, dbname="postgres")
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}"), self._copy, self._name)

    def restore(self) -> None:
        """Put the copy into the place of the database."""
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)"), self._name)
        self._run(sql.SQL("ALTER DATABASE {} RENAME TO {}"), self._copy, self._name)

    def _run(self, statement: sql.SQL, *names: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(statement.format(*map(sql.Identifier, names)))


def rows_of(pipeline: PipelineUnderTest, wanted: list[tuple[str, str]]) -> int:
    """Count what the conversions and touchpoints still hold of some users."""
    with psycopg.connect(pipeline.dsn) as connection:
        found = 0
        for table in ("attribution_touchpoints", "attribution_conversions", "attribution_identities"):
            query = sql.SQL(
                "SELECT count(*) FROM {} WHERE (tenant_id, user_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
            ).format(sql.Identifier(table))
            row = connection.execute(query, tuple(map(list, zip(*wanted, strict=True)))).fetchone()
            found += row[0] if row else 0
    return found


def test_nobody_comes_back_with_a_restored_backup_or_a_rebuild(
    pipeline: PipelineUnderTest, publisher: Publisher, tmp_path: Path
) -> None:
    events = traffic(200, 40, seed=11)
    publish(publisher, events)
    pipeline.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "2"
    pipeline.start(*STAGES)
    pipeline.settle()
    before = pipeline.query(REVENUE)
    wanted = people(events, 5)
    tenant, user = wanted[0]
    exported = tmp_path / "person.json"
    code, said = command(pipeline, "export-person", "--tenant", tenant, "--user-id", user, "--output", str(exported))
    assert code == 0, said
    person = json.loads(exported.read_text())
    assert any(rows for rows in person.values() if isinstance(rows, list)), "an access request finds the person"
    assert user in exported.read_text()
    pipeline.stop()
    backup = Backup(pipeline.dsn)

    pipeline.start(*STAGES)
    request(publisher, wanted)
    completed(pipeline, len(wanted))
    pipeline.settle()
    assert rows_of(pipeline, wanted) == 0
    pipeline.stop()

    backup.restore()
    assert rows_of(pipeline, wanted) > 0, "the backup brought them back"
    code, said = command(pipeline, "erase", "reapply")
    assert code == 0, said
    assert f"{len(wanted)} identifiers to erase again" in said or "identifier" in said
    pipeline.start(*STAGES)
    completed(pipeline, len(wanted))
    pipeline.settle()
    assert rows_of(pipeline, wanted) == 0
    assert pipeline.query(REVENUE) == before
    pipeline.stop()

    for each in dict.fromkeys(tenant for tenant, _ in wanted):
        code, said = command(pipeline, "rebuild", "--tenant", each, "--from-log")
        assert code == 0, said
    assert rows_of(pipeline, wanted) == 0
    code, said = command(pipeline, "verify")
    assert code == 0, said
    assert pipeline.query(REVENUE) == before
    code, said = command(pipeline, "export-person", "--tenant", tenant, "--user-id", user)
    assert code == 0, said
    assert not any(rows for rows in json.loads(said).values() if isinstance(rows, list)), said
