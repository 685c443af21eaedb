"""`attributary verify` finds nothing after a healthy run, and every kind of damage after that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.child import ChildError, run
from attributary.local.stages import command_line
from attributary.schemas.topics import TOUCHPOINTS
from tests.traffic import publish, traffic

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

# What somebody did to the database, and what verify says about it.
DAMAGE = {
    "DELETE FROM attribution_touchpoints WHERE event_id = "
    "(SELECT min(event_id) FROM attribution_touchpoints)": "event ",
    "UPDATE attribution_identities SET user_id = 'somebody else' WHERE anonymous_id = "
    "(SELECT min(anonymous_id) FROM attribution_identities)": "anonymous id ",
    "UPDATE attribution_conversions SET net_value_micros = net_value_micros + 10000 WHERE conversion_id = "
    "(SELECT min(conversion_id) FROM attribution_conversions WHERE version > 0)": "conversion ",
    "UPDATE attribution_results SET net_value_micros = net_value_micros + 10000 WHERE conversion_id = "
    "(SELECT min(conversion_id) FROM attribution_results)": "result of ",
}


def verify(pipeline: PipelineUnderTest, *arguments: str) -> str:
    return run(command_line("verify", *arguments), name="verify", timeout_seconds=120, env=pipeline.variables())


def test_verify_is_silent_after_a_healthy_run_and_names_every_damage(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(800, 80, seed=61)
    publish(publisher, events)
    publisher.send_bytes(TOUCHPOINTS, b"rubbish", b"k")
    publisher.flush()
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.check(publisher.acknowledged)
    said = verify(pipeline)
    assert (
        f"{len(events) + 1} records of the log and 80 conversions read, 0 results on their way, 0 differences" in said
    )
    assert "0 records of the log" in verify(pipeline, "--since", "end")
    for damage, said_of in DAMAGE.items():
        with psycopg.connect(pipeline.dsn) as connection:
            assert connection.execute(damage).rowcount > 0
        with pytest.raises(ChildError) as found:
            verify(pipeline, "--limit", "1000")
        assert "ended with 1" in str(found.value)
        assert said_of in str(found.value)
