"""Mutated records through the stitcher's real decode-and-validate path: each becomes a row, a repeat or a dead letter.

ATTRIBUTION_FUZZ_RECORDS=1000000 is the size of a soak. Memory stays bounded; nothing crashes.
"""

from __future__ import annotations

import json
import os
import random
import resource
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.decode import Decoder
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS
from tests.expected_results import codec
from tests.model.events import BASE, DAY, encoded, policy, random_event
from tests.schemas.test_schemas_fuzz import mutate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.store.events.rows import EventRow

RECORDS = int(os.environ.get("ATTRIBUTION_FUZZ_RECORDS", "50000"))
BATCH = 500
SEED = 20_261_124
_MOST_GROWTH_MEGABYTES = 200
_AT_MS = (BASE + 9 * DAY) // 1_000
_NUL_IN_TEXT = 0.02


def hostile(chance: random.Random, number: int) -> tuple[str, bytes | None]:
    """A topic and bytes that somebody may have put into it."""
    topic, fields = random_event(chance, number)
    if topic != IDENTITIES and chance.random() < _NUL_IN_TEXT:
        fields["properties"] = {"note": "a\0b"}
    value: bytes | None = encoded(topic, fields)
    what = chance.random()
    if what < 0.05:
        return topic, chance.choice(
            (None, b"", b"\xc3", b"\x00\x00\x00\x00\x07", chance.randbytes(chance.randrange(60)))
        )
    if what < 0.10:
        return chance.choice((TOUCHPOINTS, CONVERSIONS, IDENTITIES)), value
    if what < 0.85:
        kept = 10 if chance.random() < 0.9 else 0
        return topic, (value or b"")[:kept] + mutate((value or b"")[kept:], chance)
    return topic, value


def batches(chance: random.Random, records: int) -> Iterator[list[Record]]:
    for first in range(0, records, BATCH):
        batch = []
        for number in range(first, min(first + BATCH, records)):
            topic, value = hostile(chance, number)
            batch.append(Record(topic, number % 4, number, b"key", value, _AT_MS))
        yield batch


@pytest.mark.timeout(3_600)
def test_every_mutated_record_ends_in_exactly_one_way() -> None:
    decoder = Decoder(codec(), strict=True)
    ended: Counter[str] = Counter()
    before = 0
    for number, batch in enumerate(batches(random.Random(SEED), RECORDS)):
        out = decoder.decode(batch)
        rows: list[EventRow] = [*out.touchpoints, *out.conversion_events, *out.links]
        everything = rows + out.repeats
        kept = [(row.topic, row.partition, row.offset) for row in everything]
        dead = [(letter.record.topic, letter.record.partition, letter.record.offset) for letter in out.dead_letters]
        assert sorted(kept + dead) == sorted((r.topic, r.partition, r.offset) for r in batch)
        assert all(letter.reason and len(letter.reason) < 500 for letter in out.dead_letters)
        for details in [*(row.details for row in out.touchpoints), *(row.details for row in out.conversion_events)]:
            json.loads(details)
        ended["rows"] += len(rows)
        ended["repeats"] += len(out.repeats)
        ended["dead letters"] += len(dead)
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1_024 if before else 0
    print(f"\n{RECORDS} mutated records: {dict(ended)}, memory grew by {grown:.0f} MB")
    assert grown < _MOST_GROWTH_MEGABYTES
    assert ended.total() == RECORDS
    assert min(ended["rows"], ended["dead letters"]) > RECORDS // 10


@pytest.mark.postgres
def test_postgres_takes_what_the_decoder_lets_through(database: str) -> None:
    stage = StitcherStage(database, codec(), policy(), max_poison_share=1.0)
    stored = dead = 0
    try:
        for batch in batches(random.Random(SEED + 1), 4_000):
            outcome = stage.handle(batch)
            dead += len(outcome.dead_letters)
            stored += len(batch) - len(outcome.dead_letters)
    finally:
        stage.close()
    assert dead > 400
    assert stored > 400
