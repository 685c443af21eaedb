"""Stitching a part of the log again, by the stitcher's own stages, into whatever tables a connection shows.

Invariant: the decoder and ``stitch`` are those of the stitcher, so a replay decides as the stitcher did; what it makes
depends on the set of events alone, so it may read them in any order and in batches of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters.policy_settings import IdentitySettings, PolicySettings
from attributary.consumers.adapters.tenant_rules import read_tenant_rules
from attributary.consumers.erasure.settings import load_hasher
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.runtime.settings import load
from attributary.consumers.stitcher.decode import Decoders, StitchBatch
from attributary.consumers.stitcher.erasures import BatchErasedError
from attributary.consumers.stitcher.stitch import Stitched, stitch
from attributary.consumers.stitcher.transaction import LockSetGrewError
from attributary.consumers.store.events.rejected_values import UNSTORABLE, rejection
from attributary.consumers.store.events.rows import ConversionEventRow, EventRow, LinkRow, TouchpointRow
from attributary.consumers.store.events.stitch import StitchTransaction

if TYPE_CHECKING:
    from attributary.schemas.codec import Codec

BATCH = 5_000
# What a value alone is to blame for: said by Postgres, or before it is even asked.
REFUSALS = (*UNSTORABLE, UnicodeEncodeError)
_MOST_TRIES = 10


def nothing_before() -> None:
    """Change nothing before a batch."""


def nothing_more(_transaction: StitchTransaction, _stitched: Stitched) -> None:
    """Add nothing to a batch's transaction."""


def read_decoders(connection: psycopg.Connection, codec: Codec) -> Decoders:
    """Return the stitcher's decoders, with the settings of this process and the rules of the stored tenants."""
    tenants = read_tenant_rules(connection, load(IdentitySettings).rules())
    return Decoders.of(codec, tenants, by_order=load(PolicySettings).by_order)


class Replay:
    """Stitches records and stored events through one connection, a batch a transaction.

    Args:
        connection: with staging tables; its search path says what is written.
        decoders: read records: see ``read_decoders``.
        policy: the lookback policy that new versions pin.
        pinned: policies that versions may pin, by version.
        prepare: called in each batch's transaction when its events are staged, before they are stitched.
        finish: called at the end of each batch's transaction.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        decoders: Decoders,
        policy: LookbackPolicy | None = None,
        pinned: Mapping[str, LookbackPolicy] | None = None,
        prepare: Callable[[], None] = nothing_before,
        finish: Callable[[StitchTransaction, Stitched], None] = nothing_more,
    ) -> None:
        self._connection = connection
        self._decoders = decoders
        self._policy = policy or LookbackPolicy.parse(DEFAULT_POLICY)
        self._pinned = pinned or {}
        self._hasher = load_hasher()
        self._prepare = prepare
        self._finish = finish

    def records(self, records: Sequence[Record]) -> list[DeadLetter]:
        """Stitch records of the log; return those that cannot be, with the reason."""
        try:
            decoded = self._decoders.quick.decode(records)
            self._stitch(decoded)
        except REFUSALS as error:
            return self._without_refused(records, error)
        return decoded.dead_letters

    def _without_refused(self, records: Sequence[Record], error: Exception) -> list[DeadLetter]:
        """Stitch the others of a batch that Postgres refuses: found by rule, then by halving."""
        letters = self._decoders.strict.decode(records).dead_letters
        if letters:
            places = {letter.record.place for letter in letters}
            return letters + self.records([record for record in records if record.place not in places])
        if len(records) == 1:
            field, rule = rejection(error)
            return [DeadLetter(records[0], "store", field, rule)]
        middle = len(records) // 2
        return self.records(records[:middle]) + self.records(records[middle:])

    def rows(self, rows: Sequence[EventRow]) -> None:
        """Stitch events as they are stored: at most one of each event id."""
        batch = StitchBatch()
        for row in rows:
            if isinstance(row, TouchpointRow):
                batch.touchpoints.append(row)
            elif isinstance(row, ConversionEventRow):
                batch.conversion_events.append(row)
            elif isinstance(row, LinkRow):
                batch.links.append(row)
        self._stitch(batch)

    def _stitch(self, batch: StitchBatch) -> None:
        more_keys: dict[Any, Any] = {}
        for _ in range(_MOST_TRIES):
            events = (batch.touchpoints, batch.conversion_events, batch.links)
            try:
                with self._connection.transaction():
                    transaction = StitchTransaction(self._connection, *events)
                    self._prepare()
                    stitched = stitch(transaction, batch, self._policy, more_keys, self._pinned, hasher=self._hasher)
                    self._finish(transaction, stitched)
            except LockSetGrewError as grew:
                more_keys |= grew.keys
            except BatchErasedError as found:
                batch = found.batch
            else:
                return
        raise Retry("other writers kept changing the same events", 0.1)


def rows_of(decoded: StitchBatch) -> Iterator[tuple[str, Sequence[EventRow]]]:
    """Yield the tables of events, each with its rows of a batch."""
    yield "attribution_touchpoints", decoded.touchpoints
    yield "attribution_conversion_events", decoded.conversion_events
    yield "attribution_identity_links", decoded.links
