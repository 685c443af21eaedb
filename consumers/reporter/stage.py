"""The reporter as a stage: its deciding write is one Postgres transaction a batch, of roll-up and positions together.

Invariant: a result is in the roll-up exactly once, whatever is replayed: versions that are not above the one that a
conversion contributes are ignored. A record that cannot be read is a dead letter, as it is for the auditor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg

from attributary.consumers.adapters.result_checks import disagreement, imbalance, no_share, result_row
from attributary.consumers.adapters.result_stage import ResultStage, Tombstones
from attributary.consumers.adapters.rolled_reader import read_rolled, rolled
from attributary.consumers.runtime.crash_points import register_points
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.store.rollup.apply import Applied, apply_results, prepare_rollup
from attributary.consumers.store.rollup.cells import RolledResult
from attributary.schemas.codec import DecodeError
from attributary.schemas.topics import group_name

from . import metrics

register_points("reporter_before_pg_commit", "reporter_after_pg_commit")

GROUP = group_name("reporter")

# Conversions of a day share rows of the roll-up, and a batch writes each of them once: so it waits for others.
_LINGER_SECONDS = 1.0
_BACKLOG_LINGER_SECONDS = 2.0  # the attributor waits as long where it works through a backlog
_MANY_RESULTS = 200  # that a live stream does not have in a second
_BACKLOG_PAUSE_SECONDS = 1.0


class ReporterStage(ResultStage[RolledResult, Applied]):
    """Keeps the roll-up."""

    name = "reporter"
    group = GROUP
    create_staging = staticmethod(prepare_rollup)
    _backlog_ends = 0.0  # monotonic seconds

    def linger_seconds(self) -> float:
        """Return how long a batch waits for more results, seconds: reports are as new as that and no newer."""
        return _BACKLOG_LINGER_SECONDS if time.monotonic() < self._backlog_ends else _LINGER_SECONDS

    def is_awaited(self, records: Sequence[Record]) -> bool:
        """Tell whether a batch waits no longer: reports are a second old at all times."""
        del records
        return False

    def decode(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, RolledResult]], list[DeadLetter]]:
        """Return what the roll-up needs of each result."""
        results: list[tuple[Record, RolledResult]] = []
        dead_letters: list[DeadLetter] = []
        bodies = [(record, self._codec.body_of("result", record.value or b"")) for record in batch]
        ordinary = iter(read_rolled([(record.value or b"", body) for record, body in bodies if body is not None]))
        for record, body in bodies:
            found: RolledResult | DeadLetter | None = None if body is None else next(ordinary)
            if found is None:  # unusual or wrong: decode it, and say what
                found = self._judge(record)
            if isinstance(found, DeadLetter):
                dead_letters.append(found)
            else:
                results.append((record, found))
        return results, dead_letters

    def _judge(self, record: Record) -> RolledResult | DeadLetter:
        try:
            result = self._codec.decode("result", record.value)
        except DecodeError as error:
            return DeadLetter(record, "decode", None, str(error))
        model = disagreement(result) or imbalance(result) or no_share(result)
        if model is not None:
            return DeadLetter(
                record, "validate", "models", f"result: models: {model} is at odds with the others or sums"
            )
        return rolled(result_row(result, record))

    def write(self, connection: psycopg.Connection, rows: Sequence[RolledResult], tombstones: Tombstones) -> Applied:
        """Take results into the roll-up, and off what tombstones take back."""
        return apply_results(connection, rows, tombstones.conversions, now_us=time.time_ns() // 1_000)

    def count(self, written: Applied, rows: Sequence[RolledResult], tombstones: Tombstones) -> None:
        """Count what came of the batch."""
        del tombstones
        self._backlog_ends = time.monotonic() + _BACKLOG_PAUSE_SECONDS if len(rows) >= _MANY_RESULTS else 0.0
        for outcome, number in zip(("applied", "ignored", "taken_off"), written, strict=False):
            metrics.results_rolled_up.labels(outcome).inc(number)
        metrics.rollup_rows.inc(written.rows)
        if rows:
            metrics.rolled_up_until.set(max(result.computed_at for result in rows) / 1e6)
