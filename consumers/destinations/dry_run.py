"""Show what would be sent, without sending: for people who debug their mapping.

Contract: `requests` gives the exact bodies, batched as they would be; `refusals` collects what would not go, with the
reason. Invariant: no network, no ledger, no secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.destination import Account, Moment, NotSent, PreparedEvent
from attributary.consumers.destinations.prepare import batches, prepare
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.schemas.codec import Codec, EncodeError
from attributary.schemas.rules import check_conversion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from attributary.consumers.destinations.destination import Destination
    from attributary.consumers.destinations.prepare import Unknown

_NOBODY = "nobody"
# Accounts that cannot exist: a dry run needs none of yours.
_ACCOUNTS = {"meta": ("0", {}), "ga4": ("G-DRYRUN", {"measurement_id": "G-DRYRUN", "firebase_app_id": "1:0:android:0"})}


class DryRun:
    """Builds the requests of one destination.

    Args:
        destination: its rules.
        unknown: what to do when a purpose was never asked about.
        now_micros: the time against which age is prepared.
    """

    def __init__(self, destination: Destination, unknown: Unknown, now_micros: int) -> None:
        self._destination = destination
        self._unknown: Unknown = unknown
        self._now = now_micros
        self._codec = Codec()
        account, options = _ACCOUNTS[destination.name]
        self._account = Account(_NOBODY, destination.name, account, "", options)
        self.refusals: list[tuple[str, NotSent]] = []
        self.remarks: list[tuple[str, str]] = []

    def bodies(self, records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
        """Give the request bodies for conversions."""
        events = [event for record in records if (event := self._event(record))]
        for batch in batches(events, self._destination.limits):
            yield self._destination.request(self._account, batch).body

    def _event(self, record: Mapping[str, Any]) -> PreparedEvent | None:
        identifier = str(record.get("event_id"))
        complete = {**record, "tenant_id": record.get("tenant_id") or _NOBODY}
        try:
            conversion = self._codec.decode("conversion", self._codec.encode("conversion", complete))
        except EncodeError as error:
            self.refusals.append((identifier, NotSent(DeliveryState.REJECTED, error.rule)))
            return None
        if broken := check_conversion(conversion, now_micros=self._now):
            self.refusals.append((identifier, NotSent(DeliveryState.REJECTED, broken.rule, broken.field)))
            return None
        moment = Moment(self._now, self._now)
        prepared = prepare(self._destination, conversion, self._account, moment, unknown=self._unknown)
        if isinstance(prepared, NotSent):
            self.refusals.append((identifier, prepared))
            return None
        if prepared.remark:
            self.remarks.append((identifier, prepared.remark))
        return prepared
