"""Who must not be forwarded: asked of the ledger of erasures before every send, also of what was left behind.

Invariant: nothing of an erased person leaves, by whatever identifier the event names the person: user, anonymous id,
conversion, order, or hashed e-mail address. One look-up a batch; an empty ledger costs one look at one row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attributary.attribution_core.domain.identity_rules import normalized_id
from attributary.consumers.erasure.settings import check_key
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.erasure.entries import Hasher, Identifier
from attributary.consumers.store.erasure.ledger import fetch_entries, ledger_key_id
from attributary.consumers.store.session import StoreSession
from attributary.schemas.limits import is_sha256

REASON = "erased"


class ErasedPeople:
    """Asks the ledger.

    Args:
        session: where it is.
        hasher: hashes identifiers; None: no key is set.
    """

    def __init__(self, session: StoreSession, hasher: Hasher | None) -> None:
        self._session = session
        self._hasher = hasher

    def among(self, events: Sequence[tuple[Record, Mapping[str, Any]]]) -> set[int]:
        """Return the indexes of conversions of erased people.

        Args:
            events: each with the record that it came in.

        Raises:
            StoreUnavailable: Postgres does not answer.
            ConfigError: the ledger has rows, and the key is missing or another one.
        """
        if not events:
            return set()
        with self._session.transaction() as connection:
            hasher = check_key(ledger_key_id(connection), self._hasher)
            if hasher is None:
                return set()
            named = [{hasher.hashed(each) for each in _identifiers(conversion)} for _, conversion in events]
            entries = fetch_entries(connection, set[Any]().union(*named))
        found = set()
        for number, ((record, conversion), hashes) in enumerate(zip(events, named, strict=True)):
            times = conversion["occurred_at"], record.timestamp_ms * 1_000
            if any(each in entries and entries[each].covers(*times) for each in hashes):
                found.add(number)
        return found


def _identifiers(conversion: Mapping[str, Any]) -> Iterator[Identifier]:
    tenant_id = conversion["tenant_id"]
    for kind, field in (("user", "user_id"), ("anonymous", "anonymous_id")):
        if conversion[field] is not None:
            yield Identifier(tenant_id, kind, normalized_id(conversion[field]))
    for order in {conversion["conversion_id"] or conversion["event_id"], conversion["order_id"]}:
        if order:
            yield Identifier(tenant_id, "conversion", order)
            yield Identifier(tenant_id, "order", order)
    email = (conversion["user_data"] or {}).get("email")
    if email:
        address = email.strip().lower()
        hashed = address if is_sha256(address) else hashlib.sha256(address.encode()).hexdigest()
        yield Identifier(tenant_id, "email", hashed)
