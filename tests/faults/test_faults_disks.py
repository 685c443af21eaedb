"""Disks that are full: Postgres without room for data, Postgres without room for its WAL, a broker without room."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.postgres import for_database
from attributary.local.postgres_install import account_for
from tests.faults.fired import fired
from tests.faults.small_disk import SmallDisk, small_disk
from tests.fixtures.database import _migrate
from tests.traffic import publish, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import Ground
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")
NO_SPACE = "No space left on device"


@pytest.fixture
def data_disk(ground: Ground, broken: PipelineUnderTest) -> Iterator[SmallDisk]:
    """A small disk that the pipeline's database, its tables and indexes lie on."""
    account = account_for(ground.postgres.data)
    name = f"small_{secrets.token_hex(4)}"
    with small_disk(80, (account.uid, account.gid) if account else None) as disk:
        with psycopg.connect(ground.postgres.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk.path}'")
            connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        broken.dsn = for_database(ground.postgres.dsn, name)
        _migrate(broken.dsn)
        try:
            yield disk
        finally:
            disk.free()
            broken.stop()
            with psycopg.connect(ground.postgres.dsn, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                connection.execute(f"DROP TABLESPACE {name}")


def test_postgres_has_no_room_for_data(
    ground: Ground, broken: PipelineUnderTest, published: Publisher, data_disk: SmallDisk
) -> None:
    publish(published, traffic(1_000, 120, seed=51))
    broken.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    broken.start(*STAGES)
    broken.wait_for_assignments()
    broken.wait_for(lambda: broken.events() > 100, "the load does not begin")
    before = len(ground.postgres.child.log.read_bytes())
    data_disk.fill()
    broken.wait_for(lambda: all(broken.logged(name, "DiskFull 53100") for name in ("stitcher", "auditor")), "no ENOSPC")
    assigned = broken.logged("stitcher", '"assigned"')
    time.sleep(4.0)  # longer than the session: who does not poll is out of the group
    data_disk.free()
    said = ground.postgres.child.log.read_bytes()[before:].decode(errors="replace")
    fired("Postgres had no room for data", said.count(NO_SPACE))
    publish(published, traffic(200, 20, seed=52))
    broken.check(published.acknowledged)
    assert broken.logged("stitcher", '"assigned"') == assigned  # it kept its partitions
    assert all(child.running for child in broken.stages.values())
