"""The consent gate: nothing is built or sent for a person who has not agreed to the destination's purposes.

Invariant: a purpose that was refused always skips the event. A purpose that nobody asked about skips it too, unless
FORWARD_CONSENT_UNKNOWN=send says that the operator has another legal ground.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attributary.consumers.destinations.destination import Refused
from attributary.consumers.store.deliveries.delivery import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Unknown = Literal["skip", "send"]


def consent_refusal(
    consent: Mapping[str, bool] | None, purposes: Sequence[str], *, unknown: Unknown = "skip"
) -> Refused | None:
    """Give the refusal of an event, None when it may go.

    Args:
        consent: the event's consent per purpose; None: not known.
        purposes: what the destination needs, for example ad_storage.
        unknown: what to do about a purpose that is missing.
    """
    for purpose in purposes:
        answer = None if consent is None else consent.get(purpose)
        if answer is False:
            return Refused(DeliveryState.SKIPPED, f"consent refused: {purpose}", "consent")
        if answer is None and unknown == "skip":
            return Refused(DeliveryState.SKIPPED, f"consent not known: {purpose}", "consent")
    return None
