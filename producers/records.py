"""The records that a service publishes, as typed Python; schemas/*.avsc are the truth and a test keeps them equal.

Invariant: a record that could be built has its times in microseconds UTC, whatever it was given; ``to_record()`` is
the mapping that the codec encodes, with every field of the schema and no other. Other rules are checked when it is
published. ``tenant_id`` may stay empty: the producer fills in its default tenant.

An ``event_id`` that you do not set is a new one (UUIDv7). Set it wherever your service may publish the same fact
twice, for example to the order number: a second record with the same id is a duplicate and changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from operator import attrgetter
from typing import Any, ClassVar, Literal, Self

from attributary.producers.errors import InvalidRecord
from attributary.producers.money import to_micros as money_to_micros
from attributary.producers.times import Instant, to_micros

RecordName = Literal["touchpoint", "conversion", "identity_link"]


def new_event_id() -> str:
    """Return a new UUIDv7: unique, and in the order of time, which keeps indexes small."""
    stamp = time.time_ns() // 1_000_000
    tail = os.urandom(10).hex()
    variant = "89ab"[int(tail[0], 16) & 3]
    return f"{stamp >> 16:08x}-{stamp & 0xFFFF:04x}-7{tail[1:4]}-{variant}{tail[5:8]}-{tail[8:]}"


def _instant(record: str, name: str, instant: Instant, event_id: str) -> int:
    try:
        return to_micros(instant)
    except (TypeError, ValueError) as error:
        raise InvalidRecord(record, name, str(error), event_id) from None


def _money(name: str, value: Decimal | int, currency: str, event_id: str | None) -> int:
    try:
        return money_to_micros(value, currency)
    except (TypeError, ValueError) as error:
        raise InvalidRecord("conversion", name, str(error), event_id) from None


@dataclass(slots=True, kw_only=True)
class Touchpoint:
    """One contact of a person with marketing. Fields as in schemas/touchpoint.avsc.

    At least one of ``user_id`` and ``anonymous_id`` is set; both together also link them.
    """

    NAME: ClassVar[RecordName] = "touchpoint"

    occurred_at: Instant
    platform: str
    channel: str
    tenant_id: str = ""
    event_id: str = field(default_factory=new_event_id)
    user_id: str | None = None
    anonymous_id: str | None = None
    interaction: str = "click"
    campaign_id: str | None = None
    campaign_name: str | None = None
    ad_set_id: str | None = None
    ad_set_name: str | None = None
    ad_id: str | None = None
    ad_name: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    click_ids: Mapping[str, str] = field(default_factory=dict)
    landing_url: str | None = None
    referrer: str | None = None
    country: str | None = None
    device: str | None = None
    engagement_seconds: float | None = None
    is_bot: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    consent: Mapping[str, bool] | None = None

    def __post_init__(self) -> None:
        self.occurred_at = _instant("touchpoint", "occurred_at", self.occurred_at, self.event_id)

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the codec encodes; maps inside it are shared, not copied."""
        return dict(zip(_TOUCHPOINT, _touchpoint_values(self), strict=True))


@dataclass(slots=True, kw_only=True)
class Item:
    """One line of an order. Fields as in schemas/conversion.avsc; ``price_micros`` is the price of one piece."""

    item_id: str
    item_name: str | None = None
    item_category: str | None = None
    item_brand: str | None = None
    item_variant: str | None = None
    quantity: float = 1.0
    price_micros: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the codec encodes."""
        return dict(zip(_ITEM, _item_values(self), strict=True))


@dataclass(slots=True, kw_only=True, repr=False)
class UserData:
    """Data that lets a destination recognise the person. Fields as in schemas/conversion.avsc.

    The plain fields are personal: the producer replaces them by hashes before they leave, unless told otherwise, and
    they are not in the ``repr``. A person with several addresses, numbers or ids has them as a list; that needs the
    hashes.
    """

    email: str | Sequence[str] | None = None
    phone: str | Sequence[str] | None = None
    first_name: str | None = None
    last_name: str | None = None
    date_of_birth: str | None = None
    gender: str | None = None
    street: str | None = None
    city: str | None = None
    region: str | None = None
    postal_code: str | None = None
    country: str | None = None
    external_id: str | Sequence[str] | None = None
    meta_hashes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    google_hashes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        given = [name for name in _USER_DATA if getattr(self, name)]
        return f"UserData(given={given})"

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the codec encodes."""
        return dict(zip(_USER_DATA, _user_data_values(self), strict=True))


