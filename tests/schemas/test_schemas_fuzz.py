"""Whatever bytes arrive: a record that passed the rules, a violation, or a DecodeError; nothing else."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.rules import CHECKS, find_unstorable_text
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import current_schemas

RECORDS = 20_000
SEED = 20_261_124


def mutate(value: bytes, chance: random.Random) -> bytes:
    data = bytearray(value)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(7):
            case 0:
                data[at:at] = chance.randbytes(chance.randrange(1, 12))
            case 1:
                del data[at : at + chance.randrange(1, 12)]
            case 2:
                data[at : at + 1] = chance.randbytes(1)
            case 3:  # a giant length or count
                data[at : at + 1] = b"\xfe" + b"\xff" * chance.randrange(3, 9) + b"\x01"
            case 4:
                data[at : at + 1] = b"\xff" * chance.randrange(1, 12)
            case 5:
                data = data[:at]
            case _:
                if data:
                    data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


def outcome(codec: Codec, name: str, value: bytes) -> str:
    try:
        record = codec.decode(name, value)
    except DecodeError:
        return "not decoded"
    if CHECKS[name](record, now_micros=1_764_000_000_000_000):
        return "rule broken"
    return "not storable" if find_unstorable_text(record) else "accepted"


def test_mutated_records_are_accepted_or_refused_and_nothing_else_happens() -> None:
    chance = random.Random(SEED)
    codec = Codec()
    bodies: list[tuple[str, bytes]] = []
    for name in CHECKS:
        for branch in (0, 1):
            record: dict[str, Any] = sample(current_schemas()[name].source, branch)
            record.update({key: 1_764_000_000_000_000 for key in ("occurred_at", "linked_at") if key in record})
            record.update({key: "device-1" for key in ("anonymous_id",) if key in record})
            record.update({"kind": "conversion", "action_source": "website"} if name == "conversion" else {})
            record.update({"currency": "EUR", "value_micros": 10_000} if name == "conversion" else {})
            bodies.append((name, codec.encode(name, record)))
    outcomes: Counter[str] = Counter()
    for _ in range(RECORDS):
        name, value = chance.choice(bodies)
        # The framing is kept in most of them: else every mutation would end at the first two bytes.
        kept = 10 if chance.random() < 0.9 else 0
        outcomes[outcome(codec, name, value[:kept] + mutate(value[kept:], chance))] += 1
    assert outcomes.total() == RECORDS
    assert outcomes["not decoded"] > RECORDS // 10
    assert outcomes["accepted"] > RECORDS // 100
    assert outcomes["rule broken"] > RECORDS // 100


def test_noise_is_refused() -> None:
    chance = random.Random(SEED)
    codec = Codec()
    for _ in range(2_000):
        head = b"\xc3\x01" + current_schemas()["conversion"].crc64 if chance.random() < 0.5 else b""
        assert outcome(codec, "conversion", head + chance.randbytes(chance.randrange(200))) in {
            "not decoded",
            "rule broken",
        }
