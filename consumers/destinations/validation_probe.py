"""Watch over a destination that never says no: probe every new shape of event, and a changed secret.

Contract: `look` sends at most one probe for each (channel, event name, parameter names) that it has not seen, to the
destination's validation endpoint, which records nothing; what it finds is logged and counted, nothing is held back for
it: the local rules have the last word. When the secret of an account is another than the one that the ledger knows, one
event named `attributary_canary` is sent for people to look for in DebugView, because no answer of the destination tells
a good secret from a bad one. Invariant: a watch never makes a delivery fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from attributary.consumers.destinations.destination import Prepared
from attributary.consumers.destinations.wire_json import from_json, to_json
from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryState, NewDelivery, Settled, Source

from . import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.destinations.clock import Clock
    from attributary.consumers.destinations.destination import Channel, Destination
    from attributary.consumers.destinations.sender import Courier
    from attributary.consumers.store.deliveries.delivery import Ledger

_log = structlog.get_logger()

_MOST_SHAPES = 1_000  # then free property names come without end, and probing them says nothing new
_MOST_PROBES_A_TURN = 5
_NOWHERE = Source("", 0, 0)


class Watch:
    """Probes for one destination.

    Args:
        destination: its rules.
        courier: its connections.
        ledger: remembers fingerprints of secrets.
        clock: where time comes from.
    """

    def __init__(self, destination: Destination, courier: Courier, ledger: Ledger, clock: Clock) -> None:
        self._destination = destination
        self._courier = courier
        self._ledger = ledger
        self._clock = clock
        self._shapes: set[tuple[str, Any]] = set()
        self._accounts: set[str] = set()

    def look(self, channel: Channel, events: Sequence[Prepared]) -> None:
        """Probe what is new about the events of a channel."""
        if channel.fingerprint not in self._accounts:
            self._accounts.add(channel.fingerprint)
            self._greet(channel)
        left = _MOST_PROBES_A_TURN
        for event in events:
            shape = (channel.account, _shape(event))
            if shape in self._shapes or len(self._shapes) >= _MOST_SHAPES:
                continue
            self._shapes.add(shape)
            request = self._destination.probe(channel, event)
            if request is None or left == 0:
                return
            left -= 1
            if found := self._destination.findings(self._courier.ask(request)):
                metrics.forward_probe_findings.labels(self._destination.name).inc(len(found))
                _log.warning(
                    "the destination finds faults",
                    destination=self._destination.name,
                    account=channel.account,
                    codes=found,
                )

    def _greet(self, channel: Channel) -> None:
        """Send a canary when the ledger knows this account with another secret."""
        now = self._clock.now_micros()
        key = DeliveryKey(channel.tenant_id, f"{self._destination.name}.secret", channel.account)
        known = self._ledger.claim([NewDelivery(key, DeliveryState.SKIPPED, "fingerprint", now, _NOWHERE)])
        row = known.get(key)
        if row is not None and row.request_hash == channel.fingerprint:
            return
        status = None
        if row is not None:
            status = self._courier.ask(self._destination.request(channel, [_canary(channel, now)])).status
            _log.warning(
                "the secret changed: look for attributary_canary in DebugView",
                destination=self._destination.name,
                account=channel.account,
                status=status,
            )
        self._ledger.settle(
            [
                Settled(
                    key,
                    DeliveryState.SKIPPED,
                    "fingerprint",
                    request_hash=channel.fingerprint,
                    response_code=None if status is None else str(status),
                )
            ]
        )


def _shape(event: Prepared) -> Any:
    document = from_json(event.body)
    params = document.get("params")
    return document.get("name"), tuple(sorted(params)) if isinstance(params, dict) else ()


def _canary(channel: Channel, now: int) -> Prepared:
    params = {"debug_mode": 1, "engagement_time_msec": 1}
    body = to_json({"name": "attributary_canary", "timestamp_micros": now, "params": params})
    envelope = {"client_id": "1.1"} if "measurement_id" in channel.options else {"app_instance_id": "0" * 32}
    return Prepared(f"canary:{channel.fingerprint}", now, body, to_json(envelope), resend_safe=False)
