"""Verdicts that come later: ask the destination what became of the requests that it has received.

Contract: `poll` asks about the requests that are due, a few a turn, and notes what it hears; it raises only what
the ledger raises. Invariants: a request is asked about first when the destination can know, then less and less often,
until the verdict is final or a day has gone: then it is `unknown`, and said so. What was refused is counted by reason;
the destination does not say which events, so no delivery changes its state. A hold of the account is respected, and a
verdict never holds up a delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.destination import DeliveryResponse, TellsLater
from attributary.consumers.store.deliveries.delivery import Queue, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from attributary.consumers.destinations.destination import Account, Destination, RequestStatus
    from attributary.consumers.destinations.sender import BatchSender
    from attributary.consumers.destinations.transport import Clock
    from attributary.consumers.store.deliveries.delivery import Ledger, ReceivedRequest

_log = structlog.get_logger()

_SECOND = 1_000_000  # micros
_LOOK_SECONDS = 30.0  # between two looks into the ledger
_MAX_ASKED = 10  # a turn; asking takes as long as sending
_FIRST_GAP_SECONDS, _MAX_GAP_SECONDS = 900, 14_400
_GIVE_UP_SECONDS = 26 * 3_600  # Google promises a day
_UNKNOWN_REASON = "OTHER"
_MAX_REASONS = 60  # of label values


class LateVerdicts:
    """Asks about the requests of one destination.

    Args:
        destination: its rules.
        sender: its connections and tokens.
        ledger: knows the requests.
        account_of: gives the account of a queue, None when the settings have it no more.
        clock: where time comes from.
    """

    def __init__(
        self,
        destination: Destination,
        sender: BatchSender,
        ledger: Ledger,
        account_of: Callable[[Queue], Account | None],
        clock: Clock,
    ) -> None:
        self._destination = destination
        self._sender = sender
        self._ledger = ledger
        self._account_of = account_of
        self._clock = clock
        self._look_at = 0.0
        self._reasons: set[str] = set()

    def poll(self) -> None:
        """Ask about what is due."""
        destination, now = self._destination, self._clock.monotonic()
        if not isinstance(destination, TellsLater) or now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        due = self._ledger.due_requests(destination.name, self._clock.now_micros(), limit=_MAX_ASKED)
        heard = [self._asked(destination, request) for request in due]
        self._ledger.judge_requests(heard, now_micros=self._clock.now_micros())
        for request in heard:
            self._report(request)
        if len(due) == _MAX_ASKED:
            self._look_at = now  # more are due: next turn

    def _asked(self, destination: TellsLater, request: ReceivedRequest) -> ReceivedRequest:
        """Return a request with what the destination says of it, or with the time of the next question."""
        account = self._account_of(Queue(request.tenant_id, request.destination))
        status: RequestStatus | None = None
        if account is not None and self._sender.limiter(account).hold_at(self._clock.monotonic()) is None:
            response = self._sender.ask_as(account, lambda each: destination.status_request(each, request.request_id))
            if not isinstance(response, DeliveryResponse):
                status = destination.read_status(response)
        if status is not None and status.is_final:
            return request._replace(
                verdict=_verdict(status, request.events), refused=status.refused, warned=status.warned
            )
        now = self._clock.now_micros()
        if now - request.received_at > _GIVE_UP_SECONDS * _SECOND:
            return request._replace(verdict=Verdict.UNKNOWN)
        gap = min(_MAX_GAP_SECONDS, _FIRST_GAP_SECONDS * 2 ** min(request.asked, 10))
        return request._replace(ask_at=now + gap * _SECOND)

    def _report(self, request: ReceivedRequest) -> None:
        if request.verdict is Verdict.PENDING:
            return
        name = self._destination.name
        refused = min(request.events, sum(request.refused.values()))
        refused = request.events if request.verdict is Verdict.REFUSED else refused
        counted = {"refused": refused}
        counted["unknown" if request.verdict is Verdict.UNKNOWN else "accepted"] = request.events - refused
        for verdict, events in counted.items():
            metrics.forward_late_verdicts.labels(name, verdict).inc(events)
        for reason, events in request.refused.items():
            metrics.forward_late_refusals.labels(name, self._label(reason)).inc(events)
        if request.verdict is not Verdict.ACCEPTED or request.warned:
            _log.warning(
                "the destination's verdict on a request",
                destination=name,
                tenant_id=request.tenant_id,
                request=request.request_id,
                verdict=request.verdict.value,
                events=request.events,
                refused=dict(request.refused),
                warned=dict(request.warned),
            )

    def _label(self, reason: str) -> str:
        """Return a reason as a label: of an endless list only the first ones."""
        if reason in self._reasons or len(self._reasons) < _MAX_REASONS:
            self._reasons.add(reason)
            return reason
        return _UNKNOWN_REASON


def _verdict(status: RequestStatus, events: int) -> Verdict:
    if status.is_good:
        return Verdict.ACCEPTED
    refused = sum(status.refused.values())
    if status.is_failed or refused >= events:
        return Verdict.REFUSED
    return Verdict.PARTLY
