"""What a rebuild takes from the log: results first, for their versions; then events, stitched above those versions.

Invariant: the auditor's and the stitcher's own code stores them, and their positions follow, never lead. So whatever
was done when it is cut short is a state in which the stages could be, and they or the next start go on from it. No
command is issued meanwhile: the versions that it raises were never seen by anybody.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.auditor.stage import GROUP as AUDITOR
from attributary.consumers.auditor.stage import AuditorStage
from attributary.consumers.maintenance.progress import Progress, no_progress
from attributary.consumers.maintenance.replay import BATCH, Replay, read_decoders
from attributary.consumers.maintenance.withdrawal import Withdrawal
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.log_reader import LogReader, Partition, Range
from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.settings import DatabaseSettings, KafkaSettings, load
from attributary.consumers.stitcher.stage import GROUP as STITCHER
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.stitcher.stitch import Stitched
from attributary.consumers.store.events.policies import fetch_policies
from attributary.consumers.store.events.stitch import StitchTransaction
from attributary.consumers.store.offsets import all_positions, forget_positions, record_positions
from attributary.consumers.store.repair.derived_rows import lift_versions
from attributary.consumers.store.repair.replaced_events import drop_altered
from attributary.schemas.topics import group_name

register_points("rebuild_after_batch")

# The rebuild's own place in the log, beside those of the stages.
GROUP = group_name("rebuild")


def restore_results(writer: psycopg.Connection, *, only_new: bool, progress: Progress = no_progress) -> int:
    """Store what the results topic holds, as the auditor does; return how many results were not stored before.

    Args:
        writer: tells what is stored.
        only_new: begin where the auditor's positions are; else at the beginning of the topic.
        progress: shows how much of the topic is read.
    """
    log = LogReader(KafkaSettings.load())
    auditor = AuditorStage(load(DatabaseSettings).url.get_secret_value(), make_codec(load(RegistrySettings)), 1.0)
    before = _results(writer)
    try:
        known = _positions(writer, AUDITOR) if only_new else {}
        ranges = {
            place: Range(max(span.start, known.get(place, 0)), span.stop)
            for place, span in log.bounds(AuditorStage.topics).items()
        }
        with progress("results topic", sum(span.stop - span.start for span in ranges.values())) as advance:
            for batch in log.read(ranges, AuditorStage.max_records):
                done = 0
                while done < len(batch):
                    taken = auditor.handle(batch[done:]).taken
                    done = len(batch) if taken is None else done + taken
                advance(len(batch))
    finally:
        auditor.close()
        log.close()
    return _results(writer) - before


def _results(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM attribution_results").fetchone()
    connection.commit()
    return int(row[0]) if row else 0


def _positions(connection: psycopg.Connection, group: str) -> dict[Partition, int]:
    found = {(topic, number): offset for owner, topic, number, offset in all_positions(connection) if owner == group}
    connection.commit()
    return found


def restore_events(
    writer: psycopg.Connection, policy: LookbackPolicy, progress: Progress = no_progress
) -> tuple[int, int]:
    """Stitch the log into what is stored, from where an earlier try came to.

    Returns:
        How many events were altered since they were stored, and how many stored ones are dead letters by now.

    Args:
        writer: with staging tables; nobody else stitches.
        policy: the lookback policy in force.
        progress: shows how much of the log is read.
    """
    log = LogReader(KafkaSettings.load())
    try:
        spans = log.bounds(StitcherStage.topics)
        come_to = _positions(writer, GROUP)
        with writer.transaction():  # nothing is stored before these: a stitcher that starts too soon misses nothing
            record_positions(writer, STITCHER, {place: span.start for place, span in spans.items()})
            pinned = fetch_policies(writer)
            codec = make_codec(load(RegistrySettings))
            decoders = read_decoders(writer, codec)
        batch = _Batch(writer)
        replay = Replay(writer, decoders, policy, pinned, batch.prepare, batch.finish)
        refused = Withdrawal(writer, KafkaSettings.load(), codec)
        ranges = {
            place: Range(max(span.start, come_to.get(place, 0)), span.stop) for place, span in spans.items()
        }  # fmt: skip
        with progress("log", sum(span.stop - span.start for span in ranges.values())) as advance:
            for records in log.read(ranges, BATCH):
                batch.positions = _next_offsets(records)
                refused.take_out(replay.records(records))
                with writer.transaction():  # also where none of the records could be stored
                    record_positions(writer, STITCHER, batch.positions)
                    record_positions(writer, GROUP, batch.positions)
                crash_at("rebuild_after_batch")
                advance(len(records))
    finally:
        log.close()
    with writer.transaction():
        forget_positions(writer, GROUP)
    return batch.altered, refused.withdrawn


def _next_offsets(records: list[Record]) -> Mapping[Partition, int]:
    return {(record.topic, record.partition): record.offset + 1 for record in records}


class _Batch:
    """What happens around the stitching of a batch, in its transaction."""

    def __init__(self, writer: psycopg.Connection) -> None:
        self._writer = writer
        self.positions: Mapping[Partition, int] = {}
        self.altered = 0

    def prepare(self) -> None:
        """Take out what was altered since it was stored, so that it is stored anew."""
        self.altered += drop_altered(self._writer)

    def finish(self, _transaction: StitchTransaction, stitched: Stitched) -> None:
        """Keep the versions above those that were published."""
        lift_versions(self._writer, [(version.tenant_id, version.conversion_id) for version in stitched.versions])
