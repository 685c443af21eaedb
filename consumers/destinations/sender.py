"""Carry prepared events to a destination: batches, attempts, bisection, and the ledger around each wave.

Contract: `deliver` returns one `DeliveryOutcome` for every event, `PENDING` for those that must wait; it raises only
what the ledger raises. Invariants:

- an event is in flight in the ledger before any request that carries it, and until its answer is known;
- an event that the destination would count twice is never sent again after an ambiguous answer, unless the operator
  chose so; it ends uncertain;
- a permanent rejection is halved down to the one culprit: 1 of 1,000 costs at most 21 requests;
- a rejection counts only beside a delivery (`rate_limiter`). Before everything of an account waits as refused, other
  events are tried alone: the newest, those of other names, others by chance;
- a rejected event stays pending in the ledger: who dead-letters it settles it, so that no dead letter is lost;
- a correction goes after the event that it corrects, and waits when that one waits;
- an event name (rule, tag, action, goal) that the destination does not take holds the events with it and no others.
"""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import structlog

from attributary.consumers.destinations.attempts import OTHERS_FIRST, Attempts, SenderOptions
from attributary.consumers.destinations.destination import TellsLater
from attributary.consumers.destinations.outcomes import Run, delivery_key, outcomes_of, without_stopped
from attributary.consumers.destinations.prepare import batches
from attributary.consumers.destinations.rate_limiter import RateLimiter
from attributary.consumers.destinations.request_budget import RequestBudget, SharesBudget
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.store.deliveries.delivery import DeliveryOutcome, DeliveryState, ReceivedRequest, StoppedName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        DeliveryResponse,
        Destination,
        HttpRequest,
        HttpResponse,
        PreparedEvent,
    )
    from attributary.consumers.destinations.oauth2.token_files import TokenFiles
    from attributary.consumers.destinations.rate_limiter import Hold
    from attributary.consumers.destinations.transport import Clock, Transport
    from attributary.consumers.store.deliveries.delivery import DeliveryKey, Ledger

register_points("forwarder_before_send", "forwarder_after_send", "forwarder_after_answer")

_log = structlog.get_logger()

REFUSES_EVERYTHING = "the destination refuses everything: look at the settings"
_WAVE_BATCHES = 16  # batches a thread gets between two writes to the ledger
_MIN_SHARE_SECONDS = 1.0  # of an account in a turn with many


class Shipment(NamedTuple):
    """The events of one tenant for one account.

    Attributes:
        account: where the events go.
        events: built for that account's destination.
        doubtful: ids of events that an earlier turn may have delivered; they stay in doubt until they are sent.
    """

    account: Account
    events: Sequence[PreparedEvent]
    doubtful: frozenset[str] = frozenset()


