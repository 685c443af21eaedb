"""The steps of `attributary verify`, each of which collects differences.

Invariant: all of them look at one snapshot of what is stored; the log is read up to the offsets that this snapshot
holds, and no further. Memory is bounded: batches, streams, and of the differences the first few and a count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg

from attributary.consumers.auditor.stage import GROUP as AUDITOR
from attributary.consumers.erasure.settings import load_hasher
from attributary.consumers.maintenance.progress import Progress, no_progress
from attributary.consumers.maintenance.recompute import wrong_results
from attributary.consumers.maintenance.replay import BATCH, REFUSALS, Replay, read_decoders, rows_of
from attributary.consumers.reporter.stage import GROUP as REPORTER
from attributary.consumers.runtime.consumer_groups import committed_offsets
from attributary.consumers.runtime.log_reader import LogReader, Partition, Range
from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.redrive import letter_of
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.stitcher.decode import Decoder, Decoders, rank
from attributary.consumers.stitcher.erasures import without_erased
from attributary.consumers.stitcher.stage import GROUP, StitcherStage
from attributary.consumers.store.events.attribution_inputs import conversions_by_id, prepare_reading
from attributary.consumers.store.events.reopenings import journeys_put_off
from attributary.consumers.store.events.rows import ConversionEventRow, EventRow, LinkRow
from attributary.consumers.store.events.stitch import StitchTransaction
from attributary.consumers.store.offsets import all_positions
from attributary.consumers.store.repair.compare import differences, narrow_journeys
from attributary.consumers.store.repair.shadow_tables import analyze_shadow, older_events
from attributary.consumers.store.repair.verify_reads import (
    Difference,
    conversion_pages,
    held,
    wrong_conversions,
    wrong_owners,
)
from attributary.consumers.store.retention.boundaries import kept_no_longer
from attributary.consumers.store.rollup.differences import rollup_differences
from attributary.schemas.codec import Codec
from attributary.schemas.topics import dead_letter_topic

_MOST_KNOWN = 100_000
_LETTERS = 2_000


class Findings:
    """What was found: counts, and of the differences the first few with the evidence for each.

    Args:
        limit: how many to keep.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[tuple[str, str]] = set()
        self.shown: dict[tuple[str, str], dict[str, Difference]] = {}
        self.total = 0
        self.records = self.conversions = self.waiting = self.older = self.unread = 0
        self.replayed: int | None = None
        self.positions: dict[Partition, int] = {}

    def add(self, evidence: str, found: Iterable[Difference]) -> None:
        """Take in differences; one thing that several kinds of evidence name is one difference."""
        for difference in found:
            key = difference[:2]
            if key not in self._known:
                self.total += 1
                if len(self._known) < _MOST_KNOWN:
                    self._known.add(key)
            if key in self.shown or len(self.shown) < self._limit:
                self.shown.setdefault(key, {}).setdefault(evidence, difference)

    def document(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "differences": self.total,
            "records": self.records,
            "conversions": self.conversions,
            "waiting": self.waiting,
            "unread": self.unread,
            "replayed": self.replayed,
            "older_events": self.older,
            "positions": {f"{topic}[{number}]": offset for (topic, number), offset in sorted(self.positions.items())},
            "shown": [
                {
                    "tenant_id": key[0],
                    "what": key[1],
                    "evidence": {name: {"stored": d.stored, "expected": d.expected} for name, d in evidence.items()},
                }
                for key, evidence in self.shown.items()
            ],
        }


def check_log(
    log: LogReader,
    snapshot: psycopg.Connection,
    codec: Codec,
    since_ms: int | None,
    found: Findings,
    progress: Progress = no_progress,
) -> dict[Partition, Range]:
    """Find records that are neither stored nor dead letters; returns the part of the log that was read."""
    stored = {(topic, number): offset for group, topic, number, offset in all_positions(snapshot) if group == GROUP}
    ranges = {}
    for place, (start, end) in log.bounds(StitcherStage.topics, since_ms).items():
        stop = stored.get(place, 0)
        if stop > end:
            what = f"log of {place[0]}[{place[1]}]"
            found.add("log", [Difference("*", what, f"read up to {stop}", f"an end of {end} at most")])
        ranges[place] = Range(min(start, stop), min(stop, end))
        found.unread += max(0, end - max(start, stop))
    found.positions = {place: span.stop for place, span in ranges.items()}
    # A dead letter and its offset are one transaction: where Kafka has the offset, the letter must be there.
    committed = committed_offsets(KafkaSettings.load(), GROUP, list(ranges))
    letters = _letters(log, since_ms)
    decoders = read_decoders(snapshot, codec)
    with progress("log: stored or a dead letter", _size(ranges)) as advance:
        for batch in log.read(ranges, BATCH):
            found.records += len(batch)
            found.add("log", _missing(snapshot, decoders, batch, letters, committed))
            advance(len(batch))
    return ranges


def _size(ranges: Mapping[Partition, Range]) -> int:
    return sum(max(0, span.stop - span.start) for span in ranges.values())


def _letters(log: LogReader, since_ms: int | None) -> dict[Partition, set[int]]:
    """Return the offsets of the records that dead letters are about."""
    found: dict[Partition, set[int]] = {}
    bounds = log.bounds([dead_letter_topic(topic, GROUP) for topic in StitcherStage.topics], since_ms)
    for batch in log.read(bounds, _LETTERS):
        for letter in map(letter_of, batch):
            found.setdefault((letter.topic, letter.partition), set()).add(letter.offset)
    return found


