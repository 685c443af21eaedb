"""How a request is carried out: pure decisions over a transaction port, as the stitcher's ``stitch`` is.

Contract: everything that arrived up to the request is stored when it is carried out, and requests are carried out in
the order of the log. So what is known at the cut-off is the same whatever the order in which topics were read, and the
closure depends on the log alone:

- an anonymous id goes with a user who owned it at the cut-off, by the links that had arrived, also those of events that
  a suppression dropped;
- a link that arrived later and names an erased user is dropped; its anonymous id follows by a request of its own,
  unless somebody else owned it at the cut-off;
- a conversion goes when any event about it is in the scope of an erased person, with all events about it.

Invariants: nobody inherits a device, for its touches go before its owner is looked up again; the money of each
conversion is booked exactly once (``book_amounts``); every conversion of somebody else that may have changed gets a
version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.consumers.store.erasure.amounts import AmountRow, amount_of
from attributary.consumers.store.erasure.entries import (
    EVENT,
    ORDER,
    Entry,
    Hashed,
    Hasher,
    Identifier,
    RequestRow,
    derived_request,
    identifier_of,
)
from attributary.consumers.store.erasure.removal import Removal, StatedLink
from attributary.consumers.store.erasure.tombstones import REASON
from attributary.consumers.store.events.rows import (
    ConversionEventRow,
    IdentityMove,
    Place,
    Raise,
    RaisedVersion,
)

Key = tuple[str, str]
_NOBODY = Place("", 0, 0)
_NOTHING = Entry()


class Transaction(Protocol):
    """What an erasure asks of the store; described at ``store.erasure.transaction``, hence D102."""

    def lock_people(self, keys: Collection[Key]) -> None: ...  # noqa: D102
    def links_of_devices(self, devices: Collection[Key]) -> list[StatedLink]: ...  # noqa: D102
    def links_of_users(self, users: Collection[Key]) -> list[StatedLink]: ...  # noqa: D102
    def events_of_order(self, tenant_id: str, order: str) -> list[ConversionEventRow]: ...  # noqa: D102
    def events_about(self, conversions: Collection[Key]) -> list[ConversionEventRow]: ...  # noqa: D102
    def entries(self, hashes: Collection[Hashed]) -> dict[Hashed, Entry]: ...  # noqa: D102
    def conversions_in_scope(self, entries: Mapping[Key, Entry]) -> list[Key]: ...  # noqa: D102
    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]: ...  # noqa: D102
    def lock_conversions(self, opening: Collection[Key], others: Collection[Key]) -> None: ...  # noqa: D102
    def remove(  # noqa: D102
        self,
        tenant_id: str,
        entries: Mapping[Key, Entry],
        events: Sequence[ConversionEventRow],
        conversions: Collection[Key],
    ) -> Removal: ...
    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]: ...  # noqa: D102
    def move_conversions(self, moves: Sequence[IdentityMove]) -> None: ...  # noqa: D102
    def raise_versions(self, raises: Sequence[Raise], policy_version: str) -> list[RaisedVersion]: ...  # noqa: D102
    def remove_journeys(self, entries: Mapping[Key, Entry]) -> None: ...  # noqa: D102
    def store_entries(self, entries: Mapping[Hashed, Entry], key_id: str, request_id: str) -> None: ...  # noqa: D102
    def book(  # noqa: D102
        self, conversions: Collection[Identifier], amounts: Sequence[AmountRow], hasher: Hasher
    ) -> None: ...
    def store_requests(self, requests: Sequence[RequestRow]) -> None: ...  # noqa: D102
    def add_tombstones(self, versions: Sequence[RaisedVersion], request_id: str) -> None: ...  # noqa: D102
    def keep_links(self, links: Collection[StatedLink]) -> None: ...  # noqa: D102
    def forget_links(self, links: Collection[StatedLink]) -> None: ...  # noqa: D102
    def finish(self, request: RequestRow, id_hash: bytes, removed: Mapping[str, int]) -> None: ...  # noqa: D102


class MoreToLockError(Exception):
    """The request concerns people whose rows are not locked yet: roll back and lock these as well."""

    def __init__(self, keys: Collection[Key]) -> None:
        super().__init__(f"{len(keys)} more people to lock")
        self.keys = keys


class Closure(NamedTuple):
    """Who and what a request concerns.

    Attributes:
        people: users and anonymous ids that are erased.
        conversions: (tenant, conversion id) that go in any case.
        late: links that arrived after the cut-off and name an erased user: their anonymous ids follow.
        late_orders: events that arrived after the cut-off and name an erased order: their people follow.
        beside: further keys that may change: other users who are linked with the devices.
        stated: what is known of the owners of these people's devices.
    """

    people: frozenset[Identifier]
    conversions: frozenset[Key]
    late: tuple[StatedLink, ...]
    late_orders: tuple[ConversionEventRow, ...]
    beside: frozenset[Key]
    stated: tuple[StatedLink, ...] = ()


class Executed(NamedTuple):
    """What came of a request: versions of other people's conversions, tombstones, rows removed by table."""

    raised: list[RaisedVersion]
    tombstones: list[RaisedVersion]
    removed: dict[str, int]


