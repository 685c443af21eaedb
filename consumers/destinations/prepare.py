"""The first three steps of every delivery: validate, consent, build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attributary.consumers.destinations.consent import Unknown, consent_refusal

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import (
        Channel,
        Conversion,
        Destination,
        Moment,
        Prepared,
        Refused,
    )


def judge(
    destination: Destination, conversion: Conversion, channel: Channel, moment: Moment, *, unknown: Unknown
) -> Prepared | Refused:
    """Take an event through validation, consent and building, in this order."""
    return (
        destination.validate(conversion, moment)
        or consent_refusal(conversion["consent"], destination.consent_purposes, unknown=unknown)
        or destination.build(conversion, channel, moment)
    )
