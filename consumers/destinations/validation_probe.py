"""ValidationProbe over a destination that never says no: probe every new shape of event, and a changed secret.

Contract: `look` sends at most one probe for each (account, event name, parameter names) that it has not seen, to the
destination's validation endpoint, which records nothing; what it finds is logged and counted, nothing is held back for
it: the local rules have the last word. When the secret of an account is another than the one that the ledger knows, one
event named `attributary_canary` is sent for people to look for in DebugView, because no answer of the destination tells
a good secret from a bad one. Invariant: a validation_probe never makes a delivery fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from attributary.consumers.destinations.destination import PreparedEvent
from attributary.consumers.destinations.wire_format import from_json, to_json
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    NewDelivery,
    Source,
)

from . import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.destinations.destination import Account, Destination
    from attributary.consumers.destinations.sender import BatchSender
    from attributary.consumers.destinations.transport import Clock
    from attributary.consumers.store.deliveries.delivery import Ledger

_log = structlog.get_logger()

_MAX_SHAPES = 1_000  # then free property names come without end, and probing them says nothing new
_MAX_PROBES_A_TURN = 5
_NOWHERE = Source("", 0, 0)


class ValidationProbe:
    """Probes for one destination.

    Args:
        destination: its rules.
        sender: its connections.
        ledger: remembers fingerprints of secrets.
        clock: where time comes from.
    """

    def __init__(self, destination: Destination, sender: BatchSender, ledger: Ledger, clock: Clock) -> None:
        self._destination = destination
        self._sender = sender
        self._ledger = ledger
        self._clock = clock
        self._shapes: set[tuple[str, Any]] = set()
        self._accounts: set[str] = set()

    def probe(self, account: Account, events: Sequence[PreparedEvent]) -> None:
        """Probe what is new about the events of an account."""
        if account.fingerprint not in self._accounts:
            self._accounts.add(account.fingerprint)
            self._send_canary(account)
        left = _MAX_PROBES_A_TURN
        for event in events:
            shape = (account.account_id, _shape(event))
            if shape in self._shapes or len(self._shapes) >= _MAX_SHAPES:
                continue
            self._shapes.add(shape)
            request = self._destination.probe(account, event)
            if request is None or left == 0:
                return
            left -= 1
            if found := self._destination.findings(self._sender.ask(request)):
                metrics.forward_probe_findings.labels(self._destination.name).inc(len(found))
                _log.warning(
                    "the destination finds faults",
                    destination=self._destination.name,
                    account=account.account_id,
                    codes=found,
                )

    def _send_canary(self, account: Account) -> None:
        """Send a canary when the ledger knows this account with another secret."""
        now = self._clock.now_micros()
        key = DeliveryKey(account.tenant_id, f"{self._destination.name}.secret", account.account_id)
        known = self._ledger.claim([NewDelivery(key, DeliveryState.SKIPPED, "fingerprint", now, _NOWHERE)])
        row = known.get(key)
        if row is not None and row.request_hash == account.fingerprint:
            return
        status = None
        if row is not None:
            status = self._sender.ask(self._destination.request(account, [_canary(account, now)])).status
            _log.warning(
                "the secret changed: look for attributary_canary in DebugView",
                destination=self._destination.name,
                account=account.account_id,
                status=status,
            )
        self._ledger.settle(
            [
                DeliveryOutcome(
                    key,
                    DeliveryState.SKIPPED,
                    "fingerprint",
                    request_hash=account.fingerprint,
                    response_code=None if status is None else str(status),
                )
            ]
        )


def _shape(event: PreparedEvent) -> Any:
    document = from_json(event.body)
    params = document.get("params")
    return document.get("name"), tuple(sorted(params)) if isinstance(params, dict) else ()


def _canary(account: Account, now: int) -> PreparedEvent:
    params = {"debug_mode": 1, "engagement_time_msec": 1}
    body = to_json({"name": "attributary_canary", "timestamp_micros": now, "params": params})
    envelope = {"client_id": "1.1"} if "measurement_id" in account.options else {"app_instance_id": "0" * 32}
    return PreparedEvent(f"canary:{account.fingerprint}", now, body, to_json(envelope), resend_safe=False)
