"""One batch on its way to a destination: attempts, waits, halves.

Contract: `Attempts.settle` gives one outcome for every event of a batch and never raises for what the network or the
destination does. It writes nothing down: the ledger is the sender's.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import structlog

from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass, SignsRequests, WarnsByHeader
from attributary.consumers.destinations.oauth2.access_tokens import AccessTokens, UsesAccessTokens, with_token
from attributary.consumers.destinations.outcomes import divided, outcomes_of, without_stopped
from attributary.consumers.store.deliveries.delivery import DeliveryState

from . import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Destination,
        HttpRequest,
        HttpResponse,
        PreparedEvent,
    )
    from attributary.consumers.destinations.oauth2.token_files import TokenFiles
    from attributary.consumers.destinations.outcomes import Run
    from attributary.consumers.destinations.transport import Clock, Transport
    from attributary.consumers.store.deliveries.delivery import DeliveryOutcome

_log = structlog.get_logger()

_THREAD_WAIT_SECONDS_MAX = 5.0  # a longer wish of the destination pauses the account instead of a thread
_UNAUTHORIZED = 401
OUT_OF_TIME = "out of time for this turn"
OTHERS_FIRST = "rejected, and nothing was delivered: others are tried first"


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
        rate_share: part of a documented rate limit that this process may use, above 0 and at most 1.
        unproven: how many rejections count of an account that has delivered nothing yet.
    """

    concurrency: int = 4
    attempts: int = 4
    first_backoff: float = 0.25
    max_backoff: float = 5.0
    budget: float = 20.0  # below the grace of a stop, which comes after the turn
    uncertain: Literal["hold", "resend"] = "hold"
    unproven: int = 0
    rate_share: float = 0.9


