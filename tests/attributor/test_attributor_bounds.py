"""One person with many conversions and touchpoints: a batch is answered in parts, and nobody's result changes by it."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.attributor import metrics
from attributary.consumers.attributor import stage as attributing
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.events import attribution_inputs
from attributary.schemas.topics import COMMANDS
from tests.factories.samples import codec, link, sale, touch
from tests.pipeline_harness import InProcess, handle_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.runtime.records import Outbound

pytestmark = pytest.mark.postgres

WHY = ("stale", "unknown", "observed", "published", "repeated")


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as found:
        yield found


def hot_person(stages: InProcess, conversions: int, touchpoints: int) -> None:
    """A kiosk, and a quiet customer of another tenant after it."""
    stages.stitch(*(touch(f"t{n}", 1 + n / touchpoints, who="a:kiosk") for n in range(touchpoints)))
    stages.stitch(touch("quiet", 1, who="a:q", tenant_id="quiet"))
    stages.stitch(*(sale(f"c{n}", 5 + n / conversions, who="a:kiosk") for n in range(conversions)))
    stages.stitch(sale("q", 5, who="a:q", tenant_id="quiet"))


def essence(messages: list[Outbound]) -> dict[str, dict[str, Any]]:
    results = [codec().decode("result", message.value) for message in messages]
    assert len({result["conversion_id"] for result in results}) == len(results)
    return {result["conversion_id"]: {**result, "computed_at": 0} for result in results}


def reads_at_most(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    read = partial(attribution_inputs.touchpoints_in_reach, max_read=most)
    monkeypatch.setattr(attributing, "touchpoints_in_reach", read)


def test_what_is_read_and_written_at_once_does_not_grow_with_commands_times_touchpoints(stages: InProcess) -> None:
    """All at once, 40 x 1,500 pairs take 140 MB; 500 x 2,000 took 2.4 GB."""
    hot_person(stages, conversions=40, touchpoints=1_500)
    batch, pairs = stages.commands, []
    while batch:
        outcome = stages.attributor.handle(batch)
        results = [codec().decode("result", message.value) for message in outcome.messages]
        pairs.append(sum(min(1_500, 2 * result["touchpoint_count"]) for result in results))
        last, batch = outcome.messages[-1], batch[outcome.taken or len(batch) :]
    assert len(pairs) == 2
    assert max(pairs) <= attribution_inputs.MAX_READ
    assert codec().decode("result", last.value)["tenant_id"] == "quiet"


def test_a_batch_leads_to_the_same_results_whole_or_in_parts(
    stages: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(15)
    for person in range(12):
        stages.stitch(
            link(f"l{person}", f"d{person}", f"u{person}", 0),
            *(touch(f"t{person}-{n}", 1 + n, who=f"a:d{person}") for n in range(chance.randrange(9))),
            *(sale(f"c{person}-{n}", 40 + n, who=f"u:u{person}") for n in range(3)),
            *(touch(f"late{person}-{n}", 20 + n, who=f"u:u{person}") for n in range(chance.randrange(2))),
        )
    records = [stages.commands[chance.randrange(len(stages.commands))] for _ in range(40)] + stages.commands
    records += [_command(f"c{n}-1", 1) for n in range(12)]
    chance.shuffle(records)

    def answer() -> tuple[dict[str, Any], dict[str, float]]:
        stages.attributor.stored_positions([])  # forget what was published
        before = [metrics.commands_skipped.labels(why)._value.get() for why in WHY]
        found = essence(handle_all(stages.attributor, records))
        after = [metrics.commands_skipped.labels(why)._value.get() for why in WHY]
        return found, {why: b - a for why, a, b in zip(WHY, before, after, strict=True)}

    whole, skipped = answer()
    assert len(whole) > 20
    assert stages.attributor.handle(records).taken is None
    for limit in (11, 30):
        reads_at_most(monkeypatch, limit)
        parts, in_parts = answer()
        assert parts == whole
        assert sum(in_parts.values()) == sum(skipped.values()) == len(records) - len(whole)
    monkeypatch.undo()
    monkeypatch.setattr(attributing, "_MAX_RESULT_BYTES", 5_000)
    stages.attributor.stored_positions([])
    assert stages.attributor.handle(records).taken is not None
    assert answer()[0] == whole


def _command(conversion_id: str, version: int) -> Record:
    fields = {
        "tenant_id": "acme", "conversion_id": conversion_id, "version": version, "reason": "new",
        "issued_by": "tests", "event_published_at": 1_700_000_000_000_000,
    }  # fmt: skip
    return Record(COMMANDS, 0, 0, None, codec().encode("command", fields), 0)


def test_a_result_larger_than_a_part_is_a_part_of_its_own(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    hot_person(stages, conversions=3, touchpoints=30)
    monkeypatch.setattr(attributing, "_MAX_RESULT_BYTES", 1)
    assert stages.attributor.handle(stages.commands).taken == 1
    assert len(essence(handle_all(stages.attributor, stages.commands[1:]))) == 3


def test_the_newest_touchpoints_in_reach_are_looked_at_over_all_devices(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No robot's and none that came too late is among them: it could not count, and must take nobody's place."""
    monkeypatch.setattr(attribution_inputs, "MAX_REACHED", 4)
    monkeypatch.setattr(attributing, "MAX_REACHED", 4)
    windows: list[dict[str, Any]] = [{"days": 30}, {"interaction": "view", "days": 1}]
    rules = LookbackPolicy.parse({"name": "p", "lateness_days": 7, "inactivity_days": 30, "windows": windows})
    cut = metrics.journeys_cut._value.get()
    with InProcess(database, rules) as stages:
        stages.stitch(
            link("l1", "d1", "jane"),
            link("l2", "d2", "jane"),
            *(touch(f"t{n}", n, who=f"a:d{1 + n % 2}") for n in range(6)),
            *(touch(f"bot{n}", 20 + n, who="u:jane", is_bot=True) for n in range(5)),
            touch("other", 30, who="a:d3"),
        )
        stages.stitch(sale("c1", 40, who="u:jane"), sale("c2", 40, who="a:d3"))
        found = {result["conversion_id"]: result for result in stages.answer()}
        assert touched(found["c1"]) == ["t2", "t3", "t4", "t5"]
        assert touched(found["c2"]) == ["other"]
        said = {name: [i["text"] for i in r["insights"] if i["rule_id"] == "journey.cut"] for name, r in found.items()}
        assert said == {
            "c1": ["only the newest 4 of more than 4 touchpoints are credited: a result holds no more"], "c2": []
        }  # fmt: skip
        assert metrics.journeys_cut._value.get() == cut + 1  # nothing is left aside in silence


def touched(result: dict[str, Any]) -> list[str]:
    return [touch["event_id"] for touch in result["touchpoints"]]
