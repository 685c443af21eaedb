"""What an attempt leaves behind: one outcome for each event of a batch, for the ledger.

Contract: pure. What was perhaps sent before, in this turn or an earlier one, stays in doubt until it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryOutcome, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attributary.consumers.destinations.destination import Account, DeliveryResponse, HttpRequest, PreparedEvent
    from attributary.consumers.destinations.rate_limiter import RateLimiter

_MAX_HINTS = 20
_HELD_FIRST = "its name goes again: what is held for it goes first"


@dataclass(frozen=True, slots=True)
class Run:
    """A shipment on its way through attempts and halves."""

    account: Account
    limiter: RateLimiter
    deadline: float
    doubtful: frozenset[str] = frozenset()
    is_sample: bool = False
    hints: int = _MAX_HINTS  # so often is a destination believed that names events; then halves find them


def divided(
    batch: Sequence[PreparedEvent], positions: Sequence[int]
) -> tuple[Sequence[PreparedEvent], Sequence[PreparedEvent]]:
    """Return the events at some positions, and the others."""
    if not positions:
        return (), batch
    chosen = set(positions)
    return [e for n, e in enumerate(batch) if n in chosen], [e for n, e in enumerate(batch) if n not in chosen]


def without_stopped(
    run: Run, batch: Sequence[PreparedEvent], *, in_flight: bool = False
) -> tuple[list[DeliveryOutcome], Sequence[PreparedEvent]]:
    """Return the outcomes of events with a name that is stopped, and the other events.

    One event of each name may try it, and no correction: alone it would go before the event that it corrects. For the
    same reason a correction waits when its name goes again, until the ledger has let go of what is held for it.
    """
    held: list[DeliveryOutcome] = []
    others: list[PreparedEvent] = []
    trials: set[str] = set()
    for event in batch:
        stop = run.limiter.name_stops.get(event.name)
        if stop is None and event.is_correction and run.limiter.name_stops.is_resumed(event.name):
            held += outcomes_of(run, [event], DeliveryState.HELD, _HELD_FIRST, in_flight=in_flight)
            continue
        may_try = stop is not None and stop.trying_since is not None and not event.is_correction
        if stop is None or (may_try and event.name not in trials):
            trials.add(event.name)
            others.append(event)
        else:
            held += outcomes_of(run, [event], DeliveryState.HELD, stop.reason, in_flight=in_flight)
    return held, others


def delivery_key(account: Account, event: PreparedEvent) -> DeliveryKey:
    """Return the row of an event in the ledger."""
    return DeliveryKey(account.tenant_id, account.ledger_name, event.event_id)


def outcomes_of(
    run: Run,
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
        is_open = state in {DeliveryState.PENDING, DeliveryState.HELD}
        doubt = is_open and (in_flight or event.event_id in run.doubtful)
        name = event.name if state is DeliveryState.HELD else None
        yield DeliveryOutcome(delivery_key(run.account, event), state, remark, doubt, digest, code, trace, name)
