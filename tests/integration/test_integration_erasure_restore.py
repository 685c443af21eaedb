"""A restored backup, a rebuild, an access request after an erasure: nobody comes back, no micro of revenue is lost."""

from __future__ import annotations

import json
import re
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
    """Count the journeys that are stored of some users."""
    query = """
        SELECT count(*) FROM attribution_journeys j
        JOIN unnest(%s::text[], %s::text[]) AS w (tenant_id, user_id)
          ON j.tenant_id = w.tenant_id AND j.journey_key = 'u:' || w.user_id
    """
    with psycopg.connect(pipeline.dsn) as connection:
        row = connection.execute(query, tuple(map(list, zip(*wanted, strict=True)))).fetchone()
    return int(row[0]) if row else 0


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
    told = re.search(r"(\d+) rows? of the ledger restored; (\d+) identifiers? to erase again", said)
    assert told, said
    assert min(map(int, told.groups())) >= len(wanted), said
    pipeline.start(*STAGES)
    completed(pipeline, len(wanted))
    pipeline.settle()
    assert rows_of(pipeline, wanted) == 0
    assert pipeline.query(REVENUE) == before
    pipeline.stop()

    code, said = command(pipeline, "rebuild", "--from-log")
    assert code == 0, said
    assert rows_of(pipeline, wanted) == 0
    code, said = command(pipeline, "verify")
    assert code == 0, said
    assert pipeline.query(REVENUE) == before
    code, said = command(pipeline, "export-person", "--tenant", tenant, "--user-id", user)
    assert code == 0, said
    assert not any(rows for rows in json.loads(said).values() if isinstance(rows, list)), said
