"""The spender as a stage: its deciding write is one Postgres transaction a batch, of spend and positions together.

Invariant: of two reports of one account, day and level the newer counts, whatever is replayed, doubled or reordered; a
batch with several of them stores each in its turn, as if they had come one by one. `store_slices` is the only writer of
the table, for this stage and for the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import psycopg

from attributary.attribution_core.spend.slices import SliceKey
from attributary.consumers.adapters.departures import DeparturesCache, Fate
from attributary.consumers.adapters.store_stage import StoreStage
from attributary.consumers.runtime.crash_points import register_points
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.spend.spend_record import slice_of
from attributary.consumers.store.spend.slices import Imported, Slice, store_slices
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.rules import check_spend, find_unstorable_text
from attributary.schemas.topics import SPEND, group_name

from . import metrics

register_points("spender_before_pg_commit", "spender_after_pg_commit")

GROUP = group_name("spender")


class TenantSlice(NamedTuple):
    """A slice and who owns it."""

    tenant_id: str
    piece: Slice


class SpenderStage(StoreStage[TenantSlice, None, Imported]):
    """Stores what ads cost."""

    name = "spender"
    group = GROUP
    topics = (SPEND,)
    max_records = 500  # a record holds up to 2,000 rows
    nothing = None

    def __init__(self, dsn: str, codec: Codec, max_poison_share: float) -> None:
        super().__init__(dsn, codec, max_poison_share)
        self._departed = DeparturesCache(self._session)

    def read(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, TenantSlice]], list[DeadLetter], None]:
        """Return the slice of each record, and the records that are none."""
        found: list[tuple[Record, TenantSlice]] = []
        dead_letters: list[DeadLetter] = []
        for record in batch:
            try:
                spend = self._codec.decode("spend", record.value)
            except DecodeError as error:
                dead_letters.append(DeadLetter(record, "decode", None, str(error)))
                continue
            fate, departure = self._departed.fate(spend["tenant_id"], record)
            if fate is Fate.RELAYED:
                continue
            if departure is not None and fate is Fate.REFUSED:
                reason = f"spend: tenant_id: {departure.refusal().rule}"
                dead_letters.append(DeadLetter(record, "validate", "tenant_id", reason))
                continue
            broken = check_spend(spend, now_micros=record.timestamp_ms * 1_000) or find_unstorable_text(spend)
            if broken is not None:
                reason = f"spend: {broken.field}: {broken.rule}"
                dead_letters.append(DeadLetter(record, "validate", broken.field, reason))
                continue
            found.append((record, TenantSlice(spend["tenant_id"], slice_of(spend))))
        return found, dead_letters, None

    def write(self, connection: psycopg.Connection, rows: Sequence[TenantSlice], aside: None) -> Imported:
        """Add the revisions of a batch, tenant by tenant in sorted order: writers never wait in a circle."""
        del aside
        total = Imported(0, 0, 0, 0, 0)
        by_tenant = sorted(rows, key=lambda each: each.tenant_id)  # stable: each tenant's keep the log's order
        for tenant_id, group in groupby(by_tenant, key=lambda each: each.tenant_id):
            for turn in _turns([each.piece for each in group]):
                stored = store_slices(connection, tenant_id, turn)
                total = Imported(*(one + more for one, more in zip(total, stored, strict=True)))
        return total

    def count(self, written: Imported, rows: Sequence[TenantSlice], aside: None) -> None:
        """Count what came of the batch."""
        del rows, aside
        for outcome, number in written._asdict().items():
            metrics.spend_rows.labels(outcome).inc(number)


def _turns(slices: Sequence[Slice]) -> Iterator[list[Slice]]:
    """Yield slices in turns with each key once; the first turn has every key, so it takes every lock."""
    waiting = list(slices)
    while waiting:
        turn: dict[SliceKey, Slice] = {}
        later = []
        for each in waiting:
            if each.key in turn:
                later.append(each)
            else:
                turn[each.key] = each
        yield list(turn.values())
        waiting = later