def owner_at(links: Collection[StatedLink], cutoff: int) -> str | None:
    """Return the user who owned an anonymous id at a time, by the links that had arrived; None: nobody."""
    known = [link for link in links if link.received_at <= cutoff]
    return min(known, key=lambda link: link.order).user_id if known else None


def closure(transaction: Transaction, request: RequestRow) -> Closure:
    """Return the people that a request concerns, by what is stored."""
    tenant_id, cutoff = request.tenant_id, request.cutoff
    named: set[Identifier] = set()
    conversions: set[Key] = set()
    if request.kind == "conversion":
        return Closure(frozenset(), frozenset({(tenant_id, request.identifier)}), (), (), frozenset())
    orders: list[ConversionEventRow] = []
    if request.kind == "order":
        scope = Entry().after(request.mode, cutoff)
        events = transaction.events_of_order(tenant_id, request.identifier)
        orders = [event for event in events if scope.covers(event.occurred_at, event.received_at)]
        conversions = {(tenant_id, event.conversion_id) for event in orders}
        named = {identifier_of(tenant_id, e.identity_key) for e in events if e.received_at <= cutoff}
    elif request.kind in {"user", "anonymous"}:
        named = {request.named}
    devices = {(each.tenant_id, each.value) for each in named if each.kind == "anonymous"}
    users = {each for each in named if each.kind == "user"}
    links = transaction.links_of_devices(devices)
    for device in devices:
        owned_by = owner_at([link for link in links if link[:2] == device], cutoff)
        if owned_by is not None and request.derived_from == EVENT:
            named.discard(Identifier(tenant_id, "anonymous", device[1]))  # somebody else's at the cut-off
        elif owned_by is not None:
            users.add(Identifier(tenant_id, "user", owned_by))
    of_users = transaction.links_of_users([(user.tenant_id, user.value) for user in users])
    candidates = {link[:2] for link in of_users}
    links += transaction.links_of_devices(candidates - devices)
    people = named | users
    ids = {user.value for user in users}
    for device in candidates:
        if owner_at([link for link in links if link[:2] == device], cutoff) in ids:
            people.add(Identifier(tenant_id, "anonymous", device[1]))
    late = tuple(
        link
        for link in of_users
        if link.received_at > cutoff >= link.linked_at
        and Identifier(tenant_id, "anonymous", link.anonymous_id) not in people
        and request.mode.startswith("delete")
    )
    late_orders = tuple(event for event in orders if event.received_at > cutoff and request.mode.startswith("delete"))
    beside = {(tenant_id, USER_PREFIX + link.user_id) for link in links}
    beside |= {(tenant_id, ANONYMOUS_PREFIX + link.anonymous_id) for link in of_users}
    stated = tuple({*links, *of_users})
    return Closure(frozenset(people), frozenset(conversions), late, late_orders, frozenset(beside), stated)


