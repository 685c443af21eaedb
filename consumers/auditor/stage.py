"""The auditor as a stage: its deciding write is one Postgres transaction a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg
import structlog

from attributary.consumers.adapters.result_checks import disagreement, imbalance, raised_at, result_row
from attributary.consumers.adapters.result_reader import IRREGULAR, read_result
from attributary.consumers.adapters.result_stage import ResultStage, Tombstones
from attributary.consumers.runtime.crash_points import register_points
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.store.erasure.tombstones import observe_tombstones
from attributary.consumers.store.results.results import ResultRow, Stored, create_result_staging, store_results
from attributary.schemas.codec import DecodeError
from attributary.schemas.topics import group_name

from . import metrics

register_points("auditor_before_pg_commit", "auditor_after_pg_commit")

_log = structlog.get_logger()

GROUP = group_name("auditor")
_FEW_RESULTS = 50  # a batch of fewer runs by kept plans


class AuditorStage(ResultStage[ResultRow, Stored]):
    """Stores results and checks them."""

    name = "auditor"
    group = GROUP
    create_staging = staticmethod(create_result_staging)

    def decode(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, ResultRow]], list[DeadLetter]]:
        """Return the row of each result; one with credits that do not sum is stored, and told."""
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

    def write(self, connection: psycopg.Connection, rows: Sequence[ResultRow], tombstones: Tombstones) -> Stored:
        """Store results, and note which tombstones were seen."""
        if len(rows) < _FEW_RESULTS:
            self._session.keep_plans()
        stored = store_results(connection, rows)
        observe_tombstones(connection, sorted(tombstones.conversions))
        return stored

    def _check(self, result: Mapping[str, object], record: Record) -> None:
        model = imbalance(result)
        if model is not None:
            metrics.credit_imbalance.inc()
            _log.error("credits do not sum to the net value", place=record.place, model=model,
                       conversion_id=result["conversion_id"], version=result["version"])  # fmt: skip

    def count(self, written: Stored, rows: Sequence[ResultRow], tombstones: Tombstones) -> None:
        """Count what was stored; what disagrees is told."""
        del rows
        metrics.results_stored.labels("new").inc(written.new)
        metrics.results_stored.labels("repeated").inc(written.repeated)
        metrics.result_conflicts.inc(written.conflicting)
        metrics.versions_out_of_order.inc(written.out_of_order)
        metrics.tombstones_seen.inc(tombstones.number)
        if written.conflicting or written.out_of_order:
            _log.error("results disagree", conflicting=written.conflicting, out_of_order=written.out_of_order,
                       repaired=written.repaired)  # fmt: skip