@dataclass(slots=True, kw_only=True)
class Conversion:
    """An outcome that marketing wants, or its correction. Fields as in schemas/conversion.avsc.

    ``value_micros`` is in millionths of the currency's unit; ``Conversion.purchase`` and ``Conversion.refund``
    take decimals.
    """

    NAME: ClassVar[RecordName] = "conversion"

    occurred_at: Instant
    conversion_type: str
    tenant_id: str = ""
    event_id: str = field(default_factory=new_event_id)
    conversion_id: str | None = None
    kind: str = "conversion"
    user_id: str | None = None
    anonymous_id: str | None = None
    value_micros: int = 0
    currency: str = "XXX"
    order_id: str | None = None
    items: Sequence[Item] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    user_data: UserData | None = None
    action_source: str = "website"
    event_source_url: str | None = None
    referrer: str | None = None
    client_ip_address: str | None = None
    client_user_agent: str | None = None
    click_ids: Mapping[str, str] = field(default_factory=dict)
    ga_client_id: str | None = None
    ga_app_instance_id: str | None = None
    ga_session_id: str | None = None
    engagement_time_msec: int | None = None
    consent: Mapping[str, bool] | None = None
    opt_out: bool = False
    data_processing_options: Sequence[str] = ()
    data_processing_country: int | None = None
    data_processing_state: int | None = None

    def __post_init__(self) -> None:
        self.occurred_at = _instant("conversion", "occurred_at", self.occurred_at, self.event_id)

    @classmethod
    def purchase(cls, *, value: Decimal | int, currency: str, **others: Any) -> Self:
        """Return a purchase of ``value`` units of ``currency``, kept exactly.

        Args:
            value: for example ``Decimal("19.99")``; a float is refused.
            currency: ISO 4217, upper case.
            others: any other field of the class; ``occurred_at`` and one of the ids are needed.

        Raises:
            InvalidRecord: when the value cannot be kept exactly, or a time has no zone.
        """
        micros = _money("value", value, currency, others.get("event_id"))
        return cls(conversion_type="purchase", value_micros=micros, currency=currency, **others)

    @classmethod
    def refund(cls, *, of: str, value: Decimal | int, currency: str, **others: Any) -> Self:
        """Return a refund that takes ``value`` units off the conversion ``of``.

        Args:
            of: the conversion's id (its ``conversion_id``, or its ``event_id`` when it had none).
            value: what is given back, not negative; a float is refused.
            currency: the conversion's currency.
            others: any other field; ``conversion_type`` is purchase unless named.

        Raises:
            InvalidRecord: when the value cannot be kept exactly, or a time has no zone.
        """
        micros = _money("value", value, currency, others.get("event_id"))
        others.setdefault("conversion_type", "purchase")
        return cls(kind="refund", conversion_id=of, value_micros=micros, currency=currency, **others)

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the codec encodes; maps inside it are shared, not copied."""
        record = dict(zip(_CONVERSION, _conversion_values(self), strict=True))
        record["items"] = [item.to_record() for item in self.items]
        record["data_processing_options"] = list(self.data_processing_options)
        if self.user_data is not None:
            record["user_data"] = self.user_data.to_record()
        return record


@dataclass(slots=True, kw_only=True)
class IdentityLink:
    """An anonymous id is a known user. Fields as in schemas/identity_link.avsc."""

    NAME: ClassVar[RecordName] = "identity_link"

    anonymous_id: str
    user_id: str
    linked_at: Instant
    tenant_id: str = ""
    event_id: str = field(default_factory=new_event_id)
    source: str | None = None

    def __post_init__(self) -> None:
        self.linked_at = _instant("identity_link", "linked_at", self.linked_at, self.event_id)

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the codec encodes."""
        return dict(zip(_IDENTITY_LINK, _identity_link_values(self), strict=True))


PublishedRecord = Touchpoint | Conversion | IdentityLink

# attrgetter reads all fields in one call in C: a third of the time of a loop, and this is the hot path.
_TOUCHPOINT = tuple(each.name for each in fields(Touchpoint))
_CONVERSION = tuple(each.name for each in fields(Conversion))
_IDENTITY_LINK = tuple(each.name for each in fields(IdentityLink))
_ITEM = tuple(each.name for each in fields(Item))
_USER_DATA = tuple(each.name for each in fields(UserData))
_touchpoint_values = attrgetter(*_TOUCHPOINT)
_conversion_values = attrgetter(*_CONVERSION)
_identity_link_values = attrgetter(*_IDENTITY_LINK)
_item_values = attrgetter(*_ITEM)
_user_data_values = attrgetter(*_USER_DATA)
