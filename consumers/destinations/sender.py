"""Carry prepared events to a destination: batches, attempts, bisection, and the ledger around each wave.

Contract: `deliver` returns one `DeliveryOutcome` for every event, `PENDING` for those that must wait; it raises only
what the ledger raises. Invariants:

- an event is in flight in the ledger before any request that carries it, and until its answer is known;
- an event that the destination would count twice is never sent again after an ambiguous answer, unless the operator
  chose so; it ends uncertain;
- a permanent rejection is halved down to the one culprit: 1 of 1,000 costs at most 21 requests; but when everything is
  rejected the account stops, because then it is not the events that are wrong.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.prepare import batches
from attributary.consumers.destinations.rate_limiter import RateLimiter
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryOutcome, DeliveryState

from . import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Destination,
        HttpRequest,
        HttpResponse,
        PreparedEvent,
    )
    from attributary.consumers.destinations.rate_limiter import Hold
    from attributary.consumers.destinations.transport import Clock, Transport
    from attributary.consumers.store.deliveries.delivery import Ledger

register_points("forwarder_before_send", "forwarder_after_send", "forwarder_after_answer")

_log = structlog.get_logger()

_WAVE_BATCHES = 16  # batches a thread gets between two writes to the ledger
_THREAD_WAIT_SECONDS_MAX = 5.0  # a longer wish of the destination pauses the account instead of a thread
# When the first so many culprits of a batch come without one delivery, the settings are wrong, not the events.
_MIN_REJECTED = 20


@dataclass(frozen=True, slots=True)
class SenderOptions:
    """How hard to try.

    Attributes:
        concurrency: most requests at once.
        attempts: tries of a request before the account is held.
        first_backoff: seconds before the second try; doubles, with jitter.
        max_backoff: seconds.
        budget: seconds that one turn of the loop may take before the rest is left for the next.
        uncertain: what to do with an event that was perhaps sent and would count twice.
    """

    concurrency: int = 4
    attempts: int = 4
    first_backoff: float = 0.25
    max_backoff: float = 5.0
    budget: float = 20.0  # below the grace of a stop, which comes after the turn
    uncertain: Literal["hold", "resend"] = "hold"


@dataclass(slots=True)
class _Run:
    """One batch on its way through attempts and halves."""

    account: Account
    limiter: RateLimiter
    deadline: float
    doubtful: frozenset[str] = frozenset()  # ids of events that an earlier turn may have delivered
    delivered: int = 0
    culprits: int = 0


class BatchSender:
    """Delivers to one destination.

    Args:
        destination: its rules.
        transport: its connections.
        ledger: where every attempt is noted.
        options: how hard to try.
        clock: where time comes from.
    """

    def __init__(
        self, destination: Destination, transport: Transport, ledger: Ledger, options: SenderOptions, clock: Clock
    ) -> None:
        self._destination = destination
        self._transport = transport
        self._ledger = ledger
        self._options = options
        self._clock = clock
        self._limiters: dict[tuple[str, str], RateLimiter] = {}
        self._pool = ThreadPoolExecutor(options.concurrency, thread_name_prefix=f"forward-{destination.name}")

    def limiter(self, account: Account) -> RateLimiter:
        """Give the state of an account; tenants that share an account share it."""
        return self._limiters.setdefault((account.account_id, account.fingerprint), RateLimiter())

    def hold(self) -> Hold | None:
        """Give the longest hold of all accounts, None when all are free."""
        now = self._clock.monotonic()
        holds = [hold for limiter in self._limiters.values() if (hold := limiter.hold_at(now))]
        return max(holds, key=lambda hold: hold.seconds, default=None)

    def stopped_accounts(self) -> int:
        """Count the accounts that wait for a person."""
        return sum(limiter.is_stopped for limiter in self._limiters.values())

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self._pool.shutdown()
        self._transport.close()

    def turn_ends(self) -> float:
        """Give the monotonic second at which a turn of the loop must end, so that Kafka does not give us up."""
        return self._clock.monotonic() + self._options.budget

    def deliver(
        self,
        account: Account,
        events: Sequence[PreparedEvent],
        deadline: float | None = None,
        doubtful: frozenset[str] = frozenset(),
    ) -> list[DeliveryOutcome]:
        """Send events, oldest first; give what became of each.

        Args:
            account: where the events go.
            events: built for that account's destination.
            deadline: monotonic second after which the rest is left pending; None: the budget from now.
            doubtful: ids of events that an earlier turn may have delivered; they stay in doubt until they are sent.

        Raises:
            StoreUnavailable: the ledger is away; what was in flight stays so in the ledger.
        """
        run = _Run(account, self.limiter(account), self.turn_ends() if deadline is None else deadline, doubtful)
        waiting = list(batches(events, self._destination.limits))
        settled: list[DeliveryOutcome] = []
        while waiting:
            if reason := self._obstacle(run):
                settled += [s for batch in waiting for s in _all(run, batch, DeliveryState.PENDING, reason)]
                break
            size = self._options.concurrency * _WAVE_BATCHES if run.limiter.pause_seconds() == 0 else 1
            wave, waiting = waiting[:size], waiting[size:]
            settled += self._wave(run, wave)
        return settled

    def _obstacle(self, run: _Run) -> str | None:
        now = self._clock.monotonic()
        if hold := run.limiter.hold_at(now):
            return hold.reason
        return "out of time for this turn" if now >= run.deadline else None

    def _wave(self, whole: _Run, wave: Sequence[Sequence[PreparedEvent]]) -> list[DeliveryOutcome]:
        keys = [_key(whole.account, event) for batch in wave for event in batch]
        self._ledger.begin(keys, now_micros=self._clock.now_micros())
        crash_at("forwarder_before_send")
        runs = [_Run(whole.account, whole.limiter, whole.deadline, whole.doubtful) for _ in wave]
        if self._options.concurrency == 1 or len(wave) == 1:
            answers = [self._guarded(run, batch) for run, batch in zip(runs, wave, strict=True)]
        else:
            answers = list(self._pool.map(self._guarded, runs, wave))
        settled = [outcome for outcomes in answers for outcome in outcomes]
        crash_at("forwarder_after_send")
        self._ledger.settle(settled)
        crash_at("forwarder_after_answer")
        return settled

    def _guarded(self, run: _Run, batch: Sequence[PreparedEvent]) -> list[DeliveryOutcome]:
        """Send a batch; take back its rejections when everything was rejected."""
        settled = list(self._settle(run, batch))
        if not self._all_wrong(run):
            return settled
        reason = "the destination refuses everything: look at the settings"
        run.limiter.stop(reason, self._clock.monotonic() + 60.0, stopped=True)
        _log.error("account stopped", destination=self._destination.name, account=run.account.account_id, why=reason)
        return [
            DeliveryOutcome(s.key, DeliveryState.PENDING, reason, response_code=s.response_code)
            if s.state is DeliveryState.REJECTED
            else s
            for s in settled
        ]

    def _all_wrong(self, run: _Run) -> bool:
        return run.culprits >= _MIN_REJECTED and run.delivered == 0

    def _settle(self, run: _Run, batch: Sequence[PreparedEvent]) -> Iterator[DeliveryOutcome]:
        """Send a batch until it is settled or has to wait."""
        perhaps_sent = False
        for attempt in range(1, self._options.attempts + 1):
            reason = "the destination refuses everything" if self._all_wrong(run) else None
            reason = reason or self._obstacle(run)
            if reason:
                yield from _all(run, batch, DeliveryState.PENDING, reason, in_flight=perhaps_sent)
                return
            request, answer = self._send(run, batch)
            if answer.response_class is ResponseClass.DELIVERED:
                run.delivered += len(batch)
                yield from _all(run, batch, DeliveryState.SENT, None, request=request, answer=answer)
                return
            if answer.response_class is ResponseClass.REJECTED or (attempt > 1 and answer.code == "200/partial"):
                yield from self._bisect(run, batch, request, answer)
                return
            if answer.response_class in {ResponseClass.THROTTLED, ResponseClass.ACCOUNT_STOPPED}:
                yield from self._wait(run, batch, request, answer, perhaps_sent=perhaps_sent)
                return
            if answer.response_class is ResponseClass.AMBIGUOUS:
                perhaps_sent = True
                held = [] if self._options.uncertain == "resend" else [e for e in batch if not e.resend_safe]
                yield from _all(run, held, DeliveryState.UNCERTAIN, answer.reason, request=request, answer=answer)
                batch = [event for event in batch if event not in held] if held else batch
                if not batch:
                    return
            if not self._back_off(run, attempt, answer):
                break
        yield from self._wait(run, batch, request, answer, perhaps_sent=perhaps_sent)

    def _send(self, run: _Run, batch: Sequence[PreparedEvent]) -> tuple[HttpRequest, DeliveryResponse]:
        if delay := run.limiter.pause_seconds():
            self._clock.sleep(delay)
        request = self._destination.request(run.account, batch)
        started = self._clock.monotonic()
        response = self._transport.send(request)
        answer = self._destination.classify(response, len(batch))
        self._note(run, batch, answer, self._clock.monotonic() - started)
        return request, answer

    def _note(self, run: _Run, batch: Sequence[PreparedEvent], answer: DeliveryResponse, seconds: float) -> None:
        name = self._destination.name
        run.limiter.observe(answer, self._clock.monotonic())
        metrics.forward_attempts.labels(name, answer.response_class.value).inc()
        metrics.forward_request_seconds.labels(name).observe(seconds)
        if answer.usage_percent is not None:
            metrics.forward_usage_percent.labels(name).set(answer.usage_percent)
        if answer.response_class is not ResponseClass.DELIVERED:
            log = _log.error if answer.response_class is ResponseClass.ACCOUNT_STOPPED else _log.warning
            log(
                "not delivered",
                destination=name,
                tenant_id=run.account.tenant_id,
                account=run.account.account_id,
                response_class=answer.response_class.value,
                code=answer.code,
                why=answer.reason,
                events=len(batch),
                trace_id=answer.trace_id,
            )

    def _bisect(
        self, run: _Run, batch: Sequence[PreparedEvent], request: HttpRequest, answer: DeliveryResponse
    ) -> Iterator[DeliveryOutcome]:
        if len(batch) == 1:
            run.culprits += 1
            yield from _all(run, batch, DeliveryState.REJECTED, answer.reason, request=request, answer=answer)
            return
        middle = len(batch) // 2
        yield from self._settle(run, batch[:middle])
        yield from self._settle(run, batch[middle:])

    def _wait(
        self,
        run: _Run,
        batch: Sequence[PreparedEvent],
        request: HttpRequest,
        answer: DeliveryResponse,
        *,
        perhaps_sent: bool,
    ) -> Iterator[DeliveryOutcome]:
        if answer.response_class in {ResponseClass.RETRY, ResponseClass.AMBIGUOUS}:
            run.limiter.back_off(answer, self._clock.monotonic(), self._options.max_backoff)
        yield from _all(
            run,
            batch,
            DeliveryState.PENDING,
            answer.reason,
            in_flight=perhaps_sent,
            request=request,
            answer=answer,
        )

    def _back_off(self, run: _Run, attempt: int, answer: DeliveryResponse) -> bool:
        """Sleep before the next try; False when there is none or the wait is for the account, not for a thread."""
        if attempt == self._options.attempts or answer.wait_seconds > _THREAD_WAIT_SECONDS_MAX:
            return False
        longest = min(self._options.max_backoff, self._options.first_backoff * 2 ** (attempt - 1))
        wait = max(answer.wait_seconds, longest * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
        if self._clock.monotonic() + wait >= run.deadline:
            return False
        self._clock.sleep(wait)
        return True

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Send a request outside any delivery, for probes."""
        return self._transport.send(request)


def _key(account: Account, event: PreparedEvent) -> DeliveryKey:
    return DeliveryKey(account.tenant_id, account.ledger_name, event.event_id)


def _all(
    run: _Run,
    batch: Sequence[PreparedEvent],
    state: DeliveryState,
    reason: str | None,
    *,
    in_flight: bool = False,
    request: HttpRequest | None = None,
    answer: DeliveryResponse | None = None,
) -> Iterator[DeliveryOutcome]:
    """Give the same outcome for every event of a batch; what was left out of a sent event is its remark."""
    digest = request.digest if request else None
    code = answer.code if answer else None
    trace = answer.trace_id if answer else None
    for event in batch:
        remark = event.remark if state is DeliveryState.SENT else reason
        doubt = state is DeliveryState.PENDING and (in_flight or event.event_id in run.doubtful)
        yield DeliveryOutcome(_key(run.account, event), state, remark, doubt, digest, code, trace)
