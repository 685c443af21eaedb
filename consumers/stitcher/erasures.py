"""What a batch must leave out because its people were erased: pure but for one look-up in the ledger.

Contract (docs/decisions/0030): asked under the locks of the batch's people, by one set-based statement a batch; with an
empty ledger, by one that reads one row at most. A batch that names something erased is rolled back and stitched without
it. Invariant: an event is left out exactly if ``Entry.covers`` says so of something that it names; an event of somebody
else on an erased device stays, and no longer names the device. Of an event that a suppression drops, and no erasure,
the pair of user and device is kept: under both locks, and only while the ledger says of them what it said at the drop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from attributary.attribution_core.domain.identity import USER_PREFIX
from attributary.consumers.erasure.settings import check_key
from attributary.consumers.store.erasure.amounts import amount_of
from attributary.consumers.store.erasure.entries import (
    ALWAYS,
    ORDER,
    Entry,
    Hasher,
    Identifier,
    derived_request,
    identifier_of,
)
from attributary.consumers.store.erasure.removal import StatedLink
from attributary.consumers.store.events.rows import ConversionEventRow, EventRow, Key, LinkRow, TouchpointRow

from .decode import Erased, StitchBatch
from .transaction import Transaction

_NONE = Entry()
Row = TypeVar("Row", TouchpointRow, ConversionEventRow, LinkRow)
Event = TypeVar("Event", TouchpointRow, ConversionEventRow)


class BatchErasedError(Exception):
    """The batch names something erased: roll back and stitch ``batch`` instead."""

    def __init__(self, batch: StitchBatch) -> None:
        super().__init__("a batch names erased people")
        self.batch = batch


class LedgerReader:
    """Reads the ledger for one batch; an empty ledger costs one look.

    Args:
        transaction: of the batch.
        hasher: hashes identifiers; None: no key is set.

    Raises:
        ConfigError: the ledger has rows, and the key is missing or another one.
    """

    def __init__(self, transaction: Transaction, hasher: Hasher | None) -> None:
        self._transaction = transaction
        self._hasher = check_key(transaction.erasure_key_id(), hasher)
        self._entries: dict[Identifier, Entry] = {}

    def check(self, batch: StitchBatch) -> None:
        """Look for what the batch must leave out.

        Raises:
            BatchErasedError: there is something.
        """
        if batch.erased.source is not None and self._hasher is not None:
            hashed = {self._hasher.hashed(name): entry for name, entry in batch.erased.entries.items()}
            now = self._transaction.erasures(list(hashed))
            if any(now.get(each, _NONE) != entry for each, entry in hashed.items()):
                raise BatchErasedError(batch.erased.source)  # an erasure came between: from the start
        self._demand(batch, _named(batch))

    def check_conversions(self, batch: StitchBatch, conversions: Collection[Key]) -> None:
        """Look once more, now that the conversions are locked: an erasure may have had them before.

        Raises:
            BatchErasedError: one was erased meanwhile.
        """
        self._demand(batch, (Identifier(tenant, "conversion", each) for tenant, each in conversions))

    def _demand(self, batch: StitchBatch, names: Iterator[Identifier]) -> None:
        if self._hasher is None:
            return
        hashed = {self._hasher.hashed(name): name for name in set(names)}
        found = self._transaction.erasures(list(hashed))
        if found:
            self._entries |= {hashed[each]: entry for each, entry in found.items()}
            filtered = _Filter(self._entries, self._hasher).without(batch)
            if filtered is not None:
                raise BatchErasedError(filtered)


def without_erased(transaction: Transaction, batch: StitchBatch, hasher: Hasher | None) -> StitchBatch:
    """Return a batch without what the ledger names; of an unlocked look, for comparisons."""
    try:
        LedgerReader(transaction, hasher).check(batch)
    except BatchErasedError as found:
        return found.batch
    return batch


def write_erasures(transaction: Transaction, batch: StitchBatch, hasher: Hasher | None) -> None:
    """Store the batch's requests, and what follows from what it left out: requests, links, money."""
    if batch.erased.links:
        transaction.keep_dropped_links(batch.erased.links)
    transaction.store_erasure_requests([*batch.requests, *batch.erased.requests])
    if hasher is not None:
        transaction.book_erased(batch.erased.conversions, batch.erased.amounts, hasher)


def _named(batch: StitchBatch) -> Iterator[Identifier]:
    for row in (*batch.touchpoints, *batch.conversion_events, *batch.links, *batch.repeats):
        yield from _names_of(row)


def _names_of(row: EventRow) -> Iterator[Identifier]:
    tenant_id = row.tenant_id
    if isinstance(row, LinkRow):
        yield Identifier(tenant_id, "user", row.user_id)
        yield Identifier(tenant_id, "anonymous", row.anonymous_id)
        return
    yield identifier_of(tenant_id, row.identity_key)
    if row.anonymous_id is not None:
        yield Identifier(tenant_id, "anonymous", row.anonymous_id)
    if isinstance(row, ConversionEventRow):
        yield Identifier(tenant_id, "conversion", row.conversion_id)
        yield Identifier(tenant_id, "order", row.conversion_id)
        if row.order_id is not None:
            yield Identifier(tenant_id, "order", row.order_id)


def _user_of(identity_key: str) -> str | None:
    return identity_key[len(USER_PREFIX) :] if identity_key.startswith(USER_PREFIX) else None


