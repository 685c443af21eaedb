"""What the ledger of erasures says about an identifier, and which events that concerns: pure.

Invariant: an entry only grows, but for the end of a suppression; whether an event is concerned depends on its own times
and on the entry alone. So an event that is dropped as it comes, and one that was stored before and is removed, are the
same ones in every order of processing.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX

ALWAYS = 2**63 - 1
"""Cut-off of an erased conversion, microseconds: every event about it is concerned."""
_KEY_ID_BYTES = 4


class Identifier(NamedTuple):
    """What names a person or a conversion. Kinds: user, anonymous, order, conversion, email."""

    tenant_id: str
    kind: str
    value: str

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and identity key; of users and anonymous ids only."""
        return self.tenant_id, (USER_PREFIX if self.kind == "user" else ANONYMOUS_PREFIX) + self.value


class Hashed(NamedTuple):
    """An identifier by its keyed hash."""

    tenant_id: str
    kind: str
    id_hash: bytes


def identifier_of(tenant_id: str, identity_key: str) -> Identifier:
    """Return the user or the anonymous id that an identity key stands for."""
    return Identifier(tenant_id, "user" if identity_key.startswith(USER_PREFIX) else "anonymous", identity_key[2:])


class Hasher:
    """Hashes identifiers with the installation's key.

    Args:
        key: ATTRIBUTION_ERASURE_KEY.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self.key_id = self._digest("attributary").hex()[: 2 * _KEY_ID_BYTES]

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256")

    def hashed(self, identifier: Identifier) -> Hashed:
        """Return HMAC-SHA-256 of tenant, kind and value (RFC 2104): without the key no id is guessed."""
        tenant_id, kind, value = identifier
        return Hashed(tenant_id, kind, self._digest(f"{tenant_id}\0{kind}\0{value}"))

    def event(self, tenant_id: str, event_id: str) -> bytes:
        """Return the keyed hash of an event id."""
        return self._digest(f"{tenant_id}\0event\0{event_id}")


Ranges = tuple[tuple[int, int | None], ...]


class Entry(NamedTuple):
    """What is said about one identifier, microseconds UTC.

    Attributes:
        cutoffs: of each erasure, rising: events that happened or arrived up to one are dropped.
        suppressed: ranges of log-append time, end excluded, None: open; events that arrived in one are dropped.
    """

    cutoffs: tuple[int, ...] = ()
    suppressed: Ranges = ()

    @property
    def erased_until(self) -> int:
        """The last cut-off; 0: none."""
        return self.cutoffs[-1] if self.cutoffs else 0

    def covers(self, occurred_at: int, received_at: int) -> bool:
        """Tell whether an event is dropped."""
        return (
            occurred_at <= self.erased_until
            or received_at <= self.erased_until
            or any(begin <= received_at and (end is None or received_at < end) for begin, end in self.suppressed)
        )

    def cutoff_of(self, occurred_at: int, received_at: int) -> int | None:
        """Return the cut-off that what an event names beside this follows; None: it stays.

        The first cut-off that drops the event, the same in every order.
        """
        first = min(occurred_at, received_at)
        return next((each for each in self.cutoffs if first <= each), None)

    def is_suppressed_by(self, cutoff: int, received_at: int) -> bool:
        """Tell whether an event was dropped by a suppression that is older than an erasure."""
        return any(
            begin <= min(received_at, cutoff) and (end is None or received_at < end) for begin, end in self.suppressed
        )

    def keeps_link(self, occurred_at: int, received_at: int) -> bool:
        """Tell whether the device that a dropped event of this user names is remembered for a later erasure.

        No cut-off concerns the event, and no suppression that began with an erasure: of erased people nothing is kept.
        """
        return self.cutoff_of(occurred_at, received_at) is None and all(
            begin > self.erased_until + 1
            for begin, end in self.suppressed
            if begin <= received_at and (end is None or received_at < end)
        )

    def after(self, mode: str, cutoff: int) -> Entry:
        """Return the entry after a request.

        Args:
            mode: delete, delete-and-suppress, suppress or unsuppress.
            cutoff: log-append time of the request.
        """
        cutoffs = tuple(sorted({*self.cutoffs, cutoff})) if mode.startswith("delete") else self.cutoffs
        if mode in {"suppress", "delete-and-suppress"}:
            return Entry(cutoffs, _joined((*self.suppressed, (cutoff + 1, None))))
        if mode == "unsuppress":
            ended = ((begin, cutoff + 1 if end is None else end) for begin, end in self.suppressed)
            return Entry(cutoffs, tuple((begin, end) for begin, end in ended if begin < end))
        return Entry(cutoffs, self.suppressed)


def _joined(ranges: Iterable[tuple[int, int | None]]) -> Ranges:
    """Join ranges that overlap or touch."""
    out: list[tuple[int, int | None]] = []
    for begin, end in sorted(ranges, key=lambda each: each[0]):
        last = out[-1] if out else None
        if last is None or (last[1] is not None and last[1] < begin):
            out.append((begin, end))
        elif last[1] is not None:
            out[-1] = (last[0], None if end is None else max(end, last[1]))
    return tuple(out)


def to_array(cutoffs: Sequence[int]) -> str:
    """Return cut-offs as Postgres reads an array."""
    return "{" + ",".join(map(str, cutoffs)) + "}"


def to_multirange(ranges: Ranges) -> str:
    """Return ranges as Postgres reads them."""
    return "{" + ",".join(f"[{begin},{'' if end is None else end})" for begin, end in ranges) + "}"


def from_multirange(text: str) -> Ranges:
    """Return ranges as Postgres writes them: begins included, ends excluded."""
    parts = [part.strip("[)").split(",") for part in text.strip("{}").split(",[") if part]
    return tuple((int(begin), int(end) if end else None) for begin, end in parts)


class RequestRow(NamedTuple):
    """A request as it is stored.

    Attributes:
        kind: user, anonymous, order, conversion or email.
        identifier: empty once it is carried out.
        received_at: when it is its turn: log-append time of the record that it came with, microseconds UTC.
        cutoff: up to when events are erased; of a request of its own its log-append time.
        derived_from: ``EVENT`` or ``ORDER``, for a request that follows from one; None: a request of its own.
    """

    tenant_id: str
    request_id: str
    kind: str
    mode: str
    identifier: str
    received_at: int
    cutoff: int
    derived_from: str | None
    topic: str = ""
    partition: int = 0
    offset: int = 0

    @property
    def turn(self) -> tuple[int, bool, int, int, str, str]:
        """Requests are carried out in this order, the smallest first: that of the log."""
        is_own = self.derived_from is None
        return self.received_at, is_own, self.partition, self.offset, self.tenant_id, self.request_id

    @property
    def named(self) -> Identifier:
        """What it names."""
        return Identifier(self.tenant_id, self.kind, self.identifier)


EVENT, ORDER = "event", "order"


def derived_request(
    named: Identifier, hashed: Hashed, cutoff: int, received_at: int, derived_from: str = EVENT
) -> RequestRow:
    """Return the request that follows from an erased event that names something else as well.

    Args:
        named: what it names.
        hashed: its hash.
        cutoff: of the erasure, microseconds UTC.
        received_at: log-append time of the event: the same in every order of processing.
        derived_from: ``EVENT``: the device named beside an erased user; ``ORDER``: the person of an erased order.
    """
    request_id = f"{named.kind}:{hashed.id_hash.hex()}:{cutoff}:{received_at}"
    return RequestRow(named.tenant_id, request_id, named.kind, "delete", named.value, received_at, cutoff, derived_from)
