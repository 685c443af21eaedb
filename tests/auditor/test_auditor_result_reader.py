"""The reader of result rows against codec and checks: the same row, or it leaves the result to them."""

from __future__ import annotations

import copy
import os
import random
from typing import Any

import pytest

from attributary.consumers.adapters.result_checks import disagreement, imbalance, no_share, result_row
from attributary.consumers.adapters.result_reader import read_rows
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.results.results import ResultRow
from attributary.schemas.codec import Codec, DecodeError, EncodeError
from attributary.schemas.topics import RESULTS, VERSION_RAISED_AT

CODEC = Codec()
SEED = 20_261_130
MUTANTS = int(os.environ.get("READER_MUTANTS", "4000"))
RAISED_AT = 1_764_000_000_123_456
TOUCHES: list[dict[str, Any]] = [
    {"event_id": f"019f9ca2-{number}", "channel": channel, "platform": platform, "campaign": campaign,
     "campaign_id": campaign_id, "ad_set_id": ad_set_id, "ad_id": None, "occurred_at": 1_764_000_000_000_000 + number}
    for number, (channel, platform, campaign, campaign_id, ad_set_id) in enumerate(
        [
            ("paid_social", "meta", "Sommer „Süd“", "1200", "77"), ("email", "email", "", None, None),
            ("paid_social", "tiktok", "s" * 300, None, "a" * 200),
        ]
    )
]  # fmt: skip


def model(name: str, credit: list[float], micros: list[int], **more: Any) -> dict[str, Any]:
    return {
        "model": name, "model_version": "1", "credits": credit, "micros": micros, "unattributed_micros": 0,
        "confidence": None, "fallback": None, **more,
    }  # fmt: skip


FULL: dict[str, Any] = {
    "tenant_id": "shop", "conversion_id": "o-1", "conversion_type": "purchase", "converted_at": 1_764_000_100_000_000,
    "journey_key": "u:7", "version": 3, "version_reason": "late_touchpoint", "is_final": True,
    "net_value_micros": 100_000_000, "gross_value_micros": 120_000_000, "delta_micros": -20_000_000, "currency": "EUR",
    "policy_version": "p-1", "touchpoint_count": 3, "touchpoints": TOUCHES,
    "models": [
        model("linear", [1 / 3, 1 / 3, 1 / 3], [33_340_000, 33_330_000, 33_330_000]),
        model("first", [1.0, 0.0, 0.0], [100_000_000, 0, 0], confidence=0.25),
        model("poisson", [0.2, 0.1, 0.0], [20_000_000, 10_000_000, 0], unattributed_micros=70_000_000, fallback="x"),
        model("owed", [1.0, 1.0, -1.0], [200_000_000, -300_000_000, 200_000_000]),
    ],
    "insights": [{"rule_id": "r", "text": "A sentence.", "estimate": 0.5, "low": None, "high": 1e300, "n": 12}],
    "computed_at": 1_764_000_200_000_000, "content_hash": "0f" * 16,
}  # fmt: skip
EMPTY = {**FULL, "touchpoint_count": 0, "touchpoints": [], "insights": [], "net_value_micros": -5,
         "models": [model("linear", [], [], unattributed_micros=-5)]}  # fmt: skip
NO_MODEL = {**FULL, "models": []}


def record(value: bytes) -> Record:
    return Record(RESULTS, 2, 9, None, value, 1_764_000_000_000, lambda: [(VERSION_RAISED_AT, b"%d" % RAISED_AT)])


def at_once(values: list[bytes]) -> list[ResultRow | None]:
    bodies = [(value, CODEC.body_of("result", value)) for value in values]
    read = [(value, body) for value, body in bodies if body is not None]
    found = iter(read_rows(read, [(2, 9, RAISED_AT)] * len(read)))
    return [None if body is None else next(found) for _, body in bodies]


