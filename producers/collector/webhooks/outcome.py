"""What became of one delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from attributary.producers.records import PublishedRecord, RecordName

OutcomeName = Literal["accepted", "ignored", "unmapped", "refused", "set_up"]


class WebhookRecord(NamedTuple):
    """One record: its kind, and its fields by name, times in microseconds UTC."""

    name: RecordName
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: PublishedRecord) -> WebhookRecord:
        """Return a typed record as one of a delivery."""
        return cls(record.NAME, record.to_record())


class LeftOut(NamedTuple):
    """A part of a delivery that is no record. Nothing of it holds a value of the body.

    Attributes:
        what: the provider's word for it, for example ``refunds/create`` or ``charge.updated``.
        reason: why, as a word for a metric's label; ``unmapped`` when a rule was broken.
        field: the field that broke a rule, else empty.
        rule: what the field must be, else empty.
    """

    what: str
    reason: str
    field: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOutcome:
    """The answer to one delivery.

    Attributes:
        outcome: ``accepted``: there are records; ``ignored``: right, and nothing to record (test data, other types);
            ``unmapped``: signed, and no record could be made of it, somebody must look; ``refused``: not signed;
            ``set_up``: the provider's own test of the address.
        status: the HTTP status when the records (if any) are kept. A signed delivery always gets 200: providers delete
            or disable a subscription after other answers.
        records: what to publish, in order; ids and content depend on the delivery alone.
        left_out: what was not recorded, with the reason.
        reply: the body of the answer, plain text.
    """

    outcome: OutcomeName
    status: int = 200
    records: tuple[WebhookRecord, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    reply: str = ""


def refused(reason: str, status: int = 401) -> WebhookOutcome:
    """Return the answer to a delivery that nobody signed."""
    return WebhookOutcome(outcome="refused", status=status, left_out=(LeftOut("delivery", reason),))
