"""From a conversion to requests: validate, consent, build, batch. Pure functions, the same for every destination.

Invariants: nothing is built for a person who has not agreed to the destination's purposes; a refused purpose always
skips the event; every prepared event is in exactly one batch, and all events of a batch have one envelope.
"""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import structlog

from attributary.consumers.destinations.destination import NotSent, joined_remarks
from attributary.consumers.store.deliveries.delivery import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Conversion,
        Destination,
        Moment,
        PreparedEvent,
        RequestLimits,
    )
    from attributary.consumers.destinations.property_filter import PropertyFilter

Unknown = Literal["skip", "send"]

_log = structlog.get_logger()

# What the content of a record can make Python raise.
_RECORD_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, AssertionError)
_FRAME_BYTES = 512  # for the names and brackets around envelope and events; a comma an event is counted below


def prepare(
    destination: Destination,
    conversion: Conversion,
    account: Account,
    moment: Moment,
    *,
    unknown: Unknown,
    properties: PropertyFilter | None = None,
) -> PreparedEvent | NotSent:
    """Take an event through validation, consent and building, in this order.

    Whatever one record holds, this returns: what cannot be built is rejected, and logged as a fault of ours.

    Args:
        destination: the rules.
        conversion: the event, decoded.
        account: where it goes.
        moment: the times against which the event is checked.
        unknown: what to do about a consent purpose that was never asked about.
        properties: which free properties may go; None: all.
    """
    try:
        return (
            destination.validate(conversion, moment)
            or check_consent(conversion["consent"], destination.consent_purposes, unknown=unknown)
            or _built(destination, conversion, account, moment, properties)
        )
    except _RECORD_ERRORS as error:
        # A fault of ours that one record has found: it costs that record, never the stage. Its text may quote values.
        _log.error(
            "the event cannot be built",
            destination=destination.name,
            tenant_id=account.tenant_id,
            error=type(error).__name__,
            at=_place(error),
        )
        return NotSent(DeliveryState.REJECTED, f"the event cannot be built: {type(error).__name__}")


def _built(
    destination: Destination,
    conversion: Conversion,
    account: Account,
    moment: Moment,
    properties: PropertyFilter | None,
) -> PreparedEvent | NotSent:
    if properties is None:
        return destination.build(conversion, account, moment)
    allowed, remarks = properties.applied(conversion, destination.needed_properties)
    found = destination.build(dict(allowed), account, moment)
    if isinstance(found, NotSent) or not remarks:
        return found
    return replace(found, remark=joined_remarks([*(found.remark or "").split("; "), *remarks]))


def _place(error: BaseException) -> str:
    """Return file and line where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def check_consent(
    consent: Mapping[str, bool] | None, purposes: Sequence[str], *, unknown: Unknown = "skip"
) -> NotSent | None:
    """Return why consent forbids the event, None when it may go.

    Args:
        consent: the event's consent per purpose; None: not known.
        purposes: what the destination needs, for example ad_storage.
        unknown: what to do about a purpose that is missing: skip the event, or send it on another legal ground.
    """
    for purpose in purposes:
        granted = None if consent is None else consent.get(purpose)
        if granted is False:
            return NotSent(DeliveryState.SKIPPED, f"consent refused: {purpose}", "consent")
        if granted is None and unknown == "skip":
            return NotSent(DeliveryState.SKIPPED, f"consent not known: {purpose}", "consent")
    return None


def batches(events: Iterable[PreparedEvent], limits: RequestLimits) -> Iterator[Sequence[PreparedEvent]]:
    """Return the batches of one request each, as full as the limits allow, in the order of their oldest event.

    An event that alone is over the byte limit gets a batch of its own: refused there, it does no harm to others.
    """
    groups: dict[bytes, list[PreparedEvent]] = {}
    for event in sorted(events, key=lambda event: (event.occurred_at, event.event_id)):
        groups.setdefault(event.envelope, []).append(event)
    full = [batch for envelope, group in groups.items() for batch in _split(group, len(envelope), limits)]
    full.sort(key=lambda batch: batch[0].occurred_at)
    yield from full


def _split(
    group: Sequence[PreparedEvent], envelope_bytes: int, limits: RequestLimits
) -> Iterator[Sequence[PreparedEvent]]:
    batch: list[PreparedEvent] = []
    room = limits.body_bytes - envelope_bytes - _FRAME_BYTES
    size = 0
    for event in group:
        length = len(event.body) + 1
        if batch and (len(batch) == limits.events or size + length > room):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += length
    if batch:
        yield batch
