"""What ads cost, as typed Python for a service that publishes it; schemas/spend.avsc is the truth, a test compares.

Invariant: a record that could be built has its time in microseconds UTC and its day in days since 1970-01-01, whatever
it was given. Other rules are checked when it is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self

from attributary.producers.errors import InvalidRecord
from attributary.producers.money import to_micros as money_to_micros
from attributary.producers.records import new_event_id
from attributary.producers.times import Instant, to_micros

_EPOCH = date(1970, 1, 1)


@dataclass(slots=True, kw_only=True)
class SpendLine:
    """What one account, campaign, ad set or ad cost on a day. Fields as in schemas/spend.avsc.

    Amounts are in millionths of the currency's unit; ``SpendLine.of`` takes decimals.
    """

    currency: str
    net_micros: int
    tax_micros: int = 0
    campaign_id: str = ""
    campaign_name: str = ""
    ad_set_id: str = ""
    ad_set_name: str = ""
    ad_id: str = ""
    ad_name: str = ""
    impressions: int = 0
    clicks: int = 0
    claimed_conversions_micros: int = 0
    claimed_value_micros: int = 0

    @classmethod
    def of(cls, *, net: Decimal | int, currency: str, **others: Any) -> Self:
        """Return a row that cost ``net`` units of ``currency`` without tax, kept exactly.

        Args:
            net: for example ``Decimal("12.50")``; a float is refused.
            currency: ISO 4217, upper case.
            others: any other field of the class.

        Raises:
            InvalidRecord: when the amount cannot be kept exactly.
        """
        try:
            micros = money_to_micros(net, currency)
        except (TypeError, ValueError) as error:
            raise InvalidRecord("spend", "net", str(error), None) from None
        return cls(currency=currency, net_micros=micros, **others)


@dataclass(slots=True, kw_only=True)
class Spend:
    """What an ad account cost on one day, at one level, as one report says. Fields as in schemas/spend.avsc.

    Of two reports of one account, day and level the newer one counts, by ``reported_at``. With ``is_complete`` what
    ``rows`` lacks cost nothing. ``day`` is the account's own; a ``date`` or days since 1970-01-01.
    """

    NAME: ClassVar[Literal["spend"]] = "spend"

    platform: str
    account: str
    day: date | int
    level: str
    reported_at: Instant
    rows: Sequence[SpendLine]
    tenant_id: str = ""
    event_id: str = field(default_factory=new_event_id)
    report_id: str = ""
    time_zone: str = ""
    is_complete: bool = False

    def __post_init__(self) -> None:
        try:
            self.reported_at = to_micros(self.reported_at)
        except (TypeError, ValueError) as error:
            raise InvalidRecord("spend", "reported_at", str(error), self.event_id) from None
        if isinstance(self.day, datetime):  # it is a date, too, and of which zone nobody knows
            raise InvalidRecord("spend", "day", "must be a date, not a moment", self.event_id)
        if isinstance(self.day, date):
            self.day = (self.day - _EPOCH).days

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the codec encodes."""
        return asdict(self)