class BatchSender:
    """Delivers to one destination.

    Args:
        destination: its rules.
        transport: its connections.
        ledger: where every attempt is noted.
        options: how hard to try.
        clock: where time comes from.
        token_files: where refresh tokens that a platform replaces are kept; None: in memory only.
    """

    def __init__(
        self,
        destination: Destination,
        transport: Transport,
        ledger: Ledger,
        options: SenderOptions,
        clock: Clock,
        token_files: TokenFiles | None = None,
    ) -> None:
        self._destination = destination
        self._transport = transport
        self._ledger = ledger
        self._options = options
        self._clock = clock
        self._attempts = Attempts(destination, transport, options, clock, token_files)
        self._limiters: dict[tuple[str, str], RateLimiter] = {}
        self._budgets: dict[str, RequestBudget] = {}
        self._pool = ThreadPoolExecutor(options.concurrency, thread_name_prefix=f"forward-{destination.name}")

    def limiter(self, account: Account) -> RateLimiter:
        """Give the state of an account; tenants that share an account share it."""
        key = account.account_id, account.fingerprint
        if (found := self._limiters.get(key)) is None:
            found = self._limiters[key] = RateLimiter(self._options.unproven, self._budget(account))
        return found

    def _budget(self, account: Account) -> RequestBudget | None:
        """Return the budget of an account; the same one for all accounts that share it."""
        budget = self._destination.budget(account) if isinstance(self._destination, SharesBudget) else None
        if budget is None:
            return None
        return self._budgets.setdefault(budget.key, RequestBudget(budget, self._options.rate_share))

    def budget_used_percent(self) -> float:
        """Give how much of the fullest budget is used."""
        now = self._clock.monotonic()
        return max((budget.used_percent(now) for budget in self._budgets.values()), default=0.0)

    def limiters(self) -> Sequence[RateLimiter]:
        """Give the state of all accounts that are known."""
        return list(self._limiters.values())

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

    def deliver(self, shipments: Sequence[Shipment], deadline: float | None = None) -> list[DeliveryOutcome]:
        """Send events; give what became of each.

        Accounts that were quick last time go first, and each has a share of the time, so that a slow one delays none.

        Args:
            shipments: the events of each account.
            deadline: monotonic second after which the rest is left pending; None: the budget from now.

        Raises:
            StoreUnavailable: the ledger is away; what was in flight stays so in the ledger.
        """
        end = self.turn_ends() if deadline is None else deadline
        waiting = sorted(shipments, key=lambda shipment: self.limiter(shipment.account).seconds)
        outcomes: dict[DeliveryKey, DeliveryOutcome] = {}
        is_second_round = False
        while waiting:
            cut: list[Shipment] = []
            for number, shipment in enumerate(waiting):
                limiter, now = self.limiter(shipment.account), self._clock.monotonic()
                mine = now + max(_MIN_SHARE_SECONDS, (end - now) / (len(waiting) - number))
                run = Run(shipment.account, limiter, min(end, mine), shipment.doubtful)
                found = {outcome.key: outcome for outcome in self._ship(run, shipment.events)}
                limiter.seconds = self._clock.monotonic() - now
                outcomes |= found
                left = [
                    e for e in shipment.events if found[delivery_key(shipment.account, e)].reason == REFUSES_EVERYTHING
                ]
                if left and not is_second_round:
                    cut.append(shipment._replace(events=left))
            # Another tenant's delivery may have shown meanwhile that the account works.
            now = self._clock.monotonic()
            waiting = [shipment for shipment in cut if not self.limiter(shipment.account).is_in_doubt(now)]
            is_second_round = True
        return self._judged(outcomes, [shipment.account for shipment in shipments])

    def _judged(
        self, outcomes: dict[DeliveryKey, DeliveryOutcome], accounts: Iterable[Account]
    ) -> list[DeliveryOutcome]:
        """Take back the rejections of accounts of which none counts."""
        now, name = self._clock.monotonic(), self._destination.name
        refused: set[tuple[str, str]] = set()
        for account in accounts:
            limiter = self.limiter(account)
            mine = [o for key, o in outcomes.items() if key[:2] == (account.tenant_id, account.ledger_name)]
            if not any(o.state is DeliveryState.REJECTED or o.reason == REFUSES_EVERYTHING for o in mine):
                continue
            if limiter.rejections_count(now):
                continue
            if (account.account_id, account.fingerprint) not in refused:
                refused.add((account.account_id, account.fingerprint))
                limiter.refuse()
                _log.error("account stopped", destination=name, account=account.account_id, why=REFUSES_EVERYTHING)
            taken = [o for o in mine if o.state is DeliveryState.REJECTED]
            taken = [
                replace(o, state=DeliveryState.PENDING, reason=f"{REFUSES_EVERYTHING} ({o.reason})") for o in taken
            ]
            self._ledger.settle(taken)
            outcomes |= {o.key: o for o in taken}
        return list(outcomes.values())

    def _ship(self, run: Run, events: Sequence[PreparedEvent]) -> list[DeliveryOutcome]:
        """Send the events of one account; corrections after what they correct."""
        originals = {event.order_key for event in events if event.order_key and not event.is_correction}
        later = [event for event in events if event.is_correction and event.order_key in originals]
        if not later:
            return self._ship_all(run, events)
        first = [event for event in events if not (event.is_correction and event.order_key in originals)]
        settled = self._ship_all(run, first)
        waiting = {outcome.key.event_id for outcome in settled if outcome.state is DeliveryState.PENDING}
        stuck = {event.order_key for event in first if event.event_id in waiting}
        settled += self._ship_all(run, [event for event in later if event.order_key not in stuck])
        behind = [event for event in later if event.order_key in stuck]
        return settled + self._left(run, behind, "waits for the event that it corrects")

    def _ship_all(self, run: Run, events: Sequence[PreparedEvent]) -> list[DeliveryOutcome]:
        settled: list[DeliveryOutcome] = []
        if run.limiter.name_stops.may_hold:
            settled, events = without_stopped(run, events)
            self._ledger.settle(settled)
        waiting = list(batches(events, self._destination.limits))
        while waiting:
            reason = self._attempts.obstacle(run)
            if reason is None and run.limiter.is_in_doubt(self._clock.monotonic()):
                settled += self._try_samples(run, waiting)
                waiting = self._without(waiting, settled)
                reason = self._attempts.obstacle(run)
                if reason is None and run.limiter.is_in_doubt(self._clock.monotonic()):
                    reason = REFUSES_EVERYTHING
            if reason:
                return settled + [outcome for batch in waiting for outcome in self._left(run, batch, reason)]
            size = self._options.concurrency * _WAVE_BATCHES if run.limiter.pause_seconds() == 0 else 1
            found = self._wave(run, waiting[:size])
            settled += [outcome for outcome in found if outcome.reason != OTHERS_FIRST]
            postponed = [outcome for outcome in found if outcome.reason == OTHERS_FIRST]
            if not postponed:
                waiting = waiting[size:]
                continue
            perhaps = frozenset(outcome.key.event_id for outcome in postponed if outcome.in_flight)
            run = replace(run, doubtful=run.doubtful | perhaps)
            waiting = self._without(waiting, settled)
        return settled

    def _without(
        self, waiting: Sequence[Sequence[PreparedEvent]], settled: Sequence[DeliveryOutcome]
    ) -> list[Sequence[PreparedEvent]]:
        """Return new batches of the events that are not settled."""
        done = {outcome.key.event_id for outcome in settled}
        rest = [event for batch in waiting for event in batch if event.event_id not in done]
        return list(batches(rest, self._destination.limits))

    def _left(self, run: Run, batch: Sequence[PreparedEvent], reason: str) -> list[DeliveryOutcome]:
        return list(outcomes_of(run, batch, DeliveryState.PENDING, reason))

    def _try_samples(self, run: Run, waiting: Sequence[Sequence[PreparedEvent]]) -> list[DeliveryOutcome]:
        """Send other events alone until one is delivered."""
        settled: list[DeliveryOutcome] = []
        sample = replace(run, is_sample=True)
        for event in _samples([event for batch in waiting for event in batch], run.limiter.samples):
            if self._attempts.obstacle(run) or not run.limiter.is_in_doubt(self._clock.monotonic()):
                break
            settled += self._wave(sample, [[event]])
        return settled

    def _wave(self, run: Run, wave: Sequence[Sequence[PreparedEvent]]) -> list[DeliveryOutcome]:
        keys = [delivery_key(run.account, event) for batch in wave for event in batch]
        self._ledger.begin(keys, now_micros=self._clock.now_micros())
        crash_at("forwarder_before_send")
        if self._options.concurrency == 1 or len(wave) == 1:
            answers = [list(self._attempts.settle(run, batch)) for batch in wave]
        else:
            answers = list(self._pool.map(lambda batch: list(self._attempts.settle(run, batch)), wave))
        settled = [outcome for outcomes in answers for outcome in outcomes]
        crash_at("forwarder_after_send")
        self._ledger.settle(
            [replace(o, state=DeliveryState.PENDING) if o.state is DeliveryState.REJECTED else o for o in settled],
            self._received(settled),
            self._stopped(run, settled),
        )
        crash_at("forwarder_after_answer")
        return settled

    def _received(self, settled: Sequence[DeliveryOutcome]) -> list[ReceivedRequest]:
        """Return the requests that the destination judges later."""
        if not isinstance(self._destination, TellsLater):
            return []
        sent = Counter(
            (*outcome.key[:2], outcome.trace_id)
            for outcome in settled
            if outcome.state is DeliveryState.SENT and outcome.trace_id
        )
        now = self._clock.now_micros()
        ask_at = now + self._destination.verdict_after_seconds * 1_000_000
        return [ReceivedRequest(*key[:2], key[2], events, now, ask_at) for key, events in sent.items()]

    def _stopped(self, run: Run, settled: Sequence[DeliveryOutcome]) -> list[StoppedName]:
        """Return the event names that answers have refused."""
        refused = {o.event_name: o for o in settled if o.event_name is not None and o.response_code is not None}
        now, found = self._clock.now_micros(), []
        for name, outcome in refused.items():
            if (stop := run.limiter.name_stops.get(name)) is not None:
                retry_at = now + int(stop.wait_seconds * 1e6)
                code = outcome.response_code or ""
                found.append(StoppedName(*outcome.key[:2], name, stop.reason, code, now, retry_at))
        return found

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Send a request outside any delivery, for probes."""
        return self._transport.send(request)

    def ask_as(self, account: Account, make: Callable[[Account], HttpRequest]) -> HttpResponse | DeliveryResponse:
        """Send a request outside any delivery with an account's access token and signature.

        Args:
            account: its grant or its keys.
            make: builds the request for the account, with an access token as its secret if it has a grant.

        Returns:
            What came back, or why there is no access token.
        """
        return self._attempts.ask(account, make)[1]


def _samples(events: Sequence[PreparedEvent], number: int) -> Sequence[PreparedEvent]:
    """Return different events: the newest, the newest of each other name, then any."""
    newest = sorted(events, key=lambda event: event.occurred_at, reverse=True)
    chosen = list({event.name: event for event in reversed(newest)}.values())
    chosen = [newest[0], *(event for event in chosen if event is not newest[0])][: max(1, number // 2)]
    others = [event for event in newest if all(event is not one for one in chosen)]
    return chosen + random.sample(others, min(len(others), number - len(chosen)))