class _Filter:
    """Takes out of a batch what the ledger's entries cover."""

    def __init__(self, entries: Mapping[Identifier, Entry], hasher: Hasher) -> None:
        self._entries = entries
        self._hasher = hasher
        self._changed = False

    def without(self, batch: StitchBatch) -> StitchBatch | None:
        """Return the batch without what is erased; None: nothing is."""
        before = batch.erased
        erased = Erased(
            before.counts.copy(), [*before.amounts], set(before.conversions), [*before.requests], [*before.links],
            before.entries.copy(), before.source or batch,
        )  # fmt: skip
        left = StitchBatch(
            self._kept(batch.touchpoints, "touchpoint", self._touchpoint, erased),
            self._kept(batch.conversion_events, "conversion", self._conversion_event, erased),
            self._kept(batch.links, "identity_link", self._link, erased),
            batch.dead_letters,
            requests=batch.requests,
            erased=erased,
        )
        for row in batch.repeats:
            if isinstance(row, TouchpointRow):
                left.repeats += self._kept([row], "touchpoint", self._touchpoint, erased)
            elif isinstance(row, ConversionEventRow):
                left.repeats += self._kept([row], "conversion", self._conversion_event, erased)
            elif isinstance(row, LinkRow):
                left.repeats += self._kept([row], "identity_link", self._link, erased)
        return left if self._changed else None

    def _kept(
        self, rows: Sequence[Row], kind: str, look: Callable[[Row, Erased], Row | None], erased: Erased
    ) -> list[Row]:
        out = []
        for row in rows:
            kept = look(row, erased)
            self._changed |= kept is not row
            if kept is None:
                erased.counts[kind] += 1
            else:
                out.append(kept)
        return out

    def _entry(self, tenant_id: str, kind: str, value: str) -> Entry:
        return self._entries.get(Identifier(tenant_id, kind, value), _NONE)

    def _touchpoint(self, row: TouchpointRow, erased: Erased) -> TouchpointRow | None:
        person = identifier_of(row.tenant_id, row.identity_key)
        entry = self._entries.get(person, _NONE)
        if entry.covers(row.occurred_at, row.received_at):
            self._follow(row, row.anonymous_id, entry, row.occurred_at, erased)
            return None
        return self._stripped(row)

    def _stripped(self, row: Event) -> Event:
        if row.anonymous_id is None:
            return row
        device = self._entry(row.tenant_id, "anonymous", row.anonymous_id)
        if device.covers(row.occurred_at, row.received_at):
            return row._replace(anonymous_id=None)
        return row

    def _link(self, row: LinkRow, erased: Erased) -> LinkRow | None:
        user = self._entry(row.tenant_id, "user", row.user_id)
        if user.covers(row.linked_at, row.received_at):
            self._follow(row, row.anonymous_id, user, row.linked_at, erased)
            return None
        device = self._entry(row.tenant_id, "anonymous", row.anonymous_id)
        return None if device.covers(row.linked_at, row.received_at) else row

    def _conversion_event(self, row: ConversionEventRow, erased: Erased) -> ConversionEventRow | None:
        conversion = Identifier(row.tenant_id, "conversion", row.conversion_id)
        entry = self._entries.get(identifier_of(row.tenant_id, row.identity_key), _NONE)
        is_person = entry.covers(row.occurred_at, row.received_at)
        orders = [self._entry(row.tenant_id, "order", each) for each in (row.conversion_id, row.order_id or "")]
        order = next((each for each in orders if each.covers(row.occurred_at, row.received_at)), None)
        if not (is_person or order or conversion in self._entries):
            return self._stripped(row)
        erased.amounts.append(amount_of(row, self._hasher))
        if conversion not in self._entries:
            erased.conversions.add(conversion)
            erased.requests.append(
                derived_request(conversion, self._hasher.hashed(conversion), ALWAYS, row.received_at)
            )
        self._follow(row, row.anonymous_id, entry, row.occurred_at, erased)
        cutoff = None if order is None else order.cutoff_of(row.occurred_at, row.received_at)
        if cutoff is not None and order is not None and not order.is_suppressed_by(cutoff, row.received_at):
            person = identifier_of(row.tenant_id, row.identity_key)
            hashed = self._hasher.hashed(person)
            if entry.erased_until < cutoff:
                erased.requests.append(derived_request(person, hashed, cutoff, row.received_at, ORDER))
                self._device_follows(row, row.anonymous_id, cutoff, erased)
        return None

    def _follow(self, row: EventRow, anonymous_id: str | None, entry: Entry, happened_at: int, erased: Erased) -> None:
        """Let the anonymous id of a dropped event follow its user, if the event is dropped by an erasure.

        Else keep the pair: a suppressed person may be erased later.
        """
        cutoff = entry.cutoff_of(happened_at, row.received_at)
        if cutoff is not None:
            self._device_follows(row, anonymous_id, cutoff, erased)
            return
        user = row.user_id if isinstance(row, LinkRow) else _user_of(row.identity_key)
        if user is None or anonymous_id is None or not entry.keeps_link(happened_at, row.received_at):
            return
        device = Identifier(row.tenant_id, "anonymous", anonymous_id)
        of_device = self._entries.get(device, _NONE)
        if of_device.covers(happened_at, row.received_at):
            return
        erased.links.append(StatedLink(row.tenant_id, anonymous_id, user, happened_at, row.event_id, row.received_at))
        erased.entries[Identifier(row.tenant_id, "user", user)] = entry
        erased.entries[device] = of_device

    def _device_follows(self, row: EventRow, anonymous_id: str | None, cutoff: int, erased: Erased) -> None:
        if anonymous_id is None:
            return
        device = Identifier(row.tenant_id, "anonymous", anonymous_id)
        of_device = self._entries.get(device, _NONE)
        # What a suppressed device says is only dropped, in every order: carried out in the order of the log, the older
        # suppression would have taken the event before the erasure could have looked at it.
        if of_device.erased_until < cutoff and not of_device.is_suppressed_by(cutoff, row.received_at):
            erased.requests.append(derived_request(device, self._hasher.hashed(device), cutoff, row.received_at))
