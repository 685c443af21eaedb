"""The records of one tenant, from the topics of one installation to those of another.

Invariant: a record is relayed with its key, its bytes and its headers, and what was relayed is told only when the
other brokers have acknowledged it. So a relay that was cut short sends some records again and skips none; the other
installation stores each event once, by its id. What the stitcher here has refused or erased is not relayed: a later
time of arrival must not change a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaException, Producer

from attributary.consumers.runtime.consumer_groups import committed_offsets
from attributary.consumers.runtime.errors import EXIT_DEPENDENCY_DOWN, Fatal
from attributary.consumers.runtime.log_reader import LogReader, Partition, Range
from attributary.consumers.runtime.records import Headers, Outbound, Record
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.topics import (
    CONVERSIONS,
    ERASURE_REQUESTS,
    ERASURES,
    IDENTITIES,
    RESULTS,
    SPEND,
    TOUCHPOINTS,
    catalogue,
    group_name,
    short_name,
)

from .cell import Cell

INPUTS = (TOUCHPOINTS, CONVERSIONS, IDENTITIES, ERASURE_REQUESTS, SPEND)
_EVENTS = {TOUCHPOINTS: "touchpoints", CONVERSIONS: "conversion_events", IDENTITIES: "identity_links"}
_STITCHER = group_name("stitcher")
_BATCH = 5_000
_FLUSH_SECONDS = 60.0
_MAX_BYTES = 16 << 20  # of one record; the brokers have the last word
TOMBSTONE_REASON = b"moved"


class Relayed(NamedTuple):
    """What was relayed of a batch.

    Attributes:
        records: how many.
        positions: next offsets, all records before which are done with.
        conversions: where conversions stood, and where they stand now.
    """

    records: int
    positions: dict[Partition, int]
    conversions: dict[tuple[int, int], tuple[int, int]]


class Relay:
    """Relays one tenant's records; close it in the end.

    Args:
        here: the installation of this process.
        there: the other one.
        tenant_id: the tenant.
        codec: reads the records of both.
    """

    def __init__(self, here: Cell, there: Cell, tenant_id: str, codec: Codec) -> None:
        self._here, self._there, self._tenant = here, there, tenant_id
        self._codec = codec
        self._marker = tenant_id.encode()
        self._reader, self._other = LogReader(here.kafka), LogReader(there.kafka)
        self._kinds = {topic.name: topic.record for topic in catalogue()}

    def close(self) -> None:
        """Leave the brokers."""
        self._reader.close()
        self._other.close()

    def ends_there(self, topic: str) -> dict[int, int]:
        """Return where the partitions of a topic of the other installation end now."""
        return {partition: span.stop for (_, partition), span in self._other.bounds([topic]).items()}

    def check_topics(self) -> None:
        """Check that the topics of both installations are there.

        Raises:
            Fatal: one is not, or Kafka does not answer.
        """
        names = [*INPUTS, RESULTS, ERASURES]
        self._reader.bounds(names)
        self._other.bounds([self._there.topic(short_name(name)) for name in names])

    def starts(self, stored: Mapping[tuple[str, str, int], int], open_from: Mapping[int, int]) -> dict[Partition, int]:
        """Return from where on records may not have been processed by everybody here.

        Args:
            stored: next offsets by (group, topic, partition), as Postgres has them.
            open_from: by partition of the conversions, the first offset of a delivery that still waits.
        """
        starts: dict[Partition, int] = {}
        bounds = self._reader.bounds(INPUTS)
        for topic in catalogue():
            if topic.name not in INPUTS:
                continue
            places = [place for place in bounds if place[0] == topic.name]
            for group in topic.groups:
                committed = committed_offsets(self._here.kafka, group, places)
                if not any(committed.values()) and "forwarder" in group:
                    continue  # off: it never read anything
                for place in places:
                    at = min(committed[place], stored.get((group, *place), committed[place]))
                    starts[place] = min(starts.get(place, at), at)
        for partition, offset in open_from.items():
            place = (CONVERSIONS, partition)
            starts[place] = min(starts.get(place, offset), offset)
        return {place: max(span.start, starts.get(place, span.start)) for place, span in bounds.items()}

    def decided(self, stored: Mapping[tuple[str, str, int], int]) -> dict[Partition, int]:
        """Return the offsets before which the stitcher here has decided about every event.

        Args:
            stored: next offsets by (group, topic, partition), as Postgres has them.
        """
        places = list(self._reader.bounds(list(_EVENTS)))
        committed = committed_offsets(self._here.kafka, _STITCHER, places)
        return {place: min(at, stored.get((_STITCHER, *place), at)) for place, at in committed.items()}

    def inputs(
        self,
        starts: Mapping[Partition, int],
        decided: Mapping[Partition, int],
        stored: Callable[[str, Sequence[str]], set[str]],
    ) -> Iterator[Relayed]:
        """Relay what publishers wrote, up to where the log ends now.

        Args:
            starts: next offsets of an earlier run, or those of ``starts``.
            decided: events before these offsets are relayed only if they are stored.
            stored: of a table of events and ids, those that are stored.

        Raises:
            Fatal: Kafka does not take a record; what was yielded is done.
        """
        bounds = self._reader.bounds(INPUTS)
        ranges = {place: Range(max(span.start, starts.get(place, 0)), span.stop) for place, span in bounds.items()}
        with _Sender(self._there) as sender:
            for batch in self._reader.read(ranges, _BATCH):
                mine = self._without_refused([r for r in batch if self._is_mine(r)], decided, stored)
                places: dict[tuple[int, int], tuple[int, int]] = {}
                for record in mine:
                    told = _noted(places, record) if record.topic == CONVERSIONS else None
                    topic = self._there.topic(short_name(record.topic))
                    sender.send(Outbound(topic, record.key, record.value, record.headers), told)
                sender.flush()
                yield Relayed(len(mine), {(r.topic, r.partition): r.offset + 1 for r in batch}, places)
        # Behind the last record may stand marks of transactions, which nobody is handed.
        yield Relayed(0, {place: max(span.start, span.stop) for place, span in ranges.items()}, {})

    def states(self) -> int:
        """Relay the newest results and the ledger of erasures, with what came before them; returns how many records."""
        number, known = 0, self._newest_there()
        with _Sender(self._there) as sender:
            for record in self._by_key([RESULTS, ERASURES]):
                if record.topic == RESULTS and _version(record) <= known.get(record.key or b"", -1):
                    continue  # sent by a run that was cut short: a version must not fall, nor come twice
                topic = self._there.topic(short_name(record.topic))
                sender.send(Outbound(topic, record.key, record.value, record.headers))
                number += 1
        return number

    def take_back_results(self) -> int:
        """Write a tombstone here for each result of the tenant that has none yet; returns how many."""
        owed: dict[bytes, Headers] = {}
        for record in self._by_key([RESULTS]):
            if record.value is None:
                owed.pop(record.key or b"", None)
            else:
                owed[record.key or b""] = _tombstone_headers(record)
        with _Sender(self._here) as sender:
            for key, headers in owed.items():
                sender.send(Outbound(RESULTS, key, None, headers))
        return len(owed)

    def _newest_there(self) -> dict[bytes, int]:
        """Return the version that subscribers of the other installation have last seen, by key."""
        found: dict[bytes, int] = {}
        for record in self._by_key([self._there.topic(short_name(RESULTS))], self._other):
            key, headers = record.key or b"", dict(record.headers)
            if record.value is None and headers.get("attribution-reason") == TOMBSTONE_REASON:
                found.pop(key, None)  # taken back when the tenant left: it comes anew
            else:
                found[key] = max(_version(record), found.get(key, -1))
        return found

    def _without_refused(
        self,
        records: Sequence[Record],
        decided: Mapping[Partition, int],
        stored: Callable[[str, Sequence[str]], set[str]],
    ) -> list[Record]:
        """Leave out events that the stitcher here has refused, dropped or erased."""
        ids: dict[str, list[str]] = {}
        asked: dict[int, str] = {}
        for number, record in enumerate(records):
            if record.offset < decided.get((record.topic, record.partition), 0):
                asked[number] = self._codec.decode(self._kinds[record.topic] or "", record.value)["event_id"]
                ids.setdefault(record.topic, []).append(asked[number])
        kept = {topic: stored(_EVENTS[topic], wanted) for topic, wanted in ids.items()}
        return [r for number, r in enumerate(records) if number not in asked or asked[number] in kept[r.topic]]

    def _by_key(self, topics: Sequence[str], reader: LogReader | None = None) -> Iterator[Record]:
        """Yield the tenant's records of topics that we alone write: their keys begin with the tenant."""
        mark, reader = f"{self._tenant}|".encode(), reader or self._reader
        for batch in reader.read(reader.bounds(topics), _BATCH):
            yield from (record for record in batch if (record.key or b"").startswith(mark))

    def _is_mine(self, record: Record) -> bool:
        """Tell by its content whether a record is the tenant's: publishers may choose their keys."""
        kind = self._kinds[record.topic]
        if kind is None or self._marker not in (record.value or b""):
            return False
        try:
            return bool(self._codec.decode(kind, record.value)["tenant_id"] == self._tenant)
        except DecodeError:  # nobody's: a dead letter here
            return False


