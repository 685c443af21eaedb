"""Which content of an event id is stored: the first in the log; and which contents are set aside.

Pure. Invariant: whatever the order of processing, the same record of an event id is stored in the end, and the contents
of the others that differ from it are noted, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from attributary.consumers.store.events.rows import (
    LOCKS_ONLY,
    ConflictRow,
    ConversionEventRow,
    EventRow,
    Key,
    LinkRow,
    StoredEvent,
    TouchpointRow,
)

from .decode import StitchBatch, rank
from .transaction import LockSetGrewError

Row = TypeVar("Row", bound=EventRow)
_KINDS: Mapping[type, str] = MappingProxyType(
    {TouchpointRow: "touchpoint", ConversionEventRow: "conversion", LinkRow: "identity_link"}
)


@dataclass(slots=True)
class Settled:
    """The events of one kind after insertion.

    Attributes:
        kind: touchpoint, conversion or identity_link.
        fresh: indexes of the rows that are stored now and were not before.
        displacing: of these, the rows that take the place of a later record of the log.
        idle: indexes of the rows that change nothing.
        displaced: the identities of the contents that give way, with the row that displaces each.
        conflicts: the contents that are set aside, by event and content.
        counts: records by outcome.
    """

    kind: str = ""
    fresh: set[int] = field(default_factory=set)
    displacing: list[int] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    displaced: list[tuple[Key, EventRow]] = field(default_factory=list)
    conflicts: dict[tuple[Key, int], ConflictRow] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def _set_aside(self, row: EventRow | StoredEvent) -> None:
        """Note a content at the first of its records in the log."""
        of_conversion: tuple[str | None, int | None, str | None] = (None, None, None)
        if isinstance(row, ConversionEventRow | StoredEvent):
            of_conversion = (row.conversion_id, row.value_micros, row.currency)
        conflict = ConflictRow(
            row.tenant_id, self.kind, row.event_id, row.content_hash, *of_conversion, row.received_at, row.topic,
            row.partition, row.offset,
        )  # fmt: skip
        key = ((row.tenant_id, row.event_id), row.content_hash)
        self.conflicts[key] = min(conflict, self.conflicts.get(key, conflict), key=lambda each: each[-4:])

    def take(self, seq: int, row: EventRow, old: StoredEvent) -> bool:
        """Decide between a row and what is stored under its event id; True: the row is to be stored."""
        same = old.content_hash == row.content_hash
        if (old.topic, old.partition, old.offset) == (row.topic, row.partition, row.offset):
            self.counts["replayed"] += 1
        elif rank(row) < rank(old):
            self.counts["duplicate" if same else "conflict_replaced"] += 1
            if not same:
                self._set_aside(old)
            self.displacing.append(seq)
            self.displaced.append(((row.tenant_id, old.identity_key), row))
            return True
        else:
            self.counts["duplicate" if same else "conflict_kept"] += 1
            if not same:
                self._set_aside(row)
        self.idle.append(seq)
        return False

    def add_repeat(self, row: EventRow, content_hash: int) -> None:
        """Take in a further record of the batch with an event id whose stored content has this hash."""
        same = row.content_hash == content_hash
        self.counts["duplicate" if same else "conflict_kept"] += 1
        if not same:
            self._set_aside(row)


def settle(
    batch: StitchBatch,
    rows: Sequence[Row],
    known: Sequence[int],
    stored: Callable[[Sequence[Key]], dict[Key, StoredEvent]],
    held: Collection[Key],
) -> Settled:
    """Sort out the rows with an event id that was there already: replays, duplicates, and contents that differ.

    Of several records with one event id the first in the log is stored; each other record is counted once, as a
    duplicate or as a conflict.

    Args:
        batch: the whole batch.
        rows: its rows of one kind.
        known: indexes of the rows with an event id that was stored before.
        stored: returns what is stored under (tenant, event id).
        held: identity keys that are locked.

    Raises:
        LockSetGrewError: contents of people give way that are not locked.
    """
    if not rows:
        return Settled()
    out = Settled(_KINDS[type(rows[0])])
    there = stored([(rows[seq].tenant_id, rows[seq].event_id) for seq in known])
    kept: dict[Key, int] = {}  # what stays stored in the place of a row of the batch
    for seq in known:
        row = rows[seq]
        key = (row.tenant_id, row.event_id)
        if not out.take(seq, row, there[key]):
            kept[key] = there[key].content_hash
    missing = {key for key, _ in out.displaced}.difference(held)
    if missing:
        raise LockSetGrewError(dict.fromkeys(missing, LOCKS_ONLY))
    out.fresh = set(range(len(rows))).difference(out.idle)
    out.counts["new"] += len(rows) - len(known)
    repeats = [row for row in batch.repeats if type(row) is type(rows[0])]
    if repeats:
        kept = {(row.tenant_id, row.event_id): row.content_hash for row in rows} | kept
    for row in repeats:
        out.add_repeat(row, kept[row.tenant_id, row.event_id])
    return out
