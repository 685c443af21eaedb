"""kill -9 of the spender at each of its points, on a real broker: spend is what the newest reports say, once."""

from __future__ import annotations

import importlib
import random
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.spender.stage import GROUP
from attributary.schemas.topics import SPEND, dead_letter_topic, spend_key
from tests.factories.samples import codec
from tests.factories.spend_records import drawn, fold, stored
from tests.observed_state import read_topics

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

importlib.import_module("attributary.consumers.spender.process")  # registers the points that it passes
READ = "SELECT COALESCE(sum(next_offset), 0) FROM attribution_positions WHERE consumer_group = %s AND topic = %s"


@pytest.mark.parametrize("point", crash_points("spender"))
def test_a_spender_that_dies_there_stores_each_report_once(
    pipeline: PipelineUnderTest, publisher: Publisher, point: str
) -> None:
    """Reports come in any order, some twice, one that is none among them; the process dies and reads some again."""
    chance = random.Random(point)
    reports = drawn(chance, 60)
    arriving = [*reports, *(chance.choice(reports) for _ in range(20))]
    chance.shuffle(arriving)
    for each in arriving:
        key = spend_key(each["tenant_id"], each["platform"], each["account"], each["day"])
        publisher.send_bytes(SPEND, codec().encode("spend", each), key)
    publisher.send_bytes(SPEND, b"\xffno record", b"key")
    publisher.flush()
    pipeline.start("spender", ATTRIBUTION_CRASH_AT=point, ATTRIBUTION_BATCH_SIZE="20")
    code, log = pipeline.ended("spender")
    assert code == -signal.SIGKILL, log
    assert log.splitlines()[-1] == f"crash_at: {point}"
    pipeline.start("spender")
    pipeline.wait_for(lambda: pipeline.query(READ, GROUP, SPEND) >= len(arriving) + 1, "a report was not read")
    with psycopg.connect(pipeline.dsn) as connection:
        assert stored(connection) == fold(reports)
        again = connection.execute(
            "SELECT count(*) FROM (SELECT net_micros, lag(net_micros) OVER w AS before, is_removed, "
            "lag(is_removed) OVER w AS was_removed FROM attribution_spend "
            "WINDOW w AS (PARTITION BY tenant_id, platform, account, day, level, entity ORDER BY revision)) AS t "
            "WHERE net_micros = before AND is_removed = was_removed"
        ).fetchone()
        assert again == (0,)  # no revision repeats the one before it
    pipeline.wait_for(
        lambda: len(list(read_topics(pipeline.bootstrap, (dead_letter_topic(SPEND, GROUP),)))) == 1,
        "the record that is none is no dead letter, or two",
    )
    assert pipeline.stop() == {"spender": 0}