def _noted(places: dict[tuple[int, int], tuple[int, int]], record: Record) -> Callable[[Any], None]:
    def note(message: Any) -> None:
        places[record.partition, record.offset] = (message.partition(), message.offset())

    return note


def _version(record: Record) -> int:
    """Return the version of a result, or that a tombstone takes back; 0: it names none."""
    headers = dict(record.headers)
    named = headers.get("attribution-version") or (headers.get("ce_id") or b"").rpartition(b"|")[2]
    return int(named) if named.isdigit() else 0


def _tombstone_headers(record: Record) -> Headers:
    """Return what says which version is taken back, and why."""
    known = dict(record.headers)
    version = known.get("ce_id", b"").rpartition(b"|")[2]
    return [
        *((name, known[name]) for name in ("ce_specversion", "ce_id", "ce_type") if name in known),
        ("ce_source", b"attributary/cell"),
        ("attribution-version", version or b"0"),
        ("attribution-reason", TOMBSTONE_REASON),
    ]


class _Sender:
    """Writes records to an installation; the end of the block waits until all are acknowledged."""

    def __init__(self, cell: Cell) -> None:
        config = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5}
        self._producer = Producer({"message.max.bytes": _MAX_BYTES} | cell.kafka.client_config() | config)
        self._failures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None:
            self.flush()

    def send(self, message: Outbound, told: Callable[[Any], None] | None = None) -> None:
        """Send a record; `told` gets its acknowledgement."""

        def delivered(error: Any, acknowledged: Any) -> None:
            if error is not None:
                self._failures.append(error.name())
            elif told is not None:
                told(acknowledged)

        headers: list[tuple[str, str | bytes | None]] = list(message.headers)
        while True:
            try:
                self._producer.produce(
                    message.topic, message.value, message.key, headers=headers, on_delivery=delivered
                )
            except BufferError:  # the local queue is full: let it drain
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Fatal(f"{message.topic}: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        """Wait until everything is acknowledged.

        Raises:
            Fatal: something is not.
        """
        left = self._producer.flush(_FLUSH_SECONDS)
        if left or self._failures:
            why = self._failures[0] if self._failures else "no answer"
            raise Fatal(f"Kafka does not take the records of the tenant: {why}; run it again", EXIT_DEPENDENCY_DOWN)