def execute(
    transaction: Transaction, request: RequestRow, hasher: Hasher, policy_version: str, more_keys: Collection[Key] = ()
) -> Executed:
    """Carry out a request, in one transaction.

    Args:
        transaction: holds the request's row.
        request: everything that arrived before it is stored.
        hasher: hashes identifiers.
        policy_version: the lookback policy that new versions pin.
        more_keys: people to lock, from a try before.

    Raises:
        MoreToLockError: try again in a new transaction, with its keys added to ``more_keys``.
    """
    # 1. Lock all who may be concerned, before anything is read that depends on them. At first nobody is known.
    held = set(more_keys)
    transaction.lock_people(held)
    found = closure(transaction, request)
    keys = {each.key for each in found.people}
    # 2. What the ledger says from now on, and what that covers.
    hashes = {each: hasher.hashed(each) for each in found.people}
    known = transaction.entries(list(hashes.values()))
    entries = {each: known.get(h, Entry()).after(request.mode, request.cutoff) for each, h in hashes.items()}
    scopes = {each.key: entry for each, entry in entries.items()}
    conversions = found.conversions | set(transaction.conversions_in_scope(scopes))
    events = transaction.events_about(conversions)
    # Also devices that stay lose the links of erased users.
    devices = {key for key in (*scopes, *found.beside) if key[1].startswith(ANONYMOUS_PREFIX)}
    devices |= {(event.tenant_id, ANONYMOUS_PREFIX + event.anonymous_id) for event in events if event.anonymous_id}
    owners = {
        (link.tenant_id, USER_PREFIX + link.user_id)
        for link in transaction.links_of_devices([(tenant, key[2:]) for tenant, key in devices])
    }
    affected = keys | set(found.beside) | devices | owners
    affected |= {(event.tenant_id, event.identity_key) for event in events}
    if missing := affected - held:
        if not held:  # nothing is locked or written yet: go on in this transaction, with the people found
            return execute(transaction, request, hasher, policy_version, missing)
        raise MoreToLockError(missing)
    # 3. Lock the conversions: those that go, and those that may change.
    others = set(transaction.conversions_of_people(affected)) - conversions
    transaction.lock_conversions(conversions, others)
    events = transaction.events_about(conversions)
    # 4. Remove; only then look for the devices' owners.
    removal = transaction.remove(request.tenant_id, scopes, events, conversions)
    moves = transaction.recompute_owners(sorted((tenant, key[2:]) for tenant, key in devices))
    transaction.move_conversions(moves)
    changed = keys | {(move.tenant_id, key) for move in moves for key in (move.old_key, move.new_key)}
    changed_conversions = sorted(others.intersection(transaction.conversions_of_people(changed)))
    raised = transaction.raise_versions(
        [Raise(*each, REASON, _NOBODY, request.received_at) for each in changed_conversions], policy_version
    )
    _keep_links(transaction, found, scopes, events, hasher)
    transaction.remove_journeys(scopes)
    # 5. Results are taken back, the ledger is written, the money booked.
    tombstones = [
        RaisedVersion(tenant, conversion_id, version + 1, REASON, request.received_at)
        for tenant, conversion_id, version in removal.versions
    ]
    transaction.add_tombstones(tombstones, request.request_id)
    to_store = {hashes[each]: entry for each, entry in entries.items()}
    own = hasher.hashed(request.named)
    if request.kind in {"order", "email"}:
        to_store[own] = transaction.entries([own]).get(own, Entry()).after(request.mode, request.cutoff)
    transaction.store_entries(to_store, hasher.key_id, request.request_id)
    erased = [Identifier(tenant, "conversion", conversion_id) for tenant, conversion_id in conversions]
    transaction.store_requests(_derived(found, request, hasher))
    transaction.finish(request, own.id_hash, removal.rows)
    transaction.book(erased, [amount_of(event, hasher) for event in events], hasher)
    return Executed(raised, tombstones, removal.rows)


def _keep_links(
    transaction: Transaction,
    found: Closure,
    scopes: Mapping[Key, Entry],
    events: Sequence[ConversionEventRow],
    hasher: Hasher,
) -> None:
    """Keep pairs of user and device of events that go while their user is not erased; forget those of the erased."""
    going = {
        StatedLink(e.tenant_id, e.anonymous_id, e.identity_key[2:], e.occurred_at, e.event_id, e.received_at)
        for e in events
        if e.anonymous_id is not None and e.identity_key.startswith(USER_PREFIX)
    }
    names = {Identifier(link.tenant_id, "user", link.user_id) for link in going}
    names |= {Identifier(link.tenant_id, "anonymous", link.anonymous_id) for link in going}
    hashes = {each: hasher.hashed(each) for each in names}
    known = transaction.entries([h for each, h in hashes.items() if each.key not in scopes])
    entries = {each.key: known[h] for each, h in hashes.items() if h in known} | dict(scopes)
    kept, gone = [], []
    for link in {*found.stated, *going}:
        of_user = entries.get((link.tenant_id, USER_PREFIX + link.user_id), _NOTHING)
        of_device = entries.get((link.tenant_id, ANONYMOUS_PREFIX + link.anonymous_id), _NOTHING)
        times = (link.linked_at, link.received_at)
        if of_device.covers(*times) or (of_user.covers(*times) and not of_user.keeps_link(*times)):
            gone.append(link)
        elif of_user.covers(*times) or (link in going and of_user.keeps_link(*times)):
            kept.append(link)
    transaction.keep_links(kept)
    transaction.forget_links(gone)


def _derived(found: Closure, request: RequestRow, hasher: Hasher) -> list[RequestRow]:
    requests = []
    for event in found.late_orders:
        named = identifier_of(event.tenant_id, event.identity_key)
        requests.append(derived_request(named, hasher.hashed(named), request.cutoff, event.received_at, ORDER))
        if event.anonymous_id is not None:
            named = Identifier(event.tenant_id, "anonymous", event.anonymous_id)
            requests.append(derived_request(named, hasher.hashed(named), request.cutoff, event.received_at))
    for link in found.late:
        named = Identifier(link.tenant_id, "anonymous", link.anonymous_id)
        requests.append(derived_request(named, hasher.hashed(named), request.cutoff, link.received_at))
    return requests


__all__ = ["Closure", "Executed", "MoreToLockError", "Transaction", "closure", "execute", "owner_at"]
