"""The auditor as a stage: its deciding write is one Postgres transaction a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg
import structlog

from attributary.consumers.adapters.result_checks import disagreement, imbalance, raised_at, result_row
from attributary.consumers.adapters.result_reader import read_rows
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
        bodies = [(record, record.value or b"", self._codec.body_of("result", record.value or b"")) for record in batch]
        ordinary = [(record, value, body) for record, value, body in bodies if body is not None]
        read = iter(
            read_rows(
                [(value, body) for _, value, body in ordinary],
                [(record.partition, record.offset, raised_at(record)) for record, _, _ in ordinary],
            )
        )
        for record, _, body in bodies:
            found: ResultRow | DeadLetter | None = None if body is None else next(read)
            if found is None:  # unusual, of an earlier layout, or wrong: decode it, and say what
                found = self._judged(record)
            if isinstance(found, DeadLetter):
                dead_letters.append(found)
            else:
                rows.append((record, self._counted(found)))
        return rows, dead_letters

    def _judged(self, record: Record) -> ResultRow | DeadLetter:
        try:
            result = self._codec.decode("result", record.value)
        except DecodeError as error:
            return DeadLetter(record, "decode", None, str(error))
        self._check(result, record)
        model = disagreement(result)
        if model is not None:
            reason = f"result: models: {model} has not one credit and one number of micros for each touchpoint"
            return DeadLetter(record, "validate", "models", reason)
        return result_row(result, record)

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
