"""The stitcher as a stage: decode, one Postgres transaction, then commands that say "look again".

Invariant (architecture, "Stitcher batch"): every record of a batch is stored in Postgres or handed on as a dead letter
before its offset is committed; a replay of any part of the batch stores nothing twice and issues a command again only
for the versions that the replayed records themselves raised.

Bounds: a batch of more than 64 MiB, or whose touchpoints are in reach of too many conversions (``Limits``), is cut to
its first records, and the others are the next batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import structlog

from attributary.attribution_core.domain.conversion import EventVerdict
from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.adapters.departures import HAS_MOVED
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.quarantine import TrialDoneError, bisect_rejected
from attributary.consumers.adapters.stored_offsets import OffsetStore
from attributary.consumers.adapters.tenant_rules import TenantAdmission, TenantRules, TenantRulesCache
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.metrics import timed
from attributary.consumers.runtime.records import Outbound, Outcome, Record, within_bytes
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.erasure.entries import Hasher
from attributary.consumers.store.events.policies import fetch_policies, known_policies, store_policy
from attributary.consumers.store.events.rejected_values import UNSTORABLE
from attributary.consumers.store.events.rows import Bounds, Key, Positions, RaisedVersion
from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.events.stitch import PostgresStitchStore
from attributary.consumers.store.session import StoreSession
from attributary.schemas.codec import Codec
from attributary.schemas.topics import (
    COMMANDS,
    CONVERSIONS,
    ERASURE_REQUESTS,
    IDENTITIES,
    TOUCHPOINTS,
    conversion_key,
    group_name,
)

from . import metrics
from .decode import UNKNOWN_TENANT, Decoders, StitchBatch
from .erasures import BatchErasedError
from .limits import Limits
from .policies import PinnedPolicies
from .stitch import Stitched, stitch
from .transaction import BatchTooCostlyError, LockSetGrewError, Transaction

register_points("stitcher_in_store", "stitcher_before_pg_commit", "stitcher_after_pg_commit")

_log = structlog.get_logger()

GROUP = group_name("stitcher")
_MAX_TRIES = 10
_SHOWN = 5  # of many, in a log line
_MAX_BYTES = 64 << 20  # of the values of a batch; decoded and copied they take several times as much


class StitcherStage:
    """Stores events and raises versions.

    Args:
        dsn: where Postgres is.
        codec: reads events, writes commands.
        policy: the lookback policy in force.
        max_poison_share: stop when more of a batch than this share is poison.
        by_order: whether an order is one conversion.
        admission: who may publish, and the rules of the file on which ids name nobody.
        limits: what a batch may cost.
        hasher: hashes identifiers for the ledger of erasures; None: no key is set.

    Raises:
        Retry: Postgres does not answer.
        ConfigError: the schema lacks a migration.
    """

    name = "stitcher"
    group = GROUP
    topics = (TOUCHPOINTS, CONVERSIONS, IDENTITIES, ERASURE_REQUESTS)
    output_topics = (COMMANDS,)
    max_records = 100_000

    def __init__(
        self,
        dsn: str,
        codec: Codec,
        policy: LookbackPolicy,
        max_poison_share: float,
        *,
        by_order: bool = False,
        admission: tuple[TenantAdmission, IdentityRules] | None = None,
        limits: Limits | None = None,
        hasher: Hasher | None = None,
    ) -> None:
        self._codec = codec
        self._by_order = by_order
        self._policy = policy
        self._limits = limits or Limits()
        self._hasher = hasher
        self._max_poison_share = max_poison_share
        self._session = StoreSession(dsn, "attributary-stitcher", create_staging)
        tenants, identities = admission or (load(TenantAdmission), BUILT_IN)
        self._tenants = TenantRulesCache(self._session, identities, tenants)
        self._rules = TenantRules(identities)
        self._decoders = Decoders.of(codec, self._rules, by_order=by_order)
        self._store = PostgresStitchStore(self._session)
        self._positions = OffsetStore(GROUP, self._session)
        with map_errors(), self._session.transaction() as connection:
            store_policy(connection, policy)
            self._pinned: Mapping[str, LookbackPolicy] = fetch_policies(connection)

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Store the batch, or the first records of one that costs too much, in one transaction."""
        taken = within_bytes(batch, _MAX_BYTES)
        while True:
            try:
                outcome = self._handle(batch[:taken], self._limits.for_one_record() if taken == 1 else self._limits)
            except BatchTooCostlyError:
                taken //= 2
            else:
                outcome.taken = taken if taken < len(batch) else None
                return outcome

    def _handle(self, batch: Sequence[Record], limits: Limits) -> Outcome:
        decoded = self._decode(batch)
        self._check_share(decoded, len(batch))
        try:
            stitched = self._stitch(decoded, batch, limits)
        except UNSTORABLE:
            decoded = self._without_unstorable(batch, limits)
            self._check_share(decoded, len(batch))
            stitched = self._stitch(decoded, batch, limits)
        self._count(stitched)
        for kind, number in decoded.relayed.items():
            metrics.events.labels(kind, "relayed").inc(number)
        with timed(self.name, "commands"):
            messages = [self._command(version) for version in stitched.versions]
        return Outcome(messages, decoded.dead_letters)

    def _decode(self, batch: Sequence[Record]) -> StitchBatch:
        self._use(self._tenants.rules())
        with map_errors(), timed(self.name, "decode"):
            decoded = self._decoders.quick.decode(batch)
        if any(letter.field == UNKNOWN_TENANT.field for letter in decoded.dead_letters):
            known = self._rules
            self._use(self._tenants.rules(0.0))  # a tenant that was added a second ago may publish
            if self._rules is not known:
                with map_errors(), timed(self.name, "decode"):
                    decoded = self._decoders.quick.decode(batch)
        return decoded

    def _check_share(self, decoded: StitchBatch, records: int) -> None:
        """Stop where too much is poison; a tenant that may not publish is none: it was shut out on purpose."""
        on_purpose = (UNKNOWN_TENANT.rule, HAS_MOVED)
        poison = [letter for letter in decoded.dead_letters if not letter.reason.endswith(on_purpose)]
        check_poison_share(poison, records, self._max_poison_share)

    def _use(self, rules: TenantRules) -> None:
        if rules is not self._rules:
            self._rules = rules
            self._decoders = Decoders.of(self._codec, rules, by_order=self._by_order)

    def _stitch(
        self, decoded: StitchBatch, batch: Sequence[Record], limits: Limits, *, is_trial: bool = False
    ) -> Stitched:
        more_keys: dict[Key, Bounds] = {}
        positions = {(record.topic, record.partition): record.offset + 1 for record in batch}
        for _ in range(_MAX_TRIES):
            events = (decoded.touchpoints, decoded.conversion_events, decoded.links)
            try:
                with map_errors(), timed(self.name, "store"), self._store.transaction(*events) as transaction:
                    crash_at("stitcher_in_store")
                    pinned = PinnedPolicies(self._pinned, partial(known_policies, self._session))
                    stitched = stitch(transaction, decoded, self._policy, more_keys, pinned, limits, self._hasher)
                    if is_trial:
                        raise TrialDoneError  # noqa: TRY301  # the way to roll back a transaction block
                    self._store_positions(transaction, positions)
                    crash_at("stitcher_before_pg_commit")
            except LockSetGrewError as grew:
                more_keys |= grew.keys
            except BatchErasedError as found:
                decoded = found.batch
            except TrialDoneError:
                return Stitched()
            else:
                self._positions.committed(positions)
                self._pinned = pinned.found
                crash_at("stitcher_after_pg_commit")
                return stitched
        raise Retry("other writers kept changing the same events", 0.1)

    def _store_positions(self, transaction: Transaction, positions: Positions) -> None:
        self._positions.check(transaction.record_positions(GROUP, positions))

    def _without_unstorable(self, batch: Sequence[Record], limits: Limits) -> StitchBatch:
        """Decode without the records that Postgres refuses: found by rule, then, what the rules miss, by trial."""
        with map_errors():
            rejected = bisect_rejected(batch, partial(self._trial, limits=limits))
            places = {letter.record.place for letter in rejected}
            decoded = self._decoders.strict.decode([record for record in batch if record.place not in places])
        decoded.dead_letters += rejected
        return decoded

    def _trial(self, records: Sequence[Record], limits: Limits) -> Exception | None:
        try:
            self._stitch(self._decoders.strict.decode(records), records, limits, is_trial=True)
        except UNSTORABLE as error:
            return error
        return None

    def _command(self, version: RaisedVersion) -> Outbound:
        value = self._codec.encode(
            "command",
            {
                "tenant_id": version.tenant_id,
                "conversion_id": version.conversion_id,
                "version": version.version,
                "reason": version.reason,
                "issued_by": "stitcher",
                "event_published_at": version.published_at,
            },
        )
        return Outbound(COMMANDS, conversion_key(version.tenant_id, version.conversion_id), value)

    def _count(self, stitched: Stitched) -> None:
        for (kind, outcome), number in stitched.counts.items():
            metrics.events.labels(kind, outcome).inc(number)
        for version in stitched.versions:
            metrics.versions_raised.labels(version.reason).inc()
        for kind, number in Counter(conflict.record_name for conflict in stitched.conflicts).items():
            metrics.event_conflicts.labels(kind).inc(number)
        if stitched.conflicts:
            _log.warning(
                "an event id came with several contents; the first in the log is kept: attributary events conflicts",
                contents=len(stitched.conflicts),
                tenants=sorted({conflict.tenant_id for conflict in stitched.conflicts})[:_SHOWN],
                set_aside=[f"{c.topic}[{c.partition}]@{c.offset}" for c in stitched.conflicts[:_SHOWN]],
            )
        for verdict, number in Counter(verdict for verdict, _ in stitched.ignored).items():
            metrics.ignored_events.labels(verdict).inc(number)
        others = [row for verdict, row in stitched.ignored if verdict is EventVerdict.OTHER_PERSON]
        if others:
            _log.warning(
                "a conversion came a second time, of another person; the first stays: attributary conversions ignored",
                events=len(others),
                tenants=sorted({row.tenant_id for row in others})[:_SHOWN],
                ignored=[f"{row.topic}[{row.partition}]@{row.offset}" for row in others[:_SHOWN]],
            )
        metrics.shared_orders.inc(stitched.shared_orders)
        metrics.identity_moves.inc(stitched.moves)
        metrics.late_touchpoints.inc(stitched.too_late)
        metrics.touchpoints_put_off.inc(stitched.put_off)
        metrics.changes_put_off.inc(stitched.changes_put_off)

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Return the next offsets that Postgres holds."""
        with map_errors(), self._session.transaction() as connection:
            self._pinned = fetch_policies(connection)  # a member that joins the group may bring a policy
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
