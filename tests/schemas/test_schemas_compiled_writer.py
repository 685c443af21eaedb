"""The compiled writers against fastavro: the same bytes, or NOT_PLAIN."""

from __future__ import annotations

import math
import random
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from attributary.schemas.codec import Codec, EncodeError
from attributary.schemas.compiled_writer import NOT_PLAIN, compile_writer, zigzag
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import NAMES, compiled_writer, current_schemas

SEED = 20_261_124
MUTANTS = 1_500  # of each record
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 63, 64, -64, -65, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**63, 1.5, math.nan, -0.0,
    "", "x", "é" * 40, "x" * 1_023, "x" * 1_024, "x" * 9_000, "\ud800", b"x", [], ["x"], {}, {"a": "b"}, {"a": 1},
    {"a": True}, {"a": ["b"]}, {1: "x"}, ("x",), [None], [{}], {f"k{n}": "v" for n in range(70)},
)  # fmt: skip


def by_fastavro(name: str, record: Any) -> bytes | None:
    out = BytesIO()
    try:
        schemaless_writer(out, current_schemas()[name].runtime, record, strict_allow_default=True)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError):
        return None
    return out.getvalue()


def mutated(record: Any, chance: random.Random) -> Any:
    """The record with one value somewhere in it replaced, removed or added."""
    if isinstance(record, list) and record and chance.random() < 0.8:
        return [mutated(record[0], chance), *record[1:]]
    if isinstance(record, dict) and record and chance.random() < 0.9:
        key = chance.choice(list(record))
        match chance.randrange(8):
            case 0:
                return {name: value for name, value in record.items() if name != key}
            case 1:
                return {**record, "other": 1}
            case _:
                return {**record, key: mutated(record[key], chance)}
    return chance.choice(VALUES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dead_letter"])
def test_the_compiled_writer_writes_what_fastavro_writes(name: str) -> None:
    chance = random.Random(SEED)
    write = compiled_writer(name)
    assert write is not None
    records = [sample(current_schemas()[name].source, branch) for branch in (0, 1)]
    for record in records:
        assert write(record, b"") == by_fastavro(name, record)
    same = 0
    for _ in range(MUTANTS):
        record = mutated(chance.choice(records), chance)
        try:
            value = write(record, b"head")
        except NOT_PLAIN:
            continue
        assert value == b"head" + (by_fastavro(name, record) or b"?"), record
        same += 1
    assert same > MUTANTS // 20


@pytest.mark.parametrize("name", NAMES)
def test_the_codec_takes_and_refuses_what_fastavro_does(name: str) -> None:
    chance = random.Random(SEED)
    codec = Codec()
    for _ in range(MUTANTS // 5):
        record = mutated(sample(current_schemas()[name].source, chance.randrange(2)), chance)
        expected = by_fastavro(name, record)
        if expected is None:
            with pytest.raises(EncodeError):
                codec.encode(name, record)
        else:
            assert codec.encode(name, record)[10:] == expected


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_written_as_fastavro_writes_them(number: int) -> None:
    out = BytesIO()
    schemaless_writer(out, "long", number)
    assert zigzag(number) == out.getvalue()


@pytest.mark.parametrize("kind", ["bytes", "float", ["string", "null"], {"type": "fixed"}])
def test_for_other_schemas_no_writer_is_compiled(kind: Any) -> None:
    assert compile_writer({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}) is None


def test_a_name_cannot_become_code() -> None:
    name = "x']; raise SystemExit #"
    write = compile_writer({"type": "record", "name": "R", "fields": [{"name": name, "type": "long"}]})
    assert write is not None
    assert write({name: 5}, b"") == b"\x0a"
