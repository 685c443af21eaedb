"""Show what would be sent, without sending: for people who debug their mapping.

Contract: `requests` gives the exact bodies, batched as they would be; `refusals` collects what would not go, with the
reason. Invariant: no network, no ledger, no secret.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.catalog import CATALOG
from attributary.consumers.destinations.destination import Account, Moment, NotSent, PreparedEvent
from attributary.consumers.destinations.prepare import batches, prepare
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.schemas.codec import Codec, EncodeError
from attributary.schemas.rules import check_conversion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from attributary.consumers.destinations.credentials import Credentials
    from attributary.consumers.destinations.destination import Destination
    from attributary.consumers.destinations.prepare import Unknown
    from attributary.consumers.destinations.property_filter import PropertyFilter

_NOBODY = "nobody"


class DryRun:
    """Builds the requests of one destination.

    Args:
        destination: its rules.
        unknown: what to do when a purpose was never asked about.
        now_micros: the time against which age is prepared.
        credentials: give each tenant's own event names; None: nobody has any.
        properties: which free properties may go; None: all.
    """

    def __init__(
        self,
        destination: Destination,
        unknown: Unknown,
        now_micros: int,
        credentials: Credentials | None = None,
        properties: PropertyFilter | None = None,
    ) -> None:
        self._destination = destination
        self._unknown: Unknown = unknown
        self._now = now_micros
        self._credentials = credentials
        self._properties = properties
        self._codec = Codec()
        sample = CATALOG[destination.name].sample
        self._account = Account(_NOBODY, destination.name, sample.name, "", sample.options)
        self.refusals: list[tuple[str, NotSent]] = []
        self.remarks: list[tuple[str, str]] = []

    def bodies(self, records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
        """Give the request bodies for conversions."""
        events = [event for record in records if (event := self._event(record))]
        for batch in batches(events, self._destination.limits):
            yield self._destination.request(self._account, batch).body

    def _event(self, record: Mapping[str, Any]) -> PreparedEvent | None:
        identifier, prepared = str(record.get("event_id")), self.prepared(record)
        if isinstance(prepared, NotSent):
            self.refusals.append((identifier, prepared))
            return None
        if prepared.remark:
            self.remarks.append((identifier, prepared.remark))
        return prepared

    def prepared(self, record: Mapping[str, Any]) -> PreparedEvent | NotSent:
        """Return what would go of one conversion, or why it would not; notes nothing."""
        tenant = record.get("tenant_id") or _NOBODY
        try:
            encoded = self._codec.encode("conversion", {**record, "tenant_id": tenant})
        except EncodeError as error:
            return NotSent(DeliveryState.REJECTED, error.rule)
        conversion = self._codec.decode("conversion", encoded)
        if broken := check_conversion(conversion, now_micros=self._now):
            return NotSent(DeliveryState.REJECTED, broken.rule, broken.field)
        account = self._account
        if self._credentials is not None and (own := self._credentials.accounts(str(tenant))):
            account = replace(account, event_names=own[0].event_names)
            wanted = CATALOG[self._destination.name].sample.own
            if options := {name: own[0].options[name] for name in wanted if name in own[0].options}:
                account = replace(account, options=options)
        moment = Moment(self._now, self._now)
        return prepare(
            self._destination, conversion, account, moment, unknown=self._unknown, properties=self._properties
        )
