"""The reporter as a stage: its deciding write is one Postgres transaction a batch, of roll-up and positions together.

Invariant: a result is in the roll-up exactly once, whatever is replayed: versions that are not above the one that a
conversion contributes are ignored. A record that cannot be read is a dead letter, as it is for the auditor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.quarantine import TrialDoneError, bisect_rejected
from attributary.consumers.adapters.result_checks import disagreement, imbalance, result_row
from attributary.consumers.adapters.result_reader import IRREGULAR, read_result
from attributary.consumers.adapters.stored_offsets import OffsetStore
from attributary.consumers.adapters.tombstones import conversion_of, last_tombstones, without_forgotten
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.metrics import timed
from attributary.consumers.runtime.records import DeadLetter, Outcome, Record, within_bytes
from attributary.consumers.store.events.rejected_values import UNSTORABLE
from attributary.consumers.store.offsets import record_positions
from attributary.consumers.store.results.results import ResultRow
from attributary.consumers.store.rollup.apply import Applied, apply_results, create_rollup_staging
from attributary.consumers.store.rollup.cells import RolledResult, cells_of
from attributary.consumers.store.session import StoreSession
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.topics import RESULTS, group_name

from . import metrics

register_points("reporter_before_pg_commit", "reporter_after_pg_commit")

GROUP = group_name("reporter")
_MAX_BYTES = 32 << 20  # of the results of a batch; as rows they take several times as much


class ReporterStage:
    """Keeps the roll-up.

    Args:
        dsn: where Postgres is.
        codec: reads results.
        max_poison_share: stop when more of a batch than this share is poison.
    """

    name = "reporter"
    group = GROUP
    topics = (RESULTS,)
    output_topics = ()
    max_records = 2_000  # as the auditor

    def __init__(self, dsn: str, codec: Codec, max_poison_share: float) -> None:
        self._codec = codec
        self._max_poison_share = max_poison_share
        self._session = StoreSession(dsn, "attributary-reporter", create_rollup_staging)
        self._positions = OffsetStore(GROUP, self._session)
        with map_errors():
            self._session.connection()

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Take a batch of results into the roll-up, or the first of one of very many bytes."""
        taken = within_bytes(batch, _MAX_BYTES)
        outcome = self._handle(batch[:taken])
        outcome.taken = taken if taken < len(batch) else None
        return outcome

    def _handle(self, batch: Sequence[Record]) -> Outcome:
        forgotten = last_tombstones(batch)
        gone = {key for _, text in forgotten if (key := conversion_of(text)) is not None}
        with map_errors(), timed(self.name, "decode"):
            results, dead_letters = self._decode(without_forgotten(batch, forgotten))
        check_poison_share(dead_letters, len(batch), self._max_poison_share)
        positions = {(record.topic, record.partition): record.offset + 1 for record in batch}
        try:
            applied = self._store([result for _, result in results], gone, positions)
        except UNSTORABLE:
            of_place = {record.place: (record, result) for record, result in results}
            rejected = bisect_rejected(
                [record for record, _ in results], lambda part: self._trial([of_place[r.place][1] for r in part])
            )
            dead_letters += rejected
            check_poison_share(dead_letters, len(batch), self._max_poison_share)
            for letter in rejected:
                del of_place[letter.record.place]
            applied = self._store([result for _, result in of_place.values()], gone, positions)
        self._count(applied, results)
        return Outcome(dead_letters=dead_letters)

    def _decode(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, RolledResult]], list[DeadLetter]]:
        results: list[tuple[Record, RolledResult]] = []
        dead_letters: list[DeadLetter] = []
        for record in batch:
            row = self._read(record)
            if isinstance(row, DeadLetter):
                dead_letters.append(row)
            else:
                results.append((record, rolled(row)))
        return results, dead_letters

    def _read(self, record: Record) -> ResultRow | DeadLetter:
        value = record.value or b""
        body = self._codec.body_of("result", value)
        if body is not None:
            try:
                return read_result(value, body, record.partition, record.offset, None)
            except IRREGULAR:
                pass  # unusual or wrong: decode it, and say what
        try:
            result = self._codec.decode("result", record.value)
        except DecodeError as error:
            return DeadLetter(record, "decode", None, str(error))
        model = disagreement(result) or imbalance(result)
        if model is not None:
            return DeadLetter(
                record, "validate", "models", f"result: models: {model} is at odds with the others or sums"
            )
        return result_row(result, record)

    def _store(
        self, results: Sequence[RolledResult], gone: set[tuple[str, str]], positions: Mapping[tuple[str, int], int]
    ) -> Applied:
        with map_errors(), timed(self.name, "store"), self._session.transaction() as connection:
            applied = apply_results(connection, results, gone, now_us=time.time_ns() // 1_000)
            self._positions.check(record_positions(connection, GROUP, positions))
            crash_at("reporter_before_pg_commit")
        self._positions.committed(positions)
        crash_at("reporter_after_pg_commit")
        return applied

    def _trial(self, results: Sequence[RolledResult]) -> Exception | None:
        try:
            with map_errors(), self._session.transaction() as connection:
                apply_results(connection, results)
                raise TrialDoneError  # noqa: TRY301  # the way to roll back a transaction block
        except UNSTORABLE as error:
            return error
        except TrialDoneError:
            return None

    @staticmethod
    def _count(applied: Applied, results: Sequence[tuple[Record, RolledResult]]) -> None:
        for outcome, number in zip(("applied", "ignored", "taken_off"), applied, strict=False):
            metrics.results_rolled_up.labels(outcome).inc(number)
        metrics.rollup_rows.inc(applied.rows)
        if results:
            metrics.rolled_up_until.set(max(result.computed_at for _, result in results) / 1e6)

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Return the next offsets that Postgres holds."""
        return self._positions.stored(partitions)

    def begin_at(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Store where partitions begin that Postgres knows nothing about."""
        self._positions.begin_at(starts)

    @property
    def topic_ids(self) -> OffsetStore:
        """The ids of topics beside the offsets."""
        return self._positions

    def is_ready(self) -> bool:
        """Tell whether Postgres answered last time."""
        return self._session.is_reachable()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def rolled(row: ResultRow) -> RolledResult:
    """Return what the roll-up needs of a result."""
    cells, names = cells_of(json.loads(row.touchpoints), json.loads(row.models))
    return RolledResult(
        row.tenant_id, row.conversion_id, row.version, row.version_reason, row.conversion_type, row.currency,
        row.converted_at, row.journey_key, row.net_value_micros, row.computed_at, cells, names,
    )  # fmt: skip
