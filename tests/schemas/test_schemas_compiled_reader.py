"""The compiled readers against fastavro: the same record, or IRREGULAR."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from attributary.schemas.codec import Codec
from attributary.schemas.compiled_reader import IRREGULAR, compile_reader
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import NAMES, compiled_reader, current_schemas

SEED = 20_261_124
MUTANTS = 3_000  # of each record


def mutated(value: bytes, chance: random.Random) -> bytes:
    data = bytearray(value)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(6):
            case 0:
                data[at:at] = bytes(chance.choice((0, 1, 2, 4, 127, 128, 255)) for _ in range(chance.randrange(1, 4)))
            case 1:
                del data[at : at + chance.randrange(1, 4)]
            case 2:
                data[at : at + 1] = bytes([chance.choice((0, 1, 2, 3, 4, 6, 126, 128, 129, 254, 255))])
            case 3:
                data = data[:at]
            case 4:
                data += chance.randbytes(1)
            case _:
                if data:
                    data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


def judged(name: str, body: bytes) -> str | None:
    """What fastavro makes of a body, as text (so that NaN equals NaN); None when it is broken."""
    stream = BytesIO(body)
    try:
        record = schemaless_reader(stream, current_schemas()[name].runtime, None)
    except (EOFError, LookupError, ValueError, TypeError, OverflowError):
        return None
    return repr(record) if stream.tell() == len(body) else None


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_reader_reads_what_fastavro_reads(name: str) -> None:
    chance = random.Random(SEED)
    read = compiled_reader(name)
    assert read is not None
    bodies = [Codec().encode(name, sample(current_schemas()[name].source, branch))[10:] for branch in (0, 1)]
    for body in bodies:
        assert repr(read(body, 0)) == judged(name, body)
    same = 0
    for _ in range(MUTANTS):
        body = mutated(chance.choice(bodies), chance)
        try:
            record = read(body, 0)
        except IRREGULAR:
            continue
        assert repr(record) == judged(name, body), body.hex()
        same += 1
    assert same > MUTANTS // 50


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {str(number): "x" for number in range(64)}},
        {"landing_url": "x" * 9_000},
        {"occurred_at": -(2**63)},
        {"occurred_at": 2**63 - 1},
        {"campaign_name": "Größe 尺寸 😀"},
        {"campaign_name": "é" * 100},
        {"event_id": ""},
    ],
)
def test_unusual_records_come_back_whoever_reads_them(change: dict[str, Any]) -> None:
    record = sample(current_schemas()["touchpoint"].source, 1) | change
    assert Codec().decode("touchpoint", Codec().encode("touchpoint", record)) == record


def test_a_map_of_several_blocks_with_sizes_is_left_to_fastavro() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "m", "type": {"type": "map", "values": "string"}}]}
    read = compile_reader(schema)
    assert read is not None
    # Two blocks, the first with a negative count and its size in bytes.
    body = b"\x01\x08\x02a\x02b\x02\x02c\x02d\x00"
    with pytest.raises(IRREGULAR):
        read(body, 0)
    assert schemaless_reader(BytesIO(body), parse_schema(schema), None) == {"m": {"a": "b", "c": "d"}}


@pytest.mark.parametrize("kind", ["float", ["string", "null"], ["null", "string", "long"], {"type": "enum"}])
def test_for_other_schemas_no_reader_is_compiled(kind: Any) -> None:
    assert compile_reader({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}) is None


def test_a_name_cannot_become_code() -> None:
    name = "x'}); raise SystemExit #"
    read = compile_reader({"type": "record", "name": "R", "fields": [{"name": name, "type": "long"}]})
    assert read is not None
    out = BytesIO()
    schemaless_writer(out, "long", 5)
    assert read(out.getvalue(), 0) == {name: 5}