class Attempts:
    """Sends batches of one destination.

    Args:
        destination: its rules.
        transport: its connections.
        options: how hard to try.
        clock: where time comes from.
        files: where refresh tokens that a platform replaces are kept; None: in memory only.
    """

    def __init__(
        self,
        destination: Destination,
        transport: Transport,
        options: SenderOptions,
        clock: Clock,
        files: TokenFiles | None = None,
    ) -> None:
        self._destination = destination
        self._transport = transport
        self._options = options
        self._clock = clock
        self._tokens = AccessTokens(destination.name, transport, clock, files)
        self._warned: set[tuple[str, str]] = set()  # accounts that were warned

    def obstacle(self, run: Run) -> str | None:
        """Return why nothing can be sent now, None when it can."""
        now = self._clock.monotonic()
        if hold := run.limiter.hold_at(now):
            return hold.reason
        return OUT_OF_TIME if now >= run.deadline else None

    def settle(self, run: Run, batch: Sequence[PreparedEvent]) -> Iterator[DeliveryOutcome]:
        """Send a batch until it is settled or has to wait."""
        perhaps_sent = False
        for attempt in range(1, self._options.attempts + 1):
            waiting, batch = self._waiting(run, batch, in_flight=perhaps_sent)
            yield from waiting
            if not batch:
                return
            request, answer = self._send(run, batch)
            if attempt > 1 and answer.code == "200/partial":
                answer = replace(answer, response_class=ResponseClass.REJECTED)
            if answer.response_class not in {ResponseClass.RETRY, ResponseClass.AMBIGUOUS}:
                yield from self._decided(run, batch, request, answer, perhaps_sent=perhaps_sent)
                return
            if answer.response_class is ResponseClass.AMBIGUOUS:
                perhaps_sent = True
                held = [] if self._options.uncertain == "resend" else [e for e in batch if not e.resend_safe]
                yield from outcomes_of(
                    run, held, DeliveryState.UNCERTAIN, answer.reason, request=request, answer=answer
                )
                batch = [event for event in batch if event not in held] if held else batch
                if not batch:
                    return
            if not self._back_off(run, attempt, answer):
                break
        yield from self._wait(run, batch, request, answer, perhaps_sent=perhaps_sent)

    def _waiting(
        self, run: Run, batch: Sequence[PreparedEvent], *, in_flight: bool
    ) -> tuple[Sequence[DeliveryOutcome], Sequence[PreparedEvent]]:
        """Return the outcomes of what must not go now, and the other events."""
        reason = self.obstacle(run)
        if not run.is_sample and run.limiter.is_in_doubt(self._clock.monotonic()):
            reason = reason or OTHERS_FIRST
        if reason:
            return list(outcomes_of(run, batch, DeliveryState.PENDING, reason, in_flight=in_flight)), ()
        # Another thread's batch may just have met the refusal of a name.
        held, batch = (
            without_stopped(run, batch, in_flight=in_flight) if run.limiter.name_stops.may_hold else ([], batch)
        )
        if batch and (reason := self._used_up(run)):
            return [*held, *outcomes_of(run, batch, DeliveryState.PENDING, reason, in_flight=in_flight)], ()
        return held, batch

    def _used_up(self, run: Run) -> str | None:
        """Take a request of the account's budget, after a wait if need be; return why there is none."""
        if (budget := run.limiter.budget) is None:
            return None
        while wait := budget.take(now := self._clock.monotonic(), self._clock.now_micros()):
            if wait > _THREAD_WAIT_SECONDS_MAX:
                return budget.hold(now, wait)
            if now + wait >= run.deadline:
                return OUT_OF_TIME
            self._clock.sleep(wait)
        return None

    def _decided(
        self,
        run: Run,
        batch: Sequence[PreparedEvent],
        request: HttpRequest | None,
        answer: DeliveryResponse,
        *,
        perhaps_sent: bool,
    ) -> Iterator[DeliveryOutcome]:
        """Give what becomes of a batch after an answer that another try would not change."""
        match answer.response_class:
            case ResponseClass.DELIVERED:
                yield from self._delivered(run, batch, request, answer)
            case ResponseClass.NAME_STOPPED:
                yield from self._hold_names(run, batch, request, answer)
            case ResponseClass.REJECTED:
                yield from self._narrow_down(run, batch, request, answer)
            case _:
                yield from self._wait(run, batch, request, answer, perhaps_sent=perhaps_sent)

    def _send(self, run: Run, batch: Sequence[PreparedEvent]) -> tuple[HttpRequest | None, DeliveryResponse]:
        if delay := run.limiter.pause_seconds():
            self._clock.sleep(delay)
        started = self._clock.monotonic()
        request, response = self.ask(run.account, lambda account: self._destination.request(account, batch))
        if isinstance(response, DeliveryResponse):
            answer = response
        else:
            answer = self._destination.classify(response, len(batch))
            self._look_for_warning(run.account, response)
            metrics.forward_request_seconds.labels(self._destination.name).observe(self._clock.monotonic() - started)
        self._note(run, batch, answer)
        return request, answer

    def token(self, account: Account) -> DeliveryResponse | None:
        """Take an access token for an account that needs one; returns why there is none, None when all is well."""
        grant = self._destination.grant(account) if isinstance(self._destination, UsesAccessTokens) else None
        found = None if grant is None else self._tokens.get(grant)
        return found if isinstance(found, DeliveryResponse) else None

    @property
    def forgets_refresh_token(self) -> bool:
        """Tell whether a platform has replaced a refresh token by one that ends with this process."""
        return self._tokens.forgets

    def ask(
        self, account: Account, make: Callable[[Account], HttpRequest]
    ) -> tuple[HttpRequest | None, HttpResponse | DeliveryResponse]:
        """Send a request as an account: with an access token and a signature, where the destination wants them.

        Args:
            account: its grant or its keys.
            make: builds the request for the account; its secret is then an access token, if it has a grant.

        Returns:
            The request and what came back; without a request why there is no access token.
        """
        grant = self._destination.grant(account) if isinstance(self._destination, UsesAccessTokens) else None
        if grant is None:
            return self._exchange(account, make)
        token = self._tokens.get(grant)
        if isinstance(token, DeliveryResponse):
            return None, token
        request, response = self._exchange(with_token(account, token), make)
        if response.status != _UNAUTHORIZED:
            return request, response
        # Nothing was taken: the platform looks at the token first. It may have ended it before its time.
        other = self._tokens.renew(grant, token)
        if isinstance(other, DeliveryResponse):
            return None, other
        return self._exchange(with_token(account, other), make)

    def _exchange(self, account: Account, make: Callable[[Account], HttpRequest]) -> tuple[HttpRequest, HttpResponse]:
        request = make(account)
        if isinstance(self._destination, SignsRequests):
            now = self._clock.now_micros() // 1_000_000
            request = self._destination.sign(request, account, now, secrets.token_hex(16))
        return request, self._transport.send(request)

    def _look_for_warning(self, account: Account, response: HttpResponse) -> None:
        """Log once an account and process that the destination warns of a change of its API."""
        if not isinstance(self._destination, WarnsByHeader):
            return
        header, key = self._destination.warning_header, (account.tenant_id, account.account_id)
        if header in response.headers and key not in self._warned:
            self._warned.add(key)
            _log.warning(
                "the destination warns of a change of its API",
                destination=self._destination.name,
                tenant_id=account.tenant_id,
                account=account.account_id,
                header=header,
                next_step="look at the platform's change log; a newer Attributary may speak a newer version",
            )

    def _note(self, run: Run, batch: Sequence[PreparedEvent], answer: DeliveryResponse) -> None:
        name = self._destination.name
        run.limiter.observe(answer, self._clock.monotonic())
        metrics.forward_attempts.labels(name, answer.response_class.value).inc()
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

    def _delivered(
        self, run: Run, batch: Sequence[PreparedEvent], request: HttpRequest | None, answer: DeliveryResponse
    ) -> Iterator[DeliveryOutcome]:
        refused, _ = divided(batch, tuple(set(answer.refused) - answer.unknown_names.keys()))
        _, others = divided(batch, (*answer.refused, *answer.unknown_names))
        if run.limiter.name_stops:
            run.limiter.name_stops.delivered({event.name for event in others})
        yield from outcomes_of(run, others, DeliveryState.SENT, None, request=request, answer=answer)
        for position, reason in answer.unknown_names.items():
            yield from self._hold(run, [batch[position]], reason, request, answer)
        yield from self._reject(run, refused, request, answer)

    def _hold_names(
        self, run: Run, batch: Sequence[PreparedEvent], request: HttpRequest | None, answer: DeliveryResponse
    ) -> Iterator[DeliveryOutcome]:
        """Hold the events with the name that was refused, and send the others: nothing of the batch was taken."""
        names = dict.fromkeys(event.name for event in batch)
        if answer.unknown_names:
            for position, reason in answer.unknown_names.items():
                yield from self._hold(run, [batch[position]], reason, request, answer)
            if others := divided(batch, tuple(answer.unknown_names))[1]:
                yield from self.settle(run, others)
        elif len(names) == 1:
            yield from self._hold(run, batch, answer.reason, request, answer)
        else:
            for name in names:
                yield from self.settle(run, [event for event in batch if event.name == name])

    def _hold(
        self,
        run: Run,
        events: Sequence[PreparedEvent],
        reason: str,
        request: HttpRequest | None,
        answer: DeliveryResponse,
    ) -> Iterator[DeliveryOutcome]:
        """Stop the name of these events."""
        name = events[0].name
        if run.limiter.name_stops.stop(name, reason, answer.wait_seconds):
            _log.error(
                "event name stopped: its events are held, the others go on",
                destination=self._destination.name,
                tenant_id=run.account.tenant_id,
                account=run.account.account_id,
                event_name=name,
                code=answer.code,
                why=reason,
            )
        yield from outcomes_of(run, events, DeliveryState.HELD, reason, request=request, answer=answer)

    def _narrow_down(
        self, run: Run, batch: Sequence[PreparedEvent], request: HttpRequest | None, answer: DeliveryResponse
    ) -> Iterator[DeliveryOutcome]:
        """Find the wrong events of a batch of which nothing was taken: those that are named, suspects first, halves."""
        if len(batch) == 1:
            yield from self._reject(run, batch, request, answer)
            return
        fewer_hints = replace(run, hints=run.hints - 1)
        refused, others = divided(batch, answer.refused if run.hints else ())
        if refused:
            yield from self._reject(run, refused, request, answer)
            if others:
                yield from self.settle(fewer_hints, others)
            return
        suspects, others = divided(batch, answer.suspects if run.hints else ())
        if suspects and others:
            for event in suspects:
                yield from self.settle(fewer_hints, [event])
            yield from self.settle(fewer_hints, others)
            return
        middle = len(batch) // 2
        yield from self.settle(run, batch[:middle])
        yield from self.settle(run, batch[middle:])

    def _reject(
        self, run: Run, events: Sequence[PreparedEvent], request: HttpRequest | None, answer: DeliveryResponse
    ) -> Iterator[DeliveryOutcome]:
        for _ in events:
            run.limiter.reject()
        yield from outcomes_of(run, events, DeliveryState.REJECTED, answer.reason, request=request, answer=answer)

    def _wait(
        self,
        run: Run,
        batch: Sequence[PreparedEvent],
        request: HttpRequest | None,
        answer: DeliveryResponse,
        *,
        perhaps_sent: bool,
    ) -> Iterator[DeliveryOutcome]:
        if answer.response_class in {ResponseClass.RETRY, ResponseClass.AMBIGUOUS}:
            run.limiter.back_off(answer, self._clock.monotonic(), self._options.max_backoff)
        yield from outcomes_of(
            run,
            batch,
            DeliveryState.PENDING,
            answer.reason,
            in_flight=perhaps_sent,
            request=request,
            answer=answer,
        )

    def _back_off(self, run: Run, attempt: int, answer: DeliveryResponse) -> bool:
        """Sleep before the next try; False when there is none or the wait is for the account, not for a thread."""
        if attempt == self._options.attempts or answer.wait_seconds > _THREAD_WAIT_SECONDS_MAX:
            return False
        longest = min(self._options.max_backoff, self._options.first_backoff * 2 ** (attempt - 1))
        wait = max(answer.wait_seconds, longest * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
        if self._clock.monotonic() + wait >= run.deadline:
            return False
        self._clock.sleep(wait)
        return True