def _missing(
    snapshot: psycopg.Connection,
    decoders: Decoders,
    batch: Sequence[Record],
    letters: Mapping[Partition, set[int]],
    committed: Mapping[Partition, int],
) -> list[Difference]:
    """Return the records of a batch that are neither stored nor a dead letter; the strict decoder has the last word."""
    quick, strict = decoders
    try:
        if not list(_lost(snapshot, quick, batch, letters, committed)):
            return []
    except REFUSALS:  # a text that no database holds: the strict decoder knows it
        pass
    return list(_lost(snapshot, strict, batch, letters, committed))


def _lost(
    snapshot: psycopg.Connection,
    decoder: Decoder,
    batch: Sequence[Record],
    letters: Mapping[Partition, set[int]],
    committed: Mapping[Partition, int],
) -> Iterator[Difference]:

    def given_up(topic: str, partition: int, offset: int) -> bool:
        return offset in letters.get((topic, partition), ())

    decoded = decoder.decode(batch)
    for letter in decoded.dead_letters:
        record = letter.record
        is_due = record.offset < committed.get((record.topic, record.partition), 0)
        if is_due and not given_up(record.topic, record.partition, record.offset):
            yield Difference("?", f"record {record.place}", "in no dead-letter topic", letter.reason)
    asker = StitchTransaction(snapshot, (), (), ())
    for table, rows in rows_of(without_erased(asker, decoded, load_hasher())):
        there = held(snapshot, table, [(row.tenant_id, row.event_id) for row in rows])
        missing = [_place_of(row) for row in rows if (row.tenant_id, row.event_id) not in there]
        gone = kept_no_longer(snapshot, table, missing)
        for row in rows:
            if gone and _place_of(row) in gone and (row.tenant_id, row.event_id) not in there:
                continue
            stored = there.get((row.tenant_id, row.event_id))
            # Of several records with one event id the first in the log is stored.
            if (stored is None or stored > rank(row)) and not given_up(row.topic, row.partition, row.offset):
                place = f"{row.topic}[{row.partition}]@{row.offset}"
                there_now = "nothing" if stored is None else f"the later record {stored[1]}[{stored[2]}]@{stored[3]}"
                yield Difference(row.tenant_id, f"event {row.event_id}", there_now, f"the record {place}")


def _place_of(row: EventRow) -> tuple[str, str, int]:
    """Return tenant, conversion id or an empty text, and event time."""
    if isinstance(row, LinkRow):
        return row.tenant_id, "", row.linked_at
    return row.tenant_id, row.conversion_id if isinstance(row, ConversionEventRow) else "", row.occurred_at


def check_replay(
    log: LogReader,
    snapshot: psycopg.Connection,
    shadow: psycopg.Connection,
    codec: Codec,
    ranges: Mapping[Partition, Range],
    found: Findings,
    progress: Progress = no_progress,
) -> None:
    """Stitch everything anew into the shadow, and find what is stored otherwise."""
    replay = Replay(shadow, read_decoders(snapshot, codec))
    starts = {place: span.start for place, span in ranges.items()}
    with progress("replay: stored events older than that") as advance:
        for rows in older_events(snapshot, starts, BATCH):
            replay.rows(rows)
            _grew(shadow, found.older, len(rows))
            found.older += len(rows)
            advance(len(rows))
    found.replayed = 0
    with progress("replay: the log", _size(ranges)) as advance:
        for batch in log.read(ranges, BATCH):
            replay.records(batch)
            _grew(shadow, found.replayed, len(batch))
            found.replayed += len(batch)
            advance(len(batch))
    analyze_shadow(shadow)
    found.add("replay", differences(snapshot, shadow))


def _grew(shadow: psycopg.Connection, before: int, more: int) -> None:
    """Tell the planner now and then how big the tables have become: each time that they have doubled."""
    if (before // BATCH).bit_length() != ((before + more) // BATCH).bit_length():
        analyze_shadow(shadow)


def check_stored(snapshot: psycopg.Connection, found: Findings, progress: Progress = no_progress) -> None:
    """Find what was derived otherwise than the stored events say, by queries that know nothing of the stitcher."""
    found.add("events", wrong_owners(snapshot))
    found.add("events", wrong_conversions(snapshot))
    found.add(
        "events",
        (
            Difference(tenant, f"journey {key}", stored, str((first, last, received)))
            for (tenant, key, first, last, received), stored in narrow_journeys(snapshot)
        ),
    )
    found.add("rollup", rollup_differences(snapshot, (REPORTER, AUDITOR)))
    late = journeys_put_off(snapshot)  # the sweeper will raise their versions
    prepare_reading(snapshot)  # from here on look-ups by key only
    with progress("results: computed anew") as advance:
        for page in conversion_pages(snapshot):
            conversions = conversions_by_id(snapshot, page)
            settled = [c for c in conversions if c.observed_version >= c.version and (c[0], c.journey_key) not in late]
            found.conversions += len(conversions)
            found.waiting += len(conversions) - len(settled)
            found.add(
                "results",
                (
                    Difference(
                        wrong.conversion.tenant_id,
                        f"result of {wrong.conversion.conversion_id}, version {wrong.conversion.version}",
                        wrong.stored,
                        wrong.expected,
                    )
                    for wrong in wrong_results(snapshot, settled)
                ),
            )
            advance(len(conversions))
