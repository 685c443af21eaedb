"""What the conversion APIs of ad platforms have in common, as a class to build a destination on.

Contract: a subclass says what its API is called, what a request may hold, how old an event may be and for how long
copies are removed; it has `build`, `request` and `classify`. All functions are pure. Corrections are skipped, for no
such API has an event for them. Times are microseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from attributary.consumers.destinations.destination import (
    Api,
    HttpRequest,
    NotSent,
    PreparedEvent,
    RequestLimits,
    joined_remarks,
)
from attributary.consumers.destinations.oauth2.grants import RefreshTokenGrant
from attributary.consumers.destinations.personal_data import clean_url, is_personal
from attributary.consumers.destinations.wire_format import to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Conversion,
        DeliveryResponse,
        HttpResponse,
        Moment,
    )

SECOND = 1_000_000  # micros
DAY = 86_400 * SECOND
AGE_MARGIN = 300 * SECOND  # an event this close to its limit may cross it on the way
DUPLICATES_48_HOURS = 48 * 3_600 * SECOND

_MAX_WHOLE = 2**31 - 1

GOOGLE_FIELDS = ("ga_client_id", "ga_app_instance_id", "ga_session_id", "engagement_time_msec")
META_PRIVACY_FIELDS = ("data_processing_country", "data_processing_state")


@dataclass(frozen=True, slots=True)
class PlatformOptions:
    """How to speak to a platform.

    Attributes:
        base_url: scheme and host; empty: the platform's own.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        event_names: names (or ids) of events by conversion type; an account's own go first.
        strip_personal_data: leave out personal data in URLs and free properties.
        api_version: empty: the one that the code was written for.
        token_url: of OAuth 2; empty: the platform's own.
        sent_elsewhere: conversion types that go to the platform by another destination; this one skips them.
    """

    base_url: str = ""
    default_region: str | None = None
    event_names: Mapping[str, str] = field(default_factory=dict)
    strip_personal_data: bool = True
    api_version: str = ""
    token_url: str = ""
    sent_elsewhere: frozenset[str] = frozenset()


class AdPlatform(ABC):
    """The rules of a conversion API.

    Args:
        options: how to speak to it.
        consent_purposes: what a person must have agreed to.
        events_per_request: cut at what the API takes.
    """

    name: str
    title: ClassVar[str]  # for people
    api_name: ClassVar[str]
    api_version: ClassVar[str] = ""
    base_url: ClassVar[str]
    token_url: ClassVar[str] = ""
    max_events: ClassVar[int] = 1_000
    max_body_bytes: ClassVar[int] = 1_000_000  # where none is documented
    max_age: ClassVar[int] = 7 * DAY
    duplicates_removed_for: ClassVar[int | None] = None
    needed_properties: tuple[str, ...] = ()
    unused_fields: tuple[str, ...] = ()
    probe_needs: str = ""
    probe_note: str = ""

    def __init__(
        self,
        options: PlatformOptions | None = None,
        *,
        consent_purposes: tuple[str, ...] = ("ad_storage", "ad_user_data"),
        events_per_request: int = 1_000,
    ) -> None:
        self._options = options or PlatformOptions()
        self._base_url = self._options.base_url or self.base_url
        self._version = self._options.api_version or self.api_version
        self.consent_purposes = consent_purposes
        self.limits = RequestLimits(min(events_per_request, self.max_events), self.max_body_bytes)

    def refresh_token_grant(self, account: Account, scope: str = "") -> RefreshTokenGrant | None:
        """Return how to get a token for an account with a refresh token; None for one with a token of its own.

        A platform with short-lived tokens has the method `grant` (`UsesAccessTokens`), which returns this.
        """
        client = account.options.get("client_id")
        if not client:
            return None
        url = self._options.token_url or self.token_url
        return RefreshTokenGrant(url, client, account.options.get("client_secret", ""), account.secret, scope)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        return Api(self.api_name, self._version, None, f"{self.max_age // DAY} days")

    def age_limit(self, conversion: Conversion) -> int:  # noqa: ARG002  # others look at the event
        """Return how old this event may be, in microseconds."""
        return self.max_age

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse corrections, which the platform has no event for, and events past their age."""
        if conversion["kind"] != "conversion":
            return NotSent(DeliveryState.SKIPPED, f"{self.title} has no event for a {conversion['kind']}", "kind")
        limit = self.age_limit(conversion)
        if moment.now - conversion["occurred_at"] > limit - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {limit // DAY} days", "occurred_at")
        return None

    @abstractmethod
    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event, and refuse it when it would spoil its batch."""

    @abstractmethod
    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request for events with one envelope."""

    @abstractmethod
    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer to a request of so many events means."""

    def redelivery_ends(self, first_sent_at: int) -> int | None:
        """Give the time until which the platform removes a second copy; None: it names none, the age limit stands."""
        return None if self.duplicates_removed_for is None else first_sent_at + self.duplicates_removed_for

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:  # noqa: ARG002  # the protocol's
        """Give no request, unless the platform has one that changes nothing."""
        return None

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means: as to a request of one event, unless the platform differs."""
        return self.classify(response, 1)

    def findings(self, response: HttpResponse) -> list[str]:  # noqa: ARG002  # the protocol's
        """Probes are read by `read_probe`."""
        return []

    @property
    def named_types(self) -> tuple[str, ...]:
        """Conversion types to which the settings give a name or an id."""
        return tuple(self._options.event_names)

    def own_name(self, conversion: Conversion, account: Account) -> str | None:
        """Return the name that the account or the settings give an event of this type; None without."""
        kind: str = conversion["conversion_type"]
        return account.event_names.get(kind) or self._options.event_names.get(kind)

    def types_named(self, name: str, account: Account) -> tuple[str, ...]:
        """Return the conversion types that the account and the settings send under a name; empty: none any more."""
        names = {**self._options.event_names, **account.event_names}
        return tuple(kind for kind, given in names.items() if given == name)

    def page_url(self, conversion: Conversion, remarks: list[str], source: str = "event_source_url") -> str | None:
        """Return an address of the event, without personal data where the options say so; None without one."""
        if not (text := conversion[source]):
            return None
        found, is_changed = clean_url(text) if self._options.strip_personal_data else (text, False)
        if is_changed:
            remarks.append(f"{source}: personal data left out")
        return found

    def free_properties(
        self, conversion: Conversion, remarks: list[str], known: Collection[str] = ()
    ) -> dict[str, str]:
        """Return the free properties that the platform has a field for; a remark says what is left out."""
        found: dict[str, str] = {}
        for name, text in sorted(conversion["properties"].items()):
            if name in self.needed_properties or name.startswith("user."):
                continue
            if name not in known:
                remarks.append(f"property left out: {self.title} has no field for it")
            elif self._options.strip_personal_data and is_personal(name, text):
                remarks.append("property left out: personal data")
            elif text:
                found[name] = text
        return found

    def prepared(
        self,
        conversion: Conversion,
        event: Mapping[str, Any],
        name: str,
        match_keys: Iterable[str],
        remarks: Iterable[str],
        *,
        envelope: bytes = b"{}",
    ) -> PreparedEvent:
        """Return an event that is ready to be batched."""
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            to_json(event),
            envelope,
            resend_safe=self.duplicates_removed_for is not None,
            match_keys=tuple(sorted(match_keys)),
            remark=joined_remarks(remarks),
            name=name,
        )


def event_time(conversion: Conversion, moment: Moment) -> int:
    """Return when an event happened: not after Kafka stored it, so the same at every attempt; microseconds."""
    occurred_at: int = conversion["occurred_at"]
    return min(occurred_at, moment.received_at)


def json_list(opening: bytes, batch: Sequence[PreparedEvent], closing: bytes) -> bytes:
    """Return a body with the events of a batch between two pieces of JSON."""
    return opening + b",".join(event.body for event in batch) + closing


def whole_number(quantity: float) -> int | None:
    """Return a quantity that platforms take as an integer; None for another."""
    return int(quantity) if 0 < quantity <= _MAX_WHOLE and float(quantity).is_integer() else None
