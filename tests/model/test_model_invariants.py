"""The judge is judged: evidence of a clean run, damaged in one way at a time, must be found and named."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.invariants import check_invariants
from tests.model.events import models, policy
from tests.model.schedule import Plan, Schedule
from tests.model.stages import stages_on_memory

if TYPE_CHECKING:
    from collections.abc import Callable

Evidence = tuple[list[Any], Any, list[Any], list[Any]]


@pytest.fixture(scope="module")
def clean() -> Evidence:
    """A run without faults that has touches, credits, a poisonous record and several versions."""
    current: list[Schedule] = []
    with stages_on_memory(lambda _point: None, lambda: current[-1].store):
        for seed in range(500):
            schedule = Schedule(seed, Plan(events=30, steps=80, faults=0.0, requests=0))
            current[:] = [schedule]
            schedule.run()
            evidence = schedule.evidence()
            results = [seen.result for seen in evidence[3]]
            credited = [result for result in results if result["touchpoint_count"] > 1]
            if evidence[2] and len(credited) > 2 and any(result["version"] > 1 for result in results):
                return evidence
    raise AssertionError("no such run among 500")


def newest(results: list[Any]) -> Any:
    """The newest result, among those with touches, of the conversion that has it."""
    with_touches = [seen for seen in results if seen.result["touchpoint_count"] > 0]
    last = {(seen.result["tenant_id"], seen.result["conversion_id"]): seen.result for seen in results}
    return next(
        seen.result
        for seen in with_touches
        if last[seen.result["tenant_id"], seen.result["conversion_id"]] is seen.result
    )


def lose_event(_inputs: list[Any], store: Any, _dead: list[Any], _results: list[Any]) -> None:
    store.events["touchpoint"].pop(min(store.events["touchpoint"]))


def lose_dead_letter(_inputs: list[Any], _store: Any, dead: list[Any], _results: list[Any]) -> None:
    dead.pop()


def double_dead_letter(_inputs: list[Any], _store: Any, dead: list[Any], _results: list[Any]) -> None:
    dead.append(dead[0])


def bury_a_good_event(inputs: list[Any], _store: Any, dead: list[Any], _results: list[Any]) -> None:
    dead.append(next(record.place for record in inputs if record.place not in dead))


def lose_result(_inputs: list[Any], _store: Any, _dead: list[Any], results: list[Any]) -> None:
    gone = newest(results)
    results[:] = [seen for seen in results if seen.result["conversion_id"] != gone["conversion_id"]]


def repeat_result(_inputs: list[Any], _store: Any, _dead: list[Any], results: list[Any]) -> None:
    results.append(results[-1]._replace(offset=10_000))


def fall_back(_inputs: list[Any], _store: Any, _dead: list[Any], results: list[Any]) -> None:
    risen = next(seen for seen in results if seen.result["version"] > 1)
    results.append(risen._replace(offset=10_000, result=risen.result | {"version": 0}))


def miss_a_touch(_inputs: list[Any], _store: Any, _dead: list[Any], results: list[Any]) -> None:
    result = newest(results)
    for array in (
        result["touchpoints"],
        *(model[name] for model in result["models"] for name in ("credits", "micros")),
    ):
        array.pop()


def lose_a_cent(_inputs: list[Any], _store: Any, _dead: list[Any], results: list[Any]) -> None:
    newest(results)["models"][0]["micros"][0] -= 10_000


def not_observed(_inputs: list[Any], store: Any, _dead: list[Any], results: list[Any]) -> None:
    result = newest(results)
    key = (result["tenant_id"], result["conversion_id"])
    version, observed, journey, net = store.versions[key]
    store.versions[key] = (version + 1, observed, journey, net)


def give_to_another(_inputs: list[Any], _store: Any, _dead: list[Any], results: list[Any]) -> None:
    result = newest(results)
    other = result | {"conversion_id": "stolen", "journey_key": "u:thief"}
    results.append(results[-1]._replace(offset=10_000, key=f"{result['tenant_id']}|stolen".encode(), result=other))


DAMAGE: list[tuple[Callable[..., None], str]] = [
    (lose_event, "I1"), (lose_dead_letter, "I1"), (double_dead_letter, "I1"), (bury_a_good_event, "I1"),
    (lose_result, "I2"), (repeat_result, "I3"), (fall_back, "I4"), (miss_a_touch, "I2"), (lose_a_cent, "I5"),
    (not_observed, "I6"), (give_to_another, "I7"),
]  # fmt: skip


def test_a_clean_run_passes(clean: Evidence) -> None:
    findings = check_invariants(*clean, policy=policy(), models=models())
    assert findings.refused > 0
    assert findings.results > findings.conversions > 0


@pytest.mark.parametrize(("damage", "promise"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_found_and_named(clean: Evidence, damage: Callable[..., None], promise: str) -> None:
    evidence = copy.deepcopy(clean)
    damage(*evidence)
    with pytest.raises(AssertionError, match=f"{promise}: "):
        check_invariants(*evidence, policy=policy(), models=models())
