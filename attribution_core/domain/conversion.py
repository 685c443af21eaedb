"""What a conversion is worth: a fold over all events that name it.

Invariant: the state depends on the *set* of events, not on their order of arrival. Events are folded in the order of
``(occurred_at, event_id)``; of several ``conversion`` events for one conversion the first in that order is the
conversion, the others are repeats and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

# The largest net value, either way: a flood of refunds must stay inside what 64 bits hold, and so must the difference
# of two versions. One event is at most 10^17 (schemas/limits.py), so only nonsense comes here.
MOST_NET_MICROS = 2**61


class Kind(StrEnum):
    """What a conversion event says."""

    CONVERSION = "conversion"
    REFUND = "refund"
    CANCELLATION = "cancellation"
    RESTATEMENT = "restatement"


class ConversionEvent(NamedTuple):
    """One event about a conversion, as far as its worth is concerned."""

    occurred_at: int  # microseconds since 1970-01-01 UTC
    event_id: str
    kind: str
    value_micros: int
    currency: str


@dataclass(frozen=True, slots=True)
class ConversionState:
    """The worth of a conversion after all its events.

    ``opened_by`` is the event id of the conversion itself; None while only corrections have arrived: such a conversion
    waits and has no result. Corrections in another currency than the conversion's cannot be netted: they are counted
    in ``ignored`` and change nothing.
    """

    opened_by: str | None
    gross_value_micros: int
    net_value_micros: int
    currency: str
    ignored: int
    last_kind: str


def fold(events: Iterable[ConversionEvent]) -> ConversionState:
    """Return the state of one conversion.

    The value is that of the conversion or of the latest restatement (which also revives a cancelled one); refunds are
    taken off and may exceed it, then the net value is negative (never below ``-MOST_NET_MICROS``); a cancellation makes
    it zero.

    Args:
        events: all stored events that name the conversion, in any order.
    """
    ordered = sorted(events)
    opening = next((event for event in ordered if event.kind == Kind.CONVERSION), None)
    if opening is None:
        # XXX is ISO 4217's code for no currency.
        return ConversionState(None, 0, 0, "XXX", 0, ordered[-1].kind if ordered else Kind.CONVERSION)
    gross, refunded, cancelled, ignored, last_kind = opening.value_micros, 0, False, 0, opening.kind
    for event in ordered:
        if event.kind == Kind.CONVERSION:
            continue
        if event.kind == Kind.CANCELLATION:
            cancelled = True
        elif event.currency != opening.currency:
            ignored += 1
            continue
        elif event.kind == Kind.REFUND:
            refunded += event.value_micros
        else:
            gross, cancelled = event.value_micros, False
        last_kind = event.kind
    net = 0 if cancelled else max(-MOST_NET_MICROS, gross - refunded)
    return ConversionState(opening.event_id, gross, net, opening.currency, ignored, last_kind)


class EventVerdict(StrEnum):
    """What one event about a conversion does to its worth, seen beside all the others."""

    OPENS = "opens"
    COUNTS = "counts"
    SUPERSEDED = "superseded"  # a later restatement replaces it
    CANCELLED = "cancelled"  # the conversion is cancelled, whatever this event says
    REPEAT = "repeat"  # a further conversion event of the same person
    OTHER_PERSON = "other_person"  # a further conversion event, of somebody else
    OTHER_CURRENCY = "other_currency"
    NOT_OPENED = "not_opened"  # no conversion event has arrived


IGNORED_VERDICTS = frozenset({EventVerdict.REPEAT, EventVerdict.OTHER_PERSON, EventVerdict.OTHER_CURRENCY})


def judge_events(events: Sequence[tuple[ConversionEvent, str]]) -> list[EventVerdict]:
    """Return the verdict on each event about one conversion, by the rules of ``fold``.

    Without the events of ``IGNORED_VERDICTS`` the fold is the same.

    Args:
        events: all stored events that name the conversion, each with the person that it names, in any order.
    """
    order = sorted(range(len(events)), key=lambda place: events[place][0])
    opening = next((place for place in order if events[place][0].kind == Kind.CONVERSION), None)
    if opening is None:
        return [EventVerdict.NOT_OPENED] * len(events)
    opened, person = events[opening]
    found = [EventVerdict.COUNTS] * len(events)
    found[opening] = EventVerdict.OPENS
    corrections = []
    for place in order:
        event, owner = events[place]
        if place == opening:
            continue
        if event.kind == Kind.CONVERSION:
            found[place] = EventVerdict.REPEAT if owner == person else EventVerdict.OTHER_PERSON
        elif event.kind != Kind.CANCELLATION and event.currency != opened.currency:
            found[place] = EventVerdict.OTHER_CURRENCY
        else:
            corrections.append(place)
    restated = max(
        (at for at, place in enumerate(corrections) if events[place][0].kind == Kind.RESTATEMENT), default=-1
    )
    cancelled = any(events[place][0].kind == Kind.CANCELLATION for place in corrections[restated + 1 :])
    for at, place in enumerate(corrections):
        kind = events[place][0].kind
        if at < restated and kind != Kind.REFUND:
            found[place] = EventVerdict.SUPERSEDED
        elif cancelled and kind != Kind.CANCELLATION:
            found[place] = EventVerdict.CANCELLED
    return found
