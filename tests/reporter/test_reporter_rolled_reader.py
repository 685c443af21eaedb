"""The reader of a batch of results against codec, checks and ``cells_of``: the same, or it leaves them the result."""

from __future__ import annotations

import copy
import os
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.adapters.result_checks import disagreement, imbalance, no_share, result_row
from attributary.consumers.adapters.rolled_reader import read_rolled, rolled
from attributary.consumers.store.rollup.cells import billionths, cells_text, rounded
from attributary.schemas.codec import DecodeError, EncodeError
from tests.auditor.test_auditor_result_reader import CODEC, EMPTY, FULL, NO_MODEL, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.store.rollup.cells import RolledResult

SEED = 20_261_201
MUTANTS = int(os.environ.get("READER_MUTANTS", "4000"))


def at_once(values: Sequence[bytes]) -> list[RolledResult | None]:
    bodies = [(value, CODEC.body_of("result", value)) for value in values]
    found = iter(read_rolled([(value, body) for value, body in bodies if body is not None]))
    return [None if body is None else next(found) for _, body in bodies]


def the_long_way(value: bytes) -> RolledResult | None:
    try:
        result = CODEC.decode("result", value)
    except DecodeError:
        return None
    wrong = disagreement(result) or imbalance(result) or no_share(result)
    return None if wrong else rolled(result_row(result, record(value)))


def agree(found: RolledResult, expected: RolledResult) -> None:
    assert found._replace(parsed=None) == expected
    assert found.parsed is not None
    assert cells_text(found.parsed) == expected.cells


def test_ordinary_results_of_a_batch_come_to_what_each_comes_to_alone() -> None:
    other = copy.deepcopy(FULL)
    for model in other["models"]:
        model["model"] += "_of_another_shop"
    values = [CODEC.encode("result", result) for result in (FULL, EMPTY, NO_MODEL, FULL, other, EMPTY, FULL)]
    for value, found in zip(values, at_once(values), strict=True):
        expected = the_long_way(value)
        assert expected is not None
        assert found is not None
        agree(found, expected)


@pytest.mark.parametrize("place", ["micros", "unattributed", "net", "credit less", "no number", "huge"])
def test_a_result_that_breaks_a_promise_is_left_to_the_checks_and_spoils_no_other(place: str) -> None:
    result = copy.deepcopy(FULL)
    second = result["models"][1]
    if place == "micros":
        second["micros"][1] += 1
    elif place == "unattributed":
        second["unattributed_micros"] += 1
    elif place == "net":
        result["net_value_micros"] += 1
    elif place == "credit less":
        second["credits"].pop()
    elif place == "no number":
        second["credits"][1] = float("nan")
    else:
        for model in result["models"]:
            model["micros"][0] += 1 << 60
            model["unattributed_micros"] -= 1 << 60
    good = CODEC.encode("result", FULL)
    before, found, after = at_once([good, CODEC.encode("result", result), good])
    assert found is None
    assert before == after is not None


def damaged(chance: random.Random, value: bytes) -> bytes:
    found = bytearray(value)
    at = chance.randrange(len(found) + 1)
    match chance.randrange(4):
        case 0:
            found[at:at] = bytes([chance.choice((0, 1, 2, 4, 127, 128, 255))])
        case 1:
            del found[at : at + chance.randrange(1, 4)]
        case 2:
            found[at : at + 1] = bytes([chance.choice((0, 1, 2, 3, 126, 128, 129, 254, 255))])
        case _:
            del found[at + 1 :]
    return bytes(found)


def changed(chance: random.Random) -> bytes:
    """A result with another number somewhere; one that cannot be written is drawn again."""
    result: dict[str, Any] = copy.deepcopy(chance.choice((FULL, EMPTY, NO_MODEL)))
    if chance.random() < 0.5:
        field = chance.choice([name for name, value in FULL.items() if type(value) is int])
        result[field] = chance.choice((0, -1, 63, 64, 2**31 - 1, result[field]))
    try:
        return CODEC.encode("result", result)
    except EncodeError:
        return changed(chance)


def test_mutated_results_come_to_the_same_or_are_left_to_codec_and_checks() -> None:
    chance = random.Random(SEED)
    whole = [changed(chance) for _ in range(MUTANTS)]
    values = [value if chance.random() < 0.25 else damaged(chance, value) for value in whole]
    same = refused = 0
    for value, found in zip(values, at_once(values), strict=True):
        expected = the_long_way(value)
        if found is None:
            refused += expected is None
            continue
        agree(found, expected or pytest.fail("codec and checks find it wrong"))
        same += 1
    assert same > MUTANTS // 10
    assert refused > MUTANTS // 10


@given(st.lists(st.lists(st.floats(0.0, 1.0) | st.sampled_from([1 / 3, 1 / 7, 0.25]), max_size=9), max_size=6))
def test_many_models_are_rounded_as_each_is_alone(models: list[list[float]]) -> None:
    models += [[each / total for each in credit] for credit in models if (total := sum(credit)) > 1e-6]
    sizes = np.array([len(credit) for credit in models], np.intp)
    parts, rests = rounded(
        np.array([each for credit in models for each in credit], float), np.repeat(np.arange(len(models)), sizes), sizes
    )
    expected = [billionths(credit) for credit in models]
    assert parts.tolist() == [part for found, _ in expected for part in found]
    assert rests.tolist() == [rest for _, rest in expected]
