"""The auditor as a stage: its deciding write is one Postgres transaction a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.quarantine import TrialDoneError, bisect_rejected
from attributary.consumers.adapters.result_checks import disagreement, imbalance, raised_at, result_row
from attributary.consumers.adapters.result_reader import IRREGULAR, read_result
from attributary.consumers.adapters.stored_offsets import OffsetStore
from attributary.consumers.adapters.tombstones import Place, conversion_of, last_tombstones, without_forgotten
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.metrics import timed
from attributary.consumers.runtime.records import DeadLetter, Outcome, Record, within_bytes
from attributary.consumers.store.erasure.tombstones import observe_tombstones
from attributary.consumers.store.events.rejected_values import UNSTORABLE
from attributary.consumers.store.offsets import record_positions
from attributary.consumers.store.results.results import ResultRow, Stored, create_result_staging, store_results
from attributary.consumers.store.session import StoreSession
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.topics import RESULTS, group_name

from . import metrics

register_points("auditor_before_pg_commit", "auditor_after_pg_commit")

_log = structlog.get_logger()

GROUP = group_name("auditor")
_FEW_RESULTS = 50  # a batch of fewer runs by kept plans
_MAX_BYTES = 32 << 20  # of the results of a batch; as rows they take several times as much


class AuditorStage:
    """Stores results and checks them.

    Args:
        dsn: where Postgres is.
        codec: reads results.
        max_poison_share: stop when more of a batch than this share is poison.
    """

    name = "auditor"
    group = GROUP
    topics = (RESULTS,)
    output_topics = ()
    max_records = 2_000  # a result is some kilobytes; where it is more, a batch is cut

    def __init__(self, dsn: str, codec: Codec, max_poison_share: float) -> None:
        self._codec = codec
        self._max_poison_share = max_poison_share
        self._session = StoreSession(dsn, "attributary-auditor", create_result_staging)
        self._positions = OffsetStore(GROUP, self._session)
        with map_errors():
            self._session.connection()

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Store a batch of results, or the first of one of very many bytes."""
        taken = within_bytes(batch, _MAX_BYTES)
        outcome = self._handle(batch[:taken])
        outcome.taken = taken if taken < len(batch) else None
        return outcome

    def _handle(self, batch: Sequence[Record]) -> Outcome:
        with map_errors(), timed(self.name, "decode"):
            forgotten = last_tombstones(batch)
            rows, dead_letters = self._decode(without_forgotten(batch, forgotten))
        check_poison_share(dead_letters, len(batch), self._max_poison_share)
        try:
            stored = self._store(rows, batch, forgotten)
        except UNSTORABLE:
            row_of = {record.place: (record, row) for record, row in rows}
            rejected = bisect_rejected(
                [record for record, _ in rows], lambda part: self._trial([row_of[r.place][1] for r in part])
            )
            dead_letters += rejected
            check_poison_share(dead_letters, len(batch), self._max_poison_share)
            for letter in rejected:
                del row_of[letter.record.place]
            stored = self._store(list(row_of.values()), batch, forgotten)
        self._count(stored)
        metrics.tombstones_seen.inc(len(forgotten))
        return Outcome(dead_letters=dead_letters)

    def _decode(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, ResultRow]], list[DeadLetter]]:
        rows: list[tuple[Record, ResultRow]] = []
        dead_letters: list[DeadLetter] = []
        for record in batch:
            if (row := self._read(record)) is not None:
                rows.append((record, self._counted(row)))
                continue
            try:
                result = self._codec.decode("result", record.value)
            except DecodeError as error:
                dead_letters.append(DeadLetter(record, "decode", None, str(error)))
                continue
            self._check(result, record)
            model = disagreement(result)
            if model is not None:
                reason = f"result: models: {model} names other touchpoints than the first model"
                dead_letters.append(DeadLetter(record, "validate", "models", reason))
                continue
            rows.append((record, self._counted(result_row(result, record))))
        return rows, dead_letters

    def _read(self, record: Record) -> ResultRow | None:
        """Return the row of an ordinary result in one pass; None: decode it, and say what is wrong with it."""
        body = None if record.value is None else self._codec.body_of("result", record.value)
        if record.value is None or body is None:
            return None
        try:
            return read_result(record.value, body, record.partition, record.offset, raised_at(record))
        except IRREGULAR:
            return None

    @staticmethod
    def _counted(row: ResultRow) -> ResultRow:
        if row.net_value_micros < 0 and row.delta_micros < 0 <= row.gross_value_micros:
            metrics.over_refunded.inc()
        return row

    def _store(
        self, rows: Sequence[tuple[Record, ResultRow]], batch: Sequence[Record], forgotten: Mapping[Place, int]
    ) -> Stored:
        positions = {(record.topic, record.partition): record.offset + 1 for record in batch}
        with map_errors(), timed(self.name, "store"), self._session.transaction() as connection:
            if len(rows) < _FEW_RESULTS:
                self._session.keep_plans()
            stored = store_results(connection, [row for _, row in rows])
            observe_tombstones(connection, [key for _, text in forgotten if (key := conversion_of(text))])
            self._positions.check(record_positions(connection, GROUP, positions))
            crash_at("auditor_before_pg_commit")
        self._positions.committed(positions)
        crash_at("auditor_after_pg_commit")
        return stored

    def _trial(self, rows: Sequence[ResultRow]) -> Exception | None:
        try:
            with map_errors(), self._session.transaction() as connection:
                store_results(connection, rows)
                raise TrialDoneError  # noqa: TRY301  # the way to roll back a transaction block
        except UNSTORABLE as error:
            return error
        except TrialDoneError:
            return None

    def _check(self, result: Mapping[str, object], record: Record) -> None:
        model = imbalance(result)
        if model is not None:
            metrics.credit_imbalance.inc()
            _log.error("credits do not sum to the net value", place=record.place, model=model,
                       conversion_id=result["conversion_id"], version=result["version"])  # fmt: skip

    @staticmethod
    def _count(stored: Stored) -> None:
        metrics.results_stored.labels("new").inc(stored.new)
        metrics.results_stored.labels("repeated").inc(stored.repeated)
        metrics.result_conflicts.inc(stored.conflicting)
        metrics.versions_out_of_order.inc(stored.out_of_order)
        if stored.conflicting or stored.out_of_order:
            _log.error("results disagree", conflicting=stored.conflicting, out_of_order=stored.out_of_order,
                       repaired=stored.repaired)  # fmt: skip

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
