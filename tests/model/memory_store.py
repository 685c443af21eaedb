"""The store in memory: stitching transactions, and what attributor, auditor and sweeper read and write."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attributary.consumers.erasure.execute import Executed, MoreToLockError, execute
from attributary.consumers.store.events.attribution_inputs import (
    MAX_DEVICES,
    MAX_REACHED,
    MAX_READ,
    PendingConversion,
    ReachedTouchpoint,
)
from attributary.consumers.store.events.reopenings import Reopened
from attributary.consumers.store.events.rows import RaisedVersion
from attributary.consumers.store.events.sweep import Backlog
from attributary.consumers.store.results.results import ResultRow, Stored, judge
from tests.model.memory_erasure import MemoryErasure
from tests.model.memory_transaction import NOBODY, MemoryTransaction, Reopening, Tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from attributary.attribution_core.domain.lookback import LookbackPolicy
    from attributary.consumers.store.erasure.entries import Hasher
    from attributary.consumers.store.events.rows import ConversionEventRow, LinkRow, TouchpointRow
    from tests.model.memory_transaction import Key


class MemoryStore:
    """Committed tables with their history, one transaction at a time."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.history: list[Tables] = []
        self.now = 0  # logical seconds
        self._ticks = 0

    def tick(self) -> int:
        """A number that was never given before, whatever was lost since."""
        self._ticks += 1
        return self._ticks

    def committed(self) -> Tables:
        return self.tables

    def commit(self, tables: Tables) -> None:
        self.history.append(self.tables)
        del self.history[:-8]
        self.tables = tables

    def lose_commits(self, most: int) -> int:
        """Fall back to what stood before the last commits; returns how many are gone."""
        lost = min(most, len(self.history))
        if lost:
            self.tables = self.history[-lost]
            del self.history[-lost:]
        return lost

    @contextmanager
    def transaction(
        self,
        touchpoints: Sequence[TouchpointRow] = (),
        conversion_events: Sequence[ConversionEventRow] = (),
        links: Sequence[LinkRow] = (),
    ) -> Iterator[MemoryTransaction]:
        """Run one transaction: committed at the end, undone on any exception."""
        transaction = MemoryTransaction(self.committed, (touchpoints, conversion_events, links), self.now, self.tick())
        yield transaction
        changed = transaction.changed()
        if changed is not None and changed != self.tables:
            self.commit(changed)

    # What the attributor reads.

    def devices(self, person: Key) -> list[str]:
        """Identity keys of a user's anonymous ids, those linked last first."""
        found = [
            (owner.linked_at, anonymous_id)
            for (tenant, anonymous_id), owner in self.tables.identities.items()
            if (tenant, f"u:{owner.user_id}") == person
        ]
        return [f"a:{anonymous_id}" for _, anonymous_id in sorted(found, reverse=True)]

    def conversions_by_id(self, keys: Collection[Key], max_devices: int = MAX_DEVICES) -> list[PendingConversion]:
        found = []
        for key in keys:
            row = self.tables.conversions.get(key)
            if row is not None:
                state = row.state
                found.append(
                    PendingConversion(
                        *key, state.conversion_type, state.journey_key, state.converted_at, state.received_at,
                        state.gross_value_micros, state.net_value_micros, row.previous_net, state.currency,
                        row.version, row.reason, row.is_final, row.policy_version, 0, row.observed, row.raised_at,
                        min(max_devices + 1, len(self.devices((key[0], state.journey_key)))),
                    )
                )  # fmt: skip
        return found

    def touchpoints_in_reach(
        self,
        conversions: Sequence[PendingConversion],
        policies: Mapping[str, LookbackPolicy],
        max_devices: int = MAX_DEVICES,
        max_read: int = MAX_READ,
    ) -> tuple[list[ReachedTouchpoint], int]:
        found: list[ReachedTouchpoint] = []
        for number, conversion in enumerate(conversions):
            touches = self._reached(number, conversion, policies[conversion.policy_version], max_devices)
            found += touches[-MAX_REACHED:]
            if len(found) >= max_read:
                return [touch for touch in found if touch.conversion != number], number
        return found, len(conversions)

    def _reached(
        self, number: int, conversion: PendingConversion, rules: LookbackPolicy, max_devices: int
    ) -> list[ReachedTouchpoint]:
        person = (conversion.tenant_id, conversion.journey_key)
        people = {conversion.journey_key, *self.devices(person)[:max_devices]}
        found = [
            ReachedTouchpoint(
                number, touch.event_id, touch.occurred_at, touch.received_at, touch.platform, touch.channel,
                touch.interaction, touch.campaign, touch.is_bot, *_ids(touch.details),
            )
            for touch in self.tables.touchpoints.values()
            if touch.tenant_id == conversion.tenant_id
            and 0 <= conversion.converted_at - touch.occurred_at <= rules.longest_window_micros
            and touch.received_at <= conversion.received_at + rules.lateness_micros
            and not touch.is_bot
            and touch.identity_key in people
        ]  # fmt: skip
        return sorted(found, key=lambda touch: (touch.occurred_at, touch.event_id))

    # What the auditor writes, in a transaction.

    def store_results(self, tables: Tables, rows: Sequence[ResultRow]) -> Stored:
        before = []
        for row in sorted(rows, key=lambda row: (row.tenant_id, row.conversion_id, row.partition, row.offset)):
            key = (row.tenant_id, row.conversion_id)
            known = tables.conversions.get(key)
            before.append(
                (
                    *key, row.version, row.content_hash, (known.observed if known else 0) or self._highest(tables, key),
                    known.version if known else None, tables.results.get((*key, row.version)),
                    known is not None and known.version == row.version and row.raised_at not in (None, known.raised_at),
                )
            )  # fmt: skip
        stored, repair = judge(before)
        for row in rows:
            tables.results.setdefault((row.tenant_id, row.conversion_id, row.version), row.content_hash)
            key = (row.tenant_id, row.conversion_id)
            known = tables.conversions.get(key)
            if known is not None and known.observed < row.version:
                tables.conversions[key] = replace(known, observed=row.version)
        for key, seen in repair.items():
            known = tables.conversions[key]
            tables.conversions[key] = replace(
                known, version=max(known.version, seen) + 1, reason="repair",
                previous_net=known.state.net_value_micros, versioned_at=self.now, raised_at=self.tick(),
            )  # fmt: skip
        return stored

    @staticmethod
    def _highest(tables: Tables, key: Key) -> int:
        return max((version for *whose, version in tables.results if tuple(whose) == key), default=0)

    # Tombstones.

    def tombstones_owed(self, keys: Collection[Key]) -> list[RaisedVersion]:
        found = ((key, self.tables.tombstones.get(key)) for key in keys)
        return [
            RaisedVersion(*key, row.version, "erasure", row.published_at)
            for key, row in found
            if row is not None and not row.observed
        ]

    @staticmethod
    def observe_tombstones(tables: Tables, keys: Collection[Key]) -> None:
        for key in keys:
            for result in [each for each in tables.results if each[:2] == key]:
                del tables.results[result]
            if key in tables.tombstones:
                tables.tombstones[key] = replace(tables.tombstones[key], observed=True)

    def erase_next(self, hasher: Hasher, policy_version: str, before_us: int) -> Executed | None:
        """Carry out the first request that is due, in one transaction; None: there is none."""
        more: set[Key] = set()
        while True:
            try:
                with self.transaction() as transaction:
                    port = MemoryErasure(transaction, self.now)
                    request = port.claim(before_us)
                    if request is None:
                        return None
                    return execute(port, request, hasher, policy_version, more)
            except MoreToLockError as grew:
                more |= set(grew.keys)

    def overdue_tombstones(self, after_seconds: float) -> list[RaisedVersion]:
        due = [
            key
            for key, row in sorted(self.tables.tombstones.items())
            if not row.observed and row.asked_at < self.now - after_seconds
        ]
        found = self.tombstones_owed(due)
        for key in due:
            self.tables.tombstones[key] = replace(self.tables.tombstones[key], asked_at=self.now)
        return found

    # What the sweeper finds and writes.

    def backlog(self) -> Backlog:
        pending = [row for row in self.tables.conversions.values() if row.observed < row.version]
        return Backlog(len(pending), float(self.now - min((row.versioned_at for row in pending), default=self.now)))

    def overdue(self, older_than_seconds: float, limit: int) -> list[RaisedVersion]:
        pending = [row for row in self.tables.conversions.values() if row.observed < row.version]
        late = [row for row in pending if row.versioned_at < self.now - older_than_seconds]
        return [row.raised for row in sorted(late, key=lambda row: row.versioned_at)[:limit]]

    def finalise(self, *, due_before_us: int, now_us: int, policy_version: str, limit: int) -> list[RaisedVersion]:
        due = [
            key
            for key, row in sorted(
                self.tables.conversions.items(), key=lambda item: (item[1].state.received_at, item[0])
            )
            if not row.is_final and row.version > 0 and row.state.received_at < due_before_us
        ][:limit]
        for key in due:
            row = self.tables.conversions[key]
            self.tables.conversions[key] = replace(
                row, version=row.version + 1, reason="final", is_final=True, previous_net=row.state.net_value_micros,
                policy_version=policy_version, versioned_at=self.now, published_at=now_us, owner=NOBODY,
                raised_at=self.tick(),
            )  # fmt: skip
        return sorted(self.tables.conversions[key].raised for key in due)

    def reopen_page(
        self, *, policy_version: str, after_seconds: float, patience_seconds: float, limit: int
    ) -> Reopened | None:
        """As the one on Postgres; notes have no time here, so a pass begins when `after_seconds` is not positive."""
        for person, row in sorted(self.tables.reopenings.items()):
            last = None if row.after is None else self.tables.conversions.get((person[0], row.after[1]))
            if last is not None and patience_seconds >= 0 and last.observed < last.version:
                continue
            if row.after is not None or after_seconds <= 0:
                return self._reopen(person, row, policy_version, limit)
        return None

    def _reopen(self, person: Key, row: Reopening, policy_version: str, limit: int) -> Reopened:
        if row.after is None:
            row = Reopening((), row.noted, (min(each.first_at for each in row.noted), ""))
        assert row.after is not None
        until, arrived = max(p.until_at for p in row.passing), min(p.received_from for p in row.passing)
        due = sorted(
            (known.state.converted_at, key[1], key)
            for key, known in self.tables.conversions.items()
            if (key[0], known.state.journey_key) == person and known.version > 0
            and known.state.converted_at <= until and known.state.received_at >= arrived
            and (known.state.converted_at, key[1]) > row.after
        )[:limit]  # fmt: skip
        for _, _, key in due:
            known = self.tables.conversions[key]
            self.tables.conversions[key] = replace(
                known, version=known.version + 1, reason=min(p.reason for p in row.passing),
                policy_version=policy_version, previous_net=known.state.net_value_micros, owner=NOBODY,
                versioned_at=self.now, raised_at=self.tick(), published_at=max(p.published_at for p in row.passing),
            )  # fmt: skip
        if len(due) == limit:
            self.tables.reopenings[person] = replace(row, after=due[-1][:2])
        elif row.noted:
            self.tables.reopenings[person] = Reopening(row.noted)
        else:
            del self.tables.reopenings[person]
        return Reopened(*person, sorted(self.tables.conversions[key].raised for _, _, key in due))


def _ids(details: str) -> tuple[str | None, str | None, str | None]:
    """Return the ids of campaign, ad set and ad among the details of a touchpoint."""
    found = json.loads(details)
    return tuple(found.get(name) for name in ("campaign_id", "ad_set_id", "ad_id"))
