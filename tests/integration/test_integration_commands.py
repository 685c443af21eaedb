"""`attributary dlq` and `attributary explain` on what a run left behind."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from attributary.local.process import ProcessFailedError, run
from attributary.local.stages import command_line
from attributary.schemas.schema_catalog import defaults
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS, dead_letter_topic
from tests.observed_state import read_dead_letters

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

DAY = 86_400_000_000
STITCHER = "attribution.stitcher"


def attributary(pipeline: PipelineUnderTest, *arguments: str) -> str:
    return run(command_line(*arguments), name=arguments[0], timeout_seconds=240, env=pipeline.variables())


def wait_for_letters(pipeline: PipelineUnderTest, count: int) -> None:
    pipeline.wait_for(lambda: len(read_dead_letters(pipeline.bootstrap)) == count, f"no {count} dead letters")


def touch(event_id: str, at: int, **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"tenant_id": "acme", "event_id": event_id, "occurred_at": at, "platform": "meta"}
    return defaults("touchpoint") | known | {"channel": "paid_social", "interaction": "click", **fields}


def test_dead_letters_are_listed_shown_and_sent_again(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    publisher.send_bytes(TOUCHPOINTS, b"rubbish", b"k1")
    publisher.send_bytes(CONVERSIONS, None, b"k2")
    publisher.flush()
    pipeline.start("stitcher")
    wait_for_letters(pipeline, 2)
    listed = json.loads(attributary(pipeline, "dlq", "list", "--json"))
    assert {(letter["group"], letter["stage"], letter["attempts"]) for letter in listed} == {(STITCHER, "decode", 1)}
    [letter] = json.loads(attributary(pipeline, "dlq", "list", "--json", "--topic", TOUCHPOINTS))
    assert letter["place"].startswith(dead_letter_topic(TOUCHPOINTS, STITCHER))
    shown = attributary(pipeline, "dlq", "show", letter["place"])
    assert "rubbish" in shown
    assert letter["origin"] in shown

    would = attributary(pipeline, "dlq", "redrive", "--topic", TOUCHPOINTS, "--dry-run")
    assert f"would send {letter['place']}" in would
    assert len(read_dead_letters(pipeline.bootstrap)) == 2
    for tries in (2, 3):
        assert "1 sent" in attributary(pipeline, "dlq", "redrive", "--topic", TOUCHPOINTS, "--max-attempts", "3")
        wait_for_letters(pipeline, tries + 1)
        [again] = json.loads(attributary(pipeline, "dlq", "list", "--json", "--topic", TOUCHPOINTS))
        assert again["attempts"] == tries  # the newest stands for all
    assert "0 sent, 1 left after 3 tries" in attributary(
        pipeline, "dlq", "redrive", "--topic", TOUCHPOINTS, "--max-attempts", "3"
    )


def test_explain_says_of_every_touch_why_it_is_in_or_out(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    now = time.time_ns() // 1_000
    at = now - 2 * DAY
    publisher.send(TOUCHPOINTS, touch("counts", at - DAY, anonymous_id="device-7"))
    publisher.send(TOUCHPOINTS, touch("too-old", at - 31 * DAY, user_id="ann"))
    publisher.send(TOUCHPOINTS, touch("after", at + DAY, user_id="ann"))
    publisher.send(TOUCHPOINTS, touch("robot", at - DAY, user_id="ann", is_bot=True))
    publisher.send(TOUCHPOINTS, touch("seen", at - 2 * DAY, user_id="ann", interaction="impression"))
    order = {"tenant_id": "acme", "event_id": "o-1", "conversion_id": "order-1", "user_id": "ann", "occurred_at": at}
    worth = {"conversion_type": "purchase", "currency": "EUR", "value_micros": 49_900_000}
    publisher.send(CONVERSIONS, defaults("conversion") | order | worth)
    publisher.flush()
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.settle()
    publisher.send(
        IDENTITIES,
        {"tenant_id": "acme", "event_id": "l-1", "anonymous_id": "device-7", "user_id": "ann", "linked_at": at + DAY,
         "source": "login"},
    )  # fmt: skip
    publisher.flush()
    pipeline.check(publisher.acknowledged)

    found = json.loads(attributary(pipeline, "explain", "order-1", "--tenant", "acme", "--json"))
    verdicts = {touch["event_id"]: touch["verdict"] for touch in found["touches"]}
    assert verdicts["counts"].startswith("in: 1.00 days before")
    assert verdicts["too-old"] == "out: 31.00 days before the conversion, its window is 30.00 days"
    assert verdicts["after"] == "out: 1.00 days after the conversion"
    assert verdicts["robot"] == "out: sent by a robot"
    assert "window is 1.00 days" in verdicts["seen"]
    assert [touch["is_in"] for touch in found["touches"]].count(True) == found["versions"][-1]["touchpoint_count"] == 1
    assert [version["reason"] for version in found["versions"]] == ["new", "identity"]
    assert [link["decides"] for link in found["links"]] == [True]
    text = attributary(pipeline, "explain", "order-1", "--tenant", "acme")
    for part in ("49.90 EUR", "u:ann", "device-7", "identity", "linear", "out: sent by a robot"):
        assert part in text
    with pytest.raises(ProcessFailedError, match="ended with 1"):
        attributary(pipeline, "explain", "order-1", "--tenant", "other")
