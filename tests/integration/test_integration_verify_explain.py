"""`attributary explain` about a touch that moved away and one that came too late; reports as of a moment."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from attributary.local.process import run
from attributary.local.stages import command_line
from attributary.schemas.schema_catalog import defaults
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

DAY = 86_400_000_000


def attributary(pipeline: PipelineUnderTest, *arguments: str) -> str:
    return run(command_line(*arguments), name=arguments[0], timeout_seconds=240, env=pipeline.variables())


def link(event_id: str, user_id: str, at: int) -> dict[str, Any]:
    whose = {"anonymous_id": "device-7", "user_id": user_id}
    return {"tenant_id": "acme", "event_id": event_id, "linked_at": at, "source": "login", **whose}


def test_a_touch_that_moved_and_one_that_came_too_late_are_explained_and_old_reports_repeated(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    policy = pipeline.folder / "policy.yaml"
    policy.write_text("{name: default, lateness_days: 0.00006, inactivity_days: 1, windows: [{days: 30}]}")
    pipeline.environment |= {"ATTRIBUTION_POLICY_FILE": str(policy)}
    at = time.time_ns() // 1_000 - 2 * DAY
    touch = {"tenant_id": "acme", "occurred_at": at - DAY, "platform": "meta", "channel": "paid_social"}
    clicked = defaults("touchpoint") | touch | {"interaction": "click"}
    order = {"tenant_id": "acme", "event_id": "o-1", "conversion_id": "order-1", "user_id": "ann", "occurred_at": at}
    worth = {"conversion_type": "purchase", "currency": "EUR", "value_micros": 50_000_000}
    publisher.send(TOUCHPOINTS, clicked | {"event_id": "moves", "anonymous_id": "device-7"})
    publisher.send(IDENTITIES, link("l-2", "ann", at - DAY // 2))
    publisher.send(CONVERSIONS, defaults("conversion") | order | worth)
    publisher.flush()
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.settle()
    time.sleep(5.5)  # longer than the lateness of the policy
    between = f"{time.time():.0f}"
    time.sleep(1.1)
    publisher.send(IDENTITIES, link("l-1", "bob", at - DAY))  # earlier than the other: the device was bob's
    publisher.send(TOUCHPOINTS, clicked | {"event_id": "too-late", "user_id": "ann"})
    publisher.flush()
    pipeline.settle()

    found = json.loads(attributary(pipeline, "explain", "order-1", "--tenant", "acme", "--json"))
    verdicts = {touch["event_id"]: touch["verdict"] for touch in found["touches"]}
    assert verdicts["moves"] == "out: credited up to version 1; it is u:bob's now, by its earliest link"
    assert verdicts["too-late"].startswith("out: arrived ")
    assert verdicts["too-late"].endswith(" seconds after the lateness that the policy allows")
    assert [version["reason"] for version in found["versions"]] == ["new", "identity"]

    iso = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(int(between)))
    shown = attributary(pipeline, "explain", "order-1", "--tenant", "acme", "--as-of", iso)
    [marked] = [line for line in shown.splitlines() if f"<- reported at {iso[:10]}" in line]
    assert marked.split()[0] == "1"
    then = json.loads(attributary(pipeline, "results", "--tenant", "acme", "--as-of", iso, "--json"))
    now = json.loads(attributary(pipeline, "results", "--tenant", "acme", "--json"))
    assert [row["channel"] for row in then["rows"]] == ["paid_social"]
    assert [row["channel"] for row in now["rows"]] == ["(unattributed)"]
    total = {"currency": "EUR", "conversions": 1, "net_micros": 50_000_000}
    nothing = {"removed_conversions": 0, "removed_net_micros": 0}
    assert then["totals"] == now["totals"] == [total | nothing]
    assert "1 conversion, 50.00 EUR net" in attributary(pipeline, "results", "--tenant", "acme")