def the_long_way(value: bytes) -> ResultRow | None:
    """The row of a result with which nothing is wrong."""
    try:
        result = CODEC.decode("result", value)
    except DecodeError:
        return None
    wrong = disagreement(result) or imbalance(result) or no_share(result)
    return None if wrong else result_row(result, record(value))


def test_ordinary_results_of_a_batch_are_read_to_the_very_same_rows() -> None:
    long = {**FULL, "touchpoint_count": 300, "touchpoints": TOUCHES * 100,
            "models": [model("linear", [1 / 300] * 300, [333_333] * 299 + [333_433])]}  # fmt: skip
    values = [CODEC.encode("result", result) for result in (FULL, EMPTY, NO_MODEL, FULL, long, EMPTY)]
    for value, row in zip(values, at_once(values), strict=True):
        assert row is not None
        assert row == the_long_way(value)


@pytest.mark.parametrize(
    "place",
    ["micros", "unattributed", "net", "a credit less", "a number less", "a touchpoint more", "no number", "old time"],
)
def test_a_result_that_breaks_a_promise_is_left_to_the_checks_and_spoils_no_other(place: str) -> None:
    result = copy.deepcopy(FULL)
    second = result["models"][1]
    if place == "micros":
        second["micros"][1] += 1
    elif place == "unattributed":
        second["unattributed_micros"] += 1
    elif place == "net":
        result["net_value_micros"] += 1
    elif place == "a credit less":
        second["credits"].pop()
    elif place == "a number less":
        assert second["micros"].pop() == 0
    elif place == "a touchpoint more":
        result["touchpoints"].append(TOUCHES[0])
    elif place == "no number":
        second["credits"][1] = float("nan")
    else:
        result["touchpoints"][1]["occurred_at"] = 12
    good = CODEC.encode("result", FULL)
    before, found, after = at_once([good, CODEC.encode("result", result), good])
    assert found is None
    assert before == after == the_long_way(good)


def test_a_record_that_is_cut_off_teaches_nothing_about_those_behind_it() -> None:
    good = CODEC.encode("result", EMPTY)
    cut = [good[:end] for end in range(10, len(good))]
    without_one = [good[:at] + good[at + 1 :] for at in range(10, len(good))]
    for value, row in zip(without_one, at_once([*cut, *without_one])[len(cut) :], strict=True):
        if row is not None:
            assert row == the_long_way(value)


def mutant(chance: random.Random) -> bytes:
    """A result with other numbers, and bytes that were changed; one that cannot be written is drawn again."""
    result = copy.deepcopy(chance.choice((FULL, EMPTY, NO_MODEL)))
    if chance.random() < 0.5:
        field = chance.choice([name for name, value in FULL.items() if type(value) is int])
        result[field] = chance.choice((0, -1, 63, 64, 2**31 - 1, result[field]))
    try:
        value = bytearray(CODEC.encode("result", result))
    except EncodeError:
        return mutant(chance)
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(value) + 1)
        match chance.randrange(5):
            case 0:
                value[at:at] = bytes([chance.choice((0, 1, 2, 4, 127, 128, 255))])
            case 1:
                del value[at : at + chance.randrange(1, 4)]
            case 2:
                value[at : at + 1] = bytes([chance.choice((0, 1, 2, 3, 126, 128, 129, 254, 255))])
            case 3:
                del value[at + 1 :]
            case _:
                value += chance.randbytes(1)
    return bytes(value)


def test_mutated_results_come_to_the_same_row_or_are_left_to_codec_and_checks() -> None:
    chance = random.Random(SEED)
    same = refused = 0
    values = [mutant(chance) for _ in range(MUTANTS)]
    for value, row in zip(values, at_once(values), strict=True):
        expected = the_long_way(value)
        if row is not None:
            assert repr(row) == repr(expected)
            same += 1
        else:
            refused += expected is None
    assert same > MUTANTS // 10
    assert refused > MUTANTS // 10
