"""S11, S17: stages of an earlier version live through the migrations of this one, and this one takes over from them.

The earlier version comes from the history; a shallow clone and an sdist have none, and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.stages import command_line
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS
from tests.factories.samples import link, sale, touch
from tests.fixtures.pipeline import PipelineUnderTest

if TYPE_CHECKING:
    from tests.fixtures.pipeline import Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow, pytest.mark.fault]

ROOT = Path(__file__).resolve().parents[2]
EARLIER = "2c30ef7"  # the last commit before migration 0051; a later one may take its place
STAGES = ("stitcher", "attributor", "auditor", "sweeper")
EXIT_CONFIG = 78
_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND starts_with(application_name, 'attributary-')
"""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder that puts the earlier version before the installed one on the import path."""
    git = shutil.which("git")
    told = None if git is None else subprocess.run(
        [git, "archive", EARLIER], cwd=ROOT, capture_output=True, check=False
    )  # fmt: skip
    if told is None or told.returncode:
        pytest.skip(f"THE HISTORY LACKS COMMIT {EARLIER}: NO UPGRADE WAS TRIED")
    with tarfile.open(fileobj=BytesIO(told.stdout)) as tar:
        tar.extractall(tmp_path / "earlier", filter="tar")
    return tmp_path / "earlier" / "src"


def migrate(dsn: str, **variables: str) -> None:
    variables = {"DATABASE_URL": dsn, "PATH": os.environ["PATH"], **variables}
    done = subprocess.run(command_line("db", "migrate"), env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def number_of_migrations(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM attribution_migrations").fetchone()
    return row[0] if row else 0


def publish(publisher: Publisher, day: int) -> None:
    """Journeys, links of those of the days before, and touchpoints that come late for them."""
    for number in range(12):
        who, name = f"a:d{number}", f"{day}-{number}"
        publisher.send(CONVERSIONS, sale(f"c{name}", 24 * day + 5, who=who).to_record())
        publisher.send(TOUCHPOINTS, touch(f"t{name}", 24 * day + 1, who=who).to_record())
        publisher.send(IDENTITIES, link(f"l{name}", f"d{number}", f"u{number % 3}", 24 * (5 - day)).to_record())
    publisher.flush()


def test_s11_processes_of_the_version_before_live_through_a_migration(
    fresh_topics: str, blank_database: str, publisher: Publisher, earlier: Path, tmp_path: Path
) -> None:
    path = str(earlier)
    migrate(blank_database, PYTHONPATH=path)
    before = number_of_migrations(blank_database)
    pipeline = PipelineUnderTest(fresh_topics, blank_database, tmp_path)
    try:
        pipeline.start(*STAGES, PYTHONPATH=path)
        publish(publisher, 0)
        pipeline.settle()
        migrate(blank_database)
        assert number_of_migrations(blank_database) > before
        assert pipeline.query(_END_SESSIONS) >= len(STAGES) - 1  # each connects anew, to a schema that is newer
        publish(publisher, 1)
        pipeline.settle()
        assert set(pipeline.stop().values()) == {0}

        pipeline.start(*STAGES)
        publish(publisher, 2)
        pipeline.settle()
        assert set(pipeline.stop().values()) == {0}

        # Back: a start on a newer schema is refused with the words for it, and nothing is spoiled.
        pipeline.start("stitcher", PYTHONPATH=path)
        code, said = pipeline.ended("stitcher")
        assert (code, "newer than the code" in said) == (EXIT_CONFIG, True)

        pipeline.start(*STAGES)
        publish(publisher, 3)
        pipeline.check(publisher.acknowledged)
    finally:
        pipeline.stop()
